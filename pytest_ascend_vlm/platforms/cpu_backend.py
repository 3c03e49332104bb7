"""What a release of vLLM's CPU backend needs to start, and to round as on other devices."""

from __future__ import annotations

import ctypes.util
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from ..versions import vllm_in
from .cores import memory_nodes, physical_cores

# In eager mode these releases run C++ kernels of their own, whose error is 1.7 times that of the
# reference's bf16. Without them it is 1.0 times, as in later releases.
_ROUND_MORE = SpecifierSet("<0.14")

# These releases take no other block size (without a package that is no longer published), and their
# engine process dies, without an exception, when it preempts a request.
_OLD_KV_CACHE = SpecifierSet("<0.12")

# The bit masks of structured outputs need float32 logits, and the engine ends without.
_MASK_FLOAT32_ALONE = SpecifierSet("<0.15")

# Where some requests of a batch have a bit mask and others have none, the engine ends: it asks for
# memory that a CPU does not have. 0.18 does, and 0.23 does not any more.
_MASK_WHOLE_BATCHES_ALONE = SpecifierSet("<0.23")

# These releases end at once if the libraries are not in LD_PRELOAD. Later ones warn, or load a copy
# of their own.
_WANT_PRELOADED = SpecifierSet("==0.18.*")

# These releases compute in a process of its own, unless they are told otherwise. Earlier ones did
# so only for several devices.
_COMPUTE_APART = SpecifierSet(">=0.23")

_PROCESSES = "VLLM_ENABLE_V1_MULTIPROCESSING"
_BINDING = "VLLM_CPU_OMP_THREADS_BIND"


@dataclass(frozen=True)
class Library:
    """A library that has to be in LD_PRELOAD.

    Attributes:
        name: the beginning of its file's name, which vLLM looks for.
        file: the file; None if this host does not have it.
        package: the package that contains it.
    """

    name: str
    file: str | None
    package: str


def serve_arguments() -> dict[str, Any]:
    """Arguments that the installed release needs."""
    kernels = {"compilation_config": {"custom_ops": ["none"]}} if vllm_in(_ROUND_MORE) else {}
    return {**kernels, "block_size": 16} if vllm_in(_OLD_KV_CACHE) else kernels


def structured_outputs_problem() -> str | None:
    """Reason why the installed release ends at a structured output, or None."""
    if not vllm_in(_MASK_FLOAT32_ALONE):
        return None
    return (
        "vLLM before 0.15 cannot mask bf16 logits on a CPU, and its engine would end "
        "(https://github.com/vllm-project/vllm/pull/32384)"
    )


def structured_crowd_problem() -> str | None:
    """Reason why the installed release ends at structured outputs among other requests, or None."""
    if problem := structured_outputs_problem():
        return problem
    if not vllm_in(_MASK_WHOLE_BATCHES_ALONE):
        return None
    return (
        "the engine of vLLM 0.18 ends on a CPU when only some requests of a batch have a "
        "structured output (https://github.com/vllm-project/vllm/pull/37706)"
    )


def preemption_problem() -> str | None:
    """Reason why the installed release ends when its KV cache is full, or None."""
    if not vllm_in(_OLD_KV_CACHE):
        return None
    return "the engine of vLLM 0.11 ends on a CPU when it preempts a request (not tracked upstream)"


def environment() -> dict[str, str]:
    """Environment variables that the installed release needs."""
    inherited = os.environ.get("LD_PRELOAD", "")
    found = [library.file for library in _wanted(inherited) if library.file]
    return {"LD_PRELOAD": ":".join([*found, *filter(None, [inherited])])} if found else {}


def one_process(env: Mapping[str, str]) -> dict[str, str]:
    """The environment variable with which the engine's process computes, as on a host with a card.

    Without it, this backend computes in a process of its own. That one imports vLLM once more,
    10 of the 26 CPU seconds of a start, and the engine's process waits for it in a loop that keeps
    a core busy. But it alone can bind its threads to cores: it is kept if they are bound, or if
    the host's memory belongs to several nodes, one of which vLLM chooses.

    Args:
        env: the environment variables of the model.
    """
    is_decided = {_PROCESSES, _BINDING} & {*env, *os.environ}
    if is_decided or not vllm_in(_COMPUTE_APART) or memory_nodes() > 1:
        return {}
    return {_PROCESSES: "0"}


def threads(env: Mapping[str, str]) -> dict[str, str]:
    """The environment variable for the threads of an engine's process that computes.

    One core is left for the API server. OMP_NUM_THREADS of this process does not count, as it does
    not for vLLM's own process: vllm-ascend's images set it to 1.

    Args:
        env: the environment variables of the model.
    """
    return {"OMP_NUM_THREADS": str(max(1, physical_cores() - 1))} if one_process(env) else {}


def misconfigured_reason() -> str | None:
    """Reason why the installed release cannot start, or None."""
    missing = [one for one in _wanted(os.environ.get("LD_PRELOAD", "")) if one.file is None]
    if not missing:
        return None
    return (
        f"this release of vLLM starts on a CPU only with {_names(missing)} preloaded, which this "
        f"host does not have. Install {' and '.join(one.package for one in missing)}."
    )


def _wanted(inherited: str) -> Iterable[Library]:
    """The libraries that the installed release looks for in vain."""
    if not vllm_in(_WANT_PRELOADED):
        return
    if "libtcmalloc" not in inherited:
        find = ctypes.util.find_library
        file = find("tcmalloc_minimal") or find("tcmalloc")
        yield Library("libtcmalloc", file, "libtcmalloc-minimal4 (Debian, Ubuntu)")
    if "libiomp" not in inherited and platform.machine() == "x86_64":
        bundled = Path(sys.prefix) / "lib" / "libiomp5.so"
        file = str(bundled) if bundled.is_file() else ctypes.util.find_library("iomp5")
        yield Library("libiomp", file, "intel-openmp (PyPI)")


def _names(libraries: Iterable[Library]) -> str:
    return " and ".join(library.name for library in libraries)

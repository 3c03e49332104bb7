"""The conditions of verdicts: a later run takes a verdict over only where all of them are equal.

All of them are known without a server.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..engines.vllm.arguments import command_line, serve_command
from ..golden.digests import file_digest, json_digest
from ..integrity import installed_state
from ..versions import installed_versions
from .case_facts import case_facts
from .model import ModelSession
from .run import Run

_ENGINES = ("vllm", "vllm_ascend")
"""Packages whose files may change without their version: images install them as git clones."""

_LIBRARIES = (
    *("torchvision", "pillow", "numpy", "tokenizers", "xgrammar", "opencv-python-headless"),
    *("triton", "triton-ascend", "qwen-vl-utils", "av"),
)
"""Packages that prepare images and compute answers, besides those that the receipt names."""

_VARIABLES = (
    *("VLLM_", "ASCEND_", "ACL_", "ATB_", "HCCL_", "LCCL_", "INF_NAN_MODE_", "TASK_QUEUE_ENABLE"),
    *("CPU_AFFINITY_CONF", "CUBLAS_", "CUDA_", "NCCL_", "NVIDIA_TF32_OVERRIDE"),
    *("PYTORCH_", "TORCH", "DNNL_", "ONEDNN_", "KMP_", "MKL_", "OMP_", "LD_PRELOAD"),
)
"""Beginnings of the environment variables that a server inherits and reads.

Some of them choose deterministic kernels, and are set to see if a criterion passes then.
"""

_NOT_COMPARED = (
    *("VISIBLE_DEVICES", "_KEY", "_TOKEN"),
    *("_IP", "_IFNAME", "_PORT", "_LOG_PATH"),
)
"""Endings of the names of variables that change no verdict: secrets, and what is a host's own."""

_LARGEST_BYTES = 64 * 2**20
"""A larger file of a checkpoint belongs to its weights, which have a digest of their own."""


def run_conditions(run: Run) -> dict[str, str]:
    """What all tests of a run have in common, besides its receipt: name -> value or digest."""
    options = run.options
    told: dict[str, object] = {
        "--vlm-examples": options.examples,
        "--vlm-requests": options.requests,
        "--vlm-soak": options.soak,
        "--vlm-compare-url": options.compare_url,
        "--vlm-datasets-root": options.datasets_root,
        "--vlm-datasets-limit": options.datasets_limit,
        "--vlm-harness-python": options.harness_python,
        **(
            {**host_conditions(run), **engine_files()}
            if run.fleet is None
            else run.fleet.conditions
        ),
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def host_conditions(run: Run) -> dict[str, str]:
    """What servers find on a host, besides what a receipt names: name -> version or digest."""
    return {
        **{f"version of {one}": which for one, which in installed_versions(*_LIBRARIES).items()},
        **{f"variable {name}": _digest(value) for name, value in sorted(_variables(run))},
    }


def own_conditions(run: Run) -> dict[str, str]:
    """What a host of a cluster is: its versions, libraries, variables and engine files.

    The hosts of a run may differ, and a class may move from one to another.
    """
    versions = run.platform.versions().items()
    told = {f"version of {name}": version for name, version in versions if version is not None}
    return {**told, **host_conditions(run), **engine_files()}


def engine_files() -> dict[str, str]:
    """The state of the engines' files on a host; hosts with equal files have different ones."""
    states = {f"files of {package}": installed_state(package) for package in _ENGINES}
    return {name: state for name, state in states.items() if state is not None}


def class_conditions(session: ModelSession, sources: Mapping[str, Path]) -> dict[str, Any]:
    """What a model is served with and judged by, in the form of the report's "models".

    Args:
        session: the model.
        sources: name -> path of the files that declare the test class.

    Raises:
        CheckpointError: the weights are missing or unusable.
        OSError: a file cannot be read.
    """
    model, checkpoint = session.model, session.checkpoint
    variants = {
        one.name: {"serve_command": _serve_command(session.variant(one))} for one in model.variants
    }
    settings = {f"checkpoint's {path.name}": path for path in _settings(checkpoint.path)}
    files = {**{f"file {name}": path for name, path in sources.items()}, **settings}
    return {
        "weights_sha256": checkpoint.weights_sha256,
        "revision": checkpoint.revision,
        "serve_command": _serve_command(session),
        "suite_arguments": shlex.join(command_line(session.arguments.suite)),
        "env": dict(model.env),
        "variants": variants,
        "conditions": {
            "declaration": json_digest(_plain(model)),
            **{name: file_digest(path) for name, path in files.items()},
            **dict(_cases(session)),
            **dict(_recorded(session)),
        },
    }


def _serve_command(session: ModelSession) -> str:
    env = session.run.platform.environment(session.model)
    return serve_command(session.model.model_id, session.arguments.deployment, env)


def _variables(run: Run) -> Iterator[tuple[str, str]]:
    for name, value in run.variables.items():
        if name.startswith(_VARIABLES) and not name.endswith(_NOT_COMPARED):
            yield name, value


def _digest(value: str) -> str:
    """A digest instead of the value, which may be a secret."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()


def _settings(directory: Path) -> list[Path]:
    """The files of a checkpoint besides its weights: configuration, tokenizer, chat template."""
    files = (path for path in directory.iterdir() if path.is_file())
    weights = {".safetensors", ".bin"}
    return sorted(
        path
        for path in files
        if path.suffix not in weights and path.stat().st_size <= _LARGEST_BYTES
    )


def _cases(session: ModelSession) -> Iterator[tuple[str, str]]:
    """The digest of each case, with its files."""
    for case in map(session.model.request, session.run.cases):
        facts = case_facts(case, session.run.options.fixture_roots)
        yield f"case {case.id}", json_digest([_plain(case), facts])


def _recorded(session: ModelSession) -> Iterator[tuple[str, str]]:
    """The digest of each recorded file of the model; of a name the first root's."""
    options, slug = session.run.options, session.model.slug
    found: dict[str, Path] = {}
    for root in options.golden_roots:
        home = root / slug / options.checkpoint
        for path in sorted(home.rglob("*.json")):
            found.setdefault(f"golden {path.relative_to(home).with_suffix('')}", path)
    for path in sorted((options.performance_dir / slug).glob("*.json")):
        found[f"stored runs {path.stem}"] = path
    yield from ((name, file_digest(path)) for name, path in found.items())


def _plain(value: Any) -> Any:
    """A declaration as JSON values, the same in each process; of a path only its name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(_plain, value), key=str)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.name
    return value.name if isinstance(value, Path) else repr(value)

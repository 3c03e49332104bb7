"""Ascend NPUs under vLLM-Ascend."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..progress import ProgressCallback
from ..spec.model import ModelSpec
from ..versions import installed_versions
from .ascend_versions import pair_problem
from .base import Allocation, with_declared_limits
from .cards import cards_text, memory_of_one
from .npu_smi import NpuSmiError, driver_version, read_cards, read_table
from .pool import Pool

POOL = Pool(
    "npu",
    "ASCEND_RT_VISIBLE_DEVICES",
    ascending=True,
    read=read_cards,
    health_command="npu-smi info -t health -i {board}",
)

DEV = Path("/dev")
ASCEND_ROOT = Path("/usr/local/Ascend")
# Drivers before release 26 have no package_version. Since then, Version is that of a component.
_DRIVER_FIELDS = ("package_version", "Version")


class Ascend:
    """Runs servers on this host's NPUs."""

    name = "npu"
    torch_device = "npu"
    # vLLM-Ascend's attention kernels support only bf16 and fp16.
    serves_float32 = False
    structured_outputs_problem = None
    structured_crowd_problem = None
    preemption_problem = None

    @property
    def label(self) -> str:
        """The label "the NPU", or "a SIMULATED NPU" for simulated cards."""
        return "a SIMULATED NPU" if self.simulated else "the NPU"

    @property
    def simulated(self) -> bool:
        """True if npu-smi lists cards, but the kernel has no device nodes for them."""
        try:
            return not device_nodes() and bool(read_cards())
        except NpuSmiError:
            return False

    def prepare_torch(self) -> None:
        """Imports torch_npu, which registers the device `npu` with torch."""
        try:
            import torch_npu  # type: ignore[import-not-found]  # noqa: F401
        except (ImportError, RuntimeError, OSError) as error:  # without a driver, any of them
            raise ConfigurationError(
                f"Transformers on the NPU needs torch_npu ({error}); use the vllm-ascend image, "
                "which contains it, and mount the driver: see `ascend-vlm doctor`."
            ) from error

    def unavailable_reason(self) -> str | None:
        """Reason why no server can run here, or None."""
        return next(self.missing(), None)

    def missing(self) -> Iterator[str]:
        """Yields a reason for each missing requirement of a server."""
        no_npu = not device_nodes() and shutil.which("npu-smi") is None
        if no_npu:
            yield (
                "there is no Ascend NPU (no npu-smi and no /dev/davinci* device; start a container "
                "with --device /dev/davinci0 and mount the driver's directories)"
            )
        if importlib.util.find_spec("vllm_ascend") is None:
            yield "vLLM-Ascend is not installed; use its container, or pip install vllm-ascend"
        if not no_npu:
            try:
                read_cards()
            except NpuSmiError as error:
                yield str(error)

    def misconfigured_reason(self) -> str | None:
        """Reason why this host is configured wrongly, or None.

        It checks the versions of vLLM and vLLM-Ascend, and the ids of the visible cards.
        """
        problems = (self.pair_problem(), POOL.visible_problem())
        return "\n".join(filter(None, problems)) or None

    def pair_problem(self) -> str | None:
        """Reason why the installed vLLM and vLLM-Ascend do not match, or None."""
        versions = installed_versions("vllm", "vllm-ascend")
        # vLLM-Ascend prefers this variable to the version of the installed vLLM.
        vllm = os.environ.get("VLLM_VERSION") or versions.get("vllm")
        return pair_problem(versions.get("vllm-ascend"), vllm)

    def device(self) -> str:
        """The number and names of the cards, from npu-smi."""
        try:
            cards = cards_text(read_cards())
        except NpuSmiError as error:
            return f"none: {error}"
        return f"SIMULATED {cards}" if self.simulated else cards

    def device_memory_mib(self) -> int | None:
        """Size of the memory of one card, in MiB; None if it is unknown."""
        try:
            return memory_of_one(read_cards())
        except NpuSmiError:
            return None

    def visible_cards(self) -> int | None:
        """The number of cards that ASCEND_RT_VISIBLE_DEVICES leaves visible."""
        return POOL.count()

    def usable_cards(self) -> int | None:
        """The number of visible cards that a server can be started on now."""
        return POOL.usable()

    def allocate(
        self, model: ModelSpec, on_progress: ProgressCallback
    ) -> AbstractContextManager[Allocation]:
        """Leases cards for a server of a model for the duration of the context."""
        return POOL.allocate(model.devices, on_progress)

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:
        """The model's serve arguments as declared, with unsupported modalities disabled."""
        return with_declared_limits(model)

    def environment(self, model: ModelSpec) -> dict[str, str]:
        """The model's environment as declared."""
        return dict(model.env)

    def versions(self) -> Mapping[str, str]:
        """Versions of vLLM, vLLM-Ascend, torch, torch-npu, transformers, CANN and the driver."""
        packages = installed_versions("vllm", "vllm-ascend", "torch", "torch-npu", "transformers")
        system = {"CANN": _cann_version(), "driver": _driver_version()}
        return packages | {name: version for name, version in system.items() if version}


def device_nodes() -> list[Path]:
    """The device nodes of the host's NPUs, including virtual NPUs."""
    return sorted([*DEV.glob("davinci[0-9]*"), *DEV.glob("vdavinci[0-9]*")])


def _cann_version() -> str | None:
    """The version of the toolkit in the environment, otherwise of the default installation."""
    set_up = os.environ.get("ASCEND_TOOLKIT_HOME") or os.environ.get("ASCEND_HOME_PATH")
    installed = (ASCEND_ROOT / "ascend-toolkit" / "latest", ASCEND_ROOT / "cann")
    for root in [Path(set_up)] if set_up else installed:
        for path in sorted(root.glob("*-linux/ascend_toolkit_install.info")):
            if version := _field(path, "version"):
                return version
    return None


def _driver_version() -> str | None:
    path = ASCEND_ROOT / "driver" / "version.info"
    for field in _DRIVER_FIELDS:
        if version := _field(path, field):
            return version
    try:
        return driver_version(read_table())
    except NpuSmiError:
        return None


def _field(path: Path, name: str) -> str | None:
    """The value of a name in a file of `name=value` lines; None if the file lacks the name."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{name}=(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else None

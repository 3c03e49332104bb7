"""Conditions of published and measured speed, and how they differ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ...spec.thresholds import TOKENS_TOLERANCE
from ..phrase import Phrase, Text, phrase
from ..sentences import sentence
from .rows import Json, number

_COUNTS = {
    "requests": phrase("requests: {value:g}"),
    "warmups": phrase("warm-up requests: {value:g}"),
    "concurrency": phrase("concurrency: {value:g}"),
    "request_rate": phrase("requests per second: {value:g}"),
    "input_tokens": phrase("input tokens: {value:g}"),
    "image_tokens": phrase("image tokens: {value:g}"),
    "output_tokens": phrase("output tokens: {value:g}"),
}
"""Condition -> its text."""


@dataclass(frozen=True)
class Setting:
    """Where a number was measured.

    Attributes:
        device: the device; empty if it is not known.
        versions: package -> version.
        checkpoint: "full" or "tiny".
        platform: the platform of the run.
        is_simulated: True if the NPU was simulated.
    """

    device: str
    versions: Json
    checkpoint: str
    platform: str
    is_simulated: bool

    @property
    def is_npu(self) -> bool:
        """True for an NPU that was not simulated."""
        return self.platform == "npu" and not self.is_simulated


def setting_of(receipt: Json) -> Setting:
    """The setting of a run."""
    return Setting(
        str(receipt.get("device") or ""),
        receipt.get("versions") or {},
        str(receipt.get("checkpoint") or ""),
        str(receipt.get("platform") or ""),
        bool(receipt.get("simulated")),
    )


def own_conditions(here: Setting, measured: Json) -> tuple[Text, ...]:
    """The conditions of a measured number.

    Args:
        here: where it was measured.
        measured: the conditions in the evidence of performance.workload; empty for other criteria.
    """
    checkpoint = phrase("checkpoint {kind}", kind=here.checkpoint)
    return (here.device, checkpoint, *load_conditions(measured))


def load_conditions(told: Json) -> tuple[Text, ...]:
    """The conditions in the evidence of performance.workload."""
    named = (str(told[name]) for name in ("tool", "dtype") if told.get(name))
    return (*_counts(told), *named)


def stated_conditions(document: Json, figure: Json, workload: Json) -> tuple[Text, ...]:
    """The conditions that a document states for a figure.

    Args:
        document: the published figures in the facts of a model.
        figure: the figure.
        workload: its workload; empty if it has none.
    """
    told = _told_of(document, figure)
    versions = (f"{name} {version}" for name, version in (told.get("versions") or {}).items())
    device = sentence(str(told.get("device") or ""))
    parts: tuple[Text, ...] = (device, *versions, str(told.get("dtype") or ""))
    tool = workload.get("tool", "serve")
    offline = [] if tool == "serve" else [f"vllm bench {tool}"]
    return (*(part for part in parts if part), *_counts(workload), *offline)


def differences(
    document: Json, figure: Json, workload: Json, here: Setting, measured: Json
) -> Iterator[Text]:
    """Yields how the conditions of a measured number differ from those that a document states.

    Args:
        document: the published figures in the facts of a model.
        figure: the figure.
        workload: its workload; empty if it has none.
        here: where the number was measured.
        measured: the conditions in the evidence of performance.workload; empty for other criteria.
    """
    if here.checkpoint == "tiny":
        yield phrase("a tiny checkpoint")
    told = _told_of(document, figure)
    device = str(told.get("device") or "")
    if not device:
        yield phrase("the document names no device")
    elif here.is_simulated or not _is_named(device, here.device):
        yield phrase("another device")
    for name, version in (told.get("versions") or {}).items():
        if (installed := here.versions.get(name)) is None:
            yield phrase("no {package}", package=name)
        elif installed != version:
            yield f"{name} {installed}"
    stated, dtype = told.get("dtype"), measured.get("dtype")
    if measured and stated and stated != dtype:
        yield str(dtype) if dtype else phrase("unknown dtype")
    yield from _unequal(workload, measured)


def _told_of(document: Json, figure: Json) -> Json:
    """The conditions of a figure; versions and dtype are those of the document's own device."""
    return {"device": figure["device"]} if figure.get("device") else document


def _counts(told: Json) -> Iterator[Phrase]:
    for name, text in _COUNTS.items():
        if (value := number(told.get(name))) is not None:
            yield text.of(value=value)


def _unequal(stated: Json, measured: Json) -> Iterator[Phrase]:
    for name, text in _COUNTS.items():
        one, other = number(stated.get(name)), number(measured.get(name))
        if measured and one is not None and other is None:
            yield phrase("unknown number of tokens")
        elif one is not None and other is not None and abs(other - one) > TOKENS_TOLERANCE * one:
            yield text.of(value=other)


def _is_named(device: str, measured: str) -> bool:
    """True if the type of a device, "910" of "Ascend 910 (64 GB)", is part of a measured name."""
    kind = re.search(r"\d+\w*", device)
    return (kind[0] if kind else device) in measured

"""Figures and answers that a document reports for a model, and limits on its speed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ConfigurationError


@dataclass(frozen=True)
class PublishedFigure:
    """A number that a document reports; a report shows it beside the measured values.

    It is never judged.

    Attributes:
        name: the quantity, "latency, mean".
        value: the number.
        unit: "ms", "tok/s", "%".
        conditions: the conditions of the measurement; figures compare only under equal conditions.
        metric: the report's name of the same quantity, "text.latency.mean", so that both are shown
            side by side; empty if the suite does not measure it. docs/performance.md lists the
            names.
    """

    name: str
    value: float
    unit: str
    conditions: str
    metric: str = ""


@dataclass(frozen=True)
class Limit:
    """A limit for a metric of the full checkpoint on one kind of device.

    Attributes:
        metric: the metric's name, "image.ttft.median"; docs/performance.md lists names and units.
        value: the maximum; for throughput and goodput, the minimum.
        device: a part of the device name in the report's receipt: "910B4". The limit applies to
            no other device.

    Raises:
        ConfigurationError: the value looks like a placeholder (0, 1, NaN, infinity), or the device
            is empty.
    """

    metric: str
    value: float
    device: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0) or self.value == 1:
            raise ConfigurationError(
                f"Limit({self.metric!r}, {self.value!r}) looks like a placeholder: 0, 1, NaN "
                "and infinity are refused. Declare the value that the device has to reach."
            )
        if not self.device.strip():
            raise ConfigurationError(f'Limit({self.metric!r}) has no device. Add device="910B4".')


@dataclass(frozen=True)
class Published:
    """Answers and figures that a document reports for the full checkpoint.

    Attributes:
        source: the document.
        answers: case id -> the printed answer; it is the reference if no golden is recorded. A
            document may quote only the beginning of an answer, so only that part is compared.
        figures: the numbers in its tables.
    """

    source: str
    answers: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[PublishedFigure, ...] = ()

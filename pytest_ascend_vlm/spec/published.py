"""What a document reports of a model, and what its speed has to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ConfigurationError


@dataclass(frozen=True)
class PublishedFigure:
    """A number that a published document reports; shown beside what was measured, never judged.

    Attributes:
        name: what was measured, "latency, mean".
        value: the number.
        unit: "ms", "tok/s", "%".
        conditions: under which it was measured; two figures compare only under equal ones.
    """

    name: str
    value: float
    unit: str
    conditions: str


@dataclass(frozen=True)
class Limit:
    """A bar for a measured figure of the full checkpoint, on one kind of device and nowhere else.

    Attributes:
        figure: its name, "image.ttft.median"; docs/performance.md lists them with their units.
        value: the most it may be; for a throughput and goodput, the least.
        device: part of the device's name, as the report's receipt has it: "910B4".

    Raises:
        ConfigurationError: the value is a placeholder, or the device is not named.
    """

    figure: str
    value: float
    device: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0) or self.value == 1:
            raise ConfigurationError(
                f"Limit({self.figure!r}, {self.value!r}) is a placeholder, which passes or "
                "fails whatever is measured; declare what the device has to reach."
            )
        if not self.device.strip():
            raise ConfigurationError(f"Limit({self.figure!r}) has to name its device.")


@dataclass(frozen=True)
class Published:
    """What a published document reports of the full checkpoint.

    Attributes:
        source: the document.
        answers: case id -> the answer as printed there; the reference where nothing was recorded.
            A document may quote only the beginning of an answer, so only that much is compared.
        figures: the numbers of its tables.
    """

    source: str
    answers: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[PublishedFigure, ...] = ()

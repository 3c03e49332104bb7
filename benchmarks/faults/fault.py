"""The declaration of a fault. Every process of a faulty server loads it, so it is light."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

MINERU, QWEN2_5, QWEN3, GLM, INTERNVL = "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm_ocr", "internvl"
ANY = (MINERU, QWEN2_5, QWEN3, GLM, INTERNVL)
"""The tiny checkpoints, by the names of their directories."""

SEVERAL_PICTURES = (QWEN2_5, QWEN3, INTERNVL)
"""Those whose model files allow several pictures in a request, and clips."""

WITH_MROPE = (MINERU, QWEN2_5, QWEN3, GLM)
"""Those whose positions have three dimensions. Their towers have rotary positions."""

SEVERAL_WITH_MROPE = (QWEN2_5, QWEN3)

WITH_TOOLS = (QWEN3, QWEN2_5)
"""Those whose model files declare a parser of tool calls."""


class Kind(enum.Enum):
    """A kind of fault; the value is its name on the command line and in tables."""

    COLD = "cold"
    SIZE = "size"
    WHICH = "which"
    LOAD = "load"
    CROWD = "crowd"
    GROWTH = "growth"
    BORDERS = "borders"
    AFTERMATH = "aftermath"
    PARAMETERS = "parameters"
    STREAMS = "streams"
    FORMATS = "formats"
    CLIPS = "clips"
    NUMBERS = "numbers"
    WEIGHTS = "weights"


class Place(enum.Enum):
    """The place that a fault is put into."""

    ENGINE = "engine"
    CHECKPOINT = "checkpoint"
    WIRE = "wire"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A defect that is put into a served model on purpose.

    Attributes:
        name: its name, in kebab-case.
        kind: its kind.
        what: one line about what goes wrong.
        caught_by: the criteria that must turn red, each of them. One red criterion would be enough
            to reject the model, but then a criterion that has gone blind would never be noticed.
        suspect: the part that a diagnosis has to suspect, by the value of `Part`.
        models: the tiny checkpoints that it can be put into, the preferred one first.
    """

    place: ClassVar[Place]

    name: str
    kind: Kind
    what: str
    caught_by: tuple[str, ...]
    suspect: str
    models: tuple[str, ...] = ANY

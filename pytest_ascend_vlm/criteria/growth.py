"""Rules of growth.*: memory levels off, and the first answers come again.

Memory rises and falls: caches fill, allocators keep what was freed, garbage is collected from time
to time. A leak raises the lowest values. So the second half of the images is divided into blocks,
and the slope is that of the lowest values of the blocks: the median of the slopes between any two
blocks (Theil-Sen), with Sen's interval. A peak has no effect on it, a single step hardly any.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import PreconditionError
from ..observation.caches import CacheUse
from ..observation.soak import Soak
from ..spec.thresholds import SOAK_BLOCKS
from .determinism import judge_agreement
from .evidence import with_evidence
from .recomputed import cold_evidence, require_cold
from .verdict import Verdict, at_most

_UNIT = "MiB per image"
_NORMAL_QUANTILE = 1.96
AGAIN, COLD = "(again)", "(cold)"
"""The ends of the names of the answers after the images: asked again, computed again."""


@dataclass(frozen=True)
class Slope:
    """The growth of memory in MiB per image, with its 95 % interval.

    Attributes:
        low: lower end of the interval.
        value: the slope.
        high: upper end of the interval.
    """

    low: float
    value: float
    high: float

    def __str__(self) -> str:
        value, low, high = (round(one, 2) or 0.0 for one in (self.value, self.low, self.high))
        return f"{value:.2f} ({low:.2f} to {high:.2f})"


def slope_of(memory: Sequence[float]) -> Slope:
    """The slope of the second half of memory in MiB, one value for each image.

    Args:
        memory: at least 2 x `SOAK_BLOCKS` values.
    """
    length = len(memory) // 2 // SOAK_BLOCKS
    floors = np.reshape(memory[-length * SOAK_BLOCKS :], (SOAK_BLOCKS, length)).min(axis=1).tolist()
    slopes = sorted(
        (later - earlier) / ((j - i) * length)
        for (i, earlier), (j, later) in itertools.combinations(enumerate(floors), 2)
    )
    deviation = math.sqrt(SOAK_BLOCKS * (SOAK_BLOCKS - 1) * (2 * SOAK_BLOCKS + 5) / 18)
    rank = int((len(slopes) - _NORMAL_QUANTILE * deviation) / 2)
    return Slope(slopes[rank - 1], statistics.median(slopes), slopes[-rank])


def judge_host(soak: Soak, maximum: float) -> Verdict:
    """The host memory of all processes of a server levels off.

    Args:
        soak: what was seen of the server.
        maximum: the maximum slope, in MiB per image.

    Raises:
        PreconditionError: the interval of the slope contains the maximum.
    """
    verdict = _judge([sum(one.values()) for one in soak.host], "host memory", maximum)
    middle, last = soak.host[len(soak.host) // 2], soak.host[-1]
    grown = {name: last[name] - middle.get(name, 0.0) for name in last}
    name = max(grown, key=lambda one: grown[one])
    line = f"of all processes {name} grew most: by {grown[name]:.0f} MiB over the second half"
    rounded = {name: round(grown[name], 1) for name in grown}
    return with_evidence(
        dataclasses.replace(verdict, details=(line, *verdict.details)),
        {"grown_mib": rounded},
    )


def judge_device(soak: Soak, maximum: float) -> Verdict:
    """The device memory in use levels off; see `judge_host`.

    Raises:
        PreconditionError: the interval of the slope contains the maximum.
    """
    return _judge(soak.device_mib, "device memory", maximum)


def _judge(memory: Sequence[float], name: str, maximum: float) -> Verdict:
    slope, count = slope_of(memory), len(memory)
    if slope.low <= maximum < slope.high:
        raise PreconditionError(
            f"{name} grows by {slope} MiB per image in the second half of {count} images, so it is "
            f"not clear if the growth is above {maximum:g} MiB. Send more images: use a larger "
            "--vlm-soak."
        )
    line = (
        f"{name} was {memory[0]:.0f} MiB after the first image, {memory[count // 2]:.0f} MiB in "
        f"the middle and {memory[-1]:.0f} MiB at the end"
    )
    return at_most(
        slope.value,
        maximum,
        _UNIT,
        f"{name} grows by {slope} MiB per image in the second half of {count} images",
        (line,),
        {
            "slope": asdict(slope),
            "series": [
                {"name": name, "unit": "MiB", "values": [round(value, 1) for value in memory]}
            ],
        },
    )


def judge_answers(soak: Soak, minimum: float) -> Verdict:
    """The answers after many images are those before them.

    Args:
        soak: what was seen of the server.
        minimum: the minimum rate (0..1) of equal answers.

    Raises:
        PreconditionError: an image that had to be computed again came from a cache.
    """
    require_cold(soak.cold_caches)
    kinds = {AGAIN: soak.again, COLD: soak.cold}
    pairs = {
        f"{name} {kind}": (first, answers[name])
        for kind, answers in kinds.items()
        for name, first in soak.first.items()
    }
    verdict = judge_agreement(
        {name: first for name, (first, _) in pairs.items()},
        {name: [answer] for name, (_, answer) in pairs.items()},
        minimum,
    )
    told: Mapping[str, Any] = {
        "images": soak.images,
        "again": _hits(soak.again_caches),
        **cold_evidence(soak.cold_caches),
    }
    reason = f"after {soak.images} different images, {verdict.reason} to those before them"
    return with_evidence(dataclasses.replace(verdict, reason=reason), told)


def _hits(caches: CacheUse | None) -> str:
    if caches is None:
        return "the first requests were sent again; the server has no counters"
    return (
        f"the first requests were sent again; the server counted {caches.image_hits:.0f} hits for "
        f"{caches.image_queries:.0f} images"
    )

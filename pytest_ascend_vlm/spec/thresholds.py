"""Every threshold of the project, with its direction: those a model may change, and the fixed ones.

Docstrings of criteria and docs/criteria.md print their numbers from here.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError

FLOAT32_ERROR_RATIO = 0.01
"""Maximum R of an engine in float32."""

PART_ERROR_RATIO = 1.5
"""R from which on a part of a sequence, or Transformers on the device, is named as a suspect."""

ENOUGH_IMAGES = 8
ENOUGH_POSITIONS = 1000
"""A numerics verdict on fewer images or positions says so."""

TOLERANCE_AFTER_TIE = 0.1
"""Tolerance of document.* after a near-tie of the reference.

There the golden's continuation is one of two equally valid ones. 0.1, because a single changed
digit costs a tenth on a page with ten numbers.
"""

READ_CER = 0.5
"""Maximum character error rate of a golden that counts as a reading of its page.

Pages that have nothing in common are 0.67 to 1.14 apart (fixtures/documents, each against each),
and an empty answer is 1 away from every page: a golden beyond 0.5 has not read this one.
"""

IOU_TOLERANCE = 0.05
"""How much lower than the golden's the IoU of an answered box may be."""

SCORE_TOLERANCE = 0.02
"""How much lower than the reference's a data-set score may be (the non-inferiority margin)."""

PUBLISHED_BLIND_SPOT = 0.05
"""The largest drop that a comparison with a published score may be unable to see."""

MEMORY_TOLERANCE_MIB = 256.0
"""How far above its level before a server device memory may stay and count as freed."""

SERVICE_LEVEL = 5.0
"""Goodput counts answers whose TTFT and TPOT are at most N times those of a single request."""

REPEATS = 3
"""How often determinism.repeat asks one request."""

BATCH = 9
"""How many requests determinism.concurrent sends at once, and determinism.restart asks again."""

SEEDS = 8
"""How many seeds determinism.seeded asks."""

ROUNDS = 30
"""How many requests performance.single_stream sends, one after another."""

PAIRS = 24
"""How many pairs of requests a ratio of times is measured with."""

STORED_RUNS = 3
"""How many stored runs performance.baseline needs."""


def _at_least(default: float) -> Any:
    return dataclasses.field(default=default, metadata={"sense": "at least"})


def _at_most(default: float) -> Any:
    return dataclasses.field(default=default, metadata={"sense": "at most"})


@dataclass(frozen=True)
class Thresholds:
    """The thresholds that a model may change; the defaults are the project's.

    Loosening any of them needs `because="..."`, which every report repeats.

    Attributes:
        similarity: minimum character similarity (0..1) to the golden's text.
        similarity_after_tie: the same where the first differing token was a near-tie in the
            reference, so that rounding alone may have chosen the other branch.
        logprobs_ratio: maximum mean difference of the visible log-probabilities, in units of the
            reference's own bf16-fp32 difference.
        agreement: minimum rate (0..1) of repeated answers that are identical.
        document_cer: tolerance: how much higher than the golden's the character error rate may be.
        document_lines: tolerance: how much lower than the golden's the rate of exact lines may be.
        document_numbers: tolerance: how much lower than the golden's the recall of numbers may be.
        document_order: tolerance: how much lower than the golden's the rate of ordered line pairs
            may be.
        box_iou: minimum intersection over union (0..1) of an answered box with the true one.
        logits_max_abs: maximum absolute error of a logit; where the reference's own bf16 is off by
            more than half of that, twice its error.
        logits_cosine: minimum cosine similarity of all logits as one vector.
        hidden_max_abs: the same as logits_max_abs for the last hidden states.
        hidden_cosine: the same as logits_cosine for the last hidden states.
        error_ratio: R, the maximum root mean square error from fp32, in units of the reference's
            own bf16 error.
        kl_ratio: K, the same for the mean Kullback-Leibler divergence.
        top1_flips: maximum rate (0..1) of positions with another most likely token where the
            reference was not near a tie.
        prefill_ratio: maximum TTFT of an image prompt divided by that of a text of as many tokens.
        load_scaling: minimum throughput at concurrency 8 divided by that at concurrency 1.
        slowdown: maximum latency divided by the latency that it is compared with.
        idle_cpu: maximum CPU usage of an idle server divided by that of a busy one (0..1).
        because: why a threshold is looser than the project's default.
    """

    similarity: float = _at_least(1.0)
    similarity_after_tie: float = _at_least(0.9)
    logprobs_ratio: float = _at_most(3.0)
    agreement: float = _at_least(1.0)
    document_cer: float = _at_most(0.005)
    document_lines: float = _at_most(0.02)
    document_numbers: float = _at_most(0.02)
    document_order: float = _at_most(0.02)
    box_iou: float = _at_least(0.5)
    logits_max_abs: float = _at_most(1.0)
    logits_cosine: float = _at_least(0.999)
    hidden_max_abs: float = _at_most(1.0)
    hidden_cosine: float = _at_least(0.999)
    error_ratio: float = _at_most(1.5)
    kl_ratio: float = _at_most(2.0)
    top1_flips: float = _at_most(0.001)
    prefill_ratio: float = _at_most(20.0)
    load_scaling: float = _at_least(1.5)
    slowdown: float = _at_most(1.1)
    idle_cpu: float = _at_most(0.2)
    because: str | None = None

    def __post_init__(self) -> None:
        loosened = [one.name for one in _thresholds() if self._is_loosened(one)]
        if loosened and not self.because:
            raise ConfigurationError(
                f"Thresholds({', '.join(loosened)}=...) is looser than the project's default; "
                'say why with because="..." so that the report can show it.'
            )

    def _is_loosened(self, threshold: dataclasses.Field[float]) -> bool:
        value, default = getattr(self, threshold.name), threshold.default
        at_least = threshold.metadata["sense"] == "at least"
        return bool(value < default if at_least else value > default)


def _thresholds() -> Iterator[dataclasses.Field[Any]]:
    return (one for one in dataclasses.fields(Thresholds) if "sense" in one.metadata)


NUMBERS: Mapping[str, float] = {
    **{one.name: float(getattr(Thresholds, one.name)) for one in _thresholds()},
    **{name.lower(): value for name, value in list(globals().items()) if name.isupper()},
}
"""Name -> default of every threshold; that of a constant is in lower case."""


def table() -> list[str]:
    """The thresholds that a model may change, as lines of a Markdown table."""
    _, _, attributes = inspect.cleandoc(Thresholds.__doc__ or "").partition("Attributes:")
    means = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE))
    rows = [
        f"| `{one.name}` | {one.metadata['sense']} | {one.default:g} "
        f"| {' '.join(means[one.name].split())} |"
        for one in _thresholds()
    ]
    return ["| threshold | sense | default | meaning |", "|---|---|---|---|", *rows]

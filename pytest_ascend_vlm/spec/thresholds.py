"""Every threshold of the project: those that a model may change, and fixed ones.

The docstrings of the criteria and docs/criteria.md take their numbers from here.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError
from .number import is_finite

FLOAT32_ERROR_RATIO = 0.01
"""Maximum R of an engine in float32."""

PART_ERROR_RATIO = 1.5
"""R above which a message names a part of the sequence, or the device's operators, as wrong."""

ENOUGH_IMAGES = 8
ENOUGH_POSITIONS = 1000
"""A numerics verdict with fewer images or positions recommends these numbers."""

TOLERANCE_AFTER_TIE = 0.1
"""Tolerance of document.* after a near-tie of the reference.

There the golden's continuation is one of two equally valid ones. 0.1, because a single changed
digit costs a tenth on a page with ten numbers.
"""

READ_CER = 0.5
"""Maximum character error rate of a golden that counts as a reading of its page.

Two different pages have a CER of 0.67 to 1.14 (fixtures/documents, each against each), and an empty
answer has a CER of 1. So a golden above 0.5 has not read its page.
"""

IOU_TOLERANCE = 0.05
"""Tolerance: how much lower than the golden's the IoU of an answered box may be."""

SCORE_TOLERANCE = 0.02
"""The non-inferiority margin: how much lower than the reference's a data-set score may be."""

PUBLISHED_BLIND_SPOT = 0.05
"""Maximum drop that a comparison with a published score may be unable to detect."""

MEMORY_TOLERANCE_MIB = 256.0
"""Tolerance of freed device memory: MiB above the level before the server's start."""

URL_SECONDS = 10.0
"""Maximum time until a request with the URL of an image that does not come is refused.

vLLM waits 5 s for an image (VLLM_IMAGE_FETCH_TIMEOUT), and seconds more may pass on a busy host.
"""

LEAVING = 20
"""Number of clients that leave at one moment in recovery.request."""

BEGINNING_TOKENS = 32
"""Number of tokens of the answers that recovery.* and serving.any_request compare."""

HELD_SECONDS = 5.0
"""Maximum time until a server has removed the requests of clients that left."""

STALL_SECONDS = 15.0
"""Time for which recovery.stopped_engine stops the engine, unless `/health` tells it earlier.

Kubernetes asks for the health every 10 s by default.
"""

LOSS_SECONDS = 10.0
"""Maximum time until a server tells that its engine died."""

SERVICE_LEVEL = 5.0
"""Goodput counts answers whose TTFT and TPOT are at most N times those of a single request."""

REPEATS = 3
"""Number of times that determinism.repeat sends one request."""

COLD_RUNS = 4
"""Number of times that determinism.cold has an image computed, the first time included."""

UNSURE_RUNS = 6
"""Maximum number of times that determinism.unsure sends one request."""

UNSURE_TEMPERATURE = 0.7
"""Temperature of the sampling that determinism.unsure detects."""

UNSEEN_SAMPLING = 0.001
"""Maximum probability that determinism.unsure does not detect such sampling."""

STEP_TOKENS = 64
"""Number of prompt tokens that one step of the server of numerics.borders computes."""

CROWD = 16
"""Number of requests at one moment in determinism.preemption."""

LONG_ANSWER_TOKENS = 1024
"""Number of generated tokens in numerics.long_answer; fewer if max_model_len does not allow it."""

LONG_ANSWER_STRETCH = 128
"""Number of tokens of the long answer that are judged together."""

ENOUGH_ROWS = 16
"""Minimum number of positions that list a token, for numerics.tokens to judge it."""

TOKEN_ERROR = 1.0
"""Maximum mean error of a single token's logit, in units of the reference's own bf16 error."""

IMAGE_ERROR_RATIO = 2.0
"""Maximum R of a single case in numerics.images; one case varies more than all together."""

ENOUGH_IMAGE_POSITIONS = 4
"""Minimum number of image positions for numerics.images to judge them by themselves.

The bf16 error of a single position may be small by chance. On seven sound tiny checkpoints under
vLLM 0.32, R was at most 1.47 in 280 cases with 4 or more such positions, and 2.07 in one of 11
cases with a single one.
"""

FORMAT_RATIO = 6.0
"""Maximum difference between an image file and its RGB copy, in the reference's own bf16 errors.

Equal pixels differ by 0. Another decoder may round a value to the next of 256 levels. If it does so
with every value, the difference is 1.0 to 4.8 (three tiny checkpoints under vLLM 0.32 on a CPU). A
misread file differs by 19 to 107.
"""

BATCH = 9
"""Number of images in determinism.batched_images, and of cases in determinism.restart."""

SPREAD_SECONDS = 0.05
"""Seconds from one request to the next in a load that is spread."""

STREAM_TOKENS = 64
"""Number of tokens of the streamed answer whose pieces' times serving.streaming judges."""

STREAM_LATENESS = 0.2
"""Maximum mean delay of a piece, as a share of the time in which the answer is made.

It is 1/2 if all pieces arrive at the end, 1/4 if they arrive in two parts.
"""

STREAM_LOGPROBS = 0.5
"""Maximum difference of a streamed token's log-probabilities from the unstreamed ones, nats.

bf16 rounds a logit below 64 by at most 0.125, so two computations of it differ by 0.25. Lists of
two neighbouring tokens of a trained model differ by several nats.
"""

STREAM_ATTEMPTS = 5
"""Maximum number of streams whose pieces are late: a proxy that buffers delays those of all."""

SEEDS = 8
"""Number of seeds in determinism.seeded."""

PICTURES = 60
"""Number of generated pictures in serving.image_sizes."""

SHRINK_REQUESTS = 100
SHRINK_SECONDS = 60.0
"""Maximum number and time of the requests that look for a smaller picture with a wrong reply."""

GRID_ROUNDS = 6
"""Number of rounds in grid.cliffs. With fewer, the interval of a ratio is unbounded."""

GRID_TOKENS = 8
"""Number of tokens of each answer in grid.cliffs."""

SOAK_IMAGES = 200
"""Default number of images in growth.*."""

SOAK_BLOCKS = 10
"""Number of blocks that the second half of these images is divided into."""

SOAK_CACHE_GIB = 0.015625
"""Size of the image processor's cache in growth.*, in GiB.

A page of 336 x 280 pixels takes 0.54 MiB of it (vLLM 0.32), so it holds 30 of them. With vLLM's
default of 4 GiB memory would grow over 7,600 pages.
"""

ROUNDS = 30
"""Number of requests in performance.single_stream."""

WARMUPS = 2
"""Number of requests before a measurement of speed, which are not measured."""

PAIRS = 24
"""Number of pairs of requests for a ratio of times."""

TOKENS_TOLERANCE = 0.02
"""Maximum relative difference of numbers of tokens that count as equal: no text has any length."""

WIRE_REQUESTS = 5
"""Number of answers of one token that show the time of the wire."""

SERVER_TIME_TOLERANCE = 0.2
"""Maximum difference between a client's time and the server's own (0..1), beyond the wire's."""

STORED_RUNS = 3
"""Minimum number of stored runs for performance.baseline."""


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
        similarity_after_tie: the same if the first differing token was a near-tie in the
            reference, so that rounding alone may have changed the choice.
        logprobs_ratio: maximum mean difference of the visible log-probabilities, in units of the
            reference's own bf16-fp32 difference.
        agreement: minimum rate (0..1) of repeated answers that are identical.
        document_cer: tolerance: how much higher than the golden's the character error rate may be.
        document_lines: tolerance: how much lower than the golden's the rate of exact lines may be.
        document_numbers: tolerance: how much lower than the golden's the recall of numbers may be.
        document_order: tolerance: how much lower than the golden's the rate of ordered line pairs
            may be.
        box_iou: minimum intersection over union (0..1) of an answered box with the true one.
        logits_max_abs: maximum absolute error of a logit; if the reference's own bf16 error is
            more than half of it, the maximum is twice the reference's error.
        logits_cosine: minimum cosine similarity of all logits as one vector.
        hidden_max_abs: the same as logits_max_abs for the last hidden states.
        hidden_cosine: the same as logits_cosine for the last hidden states.
        error_ratio: R, the maximum root mean square error from fp32, in units of the reference's
            own bf16 error.
        kl_ratio: K, the same for the mean Kullback-Leibler divergence.
        cold_ratio: maximum difference between two computations of one image, in units of the
            reference's own bf16 error.
        top1_flips: maximum rate (0..1) of positions with another most likely token, not counting
            near-ties of the reference.
        prefill_ratio: maximum TTFT of an image prompt divided by that of a text of as many tokens.
        load_scaling: minimum throughput at concurrency 8 divided by throughput at concurrency 1.
        slowdown: maximum time divided by the time that it is compared with.
        idle_cpu: maximum CPU usage of an idle server divided by that of a busy one (0..1).
        cliff_ratio: maximum time a request at a number of requests at once, divided by that at the
            numbers beside it.
        growth_mib: maximum growth of host or device memory, in MiB per image.
        at_once: minimum of the largest number of requests at once (ladder.concurrent).
        because: why a threshold is looser than the project's default.

    Raises:
        ConfigurationError: a threshold is no finite number from 0 up, or it is looser and
            `because` is empty.
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
    cold_ratio: float = _at_most(0.1)
    top1_flips: float = _at_most(0.001)
    prefill_ratio: float = _at_most(20.0)
    load_scaling: float = _at_least(1.5)
    slowdown: float = _at_most(1.1)
    idle_cpu: float = _at_most(0.2)
    cliff_ratio: float = _at_most(1.5)
    growth_mib: float = _at_most(0.5)
    at_once: float = _at_least(256.0)
    because: str | None = None

    def __post_init__(self) -> None:
        for name, value in ((one.name, getattr(self, one.name)) for one in _thresholds()):
            if not is_finite(value) or value < 0:
                raise ConfigurationError(
                    f"Thresholds({name}={value!r}): a threshold is a number, 0 or larger. "
                    f"The project's default is {name}={NUMBERS[name]:g}."
                )
        if self.because is not None and not isinstance(self.because, str):
            raise ConfigurationError(
                f"Thresholds(because={self.because!r}): write the reason as a text, "
                'because="a host of two cores".'
            )
        loosened = [one.name for one in _thresholds() if self._is_loosened(one)]
        if loosened and not (self.because or "").strip():
            raise ConfigurationError(
                f"Thresholds({', '.join(loosened)}=...) is looser than the project's default. "
                'State the reason with because="...", so that the report can show it.'
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
"""Name -> default of every threshold; the names of constants are in lower case."""


def table() -> list[str]:
    """The lines of a Markdown table of the thresholds that a model may change."""
    _, _, attributes = inspect.cleandoc(Thresholds.__doc__ or "").partition("Attributes:")
    meanings = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE))
    rows = [
        f"| `{one.name}` | {one.metadata['sense']} | {one.default:g} "
        f"| {' '.join(meanings[one.name].split())} |"
        for one in _thresholds()
    ]
    return ["| threshold | sense | default | meaning |", "|---|---|---|---|", *rows]

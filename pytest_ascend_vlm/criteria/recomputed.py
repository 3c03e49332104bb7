"""Rules of determinism.cold and determinism.batched_images: an image is computed alike each time.

The unit of a difference is the reference's own bf16 error, as for R, but the two sides are two
computations of the served model. So an error that both have does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import PreconditionError
from ..observation.answers import Completion
from ..observation.caches import CacheUse
from .comparison import CaseComparison
from .text import side_by_side
from .verdict import Verdict, at_least, at_most, largest

_UNIT = "bf16 roundings"


@dataclass(frozen=True)
class Difference:
    """The difference of two computations of one case, in units of the reference's bf16 error.

    Attributes:
        case_id: the case.
        overall: the root mean square over all positions.
        before: the same for the positions before the first image token; None if there is none.
        since: the same for all other positions.
    """

    case_id: str
    overall: float
    before: float | None
    since: float


def difference(first: CaseComparison, other: CaseComparison) -> Difference:
    """The difference of two computations of one case."""
    squares = np.square(other.observed - first.observed).mean(axis=1)
    own = first.own_square_errors.mean()
    is_image = first.part == "image"
    start = int(np.argmax(is_image)) if is_image.any() else len(squares)

    def ratio(rows: npt.NDArray[np.floating]) -> float:
        return float(np.sqrt(np.divide(rows.mean(), own)))

    return Difference(
        first.case_id,
        ratio(squares),
        ratio(squares[:start]) if start else None,
        ratio(squares[start:]) if start < len(squares) else 0.0,
    )


def judge_cold(
    runs: Mapping[str, Sequence[CaseComparison]], maximum: float, caches: CacheUse | None
) -> Verdict:
    """Every computation of an image gives the numbers of the first one.

    Args:
        runs: case id -> the numbers of every computation; two or more.
        maximum: the maximum difference, in units of the reference's own bf16 error.
        caches: the server's counters for these requests; None if it has none.

    Raises:
        PreconditionError: the server took an image from a cache.
    """
    require_cold(caches)
    differences = [difference(first, other) for first, *again in runs.values() for other in again]
    worst = largest(differences, lambda one: one.overall)
    times = sum(map(len, runs.values()))
    return at_most(
        worst.overall,
        maximum,
        _UNIT,
        f"{len(runs)} images were computed {times} times in all; the largest difference is in "
        f"{worst.case_id}",
        _where(worst, maximum),
        {"images": list(runs), "times": times, **cold_evidence(caches)},
    )


def judge_batched(
    pairs: Sequence[tuple[CaseComparison, CaseComparison]],
    maximum: float,
    caches: CacheUse | None,
) -> Verdict:
    """The numbers of images that are computed together equal those of each image alone.

    Args:
        pairs: for each case, the numbers alone and in a batch.
        maximum: the maximum difference, in units of the reference's own bf16 error.
        caches: the server's counters for the batch; None if it has none.

    Raises:
        PreconditionError: the server took an image from a cache.
    """
    require_cold(caches)
    differences = [difference(alone, batched) for alone, batched in pairs]
    worst = largest(differences, lambda one: one.overall)
    off = {one.case_id for one in differences if not one.overall <= maximum}
    return at_most(
        worst.overall,
        maximum,
        _UNIT,
        f"{len(off)} of {len(pairs)} new images that arrived at one moment got other numbers than "
        f"alone; the largest difference is in {worst.case_id}",
        _where(worst, maximum),
        {"differing": sorted(off), **cold_evidence(caches)},
    )


def judge_batched_answers(
    alone: Mapping[str, Completion], batched: Sequence[Completion], caches: CacheUse | None
) -> Verdict:
    """The answers about images that are computed together begin like those about each alone.

    Args:
        alone: case id -> the whole answer to the case alone.
        batched: answers to these cases, which may be shorter, from requests at one moment.
        caches: the server's counters for the batch; None if it has none.

    Raises:
        PreconditionError: the server took an image from a cache.
    """
    require_cold(caches)
    differing = [one for one in batched if not begins(alone[one.case_id], one)]
    details: tuple[str, ...] = ()
    if differing:
        first = differing[0]
        details = (
            f"the first difference is in {first.case_id}:",
            *side_by_side(alone[first.case_id].text[: len(first.text)], first.text, "alone"),
        )
    exchanged = [line for one in differing if (line := _answer_of_another(one, alone))]
    return at_least(
        1 - len(differing) / len(batched),
        1.0,
        "rate",
        f"{len(batched) - len(differing)} of {len(batched)} answers about new images that arrived "
        "at one moment are those of each image alone",
        (*exchanged[:1], *details),
        {"differing": sorted({one.case_id for one in differing}), **cold_evidence(caches)},
    )


def require_cold(caches: CacheUse | None) -> None:
    """Checks that a server computed every image of some requests.

    Raises:
        PreconditionError: it took an image from a cache.
    """
    if caches is not None and caches.image_hits:
        raise PreconditionError(
            f"the server took {caches.image_hits:.0f} of {caches.image_queries:.0f} images from "
            "its cache, although each had a uuid and a file of its own. So their computation "
            "cannot be judged. If other clients use the server, try again without them."
        )


def require_uncached(*answers: Completion) -> None:
    """Checks that a server computed the whole prompt of each cold request.

    Raises:
        PreconditionError: it took a part of one from its prefix cache.
    """
    for answer in answers:
        if answer.cached_tokens:
            raise PreconditionError(
                f"{answer.case_id}: {answer.cached_tokens} prompt tokens came from the prefix "
                "cache, although the request had a cache_salt of its own. So the answer is not the "
                "cold one that it has to be. The server, or a proxy before it, ignores cache_salt; "
                "or it counts tokens that another server computed (kv_transfer_config)."
            )


def cold_evidence(caches: CacheUse | None) -> dict[str, str]:
    """The evidence that requests were cold, for a report."""
    made = "each request had a cache_salt of its own, and each image a uuid and a file of its own"
    if caches is None:
        return {"cold": f"{made}; the server has no counters"}
    return {
        "cold": f"{made}; the server counted {caches.image_hits:.0f} hits for "
        f"{caches.image_queries:.0f} images, and {caches.prompt_hits:.0f} hits for "
        f"{caches.prompt_queries:.0f} prompt tokens"
    }


def _where(worst: Difference, maximum: float) -> tuple[str, ...]:
    if worst.before is None:
        return ()
    lines = (
        f"difference before the image: {worst.before:.3g}, from the image on: {worst.since:.3g} "
        "(bf16 roundings)",
    )
    if worst.before <= maximum and worst.since <= maximum:
        return lines
    if worst.before <= maximum:
        return (
            *lines,
            "the text before the image is the same each time, so the difference comes in with the "
            "image: look at the vision tower and the image processor",
        )
    return (
        *lines,
        "the text before the image changes too: look at the kernels of the language model",
    )


def begins(whole: Completion, beginning: Completion) -> bool:
    """True if an answer begins with another one."""
    if whole.token_ids is None or beginning.token_ids is None:
        return whole.text.startswith(beginning.text)
    return whole.token_ids[: len(beginning.token_ids)] == beginning.token_ids


def _answer_of_another(answer: Completion, alone: Mapping[str, Completion]) -> str | None:
    """A line that says whose answer it is, if it is exactly that of one other case."""
    owners = [case_id for case_id, other in alone.items() if begins(other, answer)]
    if len(owners) != 1:
        return None
    return (
        f"{answer.case_id} got the answer of {owners[0]}: images that are computed together are "
        "exchanged, or share one result"
    )

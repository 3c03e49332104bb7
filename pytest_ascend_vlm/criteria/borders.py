"""Rules of numerics.borders: borders between steps, and in the prefix cache, change nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..errors import PreconditionError
from ..observation.answers import Completion, Reference
from ..observation.numerics import Forced, ReferenceNumerics
from ..spec.thresholds import IMAGE_ERROR_RATIO, STEP_TOKENS, Thresholds
from .comparison import compare_logits
from .error_statistics import ErrorStatistics
from .generation import judge_generation
from .numerics import error_location
from .verdict import Verdict, at_most, largest


def judge_chunks(compared: Sequence[tuple[Forced, ReferenceNumerics]]) -> Verdict:
    """R of each case is at most `IMAGE_ERROR_RATIO`; the verdict has the largest."""
    statistics = [ErrorStatistics([compare_logits(*pair)]) for pair in compared]
    worst = largest(statistics, lambda one: one.error_ratio.value)
    case_id = worst.comparisons[0].case_id
    return at_most(
        worst.error_ratio.value,
        IMAGE_ERROR_RATIO,
        "bf16 roundings",
        f"R of {len(statistics)} prompts that were computed in steps of {STEP_TOKENS} tokens; the "
        f"largest is that of {case_id}",
        (f"borders are behind every {STEP_TOKENS} tokens of the prompt", *error_location(worst)),
        {one.comparisons[0].case_id: round(float(one.error_ratio.value), 4) for one in statistics},
    )


def judge_hit(
    hit: Completion, forced: Forced, reference: Reference, thresholds: Thresholds
) -> Verdict:
    """An answer after a prefix-cache hit has the log-probabilities of the same tokens, forced.

    Args:
        hit: the answer, right after another question about its image.
        forced: the logits of the golden's answer, which are computed without the cache.
        reference: the reference's answer, with its numerics.
        thresholds: the model's thresholds.

    Raises:
        PreconditionError: the server reports no hit, or one that ends before the image, or the
            reference has no numerics.
    """
    cached = hit.usage.cached_tokens if hit.usage else None
    if not cached:
        raise PreconditionError(
            f"{hit.case_id}: the second question about one image reported no cached tokens, so a "
            "hit could not be judged. The prompt may be shorter than one block of the cache."
        )
    if reference.numerics is None or reference.prompt_token_ids is None:
        raise PreconditionError(f"{hit.case_id}: the reference has no numerics")
    first, last = _image_range(reference.prompt_token_ids, reference.numerics)
    if cached <= first:
        raise PreconditionError(
            f"{hit.case_id}: only the {cached} tokens before the image, which is at tokens "
            f"{first + 1} to {last + 1}, came from the cache, so a hit in the image could not be "
            "judged. Serve with a smaller block_size, or use a larger image."
        )
    verdict = judge_generation(hit, forced, reference.numerics, thresholds)
    where = f"{cached} cached tokens; the image is at tokens {first + 1} to {last + 1}"
    evidence = {**verdict.evidence, "cached_tokens": cached, "image": [first + 1, last + 1]}
    return dataclasses.replace(verdict, reason=f"{verdict.reason}; {where}", evidence=evidence)


def _image_range(prompt: tuple[int, ...], numerics: ReferenceNumerics) -> tuple[int, int]:
    """The first and the last position of image tokens in a prompt."""
    image_token = prompt[int(numerics.positions[numerics.is_image][0])]
    places = [position for position, token in enumerate(prompt) if token == image_token]
    return places[0], places[-1]

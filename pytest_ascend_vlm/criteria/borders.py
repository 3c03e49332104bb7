"""Rules of numerics.borders: borders between steps, and in the prefix cache, change nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import PreconditionError
from ..observation.answers import Completion, Reference
from ..observation.numerics import Forced, ReferenceNumerics
from ..spec.thresholds import IMAGE_ERROR_RATIO, STEP_TOKENS, Thresholds
from .comparison import compare_logits, visible_rounding
from .divergence import first_difference
from .error_statistics import ErrorStatistics
from .generation import list_difference
from .numerics import error_location
from .recomputed import require_uncached
from .verdict import Verdict, at_most, largest


def judge_chunks(
    compared: Sequence[tuple[Forced, ReferenceNumerics]], too_large: Sequence[str] = ()
) -> Verdict:
    """R of each case is at most `IMAGE_ERROR_RATIO`; the verdict has the largest.

    Args:
        compared: the served and the expected numbers of each case.
        too_large: the replies to images that the server has no room for.

    Raises:
        PreconditionError: the server has no room for most of the images.
    """
    if len(too_large) > len(compared):
        raise PreconditionError(
            f"the server has no room for {len(too_large)} of {len(too_large) + len(compared)} "
            f"prompts, so the few others prove little. The first reply: {too_large[0]}"
        )
    statistics = [ErrorStatistics([compare_logits(*pair)]) for pair in compared]
    worst = largest(statistics, lambda one: one.error_ratio.value)
    case_id = worst.comparisons[0].case_id
    left_out = f"; the server has no room for {len(too_large)} more" if too_large else ""
    return at_most(
        worst.error_ratio.value,
        IMAGE_ERROR_RATIO,
        "bf16 roundings",
        f"R of {len(statistics)} prompts that were computed in steps of {STEP_TOKENS} tokens; the "
        f"largest is that of {case_id}{left_out}",
        (
            f"borders are behind every {STEP_TOKENS} tokens of the prompt",
            *error_location(worst),
            *(f"not judged: {reply}" for reply in too_large),
        ),
        {
            **{
                one.comparisons[0].case_id: round(float(one.error_ratio.value), 4)
                for one in statistics
            },
            **({"not judged": list(too_large)} if too_large else {}),
        },
    )


def judge_hit(
    hit: Completion, cold: Completion, reference: Reference, thresholds: Thresholds
) -> Verdict:
    """An answer after a prefix-cache hit has the log-probabilities of the same answer without it.

    Compared are the positions up to the first token that differs. Both answers are computed in the
    same steps, so the maximum is that of determinism.cold.

    Args:
        hit: the answer, right after another question about its image.
        cold: the answer of the same server to the same question, computed without the cache.
        reference: the reference's answer, whose own bf16 error gives the size of rounding.
        thresholds: the model's thresholds.

    Raises:
        PreconditionError: the server reports no hit, or one that ends before the image; the cold
            answer is from a cache; there are no log-probabilities; or the reference has no
            numerics.
    """
    require_uncached(cold)
    if reference.numerics is None or reference.prompt_token_ids is None:
        raise PreconditionError(f"{hit.case_id}: the reference has no numerics")
    first, last = _image_range(reference.prompt_token_ids, reference.numerics)
    cached = _cached_tokens(hit, first, last)
    differences = _differences(hit, cold)
    mean, own = float(np.mean(differences)), visible_rounding(reference.numerics)
    worst = int(np.argmax(differences))
    return at_most(
        float(np.divide(mean, own)) if mean else 0.0,
        thresholds.cold_ratio,
        "bf16 roundings",
        f"the log-probabilities of {len(differences)} generated tokens, after a hit and without; "
        f"{cached} cached tokens; the image is at tokens {first + 1} to {last + 1}",
        (
            f"mean difference: {mean:.4g} nats; the reference's own bf16-fp32 difference is "
            f"{own:.4g} nats",
            f"largest at token {worst + 1} of {len(differences)}: {differences[worst]:.4g} nats",
        ),
        {"cached_tokens": cached, "image": [first + 1, last + 1], "positions": len(differences)},
    )


def _cached_tokens(hit: Completion, first: int, last: int) -> int:
    """The number of cached tokens, which reach into the image at positions `first` to `last`."""
    cached = hit.cached_tokens
    if not cached:
        raise PreconditionError(
            f"{hit.case_id}: the second question about one image reported no cached tokens, so a "
            "hit could not be judged. The prompt may be shorter than one block of the cache."
        )
    if cached <= first:
        raise PreconditionError(
            f"{hit.case_id}: only the {cached} tokens before the image, which is at tokens "
            f"{first + 1} to {last + 1}, came from the cache, so a hit in the image could not be "
            "judged. Serve with a smaller block_size, or use a larger image."
        )
    return cached


def _differences(hit: Completion, cold: Completion) -> list[float]:
    """The mean difference of two answers' lists at each position; one entry at least."""
    if hit.top is None or cold.top is None or hit.token_ids is None or cold.token_ids is None:
        raise PreconditionError(f"{hit.case_id}: the server listed no log-probabilities")
    same = first_difference(hit.token_ids, cold.token_ids)
    count = min(len(hit.top), len(cold.top))
    compared = count if same is None else min(count, same + 1)
    return [list_difference(hit.top.at(i), cold.top.at(i)) for i in range(compared)]


def _image_range(prompt: tuple[int, ...], numerics: ReferenceNumerics) -> tuple[int, int]:
    """The first and the last position of image tokens in a prompt."""
    image_token = prompt[int(numerics.positions[numerics.is_image][0])]
    places = [position for position, token in enumerate(prompt) if token == image_token]
    return places[0], places[-1]

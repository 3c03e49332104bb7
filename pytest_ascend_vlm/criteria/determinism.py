"""Do equal requests get equal answers?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ..errors import PreconditionError
from ..observation.answers import Completion
from .text import side_by_side
from .verdict import Verdict, at_least


def judge_agreement(
    expected: Mapping[str, Completion], got: Mapping[str, Sequence[Completion]], least: float
) -> Verdict:
    """The rate of answers that equal the expected ones, token by token where ids are known.

    Args:
        expected: label of a request -> the answer to compare with.
        got: the same labels -> every further answer to that request.
        least: the rate that passes, 0..1.
    """
    pairs = [
        (label, expected[label], answer) for label, answers in got.items() for answer in answers
    ]
    differing = [(label, first, other) for label, first, other in pairs if not _same(first, other)]
    rate = 1 - len(differing) / len(pairs)
    details: tuple[str, ...] = ()
    if differing:
        label, first, other = differing[0]
        details = (f"{label}, the first that differs:", *_difference(first, other))
    reason = f"{len(pairs) - len(differing)} of {len(pairs)} answers are identical"
    evidence = {
        "answers": len(pairs),
        "differing": sorted({label for label, _, _ in differing}),
    }
    return at_least(rate, least, "rate", reason, details, evidence)


def _same(first: Completion, other: Completion) -> bool:
    if first.token_ids is not None and other.token_ids is not None:
        return first.token_ids == other.token_ids
    return first.text == other.text


def _difference(first: Completion, other: Completion) -> tuple[str, ...]:
    if first.text == other.text:
        return (f"equal text {first.text[:40]!r} from different tokens",)
    return side_by_side(first.text, other.text, "first")


def judge_seeds(
    first: Mapping[str, Completion], again: Mapping[str, Completion], least: float
) -> Verdict:
    """Each seed repeats its answer, and another seed gives another one.

    Args:
        first: name of a seed -> an answer sampled under it.
        again: the same seeds -> a second answer.
        least: the rate of seeds that have to repeat their answer, 0..1.

    Raises:
        PreconditionError: all answers are one, so nothing shows that a seed does anything.
    """
    answers = [*first.values(), *again.values()]
    if all(_same(answers[0], other) for other in answers):
        raise PreconditionError(
            f"{len(first)} seeds give one answer, {answers[0].text[:80]!r}, so whether a seed does "
            "anything cannot be judged. The server samples with one seed whatever it is asked, or "
            "greedily whatever the temperature; or the model is sure of its answer."
        )
    verdict = judge_agreement(first, {seed: [answer] for seed, answer in again.items()}, least)
    reason = f"{verdict.reason} under the same seed; the seeds give {distinct(first.values())}"
    return dataclasses.replace(verdict, reason=reason)


def distinct(answers: Iterable[Completion]) -> int:
    """How many different answers there are."""
    return len(
        {answer.text if answer.token_ids is None else answer.token_ids for answer in answers}
    )


def judge_prefix_cache(
    cold: Completion, hit: Completion, other_cold: Completion, other_warm: Completion
) -> Verdict:
    """A prefix-cache hit changes nothing, and another image under the same text never hits.

    Args:
        cold: the answer with an empty cache.
        hit: the answer to the same request right after it.
        other_cold: the answer to the other image with an empty cache of its own.
        other_warm: the answer to the other image in the first request's cache.
    """
    checks = {
        "hit equals cold": (cold, hit),
        "another image is not mixed up": (other_cold, other_warm),
    }
    details: tuple[str, ...] = ()
    for label, (left, right) in checks.items():
        if not _same(left, right):
            details += (f"{label}: it is not", *_difference(left, right))
    shared = _cached(other_warm)
    image_start_bound = _cached(hit)
    if shared and shared >= image_start_bound:
        details += (
            f"the other image hit {shared} cached tokens, as many as the same image "
            f"({image_start_bound}): the cache key ignores the image",
        )
    held = 1.0 if not details else 0.0
    return at_least(
        held,
        1.0,
        "rate",
        f"the same image hit {_cached(hit)} of {_prompt(hit)} prompt tokens, another {shared}",
        details,
        {"cached_tokens_same_image": _cached(hit), "cached_tokens_other_image": shared},
    )


def _cached(completion: Completion) -> int:
    return (completion.usage.cached_tokens or 0) if completion.usage else 0


def _prompt(completion: Completion) -> int:
    return completion.usage.prompt_tokens if completion.usage else 0

"""Rules of determinism.*: equal requests get equal answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import PreconditionError
from ..observation.answers import Completion, Reference
from ..observation.turns import Turns
from ..spec.thresholds import IMAGE_ERROR_RATIO, UNSEEN_SAMPLING, UNSURE_RUNS, UNSURE_TEMPERATURE
from .baseline import find_divergence
from .divergence import first_difference
from .error_statistics import ErrorStatistics
from .evidence import with_evidence
from .near_ties import part_at_own_tie
from .recomputed import require_uncached
from .text import side_by_side
from .verdict import Verdict, at_least, checklist


def judge_agreement(
    expected: Mapping[str, Completion], got: Mapping[str, Sequence[Completion]], minimum: float
) -> Verdict:
    """Judges the rate of answers that equal the expected ones.

    Two answers are equal if their token ids are equal, or their texts if ids are unknown.

    Args:
        expected: label of a request -> the answer to compare with.
        got: the same labels -> every further answer to that request.
        minimum: the minimum rate, 0..1.
    """
    pairs = [
        (label, expected[label], answer) for label, answers in got.items() for answer in answers
    ]
    differing = [
        (label, first, other) for label, first, other in pairs if not same_answer(first, other)
    ]
    rate = 1 - len(differing) / len(pairs)
    details: tuple[str, ...] = ()
    if differing:
        label, first, other = differing[0]
        details = (f"the first difference is in {label}:", *_difference(first, other))
    reason = f"{len(pairs) - len(differing)} of {len(pairs)} answers are identical"
    evidence = {
        "answers": len(pairs),
        "differing": sorted({label for label, _, _ in differing}),
    }
    return at_least(rate, minimum, "rate", reason, details, evidence)


def judge_load(
    alone: Mapping[str, Completion],
    among_others: Sequence[Completion],
    reference_of: Callable[[str], Reference],
) -> Verdict:
    """Each answer among others equals the answer to the case alone.

    It may differ from a token on at which the reference was within rounding of a tie.

    Args:
        alone: case id -> the answer to the case alone.
        among_others: answers to these cases while other requests were running.
        reference_of: returns the reference of a case id, whose preferences tell a near-tie.
    """
    differing = [one for one in among_others if not same_answer(alone[one.case_id], one)]
    wrong = [
        one
        for one in differing
        if not part_at_near_tie(alone[one.case_id], one, reference_of(one.case_id))
    ]
    details: tuple[str, ...] = ()
    if wrong:
        first = wrong[0]
        owners = [case_id for case_id, answer in alone.items() if same_answer(answer, first)]
        whose = f"; it is the answer of {owners[0]}" if owners else ""
        details = (
            f"the first difference is in {first.case_id}{whose}:",
            *_difference(alone[first.case_id], first),
        )
    excused = len(differing) - len(wrong)
    after = f"; {excused} differ only after a near-tie of the reference" if excused else ""
    return at_least(
        1 - len(wrong) / len(among_others),
        1.0,
        "rate",
        f"{len(among_others) - len(differing)} of {len(among_others)} answers equal the answer to "
        f"the case alone{after}",
        details,
        {"differing": sorted({one.case_id for one in wrong}), "near_ties": excused},
    )


@dataclass(frozen=True)
class ForcedErrors:
    """How wrong the numbers of cases are in one pass over prompt and answer.

    Attributes:
        alone: the errors of forced answers, one after another.
        together: the errors of the same answers at one moment; None of a single one.
    """

    alone: ErrorStatistics
    together: ErrorStatistics | None


def with_errors(verdict: Verdict, errors: ForcedErrors | str, asked: int) -> Verdict:
    """Adds to a failed verdict on a load how wrong the numbers of its cases are in one pass.

    Args:
        verdict: the verdict of `judge_load`.
        errors: the errors of forced answers to differing cases, or the reason why they are unknown.
        asked: number of the requests that were asked together.
    """
    if isinstance(errors, str):
        line = f"their forced answers are not known: {errors}"
        return dataclasses.replace(verdict, details=(*verdict.details, line))
    lines = (_ratios(errors), _pass(errors, asked))
    forced = {
        "count": len(errors.alone.comparisons),
        "asked_together": asked,
        "alone": _rounded(errors.alone),
        "together": _rounded(errors.together) if errors.together else None,
    }
    detailed = dataclasses.replace(verdict, details=(*verdict.details, *lines))
    return with_evidence(detailed, {"forced": forced})


def _ratios(errors: ForcedErrors) -> str:
    alone, together = errors.alone, errors.together
    if together is None:
        return (
            f"the forced answer to the differing case, alone: R = {alone.error_ratio.value:.2f}, "
            f"K = {alone.kl_ratio.value:.2f}"
        )
    return (
        f"forced answers to {len(alone.comparisons)} of the differing cases: "
        f"R = {alone.error_ratio.value:.2f}, K = {alone.kl_ratio.value:.2f} one after another; "
        f"R = {together.error_ratio.value:.2f}, K = {together.kl_ratio.value:.2f} at one moment"
    )


def _pass(errors: ForcedErrors, asked: int) -> str:
    """What R says of one pass over prompt and answer, in which no token is generated.

    A fault of a pass over many requests may not show in one over fewer, so that only as many forced
    answers as were asked together leave decoding as the cause.
    """
    count = len(errors.alone.comparisons)
    if errors.alone.error_ratio.value > IMAGE_ERROR_RATIO:
        return "one pass is wrong even over a single request: see numerics.logits"
    if errors.together is None:
        return f"one pass over a single request is right; {asked} together were not forced"
    if errors.together.error_ratio.value > IMAGE_ERROR_RATIO:
        return "one pass over several requests is wrong too"
    if count >= asked:
        return "one pass is right: look at what computes one token after another"
    return (
        f"one pass over {count} requests at one moment is right; {asked} together were not forced"
    )


def _rounded(errors: ErrorStatistics) -> dict[str, float]:
    return {
        "R": round(errors.error_ratio.value, 4),
        "K": round(errors.kl_ratio.value, 4),
    }


def with_running(verdict: Verdict, running: int | None) -> Verdict:
    """Adds to a verdict on a load how many requests the server was seen to compute at once.

    Args:
        verdict: the verdict of `judge_load`.
        running: the largest number that was seen; None if the server does not tell it.
    """
    told = with_evidence(verdict, {"running": running})
    if running is None:
        return told
    reason = f"{verdict.reason}; at most {running} were seen to run at once"
    return dataclasses.replace(told, reason=reason)


def judge_preemption(
    alone: Mapping[str, Completion],
    crowded: Sequence[Completion],
    reference_of: Callable[[str], Reference],
    preemptions: float | None,
) -> Verdict:
    """Each answer equals the answer to the case alone, though requests lost their blocks.

    Args:
        alone: case id -> the answer to the case alone.
        crowded: answers of a server whose KV cache is too small for all of them.
        reference_of: returns the reference of a case id, whose preferences tell a near-tie.
        preemptions: how often a request lost its blocks; None if the server does not count it.

    Raises:
        PreconditionError: no request lost its blocks, or the server does not count it.
    """
    if not preemptions:
        raise PreconditionError(
            f"the server counted {'no preemption' if preemptions is None else '0 preemptions'} "
            f"(vllm:num_preemptions_total) while it answered {len(crowded)} requests, so what a "
            "preempted request answers cannot be judged. Its KV cache was limited with "
            "num_gpu_blocks_override: check that the engine obeys it."
        )
    verdict = judge_load(alone, crowded, reference_of)
    reason = f"requests were preempted {preemptions:.0f} times; {verdict.reason}"
    return with_evidence(
        dataclasses.replace(verdict, reason=reason), {"preemptions": int(preemptions)}
    )


def part_at_near_tie(alone: Completion, other: Completion, reference: Reference) -> bool:
    """True if two answers part where the reference was within rounding of a tie.

    One of them may go on as the reference does; what leaves it there must be the near-tie.
    """
    if alone.token_ids is None or other.token_ids is None:
        return False
    position = first_difference(alone.token_ids, other.token_ids)
    partings = (find_divergence(answer, reference) for answer in (alone, other))
    there = [one for one in partings if one and one.position == position]
    return bool(there) and all(one.is_near_tie for one in there)


def judge_repeat(first: Completion, again: Sequence[Completion], minimum: float) -> Verdict:
    """Judges the rate of further runs whose answer equals the first; evidence has all texts.

    Args:
        first: the first answer.
        again: the answers of the further runs.
        minimum: the minimum rate, 0..1.

    Raises:
        PreconditionError: a run took a part of its prompt from the prefix cache.
    """
    require_uncached(first, *again)
    verdict = judge_agreement({first.case_id: first}, {first.case_id: again}, minimum)
    return with_evidence(verdict, {"texts": [run.text for run in (first, *again)]})


def same_answer(first: Completion, other: Completion) -> bool:
    """True if two answers have the same tokens; the same text, if one has no token ids."""
    if first.token_ids is not None and other.token_ids is not None:
        return first.token_ids == other.token_ids
    return first.text == other.text


def agree(first: Completion, other: Completion) -> bool:
    """True if two answers are the same, or part at a near-tie of both."""
    return same_answer(first, other) or part_at_own_tie(first, other)


def _difference(first: Completion, other: Completion) -> tuple[str, ...]:
    if first.text == other.text:
        return (f"equal text {first.text[:40]!r} from different tokens",)
    return side_by_side(first.text, other.text, "first")


def judge_seeds(
    first: Mapping[str, Mapping[str, Completion]],
    again: Mapping[str, Mapping[str, Completion]],
    several: Mapping[str, Sequence[Completion]],
    minimum: float,
) -> Verdict:
    """Each seed repeats its answer; not all seeds, and not all of one request's answers, agree.

    Args:
        first: case id -> name of a seed -> an answer sampled with that seed.
        again: the same cases and seeds -> a second answer.
        several: case id -> the answers to one request that asks for as many as there are seeds.
        minimum: the minimum rate of seeds that repeat their answer, 0..1.

    Raises:
        PreconditionError: all answers to a case are equal, so an ignored seed could not be
            detected.
    """
    for case_id, sampled in first.items():
        _require_different(case_id, [*sampled.values(), *again[case_id].values()])
    answers = {
        f"{case_id}, {seed}": (answer, again[case_id][seed])
        for case_id, sampled in first.items()
        for seed, answer in sampled.items()
    }
    verdict = judge_agreement(
        {name: one for name, (one, _) in answers.items()},
        {name: [other] for name, (_, other) in answers.items()},
        minimum,
    )
    number = min(distinct(sampled.values()) for sampled in first.values())
    reason = f"{verdict.reason} under the same seed; the seeds give {number} different answers"
    copies = {case_id: _copied(each, first[case_id]) for case_id, each in several.items()}
    if verdict.passed and any(copies.values()):
        return checklist(copies)
    told = {"with_n": {case_id: distinct(each) for case_id, each in several.items()}}
    return with_evidence(dataclasses.replace(verdict, reason=reason), told)


def _copied(answers: Sequence[Completion], seeds: Mapping[str, Completion]) -> str | None:
    """The problem of answers to one sampled request that are all the same, or too few.

    Answers of a model that is sure of itself may be equal by chance: then most seeds agree.
    """
    if len(answers) < 2:  # serving.limits judges a server that ignores n
        return None
    if len(answers) != len(seeds):
        return f"one request with n={len(seeds)} gets {len(answers)} answers"
    if distinct(answers) > 1 or not vary(seeds.values()):
        return None
    return f"one request with n={len(answers)} gets {answers[0].text[:80]!r} in all its answers"


def _require_different(case_id: str, answers: Sequence[Completion]) -> None:
    if all(same_answer(answers[0], other) for other in answers):
        raise PreconditionError(
            f"{case_id}: {len(answers) // 2} seeds give one answer, {answers[0].text[:80]!r}, so "
            "the effect of a seed cannot be judged. Either the server ignores the request's seed, "
            "or it ignores the temperature and samples greedily, or the model has only one likely "
            "answer."
        )


def repeat_chance(answer: Completion) -> float:
    """The probability that sampling at `UNSURE_TEMPERATURE` gives a greedy answer once more.

    Raises:
        PreconditionError: the server lists no log-probabilities with the answer.
    """
    if answer.top is None:
        raise PreconditionError(
            f"{answer.case_id}: the server listed no log-probabilities with the answer, so its "
            "certainty is unknown. vLLM lists them; a proxy in between may drop them."
        )
    # A list that is shorter than others is padded with NaN.
    scaled = np.nan_to_num(answer.top.logprobs / UNSURE_TEMPERATURE, nan=-np.inf)
    behind = scaled - np.maximum(scaled.max(axis=1), np.finfo(float).min)[:, None]
    return float(np.prod(1 / np.maximum(np.exp(behind).sum(axis=1), 1)))


def least_certain(answers: Iterable[Completion]) -> Completion:
    """The answer that sampling gives once more with the least probability.

    Raises:
        PreconditionError: the server lists no log-probabilities.
    """
    return min(answers, key=repeat_chance)


def runs_to_see_sampling(answer: Completion) -> int:
    """The number of runs after which a server that samples does not give one answer each time.

    Raises:
        PreconditionError: more than `UNSURE_RUNS` would be needed, or the server lists no
            log-probabilities.
    """
    chance = repeat_chance(answer)
    for runs in range(1, UNSURE_RUNS + 1):
        if chance**runs <= UNSEEN_SAMPLING:
            return runs
    raise PreconditionError(
        f"the model is sure of its answers: sampling at temperature {UNSURE_TEMPERATURE} would "
        f"repeat one with a probability of {chance:.0%}, so {UNSURE_RUNS} runs cannot show whether "
        "the server samples"
    )


def distinct(answers: Iterable[Completion]) -> int:
    """The number of different answers."""
    return len(
        {answer.text if answer.token_ids is None else answer.token_ids for answer in answers}
    )


def vary(answers: Collection[Completion]) -> bool:
    """True if more than half of some sampled answers are different ones."""
    return distinct(answers) > len(answers) // 2


def judge_prefix_cache(
    cold: Completion, hit: Completion, other_cold: Completion, other_warm: Completion
) -> Verdict:
    """A prefix-cache hit does not change the answer, and another image does not hit the first's.

    The other image may hit the text before the image: fewer tokens than the same image hits.

    Args:
        cold: the answer with an empty cache.
        hit: the answer to the same request right after it.
        other_cold: the answer to the other image with an empty cache of its own.
        other_warm: the answer to the other image in the first request's cache.

    Raises:
        PreconditionError: an answer with an empty cache was taken from a cache nevertheless.
    """
    require_uncached(cold, other_cold)
    pairs = {
        "the answer after a hit differs from the cold answer": (cold, hit),
        "the other image's answer differs after the first image": (other_cold, other_warm),
    }
    details: tuple[str, ...] = ()
    for problem, (left, right) in pairs.items():
        if not same_answer(left, right):
            details += (f"{problem}:", *_difference(left, right))
    same, other = hit.cached_tokens, other_warm.cached_tokens
    if other and other >= same:
        details += (
            f"the other image hit {other} cached tokens, and the same image {same}: the cache key "
            "ignores the image",
        )
    return at_least(
        0.0 if details else 1.0,
        1.0,
        "rate",
        f"of {_prompt(hit)} prompt tokens the same image hit {same} in the cache, another image "
        f"{other}",
        details,
        {"cached_tokens_same_image": same, "cached_tokens_other_image": other},
    )


def judge_next_turn(turns: Turns) -> Verdict:
    """A second turn that may hit the blocks of the first answer is answered as with a cold cache.

    It may differ from a token on at which two candidates are about equally likely.

    Args:
        turns: the answers.

    Raises:
        PreconditionError: the cold answer was taken from a cache nevertheless.
    """
    require_uncached(turns.cold)
    is_same = agree(turns.cold, turns.warm)
    heading = "the second turn's answer differs after the first turn:"
    hit, first = turns.warm.cached_tokens, _prompt(turns.first)
    return at_least(
        float(is_same),
        1.0,
        "rate",
        f"of {_prompt(turns.warm)} prompt tokens the second turn hit {hit} in the cache, and the "
        f"first turn's prompt has {first}",
        () if is_same else (heading, *_difference(turns.cold, turns.warm)),
        {"cached_tokens": hit, "first_prompt_tokens": first},
    )


def _prompt(completion: Completion) -> int:
    return completion.usage.prompt_tokens if completion.usage else 0

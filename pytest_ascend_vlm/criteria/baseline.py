"""Rules of baseline.*: the served model's answers against the reference's.

The unit of error is the difference between the reference in bf16 and the reference in fp32. bf16
rounding causes an error of that size on any hardware. An error several times larger is a defect.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import PreconditionError, PromptDiffers
from ..observation.answers import TOP_LOGPROBS, Completion, Reference, Refusal, TokenText
from ..observation.numerics import Forced, ReferenceNumerics
from ..spec.thresholds import Thresholds
from .comparison import Table, compare_logits, log_softmax, tie_margin, visible_rounding
from .divergence import Divergence, first_difference, token_at
from .evidence import parting, with_answer, with_evidence
from .text import side_by_side, similarity, word_overlap
from .verdict import Verdict, at_least, at_most, checklist

_SHOWN_CANDIDATES = 3
UNKNOWN_PROMPT = "the reply has neither prompt_token_ids nor usage, so its prompt is unknown"


def require_same_prompt(served: Completion, reference: Reference) -> None:
    """Checks that the served prompt and the reference's prompt are the same tokens.

    Without token ids of the served prompt, the lengths are compared. If its length is unknown as
    well, the answers are compared nevertheless; `judge_prompt` fails.

    Raises:
        PromptDiffers: the prompts differ.
    """
    problem = _prompt_problem(served.prompt_token_ids, served.prompt_tokens, reference)
    if problem is not None:
        raise _other_input(reference.case_id, problem)


def require_same_forced_prompt(forced: Forced, reference: Reference) -> None:
    """Checks that the answer was forced after the reference's prompt.

    Raises:
        PromptDiffers: the prompts differ.
    """
    if reference.numerics is None:
        return
    tokens = len(forced.scores) + 1 - len(reference.numerics.token_ids)
    problem = _prompt_problem(forced.prompt_token_ids, tokens, reference)
    if problem is not None:
        raise _other_input(reference.case_id, problem)


def judge_prompt(served: Completion | Refusal, reference: Reference, text: str) -> Verdict:
    """The served prompt's tokens are the reference's, and usage counts them.

    Args:
        served: an answer to the case, or the HTTP error.
        reference: the reference, with its prompt's tokens.
        text: the case's texts.
    """
    if isinstance(served, Refusal):
        return checklist({"answered": str(served)})
    ids, usage = served.prompt_token_ids, served.usage
    counted = usage.prompt_tokens if usage else None
    wrong = f"usage reports {counted} tokens, but the prompt has {len(ids or ())}"
    other = _prompt_problem(ids, served.prompt_tokens, reference)
    return checklist(
        {
            "answered": None,
            "prompt": UNKNOWN_PROMPT if served.prompt_tokens is None else other,
            "usage": wrong if ids is not None and counted != len(ids) else None,
        },
        {
            "prompt_tokens": served.prompt_tokens,
            "compared": "ids" if ids else "length",
            "ascii": text.isascii(),
            "image_tokens": _image_tokens(reference.prompt_token_ids or ()),
            "differs": None if other is None else _differing_part(ids, reference),
        },
    )


def _image_tokens(prompt: Sequence[int]) -> int:
    """Number of tokens of the largest image: the longest run of one token."""
    return max((len(list(run)) for _, run in itertools.groupby(prompt)), default=0)


def _differing_part(got: tuple[int, ...] | None, reference: Reference) -> str | None:
    """The part of two prompts that differs: "images" if only runs of one token have other lengths.

    None if the served tokens are unknown.
    """
    if got is None:
        return None
    served, expected = (
        [token for token, _ in itertools.groupby(_with_one(reference.placeholders, prompt))]
        for prompt in (got, reference.prompt_token_ids or ())
    )
    return "images" if served == expected else "text"


def _prompt_problem(
    got: tuple[int, ...] | None, tokens: int | None, reference: Reference
) -> str | None:
    """The difference between a prompt and the reference's, or None.

    Args:
        got: the prompt's tokens; None if unknown.
        tokens: the prompt's length; None if unknown.
        reference: the reference.
    """
    expected = reference.prompt_token_ids
    if expected is None or (got is None and tokens in {None, len(expected)}):
        return None
    if got is not None:
        expected, got = (_with_one(reference.placeholders, ids) for ids in (expected, got))
        return None if got == expected else _differing_tokens(expected, got)
    return f"the served prompt has {tokens} tokens, the reference's has {len(expected)}"


def _with_one(placeholders: Sequence[int], token_ids: tuple[int, ...]) -> tuple[int, ...]:
    """Tokens with the first placeholder in place of each other one."""
    return tuple(placeholders[0] if token in placeholders else token for token in token_ids)


def _other_input(case_id: str, problem: str) -> PromptDiffers:
    return PromptDiffers(
        f"{case_id}: {problem}. The two sides did not see the same input, so their answers cannot "
        "be compared. baseline.prompt judges that."
    )


def _differing_tokens(expected: Sequence[int], got: Sequence[int]) -> str:
    position = first_difference(expected, got)
    assert position is not None  # noqa: S101  (the caller has compared them)
    lengths = (
        f"the served prompt has {len(got)} tokens, the reference's has {len(expected)}"
        if len(got) != len(expected)
        else f"both prompts have {len(got)} tokens, but not the same ones"
    )
    near = slice(max(position - 2, 0), position + 4)
    return (
        f"{lengths}; they differ from token {position + 1} on: the reference's are "
        f"{_shown(expected[near])}, the served ones {_shown(got[near])}"
    )


def _shown(token_ids: Sequence[int]) -> str:
    return f"[{', '.join(map(str, token_ids))}]"


def judge_text(served: Completion, reference: Reference, thresholds: Thresholds) -> Verdict:
    """The served text equals the reference's text, or diverges from it only at a near-tie.

    A document may quote only the beginning of an answer. The served text is then cut to the
    length of the quotation before it is compared.
    """
    got = served.text[: len(reference.text)] if reference.is_published else served.text
    divergence = find_divergence(served, reference)
    excused = _is_excused(divergence)
    minimum = thresholds.similarity_after_tie if excused else thresholds.similarity
    measured = similarity(reference.text, got)
    after = ", after a near-tie of the reference" if excused else ""
    details = () if got == reference.text else side_by_side(reference.text, got)
    if divergence is not None:
        details += describe(divergence, served)
    evidence = {
        "expected": reference.text,
        "got": served.text,
        "reference": reference.source,
        "exact_match": got == reference.text,
        "word_overlap": round(word_overlap(reference.text, got), 4),
    }
    reason = f"character similarity to the answer {reference.source}{after}"
    verdict = at_least(measured, minimum, "similarity", reason, details, evidence)
    return with_answer(verdict, served)


def diverges_at_near_tie(served: Completion, reference: Reference) -> bool:
    """True if the served answer diverges where rounding alone can change the reference's choice."""
    return _is_excused(find_divergence(served, reference))


def _is_excused(divergence: Divergence | None) -> bool:
    return divergence is not None and divergence.is_near_tie


def judge_divergence(served: Completion, reference: Reference) -> Verdict:
    """At the divergence of the two answers, the reference was within rounding of a tie."""
    if served.token_ids is None and served.text != reference.text:
        raise PreconditionError(
            f"{served.case_id}: the server returned no token ids, so the divergence of the answers "
            "cannot be judged. vLLM returns token ids; a proxy in between may drop them."
        )
    divergence = find_divergence(served, reference)
    if divergence is None:
        tie = _tie(reference.numerics, 0) if reference.numerics else 0.0
        verdict = at_most(0.0, tie, "nats", "the answers do not diverge")
        return with_answer(verdict, served)
    details = (
        *side_by_side(reference.text, served.text),
        *describe(divergence, served),
    )
    evidence = {"position": divergence.position, "expected": reference.text, "got": served.text}
    if not math.isfinite(divergence.preference):
        longest = max(len(served.token_ids or ()), len(reference.token_ids or ()))
        differing = longest - divergence.position
        reason = _unknown_preference(divergence)
        return with_answer(at_most(differing, 0, "tokens", reason, details, evidence), served)
    reason = f"the answers diverge at token {divergence.position + 1}"
    verdict = at_most(divergence.preference, divergence.tie, "nats", reason, details, evidence)
    return with_answer(verdict, served)


def _unknown_preference(divergence: Divergence) -> str:
    if divergence.expected is None or divergence.got is None:
        return f"one of the two answers ends at token {divergence.position}, the other goes on"
    return (
        f"the answers diverge at token {divergence.position + 1}, and how much the reference "
        "preferred its choice is not known"
    )


def with_parting(
    verdict: Verdict, served: Completion, reference: Reference, token_text: TokenText
) -> Verdict:
    """The verdict with both sides' candidates where the two answers part, if they do."""
    divergence = find_divergence(served, reference)
    if divergence is None:
        return verdict
    return with_evidence(verdict, {"parting": parting(divergence, served, token_text)})


def find_divergence(served: Completion, reference: Reference) -> Divergence | None:
    """The first differing token, or None if no token differs or token ids are unknown."""
    numerics = reference.numerics
    if served.token_ids is None or reference.token_ids is None or numerics is None:
        return None
    position = first_difference(reference.token_ids, served.token_ids)
    if position is None:
        return None
    expected = token_at(reference.token_ids, position)
    got = token_at(served.token_ids, position)
    candidates = numerics.candidates_after(reference.token_ids, position)
    if not candidates:
        return Divergence(position, expected, got, preference=float("inf"), tie=0.0)
    # If the numerics prefer another token to the recorded one, that preference counts as well.
    chosen = 0.0 if expected is None else _preference(candidates, expected)
    preference = max(_preference(candidates, got), chosen)
    return Divergence(position, expected, got, preference, _tie(numerics, position), candidates)


def describe(divergence: Divergence, served: Completion) -> tuple[str, ...]:
    """Lines with both sides' candidates at the divergence and the reference's preference."""
    lines = []
    if divergence.candidates:
        lines.append(
            f"at token {divergence.position + 1} the reference's candidates: "
            + _candidates(divergence.candidates)
        )
    if candidates := served.candidates_at(divergence.position):
        lines.append(f"the served model's candidates: {_candidates(candidates)}")
    if divergence.got is None:
        return (*lines, "the served answer has ended there, the reference's goes on")
    if divergence.expected is None:
        return (*lines, "the reference's answer has ended there, the served one goes on")
    return (*lines, _nearness(divergence))


def _nearness(divergence: Divergence) -> str:
    if not math.isfinite(divergence.preference):
        return (
            f"whether the reference was near a tie at token {divergence.position + 1} is not "
            "known: the answer's text has other tokens than those that were generated"
        )
    state = "was near a tie" if divergence.is_near_tie else "was not near a tie"
    return (
        f"the reference {state}: it preferred its choice by {divergence.preferred_by}; "
        f"rounding explains up to {divergence.tie:.3g} nats"
    )


def judge_logprobs(forced: Forced, numerics: ReferenceNumerics, thresholds: Thresholds) -> Verdict:
    """The visible log-probabilities differ from fp32 by at most a few bf16 roundings.

    Visible are the tokens that the reference finds most likely. Their log-probabilities are
    normalised over these tokens only.
    """
    comparison = compare_logits(forced, numerics)
    answer = comparison.part == "answer"
    exact = log_softmax(comparison.exact[answer, :TOP_LOGPROBS])
    served = _mean_difference(exact, comparison.observed[answer, :TOP_LOGPROBS])
    mean, own = float(np.mean(served)), visible_rounding(numerics)
    maximum = thresholds.logprobs_ratio * own
    worst = int(np.argmax(served))
    row = int(comparison.positions[answer][worst])
    ratio = mean / own if own else float("inf")
    details = (
        f"the reference's own bf16-fp32 difference is {own:.4g} nats; the served difference is "
        f"{ratio:.2f} times that (at most {thresholds.logprobs_ratio:g})",
        f"largest at token {worst + 1} of {len(served)}: {served[worst]:.4g} nats; "
        f"expected {_candidates(numerics.logprobs_at(worst))}; "
        f"got {_candidates(forced.scores.at(row))}",
    )
    evidence = {
        "positions": len(served),
        "reference_rounding": own,
        "ratio": mean / own if own else None,
        "per_position": [round(float(value), 5) for value in served],
    }
    reason = "mean difference of the visible log-probabilities, with the reference's answer forced"
    return at_most(mean, maximum, "nats", reason, details, evidence)


def _mean_difference(exact: Table, other: Table) -> Table:
    """The mean absolute difference of the log-probabilities at each position: shape (n,), nats."""
    return np.asarray(np.abs(log_softmax(other) - exact).mean(axis=1))


def judge_replay(replayed: Completion, golden: Reference) -> Verdict:
    """Running the reference again reproduces its golden, or diverges from it only at a near-tie.

    Args:
        replayed: the reference's answer of today, with the candidates of each token.
        golden: the recorded answer.
    """
    divergence = find_divergence(replayed, golden)
    if divergence is None and replayed.text == golden.text:
        return at_least(1.0, 1.0, "similarity", "the reference gives the recorded answer")
    details = side_by_side(golden.text, replayed.text, "recorded")
    if divergence is not None:
        divergence = _as_replayed(divergence, replayed, golden)
        details += describe(divergence, dataclasses.replace(replayed, top=None))
    excused = _is_excused(divergence)
    measured = similarity(golden.text, replayed.text)
    minimum = measured if excused else 1.0
    at = " at a near-tie" if excused else ""
    reason = f"the reference diverges from its recorded answer{at}"
    return at_least(measured, minimum, "similarity", reason, details)


def _as_replayed(divergence: Divergence, replayed: Completion, golden: Reference) -> Divergence:
    """The divergence with today's preference, if the recorded numerics do not tell that of then.

    On another CPU, whose kernels round elsewhere, an answer whose text has other tokens may part
    from the golden at a near-tie as well as any other.
    """
    if divergence.candidates or golden.numerics is None:
        return divergence
    preference = replayed.preference_over(divergence.expected, divergence.position)
    # The largest logit is not known; the reference's own error is nearly always the larger part.
    tie = tie_margin(0.0, golden.numerics.logit_rmse)
    return dataclasses.replace(divergence, preference=preference, tie=tie)


def _tie(numerics: ReferenceNumerics, position: int) -> float:
    return tie_margin(numerics.peak_logit(position), numerics.logit_rmse)


def _preference(candidates: Mapping[int, float], token: int | None) -> float:
    if token is None or not candidates:
        return float("inf")
    best = max(candidates.values())
    return best - candidates.get(token, min(candidates.values()))


def _candidates(listed: Mapping[int, float]) -> str:
    """The most likely tokens with their probabilities, normalised over the listed tokens."""
    known = {token: value for token, value in listed.items() if not np.isnan(value)}
    if not known:
        return "no log-probabilities"
    best = sorted(known.items(), key=lambda pair: -pair[1])
    shares = np.exp(log_softmax(np.array([[value for _, value in best]])))[0]
    shown = list(zip(best, shares, strict=True))[:_SHOWN_CANDIDATES]
    return ", ".join(f"token {token} ({share:.1%})" for (token, _), share in shown)

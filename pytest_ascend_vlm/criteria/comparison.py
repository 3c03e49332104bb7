"""The numbers of one case, aligned by position and token.

Three tables: y, the reference in fp32; b, the reference in bf16; x, the numbers that are judged.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PreconditionError
from ..observation.answers import TOP_LOGPROBS
from ..observation.numerics import Forced, ReferenceNumerics, TokenScores

Table = npt.NDArray[np.floating[Any]]
TOP = 5
"""Number of most likely tokens that adaptation documents compare as a set (top5_match)."""


@dataclass(frozen=True, eq=False)
class CaseComparison:
    """The numbers of one case at m positions of prompt and answer.

    Attributes:
        case_id: the case.
        numbers: the kind and number of values, "raw logits of 32 tokens"; some servers return
            log-probabilities instead, or fewer tokens.
        positions: shape (m,), int64; the positions, counted from the prompt's first token.
        part: shape (m,); the part of the sequence: "image", "prompt" or "answer".
        exact: y, shape (m, k).
        rounded: b, shape (m, k).
        observed: x, shape (m, k). A token that x does not list gets the value nearest y that it
            could have, so that no unseen difference counts as an error.
        flip_margin: shape (m,); y's preference for its own most likely token over x's, 0 where
            they are the same token; None for hidden states.
        tie: shape (m,); the preference up to which rounding alone can change the choice; None for
            hidden states.
        token_ids: shape (m, k), int64; the token of each number; None for hidden states.
        image_runs: first position and number of tokens of each run of image tokens; empty if the
            prompt's tokens are unknown. `positions` has only some of them.
        same_top: shape (m,); True where x and y have the same `TOP` most likely tokens, in any
            order; None for hidden states.
    """

    case_id: str
    numbers: str
    positions: npt.NDArray[np.int64]
    part: npt.NDArray[np.str_]
    exact: Table
    rounded: Table
    observed: Table
    flip_margin: Table | None = None
    tie: Table | None = None
    token_ids: npt.NDArray[np.int64] | None = None
    image_runs: tuple[tuple[int, int], ...] = ()
    same_top: npt.NDArray[np.bool_] | None = None

    @property
    def square_errors(self) -> Table:
        """The mean square of x - y at each position: shape (m,)."""
        return _square_errors(self.observed, self.exact)

    @property
    def own_square_errors(self) -> Table:
        """The mean square of b - y at each position: shape (m,)."""
        return _square_errors(self.rounded, self.exact)

    @property
    def flips(self) -> npt.NDArray[np.bool_]:
        """True at each position where x and y have different most likely tokens: shape (m,)."""
        return self._flips_beyond(np.zeros(len(self.positions)))

    @property
    def unexcused_flips(self) -> npt.NDArray[np.bool_]:
        """True at each flip where y was not near a tie: shape (m,)."""
        return self._flips_beyond(self.tie)

    def _flips_beyond(self, tie: Table | None) -> npt.NDArray[np.bool_]:
        if self.flip_margin is None or tie is None:
            return np.zeros(len(self.positions), dtype=bool)
        return np.asarray(self.flip_margin > tie)

    @property
    def has_image(self) -> bool:
        """True if any position is an image token's."""
        return bool((self.part == "image").any())


def compare_logits(forced: Forced, numerics: ReferenceNumerics) -> CaseComparison:
    """Compares logits at the positions, and of the tokens, that the golden keeps.

    Raises:
        PreconditionError: the forced sequence and the golden's have different lengths.
    """
    scores = forced.scores
    tokens = int(numerics.positions[-1]) + 1
    if len(scores) not in {tokens - 1, tokens}:
        raise PreconditionError(
            f"{forced.case_id}: the prompt with the forced answer has {len(scores) + 1} tokens, "
            f"the reference's has {tokens}. The two sides did not see the same input."
        )
    return _compare(forced, numerics, numerics.positions < len(scores))


def compare_prompts(forced: Forced, numerics: ReferenceNumerics) -> CaseComparison:
    """Compares logits at the golden's positions of the prompt, whatever answer was forced."""
    first = int(numerics.positions[numerics.first_answer_row])
    return _compare(forced, numerics, numerics.positions < min(first, len(forced.scores)))


def _compare(
    forced: Forced, numerics: ReferenceNumerics, known: npt.NDArray[np.bool_]
) -> CaseComparison:
    """Compares the rows of a golden that are marked as known."""
    scores = forced.scores
    # The served list is twice as long, so it has the golden's tokens even if the ranks differ.
    width = min(numerics.top_tokens.shape[1], forced.top_k // 2)
    positions = numerics.positions[known]
    top_tokens = numerics.top_tokens[known, :width]
    exact, rounded = numerics.fp32[known, :width], numerics.bf16[known, :width]
    if not scores.are_logits:
        exact = exact - numerics.fp32_logsumexp[known, None]
        rounded = rounded - numerics.bf16_logsumexp[known, None]
    observed = _served_values(scores, positions, top_tokens, exact)
    flips = _flip_margins(scores.token_ids[positions, 0], top_tokens, exact)
    kind = "raw logits" if scores.are_logits else "log-probabilities"
    return CaseComparison(
        forced.case_id,
        f"{kind} of {width} tokens",
        positions,
        _parts(
            positions, numerics.is_image[known], int(numerics.positions[numerics.first_answer_row])
        ),
        exact,
        rounded,
        observed,
        np.where(np.isnan(observed).any(axis=1), np.inf, flips),
        _ties(numerics.fp32[known].max(axis=1), numerics.logit_rmse),
        top_tokens,
        _image_runs(forced.prompt_token_ids or (), numerics),
        _same_top(scores, positions, top_tokens),
    )


def _image_runs(
    prompt: tuple[int, ...], numerics: ReferenceNumerics
) -> tuple[tuple[int, int], ...]:
    kept = numerics.positions[numerics.is_image]
    image_tokens = {prompt[position] for position in kept.tolist() if position < len(prompt)}
    runs = []
    for is_image, run in itertools.groupby(enumerate(prompt), lambda one: one[1] in image_tokens):
        positions = [position for position, _ in run]
        if is_image:
            runs.append((positions[0], len(positions)))
    return tuple(runs)


def compare_hidden_states(
    states: Table, numerics: ReferenceNumerics, case_id: str
) -> CaseComparison:
    """Compares last hidden states at the positions that the golden keeps.

    Args:
        states: shape (tokens, width).
        numerics: the golden's numerics.
        case_id: the case.

    Raises:
        PreconditionError: the width or the sequence length differs from the golden's.
    """
    hidden = numerics.hidden
    tokens = int(numerics.positions[-1]) + 1
    if states.shape != (tokens, hidden.fp32.shape[1]):
        raise PreconditionError(
            f"{case_id}: the served hidden states have the shape {states.shape}, the reference's "
            f"have {(tokens, hidden.fp32.shape[1])}. The two sides did not see the same input."
        )
    first = int(numerics.positions[numerics.first_answer_row])
    parts = _parts(hidden.positions, hidden.is_image, first)
    return CaseComparison(
        case_id,
        f"hidden states of width {states.shape[1]}",
        hidden.positions,
        parts,
        hidden.fp32,
        hidden.bf16,
        states[hidden.positions],
    )


def divergence(exact: Table, other: Table) -> Table:
    """The KL divergence of the listed tokens' distributions: shape (m,), nats.

    Each row is normalised over its listed tokens. So raw logits and log-probabilities give the
    same result, and probability outside the list does not count.
    """
    here, there = log_softmax(exact), log_softmax(other)
    return np.asarray((np.exp(here) * (here - there)).sum(axis=1))


def score_difference(first: Forced, other: Forced) -> float:
    """The root mean square difference of two computations of one sequence, nats.

    Compared are the log-probabilities of the tokens that the first computation lists as most
    likely, normalised over these tokens.

    Args:
        first: the scores of one computation.
        other: those of another computation by the same engine; as many positions.
    """
    width = first.top_k // 2  # the other list is twice as long, so it has these tokens
    tokens, values = first.scores.token_ids[:, :width], first.scores.values[:, :width]
    seen = _served_values(other.scores, np.arange(len(tokens)), tokens, values)
    return _root_mean_square(log_softmax(seen), log_softmax(values))


def own_error(numerics: ReferenceNumerics) -> float:
    """The root mean square of the reference's own bf16 error, in the terms of the difference."""
    return _root_mean_square(log_softmax(numerics.bf16), log_softmax(numerics.fp32))


def log_softmax(values: Table) -> Table:
    """Log-probabilities of each row, normalised over its listed tokens: nats."""
    wide = values.astype(np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)))


def visible_rounding(numerics: ReferenceNumerics) -> float:
    """The mean difference of the reference's visible log-probabilities in bf16 and fp32, nats.

    It is that of the answer, or that of prompt and answer if it is larger: an answer of one token
    can have hardly any by chance. Visible are as many tokens as a server lists with an answer.
    """
    exact, rounded = (log_softmax(t[:, :TOP_LOGPROBS]) for t in (numerics.fp32, numerics.bf16))
    rows = np.abs(rounded - exact).mean(axis=1)
    return float(max(rows[numerics.first_answer_row : -1].mean(), rows.mean()))


def _root_mean_square(values: Table, exact: Table) -> float:
    return float(np.sqrt(_square_errors(values, exact).mean()))


def _square_errors(values: Table, exact: Table) -> Table:
    return np.asarray(np.square(values.astype(np.float64) - exact).mean(axis=1))


def _served_values(
    scores: TokenScores,
    positions: npt.NDArray[np.int64],
    top_tokens: npt.NDArray[np.int64],
    exact: Table,
) -> Table:
    """The served value of each golden token.

    A token that the server did not list gets min(y, floor), the value nearest y that it could have.
    """
    matches = top_tokens[:, :, None] == scores.token_ids[positions][:, None, :]
    listed = np.take_along_axis(scores.values[positions], matches.argmax(axis=2), axis=1)
    nearest_possible = np.minimum(exact, scores.floor[positions][:, None])
    return np.where(matches.any(axis=2), listed, nearest_possible)


def _parts(
    positions: npt.NDArray[np.int64], is_image: npt.NDArray[np.bool_], first_of_answer: int
) -> npt.NDArray[np.str_]:
    return np.where(is_image, "image", np.where(positions >= first_of_answer, "answer", "prompt"))


def _flip_margins(
    first: npt.NDArray[np.int64], top_tokens: npt.NDArray[np.int64], exact: Table
) -> Table:
    """The preference of y for its most likely token over x's, at each position: shape (m,).

    If y does not list x's token, the last token in y's list stands for it.
    """
    matches = top_tokens == first[:, None]
    column = np.where(matches.any(axis=1), matches.argmax(axis=1), top_tokens.shape[1] - 1)
    chosen = np.take_along_axis(exact, column[:, None], axis=1)[:, 0]
    return np.asarray(exact[:, 0] - chosen)


def _same_top(
    scores: TokenScores, positions: npt.NDArray[np.int64], top_tokens: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """True at each position whose `TOP` most likely tokens are the same: shape (m,)."""
    count = min(TOP, top_tokens.shape[1], scores.token_ids.shape[1])
    order = np.argsort(-scores.values[positions], axis=1, kind="stable")[:, :count]
    served = np.take_along_axis(scores.token_ids[positions], order, axis=1)
    return np.asarray((np.sort(served) == np.sort(top_tokens[:, :count])).all(axis=1))


def _ties(peaks: Table, logit_rmse: float) -> Table:
    return np.array([tie_margin(float(peak), logit_rmse) for peak in peaks])


def tie_margin(peak_logit: float, logit_rmse: float) -> float:
    """The preference (nats) up to which bf16 rounding can change the reference's choice.

    It is the larger of two values: one bf16 unit in the last place at the largest logit, and
    4·sqrt(2) times the reference's own bf16 error. The second is four standard deviations of the
    difference of two logits that are each off by that error.
    """
    peak = abs(peak_logit)
    ulp = 2.0 ** (np.floor(np.log2(peak)) - 7) if peak > 0 else 0.0
    return float(max(ulp, 4 * np.sqrt(2) * logit_rmse))

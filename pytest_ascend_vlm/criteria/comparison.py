"""A case's numbers side by side: the reference's in fp32 and bf16, and those that are judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PreconditionError
from ..observation.numerics import Forced, ReferenceNumerics, TokenScores

Table = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class CaseComparison:
    """The numbers of one case side by side, at m positions of prompt and answer.

    Attributes:
        case_id: the case.
        numbers: what is compared, "raw logits of 32 tokens": not every server tells as much.
        positions: shape (m,), int64; the positions, counted from the prompt's first token.
        part: shape (m,); "image", "prompt" or "answer": where each position is.
        exact: y, shape (m, k).
        rounded: b, shape (m, k).
        observed: x, shape (m, k); where x does not list a token, the value closest to y that it
            can have, so that nothing is held against it that was not seen.
        flip_margin: shape (m,); where the most likely token is another, how far y preferred its
            own, else 0; None for hidden states.
        tie: shape (m,); the margin up to which rounding alone can turn the choice; None likewise.
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

    @property
    def square_errors(self) -> Table:
        """Mean square of x - y at each position, shape (m,)."""
        return _square_errors(self.observed, self.exact)

    @property
    def own_square_errors(self) -> Table:
        """Mean square of b - y at each position, shape (m,)."""
        return _square_errors(self.rounded, self.exact)

    @property
    def flips(self) -> npt.NDArray[np.bool_]:
        """Shape (m,); where the most likely token is another one."""
        return self._flips_beyond(np.zeros(len(self.positions)))

    @property
    def unexcused_flips(self) -> npt.NDArray[np.bool_]:
        """Shape (m,); where it is and y was not near a tie."""
        return self._flips_beyond(self.tie)

    def _flips_beyond(self, tie: Table | None) -> npt.NDArray[np.bool_]:
        if self.flip_margin is None or tie is None:
            return np.zeros(len(self.positions), dtype=bool)
        return np.asarray(self.flip_margin > tie)

    @property
    def has_image(self) -> bool:
        """Whether an image is among the positions."""
        return bool((self.part == "image").any())


def compare_logits(forced: Forced, numerics: ReferenceNumerics) -> CaseComparison:
    """Logits at the positions and of the tokens that the golden keeps.

    Raises:
        PreconditionError: they are of a sequence of another length.
    """
    scores = forced.scores
    tokens = int(numerics.positions[-1]) + 1
    if len(scores) not in {tokens - 1, tokens}:
        raise PreconditionError(
            f"{forced.case_id}: the prompt with the forced answer has {len(scores) + 1} tokens on "
            f"one side and {tokens} in the reference. The two did not see the same input."
        )
    # What is listed twice as deep is found even where two sides rank a little differently.
    width = min(numerics.top_tokens.shape[1], forced.top_k // 2)
    known = numerics.positions < len(scores)
    positions = numerics.positions[known]
    top_tokens = numerics.top_tokens[known, :width]
    exact, rounded = numerics.fp32[known, :width], numerics.bf16[known, :width]
    if not scores.are_logits:
        exact = exact - numerics.fp32_logsumexp[known, None]
        rounded = rounded - numerics.bf16_logsumexp[known, None]
    observed = _looked_up(scores, positions, top_tokens, exact)
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
    )


def compare_hidden_states(
    states: Table, numerics: ReferenceNumerics, case_id: str
) -> CaseComparison:
    """Last hidden states, shape (tokens, width), at the positions that the golden keeps.

    Raises:
        PreconditionError: they are of another width or of another sequence.
    """
    hidden = numerics.hidden
    tokens = int(numerics.positions[-1]) + 1
    if states.shape != (tokens, hidden.fp32.shape[1]):
        raise PreconditionError(
            f"{case_id}: the served hidden states are of shape {states.shape}, the reference's of "
            f"{(tokens, hidden.fp32.shape[1])}. The two sides did not see the same input."
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
    """Kullback-Leibler divergence of the listed tokens' distributions, shape (m,), nats.

    Each row is normalised over its listed tokens, so that raw logits and log-probabilities are
    treated alike, and what is missing is what no listed token shows.
    """
    here, there = log_softmax(exact), log_softmax(other)
    return np.asarray((np.exp(here) * (here - there)).sum(axis=1))


def log_softmax(values: Table) -> Table:
    """Log-probabilities among the listed tokens of each row, nats."""
    wide = values.astype(np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=1, keepdims=True)))


def _square_errors(values: Table, exact: Table) -> Table:
    return np.asarray(np.square(values.astype(np.float64) - exact).mean(axis=1))


def _looked_up(
    scores: TokenScores,
    positions: npt.NDArray[np.int64],
    top_tokens: npt.NDArray[np.int64],
    exact: Table,
) -> Table:
    """The x at the golden's tokens; of an unlisted one, the closest to y of what it can have."""
    matches = top_tokens[:, :, None] == scores.token_ids[positions][:, None, :]
    found = np.take_along_axis(scores.values[positions], matches.argmax(axis=2), axis=1)
    at_most_that = np.minimum(exact, scores.floor[positions][:, None])
    return np.where(matches.any(axis=2), found, at_most_that)


def _parts(
    positions: npt.NDArray[np.int64], is_image: npt.NDArray[np.bool_], first_answer_row: int
) -> npt.NDArray[np.str_]:
    return np.where(is_image, "image", np.where(positions >= first_answer_row, "answer", "prompt"))


def _flip_margins(
    first: npt.NDArray[np.int64], top_tokens: npt.NDArray[np.int64], exact: Table
) -> Table:
    """How far y preferred its first token to x's; of one that y does not list, to its last."""
    matches = top_tokens == first[:, None]
    column = np.where(matches.any(axis=1), matches.argmax(axis=1), top_tokens.shape[1] - 1)
    chosen = np.take_along_axis(exact, column[:, None], axis=1)[:, 0]
    return np.asarray(exact[:, 0] - chosen)


def _ties(peaks: Table, logit_rmse: float) -> Table:
    return np.array([tie_margin(float(peak), logit_rmse) for peak in peaks])


def tie_margin(peak_logit: float, logit_rmse: float) -> float:
    """The margin (nats) up to which bf16 rounding can turn the reference's choice.

    The larger of one bf16 unit in the last place at the largest logit and 4·sqrt(2) times the
    reference's own bf16 error: two logits, each off by that error, at four standard deviations.
    """
    peak = abs(peak_logit)
    ulp = 2.0 ** (np.floor(np.log2(peak)) - 7) if peak > 0 else 0.0
    return float(max(ulp, 4 * np.sqrt(2) * logit_rmse))

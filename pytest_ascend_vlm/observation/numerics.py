"""Numerics of engines: log-probabilities, logits and hidden states.

Arrays are NumPy; log-probabilities are natural logarithms (nats).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


LISTED_TOKENS = 32
"""Number of tokens whose logits a golden keeps at each position: the reference's most likely ones.

The number limits the golden's size: a real model's vocabulary has 150,000 logits at each position.
With 32 tokens instead of the whole vocabulary, R of the tiny checkpoints changes by at most 0.06.
"""


FORCED_TOKENS = 2 * LISTED_TOKENS
"""Number of tokens that the server lists at each forced position.

Twice the golden's number, so that the list contains the golden's tokens even if the ranks differ.
"""


def listed(token_ids: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> dict[int, float]:
    """Token id -> value for one row of a table; -1 pads the token ids."""
    pairs = zip(token_ids, values, strict=True)
    return {int(token): float(value) for token, value in pairs if token >= 0}


@dataclass(frozen=True, eq=False)
class TokenScores:
    """An engine's logits or log-probabilities of the tokens it lists, at n positions.

    Row i is about the token after token i of the sequence.

    Attributes:
        token_ids: shape (n, k), int64; -1 where a row lists fewer than k tokens.
        values: shape (n, k), float64: raw logits, or log-probabilities (nats), which differ from
            logits by one constant in each row; NaN where token_ids is -1.
        floor: shape (n,), float64; the maximum value of a token that the row does not list.
        are_logits: True if values are raw logits.
    """

    token_ids: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    floor: npt.NDArray[np.float64]
    are_logits: bool

    def __len__(self) -> int:
        return len(self.token_ids)

    def at(self, row: int) -> dict[int, float]:
        """Token id -> value for the tokens listed in a row."""
        return listed(self.token_ids[row], self.values[row])


@dataclass(frozen=True, eq=False)
class Forced:
    """An engine's scores of a given answer, which is forced token by token.

    Attributes:
        case_id: the case.
        scores: the scores at every position of prompt and answer except the last.
        top_k: number of most likely tokens that each row lists.
        prompt_token_ids: the prompt's tokens, without the answer; None if unknown.
    """

    case_id: str
    scores: TokenScores
    top_k: int
    prompt_token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class ReferenceHidden:
    """The reference's last hidden states at h positions of the prompt and its answer.

    Attributes:
        positions: shape (h,), int64; the positions, counted from the prompt's first token.
        is_image: shape (h,), bool; True for an image token.
        fp32: shape (h, width), float32, computed in float32.
        bf16: shape (h, width), float32, computed in bfloat16.
    """

    positions: npt.NDArray[np.int64]
    is_image: npt.NDArray[np.bool_]
    fp32: npt.NDArray[np.float32]
    bf16: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ReferenceNumerics:
    """The reference's numerics of its own answer, in fp32 and in bf16.

    There are m rows: some for positions of the prompt, one for each of the answer's n tokens, and
    one for the token after the answer. The row of position i is about the token after position i.

    Attributes:
        token_ids: the forced answer, n tokens, without an end-of-sequence token.
        positions: shape (m,), int64; the position of each row, counted from the prompt's first
            token.
        is_image: shape (m,), bool; True if the token at the row's position is an image token.
        top_tokens: shape (m, k), int64; the most likely tokens in fp32, most likely first.
        fp32: shape (m, k), float64; raw logits of these tokens, computed in float32.
        bf16: shape (m, k), float64; raw logits of the same tokens, computed in bfloat16.
        fp32_logsumexp: shape (m,), float64; log-sum-exp of the fp32 logits of the whole vocabulary.
        bf16_logsumexp: the same of the bf16 logits.
        logit_rmse: root mean square of bf16 - fp32 over the answer's rows and the whole vocabulary.
        hidden: the last hidden states.
    """

    token_ids: tuple[int, ...]
    positions: npt.NDArray[np.int64]
    is_image: npt.NDArray[np.bool_]
    top_tokens: npt.NDArray[np.int64]
    fp32: npt.NDArray[np.float64]
    bf16: npt.NDArray[np.float64]
    fp32_logsumexp: npt.NDArray[np.float64]
    bf16_logsumexp: npt.NDArray[np.float64]
    logit_rmse: float
    hidden: ReferenceHidden

    @property
    def first_answer_row(self) -> int:
        """Index of the row for the answer's first token."""
        return len(self.positions) - len(self.token_ids) - 1

    def candidates_after(self, tokens: Sequence[int], position: int) -> dict[int, float]:
        """Token id -> fp32 log-probability (nats) of the token after `tokens[:position]`.

        Empty if the forced answer begins with other tokens. It is the text of the generated tokens,
        and a text may have other tokens than those that it was generated with.
        """
        forced = self.token_ids[:position]
        is_forced = position <= len(self.token_ids) and forced == tuple(tokens[:position])
        return self.logprobs_at(position) if is_forced else {}

    def logprobs_at(self, position: int) -> dict[int, float]:
        """Token id -> fp32 log-probability (nats) at a position of the answer."""
        row = self.first_answer_row + position
        logprobs = self.fp32[row] - self.fp32_logsumexp[row]
        return dict(zip(self.top_tokens[row].tolist(), logprobs.tolist(), strict=True))

    def peak_logit(self, position: int) -> float:
        """The largest fp32 logit at a position of the answer."""
        return float(self.fp32[self.first_answer_row + position].max())

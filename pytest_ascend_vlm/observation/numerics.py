"""What engines think of tokens: log-probabilities, logits, hidden states.

Arrays are NumPy; log-probabilities are natural logarithms (nats).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


LISTED_TOKENS = 32
"""Tokens whose logits a golden keeps at each position: those the reference finds most likely.

A budget: the whole vocabulary of a real model is 150,000 logits a position. Against the whole
vocabulary of the tiny checkpoints, 32 tokens move the error ratio R by at most 0.06.
"""


FORCED_TOKENS = 2 * LISTED_TOKENS
"""Tokens listed by the server at each forced position: enough to find the reference's among."""


def listed(token_ids: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> dict[int, float]:
    """Token id -> value, of one row of a table that is padded with -1."""
    pairs = zip(token_ids, values, strict=True)
    return {int(token): float(value) for token, value in pairs if token >= 0}


@dataclass(frozen=True, eq=False)
class TokenScores:
    """What an engine gives the tokens it lists, at n positions of a sequence.

    Row i is about what follows token i of the sequence.

    Attributes:
        token_ids: shape (n, k), int64; -1 where a row lists fewer than k.
        values: shape (n, k), float64: raw logits, or log-probabilities (nats), which are logits up
            to one constant a row; NaN where token_ids is -1.
        floor: shape (n,), float64; no token that a row does not list has more.
        are_logits: whether values are raw logits.
    """

    token_ids: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    floor: npt.NDArray[np.float64]
    are_logits: bool

    def __len__(self) -> int:
        return len(self.token_ids)

    def at(self, row: int) -> dict[int, float]:
        """Token id -> value of the tokens listed in a row."""
        return listed(self.token_ids[row], self.values[row])


@dataclass(frozen=True, eq=False)
class Forced:
    """What an engine thinks of a given answer: the answer forced, token by token.

    Attributes:
        case_id: the case.
        scores: at every position of the prompt and the answer but the last.
        top_k: how many of the most likely tokens each row lists.
    """

    case_id: str
    scores: TokenScores
    top_k: int


@dataclass(frozen=True, eq=False)
class ReferenceHidden:
    """The reference's last hidden states at h positions of the prompt and its answer.

    Attributes:
        positions: shape (h,), int64; the positions, counted from the prompt's first token.
        is_image: shape (h,), bool; whether an image token is there.
        fp32: shape (h, width), float32, computed in float32.
        bf16: shape (h, width), float32, computed in bfloat16.
    """

    positions: npt.NDArray[np.int64]
    is_image: npt.NDArray[np.bool_]
    fp32: npt.NDArray[np.float32]
    bf16: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ReferenceNumerics:
    """The reference's own view of its answer, in fp32 and in bf16.

    There are m rows: some of the prompt's, then one for each of the answer's n tokens, and one for
    what follows the answer. Row i of the sequence is about what follows its token i.

    Attributes:
        token_ids: the answer as it is forced, n tokens, without an end-of-sequence token.
        positions: shape (m,), int64; where in the sequence the rows are, counted from the
            prompt's first token.
        is_image: shape (m,), bool; whether the row's own token is an image token.
        top_tokens: shape (m, k), int64; the tokens that fp32 finds most likely, most likely first.
        fp32: shape (m, k), float64; their raw logits, computed in float32.
        bf16: shape (m, k), float64; the logits of the same tokens, computed in bfloat16.
        fp32_logsumexp: shape (m,), float64; over the whole vocabulary.
        bf16_logsumexp: the same in bfloat16.
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
        """Index of the row that is about the answer's first token."""
        return len(self.positions) - len(self.token_ids) - 1

    def logprobs_at(self, position: int) -> dict[int, float]:
        """Token -> fp32 log-probability (nats) at a position of the answer."""
        row = self.first_answer_row + position
        logprobs = self.fp32[row] - self.fp32_logsumexp[row]
        return dict(zip(self.top_tokens[row].tolist(), logprobs.tolist(), strict=True))

    def peak_logit(self, position: int) -> float:
        """The largest fp32 logit at a position of the answer."""
        return float(self.fp32[self.first_answer_row + position].max())

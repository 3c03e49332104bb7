"""Reduces logits to the top tokens of each position, and to the RMSE of bf16 against fp32.

A real vocabulary has 150,000 tokens. Therefore only a few rows at a time are converted to float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_ROWS_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class TopLogits:
    """The logits of k tokens in each of n rows.

    Attributes:
        token_ids: shape (n, k), int64; in descending order of the logits they were chosen by.
        logits: shape (n, k), float64.
        logsumexp: shape (n,), float64; over the whole vocabulary.
    """

    token_ids: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float64]
    logsumexp: npt.NDArray[np.float64]


def most_likely(logits: npt.NDArray[np.float32], count: int) -> TopLogits:
    """The `count` most likely tokens of each row of logits, shape (n, vocabulary)."""
    count = min(count, logits.shape[1])
    token_ids = np.concatenate([_ranked(rows, count) for rows in _chunks(logits)])
    return at_tokens(logits, token_ids)


def at_tokens(logits: npt.NDArray[np.float32], token_ids: npt.NDArray[np.int64]) -> TopLogits:
    """Selects from logits, shape (n, vocabulary), those of given tokens, shape (n, k)."""
    chosen = np.take_along_axis(logits, token_ids, axis=1).astype(np.float64)
    logsumexp = np.concatenate([_logsumexp(rows) for rows in _chunks(logits)])
    return TopLogits(token_ids, chosen, logsumexp)


def rmse(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    """Root mean square of the difference of two tables of the same shape."""
    pairs = zip(_chunks(left), _chunks(right), strict=True)
    total = sum(float(np.square(one.astype(np.float64) - other).sum()) for one, other in pairs)
    return float(np.sqrt(total / left.size))


def _chunks(table: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    return (table[i : i + _ROWS_AT_ONCE] for i in range(0, len(table), _ROWS_AT_ONCE))


def _ranked(rows: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    best = np.argpartition(-rows, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(rows, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def _logsumexp(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wide = rows.astype(np.float64)
    peak = wide.max(axis=1, keepdims=True)
    sums: npt.NDArray[np.float64] = peak[:, 0] + np.log(np.exp(wide - peak).sum(axis=1))
    return sums

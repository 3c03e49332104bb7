"""What a server lists about tokens, from JSON to arrays.

The servers that we start list raw logits (`logprobs_mode=raw_logits`), others log-probabilities,
and so does an older vLLM of prompts whatever it was told. Which of the two came is told from the
numbers: the probabilities of listed tokens never add up to more than one, what raw logits would be
as log-probabilities does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PreconditionError
from ..observation.answers import TopLogprobs
from ..observation.numerics import FORCED_TOKENS, Forced, TokenScores

Position = Mapping[int, "float | None"]
"""Token id -> value; None where the server gave no number."""

_ROUNDING = 1e-3


def top_logprobs(positions: Sequence[Position]) -> TopLogprobs:
    """The most likely tokens of an answer's positions, most likely first.

    Raw logits become log-probabilities among the listed tokens: what is not listed has next to no
    probability.
    """
    token_ids, values = _table(positions)
    if _are_logits(values):
        values = values - _logsumexp(values)[:, None]
    return TopLogprobs(token_ids, values)


def forced(case_id: str, reply: Mapping[str, Any], answer: tuple[int, ...], top_k: int) -> Forced:
    """What a server thinks of an answer that was forced.

    Args:
        case_id: the case.
        reply: the response's `prompt_logprobs` and `prompt_token_ids`.
        answer: the tokens that the prompt has to end with.
        top_k: how many of the most likely tokens were asked for.

    Raises:
        PreconditionError: one of the two is missing, or the prompt ends otherwise.
    """
    logprobs, prompt = reply.get("prompt_logprobs"), reply.get("prompt_token_ids")
    if not logprobs or not prompt:
        raise PreconditionError(
            f"{case_id}: the server returned no prompt_logprobs for a chat request, so what it "
            "thinks of the reference's answer cannot be seen. vLLM returns them; a proxy in "
            "between may drop them."
        )
    if tuple(prompt[-len(answer) :]) != answer:
        raise PreconditionError(
            f"{case_id}: the forced answer became other tokens in the server than in the "
            "reference. Check that both use the same tokenizer and chat template."
        )
    # Nothing comes before the first token, so nothing is listed about it.
    positions = logprobs[1:]
    if not all(positions):
        raise PreconditionError(
            f"{case_id}: the server left positions of the prompt without logprobs."
        )
    return Forced(case_id, scores(positions, top_k), top_k)


def scores(
    positions: Sequence[Mapping[str, Mapping[str, Any]]], top_k: int = FORCED_TOKENS
) -> TokenScores:
    """What is listed of each position: token -> `logprob` and `rank`.

    Args:
        positions: one entry a position; the forced token is listed wherever it ranks.
        top_k: how many of the most likely tokens were asked for.
    """
    token_ids, values = _table(
        [{int(token): entry["logprob"] for token, entry in row.items()} for row in positions]
    )
    likely = [
        [entry["logprob"] for entry in row.values() if (entry["rank"] or np.inf) <= top_k]
        for row in positions
    ]
    floor = np.array([_least(row) for row in likely])
    return TokenScores(token_ids, values, floor, _are_logits(values))


def _least(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return min(known, default=float("nan"))


def _table(
    positions: Sequence[Position],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Token ids and values, most likely first, padded with -1 and NaN to one width."""
    width = max(len(position) for position in positions)
    token_ids = np.full((len(positions), width), -1, dtype=np.int64)
    table = np.full((len(positions), width), np.nan)
    for row, position in enumerate(positions):
        values = {t: float("nan") if v is None else v for t, v in position.items()}
        ranked = sorted(values, key=lambda token: (np.isnan(values[token]), -values[token]))
        token_ids[row, : len(ranked)] = ranked
        table[row, : len(ranked)] = [values[token] for token in ranked]
    return token_ids, table


def _are_logits(values: npt.NDArray[np.float64]) -> bool:
    return bool(np.any(_logsumexp(values) > _ROUNDING))


def _logsumexp(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Over the listed tokens of each row, NaN left out."""
    with np.errstate(all="ignore"):
        known = np.where(np.isnan(values), -np.inf, values)
        peak = known.max(axis=1)
        return np.asarray(peak + np.log(np.exp(known - peak[:, None]).sum(axis=1)))

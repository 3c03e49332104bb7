"""Converts the per-token numbers of a server's reply from JSON to arrays.

Servers started by the suite return raw logits (`logprobs_mode=raw_logits`). Other servers return
log-probabilities, and so do older versions of vLLM for prompts, whatever the mode. We detect which
by exponentiating: log-probabilities sum to at most 1 per position, raw logits exceed it.
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
"""Token id -> value; None if the server returned no number."""

_ROUNDING = 1e-3


def top_logprobs(positions: Sequence[Position]) -> TopLogprobs:
    """The most likely tokens at each position of an answer, most likely first.

    Raw logits are normalized over the listed tokens: the others have almost no probability.
    """
    token_ids, values = _table(positions)
    if _are_logits(values):
        values = values - _logsumexp(values)[:, None]
    return TopLogprobs(token_ids, values)


def forced(case_id: str, reply: Mapping[str, Any], answer: tuple[int, ...], top_k: int) -> Forced:
    """The served model's scores of a forced answer.

    Args:
        case_id: the case.
        reply: the response, with `prompt_logprobs` and `prompt_token_ids`.
        answer: the tokens that the prompt has to end with.
        top_k: the number of most likely tokens requested per position.

    Raises:
        PreconditionError: if one of the two fields is missing, the prompt ends with other tokens,
            or a position lists fewer tokens than requested.
    """
    logprobs, prompt = reply.get("prompt_logprobs"), reply.get("prompt_token_ids")
    if not logprobs or not prompt:
        raise PreconditionError(
            f"{case_id}: the server returned no prompt_logprobs for a chat request, so the "
            "probability of the reference's answer is unknown. vLLM returns them; a proxy in "
            "between may drop them."
        )
    if tuple(prompt[-len(answer) :]) != answer:
        raise PreconditionError(
            f"{case_id}: the server tokenizes the forced answer differently from the reference. "
            "Check that both use the same tokenizer and chat template."
        )
    # The first token has no context, so the server lists nothing for it.
    positions = logprobs[1:]
    if not all(positions):
        raise PreconditionError(
            f"{case_id}: the server returned no logprobs for some positions of the prompt."
        )
    if (fewest := min(map(len, positions))) < top_k:
        raise PreconditionError(
            f"{case_id}: the request asks for the {top_k} most likely tokens at each position of "
            f"the prompt, and the server listed {fewest}, so the others cannot be compared. vLLM "
            "lists them all, or refuses the request; a proxy in between may cut prompt_logprobs."
        )
    return Forced(case_id, scores(positions, top_k), top_k, tuple(prompt[: -len(answer)]))


def scores(
    positions: Sequence[Mapping[str, Mapping[str, Any]]], top_k: int = FORCED_TOKENS
) -> TokenScores:
    """The scores of a sequence of positions.

    Args:
        positions: for each position, token -> `logprob` and `rank`; the forced token is listed
            whatever its rank.
        top_k: the number of most likely tokens requested per position.
    """
    token_ids, values = _table(
        [{int(token): entry["logprob"] for token, entry in row.items()} for row in positions]
    )
    top = [
        [entry["logprob"] for entry in row.values() if (entry["rank"] or np.inf) <= top_k]
        for row in positions
    ]
    floor = np.array([_minimum(row) for row in top])
    return TokenScores(token_ids, values, floor, _are_logits(values))


def _minimum(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return min(known, default=float("nan"))


def _table(
    positions: Sequence[Position],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Token ids and values, most likely first, padded with -1 and NaN to the same width."""
    width = max(len(position) for position in positions)
    token_ids = np.full((len(positions), width), -1, dtype=np.int64)
    table = np.full((len(positions), width), np.nan)
    for row, position in enumerate(positions):
        values = np.array(list(position.values()), dtype=np.float64)  # None becomes NaN
        ranked = np.argsort(-values, kind="stable")  # NaN last
        token_ids[row, : len(ranked)] = np.array(list(position), dtype=np.int64)[ranked]
        table[row, : len(ranked)] = values[ranked]
    return token_ids, table


def _are_logits(values: npt.NDArray[np.float64]) -> bool:
    return bool(np.any(_logsumexp(values) > _ROUNDING))


def _logsumexp(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logsumexp over the listed tokens of each row, ignoring NaN."""
    with np.errstate(all="ignore"):
        known = np.where(np.isnan(values), -np.inf, values)
        peak = known.max(axis=1, initial=-np.inf)  # a list may be empty
        return np.asarray(peak + np.log(np.exp(known - peak[:, None]).sum(axis=1)))

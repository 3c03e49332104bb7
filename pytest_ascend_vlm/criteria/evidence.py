"""Facts about single answers, for the evidence of a verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ..observation.answers import Completion, TokenText
from .divergence import Divergence
from .verdict import Verdict

_CANDIDATES = 5


def with_answer(verdict: Verdict, answer: Completion) -> Verdict:
    """The verdict on an answer, with the answer's length and duration in its evidence."""
    return with_evidence(verdict, {"answer": answer_facts(answer)})


def with_evidence(verdict: Verdict, facts: Mapping[str, Any]) -> Verdict:
    """The verdict with further facts in its evidence."""
    return dataclasses.replace(verdict, evidence={**verdict.evidence, **facts})


def answer_facts(answer: Completion) -> dict[str, Any]:
    """The length and the duration of an answer, as JSON values; None where it is unknown."""
    usage, ids = answer.usage, answer.token_ids
    counted = None if ids is None else len(ids)
    return {
        "prompt_tokens": answer.prompt_tokens,
        "output_tokens": usage.completion_tokens if usage else counted,
        "seconds": round(answer.seconds, 3),
        "finish_reason": answer.finish_reason,
    }


def parting(divergence: Divergence, served: Completion, token_text: TokenText) -> dict[str, Any]:
    """Both sides' most likely tokens where two answers part, as JSON values.

    Returns:
        "position" (index in the answer); "served" and "reference", lists of [text, log-probability
        in nats], most likely first, empty if unknown; "margin", the reference's preference for its
        own token over the served one, in nats.
    """
    return {
        "position": divergence.position,
        "served": _candidates(served.candidates_at(divergence.position), token_text),
        "reference": _candidates(divergence.candidates, token_text),
        "margin": divergence.preference,
    }


def _candidates(logprobs: Mapping[int, float], token_text: TokenText) -> list[list[Any]]:
    known = [(token, value) for token, value in logprobs.items() if not math.isnan(value)]
    likely = sorted(known, key=lambda pair: -pair[1])[:_CANDIDATES]
    return [[token_text(token), round(value, 4)] for token, value in likely]

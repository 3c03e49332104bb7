"""Doubts about a recorded answer: reasons why it may be unfit as a golden."""

from __future__ import annotations

import numpy as np

from ..observation.answers import Completion, Reference
from ..observation.numerics import ReferenceNumerics
from .comparison import tie_margin
from .degeneration import degeneration


def doubts(reference: Reference, max_tokens: int) -> tuple[str, ...]:
    """Reasons why a recorded answer may be unfit as a golden; empty if there are none.

    Args:
        reference: the recorded answer.
        max_tokens: the maximum number of tokens of the answer.
    """
    tokens, numerics = reference.token_ids or (), reference.numerics
    is_cut = len(tokens) >= max_tokens
    finish = "length" if is_cut else "stop"
    answer = Completion(reference.case_id, reference.text, tokens, finish, None, None, seconds=0.0)
    degenerate = degeneration(answer)
    reasons = [f"degenerate: {degenerate}"] if degenerate else []
    if numerics is not None:
        if numerics.token_ids not in {tokens, tokens[:-1]}:  # the last one may be end-of-sequence
            reasons.append(
                "the tokens of its text in the chat template differ from the generated tokens"
            )
        reasons += _doubts_about_logits(numerics, is_cut=is_cut)
    return tuple(reasons)


def _doubts_about_logits(numerics: ReferenceNumerics, *, is_cut: bool) -> list[str]:
    # After an answer that was cut off, the reference chose no token.
    chosen = numerics.fp32[numerics.first_answer_row : -1 if is_cut else None]
    margins = chosen[:, 0] - chosen[:, 1]
    ties = np.array([tie_margin(float(peak), numerics.logit_rmse) for peak in chosen[:, 0]])
    near = margins <= ties
    if not near.any():
        return []
    nearest = int(np.argmin(margins))
    return [
        f"near-ties: {near.sum()} of {len(near)} tokens; the smallest preference, for token "
        f"{nearest + 1}, is {margins[nearest]:.3g} nats; rounding explains up to "
        f"{ties[nearest]:.3g} nats"
    ]

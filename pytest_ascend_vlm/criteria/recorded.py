"""Is an answer that was recorded fit to judge by?"""

from __future__ import annotations

import numpy as np

from ..observation.answers import Completion, Reference
from ..observation.numerics import ReferenceNumerics
from .comparison import tie_margin
from .degeneration import degeneration


def doubts(reference: Reference, max_tokens: int) -> tuple[str, ...]:
    """What speaks against judging by a recorded answer, in words; empty where nothing does.

    Args:
        reference: what was recorded.
        max_tokens: how long the answer was allowed to be.
    """
    tokens, numerics = reference.token_ids or (), reference.numerics
    is_cut = len(tokens) >= max_tokens
    finish = "length" if is_cut else "stop"
    answer = Completion(reference.case_id, reference.text, tokens, finish, None, None, seconds=0.0)
    degenerate = degeneration(answer)
    found = [f"degenerate: {degenerate}"] if degenerate else []
    if numerics is not None:
        if numerics.token_ids not in {tokens, tokens[:-1]}:  # the last one may be end-of-sequence
            found.append(
                "put back into the chat, its text becomes other tokens than were generated"
            )
        found += _of_numbers(numerics, is_cut=is_cut)
    return tuple(found)


def _of_numbers(numerics: ReferenceNumerics, *, is_cut: bool) -> list[str]:
    # Behind an answer that was cut off nothing was chosen.
    chosen = numerics.fp32[numerics.first_answer_row : -1 if is_cut else None]
    if not np.isfinite(chosen).all():
        return ["its logits are not finite"]
    margins = chosen[:, 0] - chosen[:, 1]
    ties = np.array([tie_margin(float(peak), numerics.logit_rmse) for peak in chosen[:, 0]])
    near = margins <= ties
    if not near.any():
        return []
    least = int(np.argmin(margins))
    return [
        f"near-ties: {near.sum()} of {len(near)} tokens; the least sure one, token {least + 1}, is "
        f"preferred by {margins[least]:.3g} nats, and rounding explains up to {ties[least]:.3g}"
    ]

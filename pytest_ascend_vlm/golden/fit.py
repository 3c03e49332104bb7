"""Whether a reference's numbers belong to its positions, asked before writing and after reading.

Tables that are shifted against each other would give verdicts all the same, and wrong ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import GoldenError
from ..observation.answers import Reference
from ..observation.numerics import ReferenceNumerics


def require_fit(reference: Reference) -> None:
    """Refuses a reference whose numbers are not one for each of its positions.

    Raises:
        GoldenError: tables and positions differ in length, tables in width, or the positions are
            not those of a prompt of this length and its answer.
    """
    numerics = reference.numerics
    if numerics is None:
        return
    hidden = numerics.hidden
    _require_finite(numerics)
    _require_rows(
        numerics.positions,
        columns={
            "is_image": numerics.is_image,
            "fp32_logsumexp": numerics.fp32_logsumexp,
            "bf16_logsumexp": numerics.bf16_logsumexp,
        },
        tables={"top_tokens": numerics.top_tokens, "fp32": numerics.fp32, "bf16": numerics.bf16},
    )
    _require_rows(
        hidden.positions,
        columns={"hidden_is_image": hidden.is_image},
        tables={"hidden_fp32": hidden.fp32, "hidden_bf16": hidden.bf16},
    )
    _require_answer(numerics, reference.prompt_tokens)


def _require_rows(
    positions: npt.NDArray[Any],
    columns: dict[str, npt.NDArray[Any]],
    tables: dict[str, npt.NDArray[Any]],
) -> None:
    """Refuses columns and tables that have not one entry a row, and tables of several widths."""
    if positions.ndim != 1 or not len(positions) or not (positions[1:] > positions[:-1]).all():
        raise GoldenError(
            f"the positions, of shape {positions.shape}, are not positions that ascend"
        )
    width = next(iter(tables.values())).shape[-1:]
    expected = {
        **dict.fromkeys(columns, positions.shape),
        **dict.fromkeys(tables, positions.shape + width),
    }
    for name, numbers in {**columns, **tables}.items():
        if numbers.shape != expected[name]:
            raise GoldenError(
                f"{name} is of shape {numbers.shape} where {expected[name]} is expected, so its "
                "numbers do not belong to its rows"
            )


def _require_finite(numerics: ReferenceNumerics) -> None:
    """Refuses numbers that nothing can be compared with."""
    tables: dict[str, npt.NDArray[Any]] = {
        "fp32": numerics.fp32,
        "bf16": numerics.bf16,
        "fp32_logsumexp": numerics.fp32_logsumexp,
        "bf16_logsumexp": numerics.bf16_logsumexp,
        "hidden_fp32": numerics.hidden.fp32,
        "hidden_bf16": numerics.hidden.bf16,
        "logit_rmse": np.array(numerics.logit_rmse),
    }
    for name, numbers in tables.items():
        if not np.isfinite(numbers).all():
            raise GoldenError(f"{name} has numbers that are not finite")


def _require_answer(numerics: ReferenceNumerics, prompt_tokens: int | None) -> None:
    """Refuses positions that do not end with the answer's, behind a prompt of that length."""
    positions, first, tokens = (
        numerics.positions,
        numerics.first_answer_row,
        len(numerics.token_ids),
    )
    if (
        first < 0
        or positions[-1] - positions[first] != tokens
        or positions[first] + 1 != prompt_tokens
    ):
        raise GoldenError(
            f"positions up to {positions[-1]} do not end in those of an answer of {tokens} tokens "
            f"behind a prompt of {prompt_tokens}"
        )
    if numerics.hidden.positions[-1] > positions[-1]:
        raise GoldenError(
            f"hidden states are at position {numerics.hidden.positions[-1]}, behind that"
        )

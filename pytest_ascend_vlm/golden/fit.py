"""Checks that a reference's numbers match its positions, before writing and after reading.

Shifted tables would not raise an error anywhere else, but would give wrong verdicts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import GoldenError
from ..observation.answers import Reference
from ..observation.numerics import ReferenceNumerics


def require_fit(reference: Reference) -> None:
    """Checks that each position of a reference has its numbers.

    Raises:
        GoldenError: if a number is not finite, if tables differ from the positions in length or
            from each other in width, or if the positions do not match the prompt and the answer.
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
    """Requires one entry per position of every column and table, and equal widths of tables."""
    if positions.ndim != 1 or not len(positions) or not (positions[1:] > positions[:-1]).all():
        raise GoldenError(
            f"the positions, of shape {positions.shape}, are not a strictly ascending list"
        )
    width = next(iter(tables.values())).shape[-1:]
    expected = {
        **dict.fromkeys(columns, positions.shape),
        **dict.fromkeys(tables, positions.shape + width),
    }
    for name, numbers in {**columns, **tables}.items():
        if numbers.shape != expected[name]:
            raise GoldenError(
                f"{name} has the shape {numbers.shape} instead of {expected[name]}, so its numbers "
                "do not match the positions"
            )


def _require_finite(numerics: ReferenceNumerics) -> None:
    """Requires finite numbers."""
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
            raise GoldenError(f"{name} contains numbers that are not finite")


def _require_answer(numerics: ReferenceNumerics, prompt_tokens: int | None) -> None:
    """Requires the positions to end with those of the answer, after a prompt of that length."""
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
            f"positions up to {positions[-1]} do not end with an answer of {tokens} tokens after a "
            f"prompt of {prompt_tokens} tokens"
        )
    if numerics.hidden.positions[-1] > positions[-1]:
        raise GoldenError(
            f"hidden states reach position {numerics.hidden.positions[-1]}, beyond the last "
            f"position {positions[-1]}"
        )

"""Converts the numbers of a golden to the tensors of its file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..observation.numerics import ReferenceHidden, ReferenceNumerics
from .bfloat16 import from_bits, to_bits

Tensors = Mapping[str, npt.NDArray[Any]]


def encode(numerics: ReferenceNumerics) -> Tensors:
    """The tensors for `decode`."""
    hidden = numerics.hidden
    return {
        "forced_token_ids": np.array(numerics.token_ids, dtype=np.int32),
        "rows": numerics.positions.astype(np.int32),
        "is_image": numerics.is_image.astype(np.uint8),
        "listed": numerics.top_tokens.astype(np.int32),
        "fp32": numerics.fp32.astype(np.float32),
        "bf16": to_bits(numerics.bf16),
        "fp32_logsumexp": numerics.fp32_logsumexp,
        "bf16_logsumexp": numerics.bf16_logsumexp,
        "hidden_rows": hidden.positions.astype(np.int32),
        "hidden_is_image": hidden.is_image.astype(np.uint8),
        "hidden_fp32": hidden.fp32,
        "hidden_bf16": to_bits(hidden.bf16),
    }


def decode(tensors: Tensors, logit_rmse: float) -> ReferenceNumerics:
    """The numbers that `encode` was given.

    Args:
        tensors: the tensors.
        logit_rmse: the one number that is stored in the golden's JSON instead.

    Raises:
        KeyError: if a tensor is missing.
    """
    return ReferenceNumerics(
        token_ids=tuple(tensors["forced_token_ids"].tolist()),
        positions=tensors["rows"].astype("int64"),
        is_image=tensors["is_image"].astype(bool),
        top_tokens=tensors["listed"].astype("int64"),
        fp32=tensors["fp32"].astype("float64"),
        bf16=from_bits(tensors["bf16"]).astype("float64"),
        fp32_logsumexp=tensors["fp32_logsumexp"],
        bf16_logsumexp=tensors["bf16_logsumexp"],
        logit_rmse=logit_rmse,
        hidden=ReferenceHidden(
            positions=tensors["hidden_rows"].astype("int64"),
            is_image=tensors["hidden_is_image"].astype(bool),
            fp32=tensors["hidden_fp32"],
            bf16=from_bits(tensors["hidden_bf16"]),
        ),
    )

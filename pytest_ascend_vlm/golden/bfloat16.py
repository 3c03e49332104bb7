"""Converts bfloat16, which NumPy lacks, to and from its bits: the upper 16 bits of float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_DROPPED_BITS = 16
_PAYLOAD = 0x7F


def to_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The bits of values as bfloat16, rounded to nearest even."""
    float32 = np.ascontiguousarray(values, dtype=np.float32)
    bits = float32.view(np.uint32)
    odd = (bits >> _DROPPED_BITS) & 1
    rounded = ((bits + 0x7FFF + odd) >> _DROPPED_BITS).astype(np.uint16)
    # Rounding could turn NaN into a number. Truncate NaN instead, and keep its payload nonzero.
    truncated = (bits >> _DROPPED_BITS).astype(np.uint16)
    nan_bits = truncated | ((truncated & _PAYLOAD) == 0)
    return np.where(np.isnan(float32), nan_bits, rounded)


def from_bits(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The values of bfloat16 bits, as float32."""
    return (bits.astype(np.uint32) << _DROPPED_BITS).view(np.float32)

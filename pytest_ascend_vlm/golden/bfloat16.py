"""bfloat16, which NumPy does not know, as the 16 bits that it shares with float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_DROPPED_BITS = 16
_PAYLOAD = 0x7F


def to_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Values that are bfloat16 numbers, as their bits; any other is rounded to the nearest."""
    exact = np.ascontiguousarray(values, dtype=np.float32)
    bits = exact.view(np.uint32)
    odd = (bits >> _DROPPED_BITS) & 1
    rounded = ((bits + 0x7FFF + odd) >> _DROPPED_BITS).astype(np.uint16)
    # Rounding could carry NaN into a number; it keeps at least one bit of its payload instead.
    cut = (bits >> _DROPPED_BITS).astype(np.uint16)
    not_a_number = cut | ((cut & _PAYLOAD) == 0)
    return np.where(np.isnan(exact), not_a_number, rounded)


def from_bits(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The bfloat16 numbers of these bits."""
    return (bits.astype(np.uint32) << _DROPPED_BITS).view(np.float32)

"""All faults."""

from __future__ import annotations

from . import checkpoint, engine, wire
from .fault import Fault

FAULTS: tuple[Fault, ...] = (*engine.FAULTS, *checkpoint.FAULTS, *wire.FAULTS)


def named(name: str) -> Fault:
    """The fault of a name."""
    return next(fault for fault in FAULTS if fault.name == name)

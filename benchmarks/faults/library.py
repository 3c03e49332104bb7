"""All faults."""

from __future__ import annotations

from . import checkpoint, engine, wire
from .fault import Fault

FAULTS: tuple[Fault, ...] = (*engine.FAULTS, *checkpoint.FAULTS, *wire.FAULTS)

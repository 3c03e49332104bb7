"""This machine."""

from __future__ import annotations

from pathlib import Path

HAS_NPU = any(Path("/dev").glob("davinci[0-9]*"))
"""True if a card would be taken by a test that expects none."""

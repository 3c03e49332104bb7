"""How a long operation reports what it does."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[str], None]
"""Called with one line at a time; the next line replaces it."""

"""The callback with which long operations report their progress."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[str], None]
"""Called with one line of text, which replaces the previous line."""

"""Marks the tests that take a verdict over instead of running."""

from __future__ import annotations

from typing import Any

import pytest

ROWS = pytest.StashKey[list[dict[str, Any]]]()
"""The rows that a test takes over."""


def replace(item: pytest.Item, rows: list[dict[str, Any]]) -> None:
    """Lets a test take rows over; it then requests no fixture."""
    item.stash[ROWS] = rows
    item.fixturenames = []  # type: ignore[attr-defined]


def really_runs(item: pytest.Item) -> bool:
    """False for a test that is skipped or takes a verdict over."""
    return ROWS not in item.stash and item.get_closest_marker("skip") is None

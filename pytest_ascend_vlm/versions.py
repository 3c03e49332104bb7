"""Versions of installed distributions."""

from __future__ import annotations

from importlib import metadata


def installed_versions(*distributions: str) -> dict[str, str]:
    """The versions of the given distributions; those that are not installed are left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found

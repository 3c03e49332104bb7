"""The hosts of a cluster that judge a run: their set-up, and what differs between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ..reporting.differences import differences

_COUNT = re.compile(r"\b\d+ x ")


class _WithCards(Protocol):
    @property
    def cards(self) -> int: ...


_HasCards = TypeVar("_HasCards", bound=_WithCards)


@dataclass(frozen=True)
class Host:
    """A host of a cluster, as it describes itself.

    Attributes:
        name: its name, unique in the cluster.
        cards: number of cards that it gives to the cluster; of a platform without cards, of CPUs.
        label: the platform for the closing line, such as "the NPU".
        set_up: platform, device, versions and environment, as in a report's receipt.
        unavailable: reason why no server can run there, or None.
        misconfigured: reason why it is configured wrongly, or None.
        weights: model's id -> reason why its weights cannot be used there, or None.
        packages: model's id -> reason why the packages there cannot load it, or None.
        unmodified: engine package -> True, its changed files, or None, as in a report.
        conditions: what its servers find there, by the names of `conditions.host_conditions`.
        engine_files: the state of the engines' files, by the names of `conditions.engine_files`.
    """

    name: str
    cards: int
    label: str
    set_up: Mapping[str, Any]
    unavailable: str | None = None
    misconfigured: str | None = None
    weights: Mapping[str, str | None] = field(default_factory=dict)
    packages: Mapping[str, str | None] = field(default_factory=dict)
    unmodified: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    engine_files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fleet:
    """The hosts of a run.

    Attributes:
        hosts: one or more hosts.
    """

    hosts: tuple[Host, ...]

    @property
    def label(self) -> str:
        """The platform and the hosts for the closing line: "the NPU, hosts atlas1 and atlas2"."""
        labels = " and ".join(dict.fromkeys(host.label for host in self.hosts))
        word = "hosts" if len(self.hosts) > 1 else "host"
        return f"{labels}, {word} {listed([host.name for host in self.hosts])}"

    def lacks_packages_reason(self, model_id: str) -> str | None:
        """Reason why the packages of no host can load a model, or None."""
        reasons = {host.name: host.packages.get(model_id) for host in self.hosts}
        return _together(reasons) if all(reasons.values()) else None

    @property
    def simulated(self) -> bool:
        """True if the cards of a host are simulated."""
        return any(host.set_up["simulated"] for host in self.hosts)

    @property
    def set_up(self) -> dict[str, Any]:
        """The set-up of all hosts together, for the receipt.

        Hosts that differ are one by one in it: "0.18.0 (atlas1), 0.23.0 (atlas2)".
        """
        first = dict(self.hosts[0].set_up)
        devices = {host.name: host.set_up["device"] for host in self.hosts}
        joined = {
            "simulated": self.simulated,
            "device": ", ".join(f"{name}: {device}" for name, device in devices.items()),
            "versions": self._joined(lambda host: host.set_up["versions"]),
        }
        if "suite_sha256" in first:
            digests = {host.name: host.set_up.get("suite_sha256") for host in self.hosts}
            joined["suite_sha256"] = _together(digests)
        if "environment" in first:
            joined["environment"] = self._joined(lambda host: host.set_up["environment"])
        return first | joined

    @property
    def unmodified(self) -> dict[str, Any]:
        """Each engine package -> True if no host changed it, the changed files of all, or None."""
        found: dict[str, Any] = {}
        for host in self.hosts:
            for name, state in host.unmodified.items():
                found[name] = _worse(found.get(name, True), state)
        return found

    @property
    def conditions(self) -> dict[str, str]:
        """The conditions of all hosts, for `conditions.run_conditions`."""
        files = {
            f"{name} on {host.name}": state
            for host in self.hosts
            for name, state in host.engine_files.items()
        }
        return {**self._joined(lambda host: host.conditions), **files}

    def _joined(self, of: Callable[[Host], Mapping[str, Any]]) -> dict[str, Any]:
        mappings = {host.name: of(host) for host in self.hosts}
        names = dict.fromkeys(name for one in mappings.values() for name in one)
        return {
            name: _together({host: one.get(name) for host, one in mappings.items()})
            for name in names
        }


def mixed(hosts: Sequence[Host]) -> list[str]:
    """One line for each difference of two hosts' set-ups; empty if the hosts are alike.

    The number of cards may differ. What forbids to merge two reports, or to take the verdicts of
    one over, forbids a common run.
    """
    lines: dict[str, str] = {}
    for host in hosts[1:]:
        for found in differences(
            *({"receipt": _told(one), "models": []} for one in (hosts[0], host))
        ):
            line = f"{found.what}: {found.first} on {hosts[0].name}, {found.second} on {host.name}"
            lines.setdefault(found.what, line)
    return list(lines.values())


def other_suites(hosts: Sequence[Host], suite_sha256: str) -> list[str]:
    """One line for each host that has another suite than the process that selects the tests.

    It would not run tests that it does not know, and nobody would ask for those that it alone has.

    Args:
        hosts: the hosts.
        suite_sha256: the digest of the suite here, as in a receipt.
    """
    return [
        f"files of the suite: {host.name} has others than this host"
        for host in hosts
        if host.set_up.get("suite_sha256", suite_sha256) != suite_sha256
    ]


def judging(hosts: Sequence[_HasCards]) -> list[_HasCards]:
    """The hosts that judge: those with cards, or all if no host has any.

    A host without cards may be in the cluster for the process that prints.
    """
    return [host for host in hosts if host.cards] or list(hosts)


def listed(names: Sequence[str]) -> str:
    """Names as words: "a", "a and b", "a, b and c"."""
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last


def _told(host: Host) -> dict[str, Any]:
    """What is compared with another host: all but the number of cards."""
    device = _COUNT.sub("", host.set_up["device"])
    return {**host.set_up, "device": device, "conditions": host.conditions}


def _together(values: Mapping[str, Any]) -> Any:
    """The value of all hosts, or each host's own if they are different texts, else None."""
    different = list(dict.fromkeys(values.values()))
    if len(different) == 1:
        return different[0]
    if not all(isinstance(value, str) for value in different if value is not None):
        return None
    return ", ".join(f"{value or 'none'} ({host})" for host, value in values.items())


def _worse(first: Any, second: Any) -> Any:
    """Of two states of a package the one that tells of changed files, else the unknown one."""
    if changed := {file for one in (first, second) if isinstance(one, list) for file in one}:
        return sorted(changed)
    return None if None in (first, second) else True

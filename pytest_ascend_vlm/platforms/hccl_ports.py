"""The host's ports with which HCCL connects the cards of one model.

HCCL of CANN 8.3 and later takes 32 ports from HCCL_IF_BASE_PORT on (60000 by default), older
releases 16 of these. HCCL_HOST_SOCKET_PORT_RANGE replaces them. Source: CANN's documentation of
the two variables.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_BASE, _RANGE = "HCCL_IF_BASE_PORT", "HCCL_HOST_SOCKET_PORT_RANGE"
_FIRST, _COUNT = 60000, 32
_HIGHEST = 65535
SETTINGS = Path("/proc/sys/net/ipv4")


def port_lines(env: Mapping[str, str]) -> list[str]:
    """The ports that HCCL needs, and if they are free; a model on one card needs none."""
    if env.get(_RANGE) == "auto":
        return [f"{_RANGE} is auto: the system chooses free ports"]
    variable = _RANGE if _RANGE in env else _BASE
    setting = f"{variable} is {env[variable]!r}" if variable in env else f"{_BASE} is not set"
    try:
        ports = _named(env[_RANGE]) if _RANGE in env else _from(env.get(_BASE, str(_FIRST)))
    except ValueError:
        return [f"{setting}, which names no ports; write 60000, or 60000-60050 for a range"]
    taken = [port for port in ports if _is_taken(port)]
    state = f"taken: {ranges(taken)}" if taken else "free"
    return [f"{ranges(ports)} ({setting}): {state}", *_advice(ports, taken)]


def ranges(ports: Iterable[int]) -> str:
    """Ports as text: "60000-60031, 60050"."""
    runs: list[list[int]] = []
    for port in sorted(set(ports)):
        if runs and port == runs[-1][-1] + 1:
            runs[-1].append(port)
        else:
            runs.append([port])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _advice(ports: list[int], taken: list[int]) -> Iterator[str]:
    if taken:
        yield (
            f"a model on several cards may not start (EJ0003): stop the processes that use these "
            f"ports (ss -tanp), or set {_BASE} to the first of {_COUNT} other ports"
        )
    if exposed := sorted(set(_setting("ip_local_port_range", span=True)) & set(ports)):
        unreserved = set(exposed) - set(_setting("ip_local_reserved_ports"))
        if unreserved:
            yield (
                "any connection of this host may take them; reserve them on the host: "
                f"sysctl -w net.ipv4.ip_local_reserved_ports={ranges(ports).replace(' ', '')}"
            )


def _from(first: str) -> list[int]:
    return _checked(range(int(first), int(first) + _COUNT))


def _named(text: str) -> list[int]:
    """The ports of "60000,60050-60100"."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return _checked(found)


def _checked(ports: Iterable[int]) -> list[int]:
    found = sorted(set(ports))
    if not found or found[0] < 1 or found[-1] > _HIGHEST:
        raise ValueError(found)
    return found


def _is_taken(port: int) -> bool:
    """True if another socket has the port; False if this user may not use the port."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _setting(name: str, *, span: bool = False) -> list[int]:
    """The ports in a setting of the kernel; empty if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        text = (SETTINGS / name).read_text("ascii").strip()
        return _named("-".join(text.split()) if span else text)
    return []

"""Reasons why a server cannot fetch an image that the suite serves on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..engines.endpoint import Server
    from ..spec.model import ModelSpec


class UnreachableError(Exception):
    """The server cannot fetch from this host; the message is the reason."""


def require_local(server: Server) -> None:
    """Checks that the server is on this host.

    Raises:
        UnreachableError: it is on another one.
    """
    if not server.endpoint.is_local:
        raise UnreachableError("the endpoint is on another host and cannot reach this host's files")


def require_fetched(server: Server, requested: Sequence[str]) -> None:
    """Checks that the server fetched, or that nothing of the set-up prevents it.

    Args:
        server: the server that was to fetch.
        requested: the paths that it requested.

    Raises:
        UnreachableError: it did not fetch, and the set-up is the reason.
    """
    from ..engines.file_server import HOST, has_proxy

    if requested:
        return
    if has_proxy():
        raise UnreachableError(
            f"the server asked a proxy for the image: set no_proxy={HOST} for server and suite"
        )
    if not server.can_restart:
        raise UnreachableError(
            "the endpoint did not ask this host for the image; in a container it has a loopback "
            "interface of its own"
        )


def excluded(model: ModelSpec) -> str | None:
    """Reason why the model is declared to fetch no image of this host, or None."""
    from ..engines.file_server import HOST

    domains = model.serve.get("allowed_media_domains")
    if domains and HOST not in domains:
        return f"the model is served with allowed_media_domains={domains!r}"
    return None

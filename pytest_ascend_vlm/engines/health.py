"""Asks a server whether it is healthy."""

from __future__ import annotations

import httpx

from .endpoint import Endpoint


def health(endpoint: Endpoint, timeout_seconds: float) -> int | None:
    """The HTTP status of `/health`; None if there is no reply in time."""
    try:
        with httpx.Client(
            timeout=timeout_seconds, verify=endpoint.certificates, trust_env=not endpoint.is_local
        ) as http:
            return http.get(f"{endpoint.url}/health").status_code
    except httpx.HTTPError:
        return None

"""Checks the address of a server that a user types, and suggests a correction."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from urllib.parse import urlsplit

from ..errors import ConfigurationError

KEY_VARIABLE = "VLM_SERVER_API_KEY"
"""The environment variable with the API key of an endpoint that the suite did not start."""

_FORM = "http://host:port"
_SCHEME = re.compile(r"(https?):?/+|\w+://|//", re.IGNORECASE)
_API = re.compile(r"/v1(/.*)?$")
_HOST = re.compile(r"[\w.-]+|[\da-f:.]*:[\da-f:.]*")


def base_url(option: str, typed: str) -> str:
    """The URL of a server, without the `/v1` that clients append.

    Keeps a path before `/v1`, which gateways use.

    Args:
        option: the command line option, for the message.
        typed: the value of the option.

    Raises:
        ConfigurationError: if the value is not such a URL; the message has the corrected option.
    """
    corrected = _corrected(typed)
    if corrected is None:
        raise ConfigurationError(f"{option} is not the URL of a server; type {option}={_FORM}")
    if typed.rstrip("/").removesuffix("/v1").lower() != corrected.lower():
        raise ConfigurationError(f"{option} {_reason(typed)}; type {option}={corrected}")
    return corrected


def is_loopback(url: str) -> bool:
    """True if a URL leads to this host. Requests to this host must not use a proxy."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _corrected(typed: str) -> str | None:
    """The URL that was most likely meant; None if the text contains no host."""
    text = re.sub(
        r"\s", "", unicodedata.normalize("NFKC", typed)
    )  # NFKC turns the full-width "：" into ":"
    scheme = _SCHEME.match(text)
    rest = re.split(r"[?#]", text[scheme.end() if scheme else 0 :])[0]
    host_port, slash, path = rest.partition("/")
    host_port = re.sub(r"^:?(?=\d+$)", "localhost:", host_port.rpartition("@")[2])
    try:
        split = urlsplit(f"//{host_port}")
        host, port = split.hostname or "", split.port
    except ValueError:
        return None
    if not _HOST.fullmatch(host) or port == 0:
        return None
    https = scheme is not None and (scheme[1] or "").lower() == "https"
    url_host = f"[{host}]" if ":" in host else host
    url_port = "" if port is None else f":{port}"
    url_path = _API.sub("", (slash + path).rstrip("/")).rstrip("/")
    return f"http{'s' * https}://{url_host}{url_port}{url_path}"


def _reason(typed: str) -> str:
    if re.search(r"\s", typed):
        return "contains a space"
    if "@" in typed:
        return "contains a user name or password, which logs would show"
    if not re.match("https?://", typed, re.IGNORECASE):
        return "does not begin with http:// or https://"
    return "contains more than the address of a server"

"""The address of a server as a user types it, and what should have been typed."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from urllib.parse import urlsplit

from ..errors import ConfigurationError

KEY_VARIABLE = "VLM_SERVER_API_KEY"
"""The environment variable with the key of an endpoint that someone else runs."""

_FORM = "http://host:port"
_SCHEME = re.compile(r"(https?):?/+|\w+://|//", re.IGNORECASE)
_API = re.compile(r"/v1(/.*)?$")
_HOST = re.compile(r"[\w.-]+|[\da-f:.]*:[\da-f:.]*")


def base_url(option: str, typed: str) -> str:
    """The URL of a server, without the `/v1` that clients add.

    A path before `/v1`, as a gateway has it, stays.

    Args:
        option: the option that names it, for the message.
        typed: its value.

    Raises:
        ConfigurationError: it is no such URL; the message has the option as it should be.
    """
    corrected = _corrected(typed)
    if corrected is None:
        raise ConfigurationError(f"{option} is not the URL of a server; type {option}={_FORM}")
    if typed.rstrip("/").removesuffix("/v1").lower() != corrected.lower():
        raise ConfigurationError(f"{option} {_reason(typed)}; type {option}={corrected}")
    return corrected


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this host, where a proxy of the environment has no business."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _corrected(typed: str) -> str | None:
    """What was most likely meant; None where no host can be made out."""
    text = re.sub(r"\s", "", unicodedata.normalize("NFKC", typed))  # "：" is ":"
    scheme = _SCHEME.match(text)
    rest = re.split(r"[?#]", text[scheme.end() if scheme else 0 :])[0]
    where, slash, path = rest.partition("/")
    where = re.sub(r"^:?(?=\d+$)", "localhost:", where.rpartition("@")[2])
    try:
        split = urlsplit(f"//{where}")
        host, port = split.hostname or "", split.port
    except ValueError:
        return None
    if not _HOST.fullmatch(host) or port == 0:
        return None
    https = scheme is not None and (scheme[1] or "").lower() == "https"
    shown = f"[{host}]" if ":" in host else host
    number = "" if port is None else f":{port}"
    before_api = _API.sub("", (slash + path).rstrip("/")).rstrip("/")
    return f"http{'s' * https}://{shown}{number}{before_api}"


def _reason(typed: str) -> str:
    if re.search(r"\s", typed):
        return "has a space in it"
    if "@" in typed:
        return "has a name or password in it, which logs would show"
    if not re.match("https?://", typed, re.IGNORECASE):
        return "does not begin with http:// or https://"
    return "is more than the address of a server"

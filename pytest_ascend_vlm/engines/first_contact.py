"""The first request to an endpoint that someone else runs, before a model is asked anything.

What can go wrong here is the set-up: an address, a key, a server that is not there. It is told
once, with what to type, and not by every test as a failure of the model.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from ..errors import ConfigurationError
from .address import KEY_VARIABLE, base_url, is_loopback

_MODELS = "/v1/models"


@dataclass(frozen=True)
class Contact:
    """Whom to ask.

    Attributes:
        option: the option that names the endpoint.
        url: its value.
        key: the key that `KEY_VARIABLE` has; None where it is not set.
        seconds: how long to wait for a connection, and then for an answer.
    """

    option: str
    url: str
    key: str | None
    seconds: float = 30.0


def require_answer(contact: Contact) -> None:
    """Asks an endpoint for its models; which they are is for the criteria to judge.

    Raises:
        ConfigurationError: it does not answer, refuses the key, or has no such API.
    """
    if problem := _problem(contact):
        raise ConfigurationError(f"{problem}{_through_proxy(contact.url)}")


def _problem(contact: Contact) -> str | None:
    headers = {"Authorization": f"Bearer {contact.key or 'none'}"}
    local = is_loopback(contact.url)
    try:
        with httpx.Client(timeout=contact.seconds, headers=headers, trust_env=not local) as http:
            listed = http.get(f"{contact.url}{_MODELS}")
    # The last two are of proxies: an unknown scheme, or one whose package is not installed.
    except (httpx.RequestError, httpx.InvalidURL, ValueError, ImportError) as error:
        return _no_answer(contact, error)
    return _refused_key(contact, listed) or _no_models(contact, listed)


def _refused_key(contact: Contact, reply: httpx.Response) -> str | None:
    if reply.status_code not in {401, 403}:
        return None
    told = f"HTTP {reply.status_code}"
    if contact.key is None:
        return f"the server at {contact.url} wants a key ({told}): set {KEY_VARIABLE}"
    return f"the key in {KEY_VARIABLE} is refused by {contact.url} ({told}): correct it"


def _no_models(contact: Contact, reply: httpx.Response) -> str | None:
    """What is wrong with an answer to `GET /v1/models`, if it has no list of models."""
    url, told = contact.url, f"HTTP {reply.status_code}"
    if reply.is_redirect:
        return f"{url} redirects ({told}): {_instead(contact, reply.headers.get('Location'))}"
    if reply.is_server_error:
        return (
            f"the server at {url} answers {told} to {_MODELS}: if it still starts, wait until it "
            "lists its models there; if not, its log says why"
        )
    if reply.is_success and _has_models(reply):
        return None
    if reply.status_code == 400 and "HTTPS" in reply.text:
        return f"the server at {url} speaks TLS: {_with_scheme(contact, 'https')}"
    kind = reply.headers.get("Content-Type", "nothing").partition(";")[0]
    advice = _instead(contact, url.removesuffix(urlsplit(url).path))
    return f"{url}{_MODELS} is no list of models ({told}, {kind}), so no OpenAI API: {advice}"


def _has_models(reply: httpx.Response) -> bool:
    try:
        body = reply.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    return isinstance(body, dict) and isinstance(body.get("data"), list)


def _no_answer(contact: Contact, error: Exception) -> str:
    url, cause = contact.url, _root(error)
    if isinstance(error, httpx.TimeoutException):
        return _timed_out(contact, error)
    if isinstance(cause, ssl.SSLError):
        return _no_tls(contact, cause)
    reason = str(getattr(cause, "strerror", None) or error).rstrip(".")
    if isinstance(error, httpx.ConnectError):
        said = reason[:1].lower() + reason[1:]
        return f"nothing answers at {url} ({said}): start the server, or correct {contact.option}"
    if not isinstance(error, (httpx.NetworkError, httpx.ProtocolError)):
        return f"{url} cannot be asked ({reason})"
    other = _with_scheme(contact, "https") if url.startswith("http:") else "correct the port"
    return f"what listens at {url} does not speak HTTP ({reason}): {other}"


def _timed_out(contact: Contact, error: httpx.TimeoutException) -> str:
    url, seconds = contact.url, contact.seconds
    if isinstance(error, httpx.ConnectTimeout) and "handshake" not in str(error):
        return (
            f"no connection to {url} in {seconds:g} s: look at the host, the port and the "
            f"firewalls between, or correct {contact.option}"
        )
    return (
        f"the server at {url} takes the connection and does not answer in {seconds:g} s: it still "
        f"starts, hangs, or speaks no HTTP. Restart it, or correct {contact.option}"
    )


def _no_tls(contact: Contact, cause: ssl.SSLError) -> str:
    if not isinstance(cause, ssl.SSLCertVerificationError):
        plain = _with_scheme(contact, "http")
        return f"the server at {contact.url} does not speak TLS: {plain}"
    # On loopback nothing of the environment is read.
    trusted = "set SSL_CERT_FILE to that of its authority"
    advice = "serve it on this host without TLS" if is_loopback(contact.url) else trusted
    said = f"the certificate of {contact.url} is not trusted here ({cause.verify_message})"
    return f"{said}: {advice}"


def _root(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _with_scheme(contact: Contact, scheme: str) -> str:
    return f"type {contact.option}={urlsplit(contact.url)._replace(scheme=scheme).geturl()}"


def _instead(contact: Contact, url: str | None) -> str:
    try:
        meant = base_url(contact.option, (url or "").partition("/v1")[0])
    except ConfigurationError:
        meant = contact.url
    known = meant != contact.url
    return f"type {contact.option}={meant}" if known else f"correct {contact.option}"


def _through_proxy(url: str) -> str:
    """That a proxy of the environment was asked instead; its own address may hold a password."""
    parts = urlsplit(url)
    variable = next((name for name in (parts.scheme, "all") if name in getproxies()), None)
    if variable is None or is_loopback(url) or proxy_bypass(parts.hostname or ""):
        return ""
    return (
        f". It was asked through the proxy in {variable.upper()}_PROXY; NO_PROXY={parts.hostname} "
        "asks it directly"
    )

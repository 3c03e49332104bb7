"""The first request to an endpoint that the suite did not start, before any test.

It finds mistakes in the set-up: a wrong address, a wrong API key, a server that is not running. A
mistake is reported once, with its correction, and not by every test as a failure of the model.
"""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from ..errors import ConfigurationError
from ..progress import ProgressCallback
from .address import KEY_VARIABLE, base_url, is_loopback

_MODELS = "/v1/models"
_VERSION = "/version"
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Contact:
    """The endpoint to contact.

    Attributes:
        option: the command line option that names the endpoint.
        url: the value of the option.
        key: the value of `KEY_VARIABLE`; None if it is not set.
        seconds: timeout for the connection, and again for the answer.
        wait_seconds: how long to wait for a server that is still starting.
    """

    option: str
    url: str
    key: str | None
    seconds: float = 30.0
    wait_seconds: float = 0.0


def require_answer(contact: Contact, on_progress: ProgressCallback) -> tuple[str, ...]:
    """Requests the endpoint's list of models; returns their names without judging them.

    Args:
        contact: the endpoint.
        on_progress: called with what is waited for, while the server is starting.

    Raises:
        ConfigurationError: if the endpoint does not answer, rejects the API key, or has no such
            API.
    """
    since = time.monotonic()
    while problem := _problem(contact, reply := _get(contact, _MODELS)):
        waited = time.monotonic() - since
        if waited >= contact.wait_seconds or not _is_starting(reply):
            after = f" (after {waited:.0f} s)" if contact.wait_seconds else ""
            raise ConfigurationError(f"{problem}{_proxy_note(contact.url)}{after}")
        on_progress(
            f"waiting for the server at {contact.url}, {waited:.0f} of {contact.wait_seconds:.0f} s"
        )
        time.sleep(min(_POLL_SECONDS, contact.wait_seconds - waited))
    assert isinstance(reply, httpx.Response)  # noqa: S101  (an error is a problem)
    names = (model["id"] for model in reply.json()["data"] if _has_id(model))
    return tuple(dict.fromkeys(names))


def stated_version(contact: Contact) -> str | None:
    """The version that the server states in `/version`, as vLLM does; None if it states none."""
    reply = _get(contact, _VERSION)
    if isinstance(reply, Exception) or not reply.is_success:
        return None
    try:
        body = reply.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    version = body.get("version") if isinstance(body, dict) else None
    return version if isinstance(version, str) else None


def _get(contact: Contact, path: str) -> httpx.Response | Exception:
    """The reply to a GET request, or the error."""
    headers = {"Authorization": f"Bearer {contact.key or 'none'}"}
    local = is_loopback(contact.url)
    try:
        with httpx.Client(timeout=contact.seconds, headers=headers, trust_env=not local) as http:
            return http.get(f"{contact.url}{path}")
    # A proxy raises the last two: for an unknown scheme, or a missing package for its scheme.
    except (httpx.RequestError, httpx.InvalidURL, ValueError, ImportError) as error:
        return error


def _problem(contact: Contact, reply: httpx.Response | Exception) -> str | None:
    if isinstance(reply, Exception):
        return _no_answer(contact, reply)
    return _refused_key(contact, reply) or _no_models(contact, reply)


def _is_starting(reply: httpx.Response | Exception) -> bool:
    """True if the same request may succeed later."""
    if isinstance(reply, httpx.Response):
        return reply.is_server_error
    is_tls = isinstance(_innermost(reply), ssl.SSLError)
    errors = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
    return isinstance(reply, errors) and not is_tls


def _refused_key(contact: Contact, reply: httpx.Response) -> str | None:
    if reply.status_code not in {401, 403}:
        return None
    status = f"HTTP {reply.status_code}"
    if contact.key is None:
        return f"the server at {contact.url} requires an API key ({status}): set {KEY_VARIABLE}"
    return f"{contact.url} rejects the API key in {KEY_VARIABLE} ({status}): correct it"


def _no_models(contact: Contact, reply: httpx.Response) -> str | None:
    """The problem with an answer to `GET /v1/models`; None if it is a list of models."""
    url, status = contact.url, f"HTTP {reply.status_code}"
    if reply.is_redirect:
        return f"{url} redirects ({status}): {_advice(contact, reply.headers.get('Location'))}"
    if reply.is_server_error:
        return (
            f"the server at {url} answers {status} to {_MODELS}: if it is still starting, wait for "
            "it with --vlm-server-wait=SECONDS; otherwise read its log"
        )
    if reply.is_success and _has_models(reply):
        return None
    if reply.status_code == 400 and "HTTPS" in reply.text:
        return f"the server at {url} expects TLS: {_with_scheme(contact, 'https')}"
    kind = reply.headers.get("Content-Type", "nothing").partition(";")[0]
    advice = _advice(contact, url.removesuffix(urlsplit(url).path))
    return (
        f"{url}{_MODELS} is not a list of models ({status}, {kind}), so the server has no OpenAI "
        f"API: {advice}"
    )


def _has_models(reply: httpx.Response) -> bool:
    try:
        body = reply.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    return isinstance(body, dict) and isinstance(body.get("data"), list)


def _has_id(model: object) -> bool:
    return isinstance(model, dict) and isinstance(model.get("id"), str) and bool(model["id"])


def _no_answer(contact: Contact, error: Exception) -> str:
    url, cause = contact.url, _innermost(error)
    if isinstance(error, httpx.TimeoutException):
        return _timed_out(contact, error)
    if isinstance(cause, ssl.SSLError):
        return _tls_problem(contact, cause)
    reason = str(getattr(cause, "strerror", None) or error).rstrip(".")
    if isinstance(error, httpx.ConnectError):
        reason = reason[:1].lower() + reason[1:]
        return f"no server answers at {url} ({reason}): start it, or correct {contact.option}"
    if not isinstance(error, (httpx.NetworkError, httpx.ProtocolError)):
        return f"no request can be sent to {url} ({reason})"
    other = _with_scheme(contact, "https") if url.startswith("http:") else "correct the port"
    return f"the process that listens at {url} does not use HTTP ({reason}): {other}"


def _timed_out(contact: Contact, error: httpx.TimeoutException) -> str:
    url, seconds = contact.url, contact.seconds
    if isinstance(error, httpx.ConnectTimeout) and "handshake" not in str(error):
        return (
            f"no connection to {url} in {seconds:g} s: check the host, the port and the "
            f"firewalls between, or correct {contact.option}"
        )
    return (
        f"the server at {url} accepts the connection but does not answer in {seconds:g} s: it is "
        f"still starting, hangs, or does not use HTTP. Restart it, or correct {contact.option}"
    )


def _tls_problem(contact: Contact, cause: ssl.SSLError) -> str:
    if not isinstance(cause, ssl.SSLCertVerificationError):
        plain = _with_scheme(contact, "http")
        return f"the server at {contact.url} does not use TLS: {plain}"
    # For a server on this host the client reads no environment variable, so SSL_CERT_FILE neither.
    trust = "set SSL_CERT_FILE to the certificate of its authority"
    advice = "serve it on this host without TLS" if is_loopback(contact.url) else trust
    problem = f"the certificate of {contact.url} is not trusted here ({cause.verify_message})"
    return f"{problem}: {advice}"


def _innermost(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _with_scheme(contact: Contact, scheme: str) -> str:
    return f"type {contact.option}={urlsplit(contact.url)._replace(scheme=scheme).geturl()}"


def _advice(contact: Contact, url: str | None) -> str:
    try:
        corrected = base_url(contact.option, (url or "").partition("/v1")[0])
    except ConfigurationError:
        corrected = contact.url
    known = corrected != contact.url
    return f"type {contact.option}={corrected}" if known else f"correct {contact.option}"


def _proxy_note(url: str) -> str:
    """Names the proxy that was used, without its address, which may contain a password."""
    parts = urlsplit(url)
    variable = next((name for name in (parts.scheme, "all") if name in getproxies()), None)
    if variable is None or is_loopback(url) or proxy_bypass(parts.hostname or ""):
        return ""
    return (
        f". The request went through the proxy in {variable.upper()}_PROXY; to connect directly, "
        f"set NO_PROXY={parts.hostname}"
    )

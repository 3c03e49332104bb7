"""A proxy on loopback that changes the requests and replies of a server."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pytest_ascend_vlm.engines.endpoint import Endpoint

Body = dict[str, Any]
"""The JSON object of a request, of a reply, or of an event of a streamed reply."""

_CHAT = "/v1/chat/completions"
_OWN_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding"}
_EVENT = "data:"  # one blank behind it is optional
_SECONDS = 600.0
_CLIENT_LEFT = 499  # nobody reads it


def unchanged(body: Body) -> Body:
    """Returns its argument."""
    return body


def unchanged_reply(reply: Body, request: Body) -> Body:  # noqa: ARG001
    """Returns its first argument."""
    return reply


@dataclass(frozen=True)
class Changes:
    """What a proxy changes. Each function gets a copy, and returns it changed or not.

    Attributes:
        request: changes the body of a chat request.
        reply: changes the whole reply to a chat request, given the request as it arrived.
        event: the same for each event of a streamed reply.
        held_bytes: number of bytes of a streamed reply that are collected before they are passed
            on; 0 to pass on each line at once.
    """

    request: Callable[[Body], Body] = unchanged
    reply: Callable[[Body, Body], Body] = unchanged_reply
    event: Callable[[Body, Body], Body] = unchanged_reply
    held_bytes: int = 0


@contextlib.contextmanager
def proxy(
    endpoint: Endpoint, changes: Changes, on_change: Callable[[], None]
) -> Iterator[Endpoint]:
    """Serves an endpoint on another port of loopback, with changes.

    Args:
        endpoint: the server behind the proxy.
        changes: what is changed.
        on_change: called for each request, reply or event that was changed.
    """
    passing = _Passing(endpoint, changes, on_change)
    routes = [Route("/{path:path}", passing.answer, methods=["GET", "POST"])]
    app = Starlette(routes=routes, lifespan=passing.connected)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # a request that arrives before the server runs has to wait
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            yield Endpoint(url, endpoint.served_name, endpoint.api_key)
        finally:
            server.should_exit = True
            thread.join()


class _Passing:
    """Passes requests on to the server, and its replies back."""

    def __init__(self, endpoint: Endpoint, changes: Changes, on_change: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._changes = changes
        self._on_change = on_change
        self._client: httpx.AsyncClient

    @contextlib.asynccontextmanager
    async def connected(self, _app: Starlette) -> AsyncIterator[None]:
        """Holds the connections to the server while the proxy runs."""
        # vLLM closes the connection after a reply with HTTP 500, so none is used again.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=self._endpoint.url, timeout=_SECONDS, limits=limits, trust_env=False
        ) as self._client:
            yield

    async def answer(self, incoming: Request) -> Response:
        """The server's reply to a request; the request ends if its client leaves."""
        body = await incoming.body()
        asking = asyncio.ensure_future(self._reply(incoming, body))
        leaving = asyncio.ensure_future(incoming.receive())  # behind the body: the client left
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if asking.done():
            return asking.result()
        asking.cancel()
        return Response(status_code=_CLIENT_LEFT)

    async def _reply(self, incoming: Request, body: bytes) -> Response:
        """The server's reply to a request; HTTP 502 if the server does not reply."""
        asked = _parsed(body) if incoming.url.path == _CHAT else None
        if asked is not None:
            wrong = self._changed(asked, self._changes.request)
            body = json.dumps(wrong).encode() if wrong != asked else body
        request = self._client.build_request(
            incoming.method,
            incoming.url.path,
            params=incoming.query_params,
            content=body,
            # An event of a compressed stream could not be read.
            headers={**_passed_on(incoming.headers.items()), "accept-encoding": "identity"},
        )
        try:
            reply = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            return JSONResponse({"error": {"message": f"no reply: {error!r}"}}, 502)
        headers = _passed_on(reply.headers.items())
        if reply.headers.get("content-type", "").startswith("text/event-stream"):
            if self._changes.held_bytes:
                self._on_change()
            parts = in_parts(self._events(reply, asked), self._changes.held_bytes)
            return StreamingResponse(parts, reply.status_code, headers)
        data = await reply.aread()
        await reply.aclose()
        told = _parsed(data) if asked is not None else None
        if asked is not None and told is not None:
            wrong = self._changed(told, lambda one: self._changes.reply(one, asked))
            data = json.dumps(wrong).encode() if wrong != told else data
        return Response(data, reply.status_code, headers)

    async def _events(self, reply: httpx.Response, asked: Body | None) -> AsyncIterator[str]:
        try:
            async for line in reply.aiter_lines():
                event = _parsed(line.removeprefix(_EVENT)) if line.startswith(_EVENT) else None
                if asked is not None and event is not None:
                    wrong = self._changed(event, lambda one: self._changes.event(one, asked))
                    yield f"{_EVENT} {json.dumps(wrong)}\n"
                else:
                    yield f"{line}\n"
        finally:
            await reply.aclose()

    def _changed(self, body: Body, change: Callable[[Body], Body]) -> Body:
        wrong = change(copy.deepcopy(body))
        if wrong != body:
            self._on_change()
        return wrong


async def in_parts(lines: AsyncIterator[str], held: int) -> AsyncIterator[str]:
    """The lines of a stream, joined to parts of more than a number of characters; the last is less.

    Args:
        lines: the lines.
        held: the largest number of characters that are not passed on yet.
    """
    part = ""
    async for line in lines:
        part += line
        if len(part) > held:
            yield part
            part = ""
    if part:
        yield part


def _parsed(data: bytes | str) -> Body | None:
    """A JSON object; None for anything else, which is passed on as it is."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _passed_on(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in _OWN_HEADERS}

"""Serves one image file on the loopback interface, for requests with an `http://` URL."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"
_HANGING = "/hanging.png"


class FileServer(ThreadingHTTPServer):
    """Serves a PNG file under a path that nobody can guess, and 404 under any other.

    Attributes:
        requests: the paths that were requested so far.
        keeps_waiting: set when the first client waits for a reply at `hanging_url`.
        over: set when the clients that wait there are let go.
    """

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        """Binds a free port; `serve_file` also serves."""
        super().__init__((HOST, 0), _Handler)
        self.data = data
        self.requests: list[str] = []
        self.keeps_waiting, self.over = threading.Event(), threading.Event()
        self.path = f"/{secrets.token_urlsafe(16)}.png"

    @property
    def url(self) -> str:
        """The file's URL."""
        return f"http://{HOST}:{self.server_port}{self.path}"

    @property
    def missing_url(self) -> str:
        """A URL that answers 404."""
        return f"http://{HOST}:{self.server_port}/missing.png"

    @property
    def hanging_url(self) -> str:
        """A URL that does not reply."""
        return f"http://{HOST}:{self.server_port}{_HANGING}"


@contextlib.contextmanager
def serve_file(data: bytes) -> Iterator[FileServer]:
    """Serves a PNG file until the end of the context."""
    with FileServer(data) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def refusing_url() -> Iterator[str]:
    """The URL of a port at which nobody listens until the end of the context."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield f"http://{HOST}:{bound.getsockname()[1]}/image.png"


def has_proxy() -> bool:
    """True if this process's environment sends requests for the file to a proxy."""
    return "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(HOST)


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.path == _HANGING:
            self.server.keeps_waiting.set()
            self.server.over.wait()
            self.close_connection = True
            return
        if self.path != self.server.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(self.server.data)))
        self.end_headers()
        self.wfile.write(self.server.data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Prints nothing: the list of requests is enough."""

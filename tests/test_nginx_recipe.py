"""docs/nginx-429.conf in a real nginx: who is answered, who is refused, and what a stream does."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.replay_server import Behaviour, Knowledge, Request, State, serve
from helpers.paths import FIXTURES, REPOSITORY
from test_document import expected

from pytest_ascend_vlm.engines.messages import messages
from pytest_ascend_vlm.processes.supervised import SupervisedProcess
from pytest_ascend_vlm.spec.case import Case
from pytest_ascend_vlm.spec.case_files import load_cases

RECIPE = REPOSITORY / "docs" / "nginx-429.conf"
RETRY_SECONDS = "12"
STARTS_WITHIN_SECONDS = 60.0
ENDS_WITHIN_SECONDS = 30.0
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])

HOST = """
daemon off;
error_log stderr;
{user}
pid {directory}/pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/vllm.conf;
}}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of nginx: that of this host, or Debian's package, unpacked without being root."""
    directory = tmp_path_factory.mktemp("nginx")
    path = shutil.which("nginx", path=PATH)
    if path is None and shutil.which("apt-get"):
        run("apt-get", "download", "nginx", cwd=directory)
        for package in directory.glob("nginx_*.deb"):
            run("dpkg", "-x", package.name, ".", cwd=directory)
        path = str(directory / "usr" / "sbin" / "nginx")
    if path is None or run(path, "-v", cwd=directory) != 0:
        pytest.skip("no nginx runs here, and apt-get does not get one: install nginx")
    return path


def run(*command: str, cwd: Path) -> int:
    """The exit code of a command; 1 if it is missing, or does not end."""
    try:
        return subprocess.run(
            command, cwd=cwd, capture_output=True, timeout=60, check=False
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return 1


@dataclass(frozen=True)
class Proxied:
    """A server behind the recipe.

    Attributes:
        url: nginx's address.
        knowledge: what the server behind it can answer.
    """

    url: str
    knowledge: Knowledge

    def ask(self, case: Case, address: str) -> httpx.Response:
        """Asks from an address of this host."""
        with self._client(address) as client:
            return client.post(f"{self.url}/v1/chat/completions", json=self.body(case))

    def body(self, case: Case, **more: Any) -> dict[str, Any]:
        return {
            "model": self.knowledge.model,
            "messages": messages(case),
            "max_tokens": case.max_tokens,
            "temperature": 0,
            **more,
        }

    def pieces(self, case: Case) -> Iterator[None]:
        """One for each piece of a streamed answer, as it arrives."""
        with (
            self._client("127.0.0.1") as client,
            client.stream(
                "POST", f"{self.url}/v1/chat/completions", json=self.body(case, stream=True)
            ) as reply,
        ):
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    yield

    @staticmethod
    def _client(address: str) -> httpx.Client:
        transport = httpx.HTTPTransport(local_address=address)
        return httpx.Client(transport=transport, timeout=60, trust_env=False)


Behind = Callable[[Behaviour], Proxied]


@pytest.fixture
def behind(nginx: str, knowledge: Knowledge, tmp_path: Path) -> Iterator[Behind]:
    """Starts a server with a behaviour, and nginx with the recipe in front of it."""
    with contextlib.ExitStack() as stack:

        def start(behaviour: Behaviour) -> Proxied:
            server = stack.enter_context(serve(knowledge, behaviour))
            url = stack.enter_context(_proxy(nginx, server, tmp_path))
            return Proxied(url, knowledge)

        yield start


@contextlib.contextmanager
def _proxy(nginx: str, server: str, directory: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = f"127.0.0.1:{free.getsockname()[1]}"
    recipe = RECIPE.read_text("utf-8").replace("127.0.0.1:8080", own)
    (directory / "vllm.conf").write_text(recipe.replace("http://127.0.0.1:8000", server), "utf-8")
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(HOST.format(user=user, directory=directory), "utf-8")
    command = [nginx, "-p", str(directory), "-c", "nginx.conf"]
    process = SupervisedProcess(command, directory / "nginx.log", {}, directory)
    with contextlib.closing(process.polled()) as polled:
        for seconds in polled:
            if _listens(own):
                break
            assert seconds < STARTS_WITHIN_SECONDS, process.log
        else:
            pytest.fail(process.log)
        yield f"http://{own}"


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as tried:
        return tried.connect_ex((host, int(port))) == 0


@pytest.fixture(scope="module")
def page() -> Case:
    """An image that the tiny MinerU2.5 reads."""
    return next(case for case in load_cases([FIXTURES]) if case.id == "image/metrics")


def test_of_six_at_once_four_are_answered_right_and_two_are_told_when_to_retry(
    behind: Behind, page: Case
) -> None:
    two_came_back = threading.Semaphore(0)
    lock = threading.Lock()

    def wait(_request: Request, _state: State) -> None:
        """Computes until two of the six have their reply."""
        with lock:
            for _ in range(2):
                assert two_came_back.acquire(timeout=ENDS_WITHIN_SECONDS)
            two_came_back.release(2)

    proxied = behind(Behaviour(crash=wait))

    def ask(host: int) -> httpx.Response:
        reply = proxied.ask(page, f"127.0.0.{host}")
        two_came_back.release()
        return reply

    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(ask, range(1, 7)))
    served = [reply for reply in replies if reply.status_code == httpx.codes.OK]
    busy = [reply for reply in replies if reply.status_code == httpx.codes.TOO_MANY_REQUESTS]
    assert (len(served), len(busy)) == (4, 2)
    texts = {reply.json()["choices"][0]["message"]["content"] for reply in served}
    assert texts == {expected(proxied.knowledge, page.id)}
    assert {reply.headers["Retry-After"] for reply in busy} == {RETRY_SECONDS}
    assert {reply.json()["error"]["code"] for reply in busy} == {429}


def test_one_address_gets_five_answers_a_minute_and_another_one_its_own_five(
    behind: Behind, page: Case
) -> None:
    proxied = behind(Behaviour())
    statuses = [proxied.ask(page, "127.0.0.1").status_code for _ in range(6)]
    assert statuses == [200] * 5 + [429]
    assert proxied.ask(page, "127.0.0.2").status_code == httpx.codes.OK


def test_a_stream_passes_piece_by_piece(behind: Behind, page: Case) -> None:
    arrived = threading.Semaphore(1)
    late: list[bytes] = []

    def one_by_one(events: Iterator[bytes]) -> Iterator[bytes]:
        """Sends a piece when the one before it has arrived, or everything after a while."""
        for event in events:
            if not late and not arrived.acquire(timeout=ENDS_WITHIN_SECONDS):
                late.append(event)
            yield event

    for _ in behind(Behaviour(sent=one_by_one)).pieces(page):
        arrived.release()
    assert late == []

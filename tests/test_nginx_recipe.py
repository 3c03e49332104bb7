"""docs/nginx-429.conf in a real nginx: who is answered, who is refused, and what a stream does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.replay_server import Behaviour, Knowledge, Request, State, serve
from helpers.paths import FIXTURES, GOLDENS, REPOSITORY, SLUG
from helpers.waiting import until

from pytest_ascend_vlm.engines.messages import messages
from pytest_ascend_vlm.spec.case import Case
from pytest_ascend_vlm.spec.case_files import load_cases

RECIPE = REPOSITORY / "docs" / "nginx-429.conf"
RETRY_SECONDS = "12"
ANSWER_SECONDS = 1.0
PIECE_SECONDS = 0.2
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])

HOST = """
daemon off;
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
    if found := shutil.which("nginx", path=PATH):
        return found
    if not (apt := shutil.which("apt-get")) or not (dpkg := shutil.which("dpkg")):
        pytest.skip("there is no nginx here, and no apt-get to get it with")
    directory = tmp_path_factory.mktemp("nginx")
    for command in ([apt, "download", "nginx"], [dpkg, "-x", "{}", "."]):
        package = next(directory.glob("nginx_*.deb"), Path())
        ran = subprocess.run(
            [part.replace("{}", package.name) for part in command],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            pytest.skip(f"there is no nginx here, and apt-get does not get it: {ran.stderr}")
    return str(directory / "usr" / "sbin" / "nginx")


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

    def piece_times(self, case: Case) -> list[float]:
        """Seconds at which the pieces of a streamed answer arrive."""
        times = []
        with (
            self._client("127.0.0.1") as client,
            client.stream(
                "POST", f"{self.url}/v1/chat/completions", json=self.body(case, stream=True)
            ) as reply,
        ):
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    times.append(time.monotonic())
        return times

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
    recipe = recipe.replace("http://127.0.0.1:8000", re.sub(r"/v1/?$", "", server))
    (directory / "vllm.conf").write_text(recipe, "utf-8")
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(HOST.format(user=user, directory=directory), "utf-8")
    command = [nginx, "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: _listens(own) or process.poll() is not None, 30)
            assert process.poll() is None
            yield f"http://{own}"
        finally:
            process.terminate()


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as tried:
        return tried.connect_ex((host, int(port))) == 0


@pytest.fixture(scope="module")
def page() -> Case:
    """An image that the tiny MinerU2.5 reads."""
    return next(case for case in load_cases([FIXTURES]) if case.id == "image/metrics")


def slow(_request: Request, _state: State) -> None:
    """Answers after a while, as a queue has to."""
    time.sleep(ANSWER_SECONDS)


def test_of_six_at_once_four_are_answered_right_and_two_are_told_when_to_retry(
    behind: Behind, page: Case
) -> None:
    proxied = behind(Behaviour(crash=slow))
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda host: proxied.ask(page, f"127.0.0.{host}"), range(1, 7)))
    served = [reply for reply in replies if reply.status_code == httpx.codes.OK]
    busy = [reply for reply in replies if reply.status_code == httpx.codes.TOO_MANY_REQUESTS]
    assert (len(served), len(busy)) == (4, 2)
    texts = {reply.json()["choices"][0]["message"]["content"] for reply in served}
    assert texts == {answer_to(page)}
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
    def paused(events: Iterator[bytes]) -> Iterator[bytes]:
        for number, event in enumerate(events):
            if number < 5:
                time.sleep(PIECE_SECONDS)
            yield event

    times = behind(Behaviour(sent=paused)).piece_times(page)
    assert times[4] - times[0] > 3 * PIECE_SECONDS


def answer_to(case: Case) -> str:
    """The golden's answer to a case of the tiny MinerU2.5."""
    golden = json.loads((GOLDENS / SLUG / "tiny" / f"{case.id}.json").read_text("utf-8"))
    return str(golden["completion"]["text"])

"""The endpoint that is judged: its address, its key, and whether anything answers, told once."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fakes.replay_server import Behaviour, Defect, Refused, Request, State
from helpers.models import model_file
from helpers.outcome import Judged, Serve
from helpers.paths import NOBODY

from pytest_ascend_vlm.engines.address import base_url, is_loopback
from pytest_ascend_vlm.engines.first_contact import Contact, require_answer
from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.session.options import Options

URL = "--vlm-server-url"
KEY = "VLM_SERVER_API_KEY"
SECRET = "sk-very-secret"  # noqa: S105

# --- the address ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://localhost:8000/v1", "http://localhost:8000"),
        ("http://localhost:8000/v1/", "http://localhost:8000"),
        ("https://gateway.example/openai/v1", "https://gateway.example/openai"),
        ("HTTP://Host:80", "http://host:80"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://主机:8000", "http://主机:8000"),
    ],
)
def test_an_address_is_taken_without_the_api_s_version(typed: str, url: str) -> None:
    assert base_url(URL, typed) == url


@pytest.mark.parametrize(
    ("typed", "corrected"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("host", "http://host"),
        ("host/openai", "http://host/openai"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("8000", "http://localhost:8000"),
        (":8000", "http://localhost:8000"),
        ("//host:80", "http://host:80"),
        ("http:/host:80", "http://host:80"),
        ("https//host:80", "https://host:80"),
        ("ws://host:80", "http://host:80"),
        ("http：//主机：8000", "http://主机:8000"),
        (" http://host:80", "http://host:80"),
        ("http://host:80\n", "http://host:80"),
        ("http://ho st:80", "http://host:80"),
        ("http://host:80/v1/chat/completions", "http://host:80"),
        ("https://host/openai/v1/models", "https://host/openai"),
        ("http://host:80/v1?key=1", "http://host:80"),
        ("http://host:80#top", "http://host:80"),
        (f"http://me:{SECRET}@host:80", "http://host:80"),
        ("http://host:", "http://host"),
    ],
)
def test_another_address_is_refused_with_the_one_to_type(typed: str, corrected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        base_url(URL, typed)
    assert str(caught.value).endswith(f"; type {URL}={corrected}")
    assert SECRET not in str(caught.value)
    assert base_url(URL, corrected) == corrected


@pytest.mark.parametrize(
    "typed", ["", "http://", "http://host:x", "http://host:70000", "http://[::1"]
)
def test_an_address_without_a_host_is_refused_with_its_form(typed: str) -> None:
    with pytest.raises(ConfigurationError, match=f"type {URL}=http://host:port$"):
        base_url(URL, typed)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((name, True) for name in ("localhost", "127.0.0.1", "127.1.2.3", "[::1]")),
        *((name, False) for name in ("localhost.example", "10.0.0.1", "[2001:db8::1]", "host")),
    ],
)
def test_a_proxy_has_no_business_on_this_host(host: str, loopback: bool) -> None:
    assert is_loopback(f"http://{host}:8000") == loopback


@pytest.mark.parametrize("option", [URL, "--vlm-compare-url"])
def test_a_wrong_address_is_an_error_of_the_command_line(
    option: str, project: pytest.Pytester
) -> None:
    result = project.runpytest_inprocess(f"{option}=localhost:8000", "-p", "no:hypothesispytest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {option} *; type {option}=http://localhost:8000"])
    assert "criteria verified" not in result.stdout.str()


# --- what answers there --------------------------------------------------------------------------


def listed(url: str, key: str | None = None, seconds: float = 60.0) -> tuple[str, ...]:
    return require_answer(Contact(URL, url, key, seconds), lambda _: None)


def problem(url: str, key: str | None = None, seconds: float = 60.0) -> str:
    with pytest.raises(ConfigurationError) as caught:
        listed(url, key, seconds)
    return str(caught.value)


Answering = Callable[..., str]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Starts servers that give one answer to everything: `answering(404, "text/html")`."""
    with contextlib.ExitStack() as stack:

        def start(status: int, kind: str = "text/html", body: str = "", **headers: str) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status)
                    for name, value in {"Content-Type": kind, **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body.encode())

                def log_message(self, *_: object) -> None:
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield start


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_good_server_is_no_problem(stub: Serve) -> None:
    assert listed(stub()) == ("OpenDataLab/MinerU2.5-2509-1.2B",)
    assert listed(stub(key=SECRET), SECRET) == listed(stub())


def test_what_the_endpoint_lists_is_left_to_the_criterion(answering: Answering) -> None:
    url = answering(200, "application/json", '{"object": "list", "data": []}')
    assert listed(url) == ()
    url = answering(200, "application/json", '{"data": [{"id": "a"}, 1, {}, {"id": "b"}]}')
    assert listed(url) == ("a", "b")


def test_nobody_there() -> None:
    said = f"no server answers at {NOBODY} (connection refused): start it, or correct {URL}"
    assert problem(NOBODY) == said


def test_a_name_that_is_not_known() -> None:
    assert "no server answers at http://no-such-host.invalid (" in problem(
        "http://no-such-host.invalid"
    )


def test_a_missing_key_is_asked_for(stub: Serve) -> None:
    assert problem(stub(key=SECRET)).endswith(f"requires an API key (HTTP 401): set {KEY}")


def test_a_wrong_key_is_named_and_not_shown(stub: Serve) -> None:
    said = problem(stub(key="another"), SECRET)
    assert f"rejects the API key in {KEY} (HTTP 401)" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (404, "text/plain", ""),
        (405, "application/json", "{}"),
        (200, "text/html", "<html>"),
        (200, "application/json", '{"models": []}'),
        (200, "application/json", "[]"),
    ],
)
def test_a_server_without_the_api(status: int, kind: str, body: str, answering: Answering) -> None:
    url = answering(status, kind, body)
    said = problem(url)
    assert f"{url}/v1/models is not a list of models (HTTP {status}, {kind})" in said
    assert said.endswith(f"correct {URL}")
    assert problem(f"{url}/docs").endswith(f"type {URL}={url}")


def test_a_server_that_is_still_starting(answering: Answering) -> None:
    assert "answers HTTP 503 to /v1/models: if it is still starting, wait for" in problem(
        answering(503)
    )


@pytest.mark.parametrize(
    ("location", "advice"),
    [
        ("https://other.example/v1/models", f"type {URL}=https://other.example"),
        ("/login", f"correct {URL}"),
    ],
)
def test_a_server_that_has_moved(location: str, advice: str, answering: Answering) -> None:
    assert problem(answering(301, Location=location)).endswith(advice)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_never_answers(scheme: str, silent: str) -> None:
    said = problem(f"{scheme}://{silent}", seconds=0.2)
    assert "accepts the connection but does not answer in 0.2 s" in said


def test_tls_where_none_is_spoken(answering: Answering) -> None:
    url = answering(200)
    assert problem(url.replace("http:", "https:")).endswith(f"does not use TLS: type {URL}={url}")


def test_plain_http_where_tls_is_spoken(tmp_path: Path) -> None:
    with tls_server(tmp_path) as where:
        assert problem(f"http://{where}").endswith(f"type {URL}=https://{where}")


def test_a_certificate_that_nobody_signed(tmp_path: Path) -> None:
    with tls_server(tmp_path) as where:
        assert f"the certificate of https://{where} is not trusted here" in problem(
            f"https://{where}"
        )


def test_a_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:9")
    said = problem("http://192.0.2.1")
    assert "through the proxy in HTTP_PROXY; to connect directly, set NO_PROXY=192.0.2.1" in said
    assert SECRET not in said
    assert "proxy" not in problem(NOBODY)


@pytest.mark.parametrize("proxy", ["nonsense://proxy.invalid", "http://127.0.0.1:{port}"])
def test_a_proxy_that_cannot_be_used_is_no_server_without_http(
    proxy: str, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    port = answering(403).rpartition(":")[2]
    monkeypatch.setenv("https_proxy", proxy.format(port=port))
    said = problem("https://192.0.2.1")
    assert said.startswith("no request can be sent to https://192.0.2.1 (")
    assert "through the proxy in HTTPS_PROXY" in said


@contextlib.contextmanager
def tls_server(directory: Path) -> Iterator[str]:
    """A TLS server whose certificate it signed itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *made, *files], capture_output=True, check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def greet(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection, _ = listening.accept()
                with contextlib.suppress(OSError), context.wrap_socket(connection, True) as tls:
                    tls.recv(1)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=greet, args=(listening,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


# --- one error of the run ------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_one_error_before_anything_is_asked(judged: Judged) -> None:
    outcome = judged(NOBODY)
    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    assert outcome.result.stderr.str().count(f"ERROR: no server answers at {NOBODY}") == 1
    assert outcome.result.parseoutcomes().keys() == {"deselected"}
    assert not outcome.rows


def test_a_run_that_is_refused_leaves_the_report_of_an_earlier_one(
    stub: Serve, judged: Judged
) -> None:
    first = judged(stub(), "-k", "models")
    assert first.criteria("pass") == {"serving.models"}
    assert judged(NOBODY, "-k", "models").report == first.report


def test_nobody_is_asked_where_no_test_needs_the_server(
    project: pytest.Pytester, judged: Judged
) -> None:
    assert judged(NOBODY, "--collect-only", "-q").result.ret == 0
    model_file(project, "    def test_own(self):\n        pass")
    outcome = judged(
        NOBODY, "test_own_model.py", "-k", "test_own and not test_own_model or no-variant"
    )
    assert outcome.result.ret == 0


def test_nobody_is_asked_in_a_project_without_models(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_mine():\n    pass\n")
    result = pytester.runpytest_inprocess(f"{URL}={NOBODY}", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)


def test_a_dead_endpoint_verifies_no_expected_failure(judged: Judged) -> None:
    outcome = judged(NOBODY, "-k", "gigapixel")
    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    assert "criteria verified" not in outcome.text


def test_the_endpoint_to_compare_with_is_asked_too(stub: Serve, judged: Judged) -> None:
    compared = f"--vlm-compare-url={NOBODY}"
    outcome = judged(stub(), compared, "-m", "performance", "-k", "compared")
    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    assert "or correct --vlm-compare-url" in outcome.result.stderr.str()
    assert judged(stub(), compared, "-k", "models").criteria("pass") == {"serving.models"}


def test_a_wrong_key_is_one_error_and_never_shown(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stub(key="another")
    assert f"set {KEY}" in judged(url, "-k", "models").result.stderr.str()
    monkeypatch.setenv(KEY, SECRET)
    outcome = judged(url, "-k", "models")
    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"rejects the API key in {KEY} (HTTP 401)" in outcome.result.stderr.str()
    assert SECRET not in outcome.text + outcome.result.stderr.str()


def test_a_key_that_no_header_can_carry_is_refused_unseen(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, f"{SECRET}\nmore")
    outcome = judged(NOBODY)
    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    problem = f"{KEY} contains a character that an HTTP header cannot contain"
    assert problem in outcome.result.stderr.str()
    assert SECRET not in outcome.text + outcome.result.stderr.str()


def test_the_key_is_not_in_what_is_printed_of_the_options() -> None:
    (key,) = (field for field in dataclasses.fields(Options) if field.name == "api_key")
    assert not key.repr


def test_workers_tell_it_once(three_models: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "--vlm-checkpoint=tiny", f"{URL}={NOBODY}"],
        cwd=three_models,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.count("ERROR: no server answers at") == 1
    assert "INTERNALERROR" not in done.stdout
    assert "passed" not in done.stdout
    assert "failed" not in done.stdout


def test_a_key_that_is_refused_later_is_no_failure_of_the_model(
    stub: Serve, judged: Judged
) -> None:
    """As by a gateway that lists its models to everyone."""

    def refuse(_: Request, __: State) -> Refused:
        return Refused(401, "Unauthorized", "key")

    outcome = judged(stub(Behaviour(crash=refuse)), "-k", "text_is_answered and capital]")
    assert outcome.criteria("error") == {"serving.text"}
    assert f"(HTTP 401): set {KEY}" in outcome.reasons("serving.text")[0]


def test_a_server_that_goes_away_later_is_an_error_of_the_tests(
    stub: Serve, judged: Judged
) -> None:
    outcome = judged(stub(Defect.BAD_IMAGE_KILLS_PROCESS.value), "-k", "bad_input")
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED
    assert outcome.criteria("error") | outcome.criteria("fail") == {"serving.bad_input"}

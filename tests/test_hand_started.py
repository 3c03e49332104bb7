"""Servers that someone started by hand: right verdicts, or one line that says what to type."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fakes.replay_server import (
    NO_FLAGS,
    VERSION,
    Behaviour,
    Knowledge,
    Refused,
    State,
    serve,
)
from helpers.models import few_cases, model_file
from helpers.outcome import Judged, Outcome, Serve, documents
from helpers.paths import NOBODY

from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.engines.first_contact import Contact, require_answer, stated_version
from pytest_ascend_vlm.engines.neutral import NEUTRAL
from pytest_ascend_vlm.engines.served_name import ServedNames
from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.load import evalscope_perf

URL, KEY = "--vlm-server-url", "VLM_SERVER_API_KEY"
MINERU = "OpenDataLab/MinerU2.5-2509-1.2B"
QUICK = "text_is_answered and capital] or models"
DEVICE = "1 x 910B4"


def one_line(outcome: Outcome) -> str:
    """The only line of a run that ended before the first test."""
    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    assert not outcome.rows
    said = outcome.result.stderr.str()
    assert "Traceback" not in said + outcome.text
    (line,) = (line for line in said.splitlines() if line.startswith("ERROR: "))
    return line.removeprefix("ERROR: ")


# --- seven servers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["anything", "/data/模型/mineru"])
def test_any_name_and_any_path_is_judged_under_it(name: str, stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(name=name), "-k", QUICK)
    assert outcome.criteria("pass") == {"serving.text", "serving.models"}
    (model,) = outcome.report["models"]
    assert (model["model"], model["served_name"]) == (MINERU, name)
    _, document = documents(outcome.directory, "en")
    assert name.replace("_", "\\_") in document


def test_a_wrong_key_is_one_line(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stub(key="another")
    assert one_line(judged(url)) == f"the server at {url} requires an API key (HTTP 401): set {KEY}"
    monkeypatch.setenv(KEY, "wrong")
    assert one_line(judged(url)) == f"{url} rejects the API key in {KEY} (HTTP 401): correct it"


def test_a_key_that_is_not_needed_disturbs_nothing(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "not-needed")
    assert judged(stub(), "-k", QUICK).criteria("pass") == {"serving.text", "serving.models"}


def test_nothing_listens(judged: Judged) -> None:
    said = f"no server answers at {NOBODY} (connection refused): start it, or correct {URL}"
    assert one_line(judged(NOBODY)) == said


def test_a_url_without_a_scheme_is_corrected(judged: Judged) -> None:
    said = f"{URL} does not begin with http:// or https://; type {URL}=http://localhost:8000"
    assert one_line(judged("localhost:8000")) == said


def test_none_of_the_flags(stub: Serve, judged: Judged) -> None:
    url = stub(NO_FLAGS, image_limit=999, video_tokens=4, name="m")
    outcome = judged(url, "-k", few_cases())
    assert not outcome.criteria("fail")
    assert "Traceback" not in outcome.text
    named = {name: " ".join(outcome.reasons(name)) for name in outcome.criteria("error")}
    limit = """--limit-mm-per-prompt '{"image": 1, "video": 0}'"""
    limited = {"serving.multi_image", "serving.unsupported"}
    assert named.keys() == {*limited, "determinism.prefix_cache"}
    assert all(limit in named[name] for name in limited)
    assert "--enable-prompt-tokens-details" in named["determinism.prefix_cache"]
    assert {"baseline.text", "baseline.image", "numerics.logits"} <= outcome.criteria("pass")


def test_a_server_that_chokes_on_a_video_may_lack_its_limit(stub: Serve, judged: Judged) -> None:
    def chokes(refused: Refused, _: State) -> Refused:
        return dataclasses.replace(refused, status=500) if refused.kind == "video" else refused

    outcome = judged(stub(Behaviour(refuse=chokes)), "-k", "unsupported_is_refused")
    assert outcome.criteria("error") == {"serving.unsupported"}
    assert "--limit-mm-per-prompt" in outcome.reasons("serving.unsupported")[0]


# --- the name ------------------------------------------------------------------------------------


def several(*names: str) -> Behaviour:
    return Behaviour(listed=lambda own: [*names, *own])


def test_one_of_several_names_is_typed(stub: Serve, judged: Judged) -> None:
    url = stub(several("first", "second"), name="mineru")
    said = f"{url} serves several models: first, second, mineru; name the one to judge with "
    assert one_line(judged(url, "-k", QUICK)) == f"{said}--vlm-served-name=first"
    outcome = judged(url, "-k", QUICK, "--vlm-served-name=mineru")
    assert outcome.criteria("pass") == {"serving.text", "serving.models"}


def test_a_name_that_is_not_served_lists_those_that_are(stub: Serve, judged: Judged) -> None:
    url = stub(several("first"), name="mineru")
    said = f"--vlm-served-name=other: {url} serves no model of this name; it serves first, mineru"
    assert one_line(judged(url, "-k", QUICK, "--vlm-served-name=other")) == said


def test_the_models_own_name_goes_first(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(several("first", "second")), "-k", QUICK)
    assert outcome.criteria("pass") == {"serving.text", "serving.models"}


def test_one_name_is_one_model(project: pytest.Pytester, stub: Serve, judged: Judged) -> None:
    model_file(project, "    pass")
    path = project.path / "test_own_model.py"
    path.write_text(path.read_text("utf-8").replace(MINERU, "an-org/other"), "utf-8")
    url = stub(name="anything")
    said = f"{url} serves anything, but tests of 2 models are selected ({MINERU}, an-org/other). "
    assert one_line(judged(url, "-k", QUICK)).startswith(said)
    outcome = judged(url, "-k", QUICK, "conformance")
    assert outcome.criteria("pass") == {"serving.text", "serving.models"}
    # The criteria of both models are selected, but no server is needed.
    assert judged(url, "-k", "ready", "--collect-only").result.ret == 0


@pytest.mark.parametrize(
    ("listed", "wanted", "name"),
    [
        (("a/b",), None, "a/b"),
        (("x", "a/b"), None, "a/b"),
        (("x",), None, "x"),
        ((), None, "a/b"),
        ((), "x", "x"),
        (("x", "y"), "y", "y"),
    ],
)
def test_the_name_of_one_model(listed: tuple[str, ...], wanted: str | None, name: str) -> None:
    assert ServedNames("http://h", listed, wanted).name_of("a/b", {"a/b"}) == name


def test_models_that_are_all_listed_are_all_judged() -> None:
    names = ServedNames("http://h", ("a/b", "c/d", "x"), None)
    assert [names.name_of(one, {"a/b", "c/d"}) for one in ("a/b", "c/d")] == ["a/b", "c/d"]
    with pytest.raises(ConfigurationError, match="tests of 2 models are selected"):
        names.name_of("e/f", {"a/b", "e/f"})
    with pytest.raises(ConfigurationError, match="serves x, but tests of 2 models"):
        ServedNames("http://h", ("x", "y"), "x").name_of("a/b", {"a/b", "c/d"})


# --- a server that is still starting -------------------------------------------------------------


@contextlib.contextmanager
def starts_later(knowledge: Knowledge, seconds: float) -> Iterator[str]:
    """A server that listens only after some seconds."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    over = threading.Event()

    def start() -> None:
        time.sleep(seconds)
        with serve(knowledge, port=port):
            over.wait()

    thread = threading.Thread(target=start)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        over.set()
        thread.join()


def test_a_server_that_is_starting_is_waited_for(knowledge: Knowledge) -> None:
    lines: list[str] = []
    with starts_later(knowledge, 1.5) as url:
        contact = Contact(URL, url, None, wait_seconds=60)
        assert require_answer(contact, lines.append) == (MINERU,)
    assert lines[0] == f"waiting for the server at {url}, 0 of 60 s"


def test_the_run_waits_and_then_judges(knowledge: Knowledge, judged: Judged) -> None:
    with starts_later(knowledge, 1.0) as url:
        outcome = judged(url, "-k", QUICK, "--vlm-server-wait=60")
    assert outcome.criteria("pass") == {"serving.text", "serving.models"}


def test_the_wait_ends(judged: Judged) -> None:
    said = one_line(judged(NOBODY, "--vlm-server-wait=1.2"))
    assert said.startswith(f"no server answers at {NOBODY} (connection refused): start it")
    assert said.endswith(" (after 1 s)")


def test_nobody_waits_where_waiting_does_not_help(stub: Serve) -> None:
    lines: list[str] = []
    with pytest.raises(ConfigurationError, match=f"set {KEY}"):
        require_answer(Contact(URL, stub(key="a"), None, wait_seconds=60), lines.append)
    assert not lines


@pytest.mark.parametrize(
    "option", ["--vlm-served-name=a", "--vlm-server-device=a", "--vlm-server-wait=1"]
)
def test_an_option_about_an_endpoint_needs_one(option: str, judged: Judged) -> None:
    name = option.partition("=")[0]
    assert one_line(judged(None, option)) == f"{name} is about an endpoint; add {URL}=URL"


@pytest.mark.parametrize("seconds", ["-1", "inf", "soon"])
def test_a_wait_is_a_number_of_seconds(seconds: str, judged: Judged) -> None:
    outcome = judged(NOBODY, f"--vlm-server-wait={seconds}")
    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    assert "argument --vlm-server-wait: " in outcome.result.stderr.str()


# --- the checkpoint's own sampling settings ------------------------------------------------------


def test_the_checkpoints_settings_change_no_answer(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(NO_FLAGS), "-k", "text_matches or stream_adds_up or seeded or together")
    assert not outcome.criteria("fail") | outcome.criteria("error")
    assert {"baseline.text", "serving.streaming"} <= outcome.criteria("pass")


def test_a_request_that_omits_one_of_them_would_be_changed(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    less = {name: value for name, value in NEUTRAL.items() if name != "repetition_penalty"}
    monkeypatch.setattr("pytest_ascend_vlm.engines.connection.NEUTRAL", less)
    outcome = judged(stub(NO_FLAGS), "-k", "text_matches")
    assert outcome.criteria("fail") == {"baseline.text"}


def test_evalscope_sends_them_too() -> None:
    # test_load.py has the other one, `vllm bench serve`. The job of both has the fields.
    body = evalscope_perf._body({"messages": [], "output_tokens": 3}, NEUTRAL)
    assert body == {"messages": [], "temperature": 0, "max_tokens": 3, **NEUTRAL}


# --- statements ----------------------------------------------------------------------------------


def test_statements_are_told_as_statements(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(), "-k", QUICK, f"--vlm-server-device={DEVICE}")
    receipt = outcome.report["receipt"]
    assert receipt["device"].startswith(f"{DEVICE} (stated by the caller, not verified), behind ")
    assert receipt["versions"]["vllm"] == f"{VERSION} (stated by the server, not verified)"
    assert (receipt["platform"], receipt["origin"]) == ("endpoint", "endpoint")
    assert f"on a device that the caller states as {DEVICE} (tiny checkpoint)" in outcome.text
    texts = {
        language: (outcome.directory / f"adaptation.{language}.md").read_text("utf-8")
        for language in ("en", "zh")
    }
    assert "The suite did not start this server and cannot see its device." in texts["en"]
    assert "not an NPU result" in texts["en"]
    assert "hardware: NPU" not in texts["en"] + texts["zh"]
    assert "本套件没有启动该服务，也看不到它的设备。" in texts["zh"]


def test_without_a_statement_the_device_is_unknown(stub: Serve, judged: Judged) -> None:
    receipt = judged(stub(), "-k", QUICK).report["receipt"]
    assert receipt["device"].startswith("unknown, behind http://127.0.0.1:")


@pytest.mark.parametrize("status", [200, 400])
def test_each_request_has_a_connection_that_the_server_does_not_close_meanwhile(
    status: int,
) -> None:
    ports = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            ports.add(self.client_address[1])
            body = b'{"object": "list", "data": []}'
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}", MINERU, "none")
        with contextlib.closing(Client(endpoint, lambda: None)) as client:
            client.models()
            client.models()
        server.shutdown()
    assert len(ports) == 2


@pytest.mark.parametrize("body", ['{"version": 1}', "[]", "no JSON", None])
def test_a_server_that_states_no_version(body: str | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write((body or json.dumps({"version": "1"})).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert stated_version(Contact(URL, url, None)) is None
        server.shutdown()
    assert stated_version(Contact(URL, NOBODY, None)) is None

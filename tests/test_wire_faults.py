"""Faults of the wire: the proxy with a small server behind it, and what each fault changes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from faults.proxy import Body, Changes, in_parts, proxy
from faults.wire import CROWD, FAULTS, MANY
from PIL import Image, ImageChops

from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.engines.file_server import refusing_url, serve_file

BY_NAME = {fault.name: fault for fault in FAULTS}

# --- the proxy -----------------------------------------------------------------------------------

EVENTS = [{"choices": [{"delta": {"content": word}}]} for word in ("One", " two")]
CHAT = "/v1/chat/completions"
ENDLESS = b'{"endless": true}'


@dataclass
class Upstream:
    """A server that answers with what it was asked, whole or as a stream.

    Attributes:
        seen: method, path, headers and body of each request.
        is_left: set when the client of a request that is not answered leaves.
    """

    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    is_left: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @property
    def body(self) -> Any:
        """The last body, parsed."""
        return json.loads(self.seen[-1][3])


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.reply(b"{}")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if body == ENDLESS:
                if not self.connection.recv(1):
                    upstream.is_left.set()
                self.close_connection = True
            elif b'"stream":true' in body:
                lines = [*(f"data: {json.dumps(event)}" for event in EVENTS), "data: [DONE]"]
                self.reply("\n\n".join([*lines, ""]).encode(), "text/event-stream; charset=utf-8")
            else:
                self.reply(body)

        def reply(self, data: bytes, kind: str = "application/json") -> None:
            body = data if self.command == "POST" else b""
            upstream.seen.append((self.command, self.path, dict(self.headers), body))
            self.send_response(418 if "teapot" in self.path else 200)
            self.send_header("Content-Type", kind)
            self.send_header("X-Engine", "fake")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # the proxy connects anew for each request

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        upstream.url = f"http://127.0.0.1:{server.server_port}"
        yield upstream
        server.shutdown()


@pytest.fixture
def changed() -> list[bool]:
    """One entry for each change that a proxy told."""
    return []


Through = Callable[[Changes], httpx.Client]


@pytest.fixture
def through(upstream: Upstream, changed: list[bool]) -> Iterator[Through]:
    """Clients of proxies before the server."""
    with contextlib.ExitStack() as stack:

        def client(changes: Changes) -> httpx.Client:
            endpoint = Endpoint(upstream.url, "a-model", "secret")
            before = stack.enter_context(proxy(endpoint, changes, lambda: changed.append(True)))
            assert (before.served_name, before.api_key) == ("a-model", "secret")
            return stack.enter_context(httpx.Client(base_url=before.url, trust_env=False))

        yield client


def sent(body: Body) -> Body:
    return {**body, "max_tokens": 1}


def received(reply: Body, request: Body) -> Body:
    return {**reply, "asked": request["max_tokens"]}


@pytest.mark.parametrize("sent", [b"{broken", 100_000 * b"["])
def test_a_proxy_without_changes_passes_everything_on(
    sent: bytes, upstream: Upstream, through: Through, changed: list[bool]
) -> None:
    client = through(Changes())
    reply = client.post(f"{CHAT}?a=1", content=sent, headers={"Authorization": "Bearer k"})
    assert (reply.status_code, reply.content) == (200, sent)
    assert reply.headers["x-engine"] == "fake"
    method, path, headers, body = upstream.seen[-1]
    assert (method, path, body) == ("POST", f"{CHAT}?a=1", sent)
    assert headers["authorization"] == "Bearer k"
    assert client.get("/teapot").status_code == 418
    assert upstream.seen[-1][:2] == ("GET", "/teapot")
    assert not changed


def test_a_client_that_leaves_ends_its_request(upstream: Upstream, through: Through) -> None:
    with pytest.raises(httpx.ReadTimeout):
        through(Changes()).post(CHAT, content=ENDLESS, timeout=0.5)
    assert upstream.is_left.wait(10)


def test_requests_and_replies_are_changed_and_told(
    upstream: Upstream, through: Through, changed: list[bool]
) -> None:
    client = through(Changes(request=sent, reply=received))
    reply = client.post(CHAT, json={"max_tokens": 9}).json()
    assert upstream.body == {"max_tokens": 1}
    assert reply == {"max_tokens": 1, "asked": 9}
    assert len(changed) == 2


def test_only_chats_are_changed(through: Through, changed: list[bool]) -> None:
    client = through(Changes(request=sent, reply=received))
    assert client.post("/v1/completions", json={"max_tokens": 9}).json() == {"max_tokens": 9}
    assert client.post(CHAT, json=["no object"]).json() == ["no object"]
    assert not changed


def test_a_stream_is_passed_on_event_by_event(through: Through, changed: list[bool]) -> None:
    def louder(event: Body, request: Body) -> Body:
        assert request["stream"]
        delta = event["choices"][0]["delta"]
        delta["content"] = delta["content"].upper()
        return event

    body = {"stream": True, "max_tokens": 9}
    for changes, words in ((Changes(), ("One", " two")), (Changes(event=louder), ("ONE", " TWO"))):
        with through(changes).stream("POST", CHAT, json=body) as reply:
            assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
            lines = [line for line in reply.iter_lines() if line]
        events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert lines[-1] == "data: [DONE]"
        assert tuple(event["choices"][0]["delta"]["content"] for event in events) == words
    assert len(changed) == len(EVENTS)


@pytest.mark.parametrize(
    ("held", "parts"),
    [(0, ["one\n", "\n", "two\n"]), (3, ["one\n", "\ntwo\n"]), (99, ["one\n\ntwo\n"])],
)
def test_lines_of_a_stream_are_collected(held: int, parts: list[str]) -> None:
    async def lines() -> AsyncIterator[str]:
        for line in ("one\n", "\n", "two\n"):
            yield line

    async def joined() -> list[str]:
        return [part async for part in in_parts(lines(), held)]

    assert asyncio.run(joined()) == parts


@pytest.mark.parametrize("name", ["stream-at-its-end", "stream-in-large-parts"])
def test_a_stream_that_is_collected_is_the_same(
    name: str, through: Through, changed: list[bool]
) -> None:
    before = through(Changes()).post(CHAT, json={"stream": True})
    assert not changed
    reply = through(BY_NAME[name].changes()).post(CHAT, json={"stream": True})
    assert reply.text == before.text
    assert len(changed) == 1


def test_simultaneous_requests_get_their_own_replies(through: Through) -> None:
    client = through(Changes(reply=received))
    replies: dict[int, Any] = {}

    def ask(number: int) -> None:
        replies[number] = client.post(CHAT, json={"max_tokens": number}).json()["asked"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == {number: number for number in range(16)}


def test_a_server_that_is_gone_is_a_bad_gateway() -> None:
    gone = Endpoint("http://127.0.0.1:9", "a-model", "none")
    with proxy(gone, Changes(), lambda: None) as endpoint:
        reply = httpx.post(f"{endpoint.url}{CHAT}", json={}, trust_env=False)
    assert reply.status_code == 502
    assert "no reply" in reply.json()["error"]["message"]


# --- what each fault changes ---------------------------------------------------------------------


def url_of(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def picture_of(part: Body) -> Image.Image:
    head, _, data = part["image_url"]["url"].partition("base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert head == f"data:image/{str(picture.format).lower()};"
        return picture.convert("RGB")


def image(url: str) -> Body:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str) -> Body:
    return {"type": "text", "text": words}


def chat(*messages: tuple[str, Any], **fields: Any) -> Body:
    told = [{"role": role, "content": content} for role, content in messages]
    return {"messages": told, **fields}


def asked(name: str, body: Body) -> Body:
    """A request as a fault changes it."""
    return BY_NAME[name].changes().request(copy.deepcopy(body))


RAMP = Image.linear_gradient("L").convert("RGB").resize((40, 30))
A, B, C = (url_of(Image.new("RGB", (8, 6), colour)) for colour in ("red", "green", "blue"))
ONE = chat(("user", [image(url_of(RAMP)), text("Read it.")]))
SEVERAL = chat(("user", [text("First:"), image(A), text("second:"), image(B), image(C)]))
TURNS = chat(
    ("system", "Be short."),
    ("user", [image(A), text("What is it?")]),
    ("assistant", "red"),
    ("user", [image(B), text("And it?")]),
    ("assistant", "gre"),
)


def addresses(body: Body) -> list[str]:
    return [
        part["image_url"]["url"]
        for message in body["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]


def only_picture(body: Body) -> Image.Image:
    return picture_of(body["messages"][0]["content"][0])


def test_pictures_are_blank() -> None:
    seen = only_picture(asked("pictures-blank", ONE))
    assert (seen.size, seen.getcolors()) == (RAMP.size, [(1200, (255, 255, 255))])


def test_pictures_are_upside_down() -> None:
    seen = only_picture(asked("pictures-upside-down", ONE))
    assert seen.rotate(180).tobytes() == RAMP.tobytes()


def test_pictures_are_halved() -> None:
    assert only_picture(asked("pictures-halved", ONE)).size == (20, 15)


def test_pictures_are_compressed() -> None:
    changed = asked("pictures-lossy", ONE)
    seen = only_picture(changed)
    assert "image/jpeg" in addresses(changed)[0]
    assert seen.size == RAMP.size
    assert ImageChops.difference(seen, RAMP).getbbox()


@pytest.mark.parametrize(
    "url",
    ["http://here/page.png", "data:image/png;base64,bm8=", "data:image/png;base64,!", None, 7],
    ids=["http", "no picture", "no base64", "none", "number"],
)
def test_what_is_no_readable_picture_is_passed_on(url: Any) -> None:
    body = chat(("user", [{"type": "image_url", "image_url": {"url": url}}, text("?")]))
    assert asked("pictures-blank", body) == body


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize(
    "body",
    [{}, {"messages": None}, {"messages": []}, chat(("user", "Hello")), chat(("user", None))],
    ids=["empty", "no messages", "no message", "a text", "no content"],
)
def test_unusual_requests_are_passed_on(fault: Any, body: Body) -> None:
    seen = fault.changes().request(copy.deepcopy(body))
    for added in ("ignore_eos", "max_tokens"):
        seen.pop(added, None)
    assert seen == body


def test_pictures_of_a_request_are_exchanged() -> None:
    assert addresses(asked("pictures-exchanged", SEVERAL)) == [C, B, A]
    assert asked("pictures-exchanged", ONE) == ONE


def test_the_first_picture_is_repeated() -> None:
    assert addresses(asked("first-picture-repeated", SEVERAL)) == [A, A, A]
    assert asked("first-picture-repeated", ONE) == ONE


def test_pictures_are_before_the_text() -> None:
    content = asked("pictures-before-text", SEVERAL)["messages"][0]["content"]
    assert content == [image(A), image(B), image(C), text("First:"), text("second:")]
    assert asked("pictures-before-text", TURNS) == TURNS


def test_one_picture_of_a_message_is_kept() -> None:
    content = asked("one-picture-kept", SEVERAL)["messages"][0]["content"]
    assert content == [text("First:"), text("second:"), image(C)]
    assert asked("one-picture-kept", TURNS) == TURNS


def test_a_picture_that_comes_again_is_left_out() -> None:
    body = chat(("user", [image(A), text("or"), image(B), image(A)]))
    content = asked("equal-pictures-sent-once", body)["messages"][0]["content"]
    assert content == [image(A), text("or"), image(B)]
    assert asked("equal-pictures-sent-once", SEVERAL) == SEVERAL


def test_earlier_turns_are_dropped() -> None:
    messages = asked("earlier-turns-dropped", TURNS)["messages"]
    assert messages == [TURNS["messages"][0], *TURNS["messages"][3:]]
    assert asked("earlier-turns-dropped", ONE) == ONE


def test_the_system_message_is_dropped() -> None:
    assert asked("system-message-dropped", TURNS)["messages"] == TURNS["messages"][1:]
    assert asked("system-message-dropped", ONE) == ONE


def test_pictures_of_earlier_turns_are_dropped() -> None:
    changed = asked("history-without-pictures", TURNS)
    assert addresses(changed) == [B]
    assert changed["messages"][1]["content"] == [text("What is it?")]
    assert asked("history-without-pictures", SEVERAL) == SEVERAL


def test_texts_are_misread() -> None:
    body = chat(("system", "é"), ("user", [image(A), text("字 a")]), ("user", "plain"))
    messages = asked("text-in-another-encoding", body)["messages"]
    assert messages[0]["content"] == "Ã©"
    assert messages[1]["content"][1]["text"] == "\xe5\xad\x97 a"
    assert messages[2]["content"] == "plain"


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("temperature-zero-as-0.7", {"temperature": 0}, {"temperature": 0.7}),
        ("temperature-zero-as-0.7", {"temperature": 1}, {"temperature": 1}),
        ("seed-dropped", {"seed": 5, "n": 1}, {"n": 1}),
        ("n-dropped", {"n": 2, "seed": 5}, {"seed": 5}),
        ("stop-dropped", {"stop": ["x"], "n": 1}, {"n": 1}),
        ("limits-of-sampling-dropped", {"top_k": 1, "top_p": 0.5, "min_p": 1, "n": 1}, {"n": 1}),
        ("temperature-one-for-all-samples", {"temperature": 0.01}, {"temperature": 1.0}),
        ("temperature-one-for-all-samples", {"temperature": 0}, {"temperature": 0}),
        ("limits-of-sampling-all-or-nothing", {"top_k": 2, "top_p": 0.5, "n": 1}, {"n": 1}),
        (
            "limits-of-sampling-all-or-nothing",
            {"top_k": 1, "min_p": 1.0},
            {"top_k": 1, "min_p": 1.0},
        ),
        ("seed-zero-dropped", {"seed": 0, "n": 1}, {"n": 1}),
        ("seed-zero-dropped", {"seed": 1}, {"seed": 1}),
        ("stop-list-shortened", {"stop": ["x", "y"]}, {"stop": "x"}),
        ("stop-list-shortened", {"stop": "xy"}, {"stop": "xy"}),
        ("max-tokens-by-default", {"n": 1}, {"n": 1, "max_tokens": 16}),
        ("max-tokens-by-default", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ("special-tokens-skipped", {"skip_special_tokens": False, "n": 1}, {"n": 1}),
        ("penalties-dropped", {"presence_penalty": 2, "repetition_penalty": 2, "n": 1}, {"n": 1}),
        ("penalties-as-rewards", {"presence_penalty": 2}, {"presence_penalty": -2}),
        ("penalties-as-rewards", {"presence_penalty": 0}, {"presence_penalty": 0}),
        ("logit-bias-dropped", {"logit_bias": {"5": 9}, "n": 1}, {"n": 1}),
        ("min-tokens-dropped", {"min_tokens": 5, "n": 1}, {"n": 1}),
        ("stop-tokens-dropped", {"stop_token_ids": [5], "n": 1}, {"n": 1}),
        ("max-completion-tokens-dropped", {"max_completion_tokens": 5, "n": 1}, {"n": 1}),
        ("form-dropped", {"response_format": {"type": "json_object"}, "n": 1}, {"n": 1}),
        ("streams-without-parameters", {"top_k": 1, "stream": True}, {"stream": True}),
        ("streams-without-parameters", {"top_k": 1}, {"top_k": 1}),
        ("tools-dropped", {"tools": [], "tool_choice": "none", "n": 1}, {"n": 1}),
        ("tool-choice-dropped", {"tools": [], "tool_choice": "none"}, {"tools": []}),
        ("answers-cut-at-32", {"max_tokens": 512}, {"max_tokens": 32}),
        ("answers-cut-at-32", {"max_tokens": 8}, {"max_tokens": 8}),
        ("answers-cut-at-32", {"max_tokens": None}, {"max_tokens": None}),
    ],
)
def test_parameters_are_changed(name: str, before: Body, after: Body) -> None:
    assert asked(name, before) == after


def test_answers_never_end() -> None:
    assert asked("answers-never-end", ONE) == {**ONE, "ignore_eos": True}


def entry(token: str, logprob: float) -> Body:
    top = [{"token": token, "logprob": logprob}, {"token": "z", "logprob": logprob - 1}]
    return {"token": token, "logprob": logprob, "top_logprobs": top}


REPLY = {
    "choices": [{"logprobs": {"content": [entry("a", -1.0), entry("b", -2.0), entry("c", -3.0)]}}],
    "usage": {"prompt_tokens": 30, "completion_tokens": 3, "total_tokens": 33},
}


def told(name: str, reply: Body) -> Body:
    """A reply as a fault changes it; an event of a stream is changed alike."""
    changes = BY_NAME[name].changes()
    seen = changes.reply(copy.deepcopy(reply), {})
    assert changes.event(copy.deepcopy(reply), {}) == seen
    return seen


def test_usage_is_too_low() -> None:
    less = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23}
    assert told("usage-too-low", REPLY) == {**REPLY, "usage": less}


def test_log_probabilities_are_the_neighbours() -> None:
    content = told("logprobs-of-the-neighbour", REPLY)["choices"][0]["logprobs"]["content"]
    assert [one["token"] for one in content] == ["a", "b", "c"]
    assert [one["top_logprobs"][0]["token"] for one in content] == ["b", "c", "c"]


def test_log_probabilities_are_flat() -> None:
    content = told("logprobs-flat", REPLY)["choices"][0]["logprobs"]["content"]
    assert [one["logprob"] for one in content] == pytest.approx([-0.9, -1.8, -2.7])
    assert content[1]["top_logprobs"][1]["logprob"] == pytest.approx(-2.7)


@pytest.mark.parametrize("name", ["usage-too-low", "logprobs-of-the-neighbour", "logprobs-flat"])
@pytest.mark.parametrize(
    "reply",
    [{}, {"error": {}}, {"choices": [], "usage": None}, {"choices": [{"logprobs": None}]}],
    ids=["empty", "error", "no choice", "no log-probabilities"],
)
def test_replies_without_numbers_are_passed_on(name: str, reply: Body) -> None:
    assert told(name, reply) == reply


def test_every_fifth_answer_is_another_requests() -> None:
    reply = BY_NAME["answer-of-another-request"].changes().reply
    words = [reply({"choices": [word]}, {})["choices"][0] for word in "abcdefghij"]
    assert "".join(words) == "abcddfghii"
    assert reply({"error": {}}, {}) == {"error": {}}
    again = BY_NAME["answer-of-another-request"].changes().reply
    assert again({"choices": ["x"]}, {}) == {"choices": ["x"]}


def test_a_refused_picture_is_blank_if_it_is_sent_again() -> None:
    changes = BY_NAME["refused-picture-is-blank"].changes()
    salted, other = {**ONE, "cache_salt": "s"}, {**ONE, "cache_salt": "t"}
    assert changes.request(copy.deepcopy(salted)) == salted
    assert changes.reply({"error": {}}, salted) == {"error": {}}
    assert changes.reply({"choices": []}, other) == {"choices": []}
    assert changes.request(copy.deepcopy(salted)) == asked("pictures-blank", salted)
    assert changes.request(copy.deepcopy(other)) == other


def test_a_picture_is_fetched_while_all_wait() -> None:
    name, file = "pictures-fetched-one-by-one", b"a file"
    with serve_file(file) as files, refusing_url() as dead:
        asking, refused = (chat(("user", [image(url)])) for url in (files.url, dead))
        (part,) = asked(name, asking)["messages"][0]["content"]
        assert base64.b64decode(part["image_url"]["url"].partition(",")[2]) == file
        assert asked(name, refused) == refused
    assert asked(name, ONE) == ONE


def test_the_picture_of_an_address_is_fetched_once() -> None:
    request = BY_NAME["files-kept-by-url"].changes().request
    with serve_file(b"old") as files:
        for data in (b"old", b"new"):
            files.data = data
            body = request(copy.deepcopy(chat(("user", [image(files.url)]))))
            (part,) = body["messages"][0]["content"]
            assert base64.b64decode(part["image_url"]["url"].partition(",")[2]) == b"old"
        assert len(files.requests) == 1
        missing = chat(("user", [image(files.missing_url)]))
        assert request(copy.deepcopy(missing)) == missing
    assert request(copy.deepcopy(ONE)) == ONE


def odd(*parts: Any) -> Body:
    return {"messages": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS])
@pytest.mark.parametrize(
    "body",
    [
        {"messages": "x"},
        {"messages": ["x", 5]},
        odd({"type": "image_url"}, {"type": "image_url", "image_url": {"url": 5}}, "x"),
        odd({"type": "image_url", "image_url": "http:x"}, {"type": "text", "text": 5}),
        odd({"type": "image_url", "image_url": {"url": "http://["}}),
    ],
    ids=["text", "no-messages", "no-url", "no-text", "bad-url"],
)
def test_an_odd_request_reaches_the_server(name: str, body: Body) -> None:
    change = BY_NAME[name].changes().request
    assert change(copy.deepcopy(body))["messages"]


def test_emoji_are_lost_and_nothing_else() -> None:
    body = chat(("user", [image(A), text("字🙂？")]), ("user", "a🙂"))
    messages = asked("characters-beyond-16-bits-lost", body)["messages"]
    assert messages[0]["content"] == [image(A), text("字？")]
    assert messages[1]["content"] == "a"


def test_all_answers_to_a_request_are_the_first() -> None:
    reply = BY_NAME["answers-to-a-request-copied"].changes().reply
    choices = [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]
    assert reply({"choices": choices}, {})["choices"] == [choices[0], {"index": 1, "text": "a"}]
    assert reply({"error": {}}, {}) == {"error": {}}


def test_late_answers_are_those_of_old_requests() -> None:
    reply = BY_NAME["answer-of-an-old-request"].changes().reply
    seen = [reply({"choices": [number]}, {})["choices"][0] for number in range(2 * MANY)]
    assert seen == [*range(MANY), *range(MANY)]
    assert reply({"error": {}}, {}) == {"error": {}}


def test_a_streamed_call_loses_its_braces() -> None:
    change = BY_NAME["streamed-calls-without-braces"].changes().event
    arguments = [{"function": {"arguments": '{"a": {}}'}}, {"function": None}, {"function": {}}]
    seen = change({"choices": [{"delta": {"tool_calls": copy.deepcopy(arguments)}}]}, {})
    calls = seen["choices"][0]["delta"]["tool_calls"]
    assert calls == [{"function": {"arguments": '{"a": {'}}, *arguments[1:]]
    text = {"choices": [{"delta": {"content": "}"}}]}
    assert change(copy.deepcopy(text), {}) == text
    assert change({"error": {}}, {}) == {"error": {}}


def test_answers_are_mixed_while_many_requests_are_open() -> None:
    changes = BY_NAME["answers-mixed-above-16"].changes()

    def answers(count: int) -> list[int]:
        for _ in range(count):
            assert changes.request({}) == {}
        return [changes.reply({"choices": [number]}, {})["choices"][0] for number in range(count)]

    assert answers(CROWD) == [*range(CROWD)]
    assert answers(CROWD + 2) == [CROWD - 1, 0, *range(2, CROWD + 2)]
    assert answers(CROWD) == [*range(CROWD)]
    for _ in range(CROWD + 1):
        changes.request({})
    assert changes.reply({"error": {}}, {}) == {"error": {}}
    for _ in range(CROWD):
        assert changes.event({"usage": {"prompt_tokens": 1}}, {}) == {"usage": {"prompt_tokens": 1}}
        assert changes.event({"choices": []}, {}) == {"choices": []}
    assert answers(CROWD) == [*range(CROWD)]


def test_every_wire_fault_is_tried_here() -> None:
    tests = Path(__file__).read_text("utf-8")
    assert [name for name in BY_NAME if f'"{name}"' not in tests] == []

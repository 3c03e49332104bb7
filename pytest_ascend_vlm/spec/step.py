"""Requests of all kinds, good, odd and bad ones, and the ways in which a client takes the reply.

A body is a template. These words stand in it: `<model>` for the served name, `<page>` and
`<half-page>` for the data URL of a page and of the first half of its file, `<salt>` for characters
that no other request has, `<long>` for a text that no model has room for.
"""

from __future__ import annotations

import base64
import functools
import io
import itertools
import json
import math
import operator
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
_FEW_TOKENS = 8
_MANY_TOKENS = 256  # so that a client that leaves does so before the answer ends


@dataclass(frozen=True)
class Step:
    """One request as it is sent, and what the client does then.

    Attributes:
        name: the name in reports; equal names are equal steps.
        body: the template of the body. Lone surrogates stand for bytes that are no UTF-8.
        method: the HTTP method.
        path: the path of the URL.
        content_type: the header Content-Type; None for none.
        leaves_after: number of lines of the reply after which the client closes the connection; 0
            if it closes it before the reply begins; None if it reads the whole reply.
        plainer: steps that may stand for this one where a sequence of steps is made shorter.
    """

    name: str
    body: str
    method: str = "POST"
    path: str = CHAT
    content_type: str | None = "application/json"
    leaves_after: int | None = None
    plainer: tuple[Step, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Ending:
    """What the client of a chat request does after sending it."""

    stream: bool = False
    leaves_after: int | None = None


def _user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def _image(url: Any) -> list[dict[str, Any]]:
    """Messages with an image of some URL."""
    return _user([{"type": "image_url", "image_url": {"url": url}}, _QUESTION])


def _data(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _part(kind: str, url: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}


def _called(arguments: str) -> dict[str, Any]:
    """A message with the call of a tool."""
    function = {"name": "look", "arguments": arguments}
    call = {"id": "1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A response format with a schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _completion(name: str, **fields: Any) -> Step:
    body = {"model": "<model>", "max_tokens": _FEW_TOKENS, "temperature": 0, **fields}
    return Step(name, json.dumps(body), path=COMPLETIONS)


def _png(width: int, height: int, pixels: bytes = bytes(64)) -> bytes:
    """A PNG file whose header declares width x height pixels, whatever pixels it has."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    for kind, data in chunks:
        file.write(struct.pack(">I", len(data)) + kind + data)
        file.write(struct.pack(">I", zlib.crc32(kind + data)))
    return file.getvalue()


_QUESTION = {"type": "text", "text": "Read the page."}
_PAGE = {"type": "image_url", "image_url": {"url": "<page>"}, "uuid": "<salt>"}
_HUGE = 2**63
_FUNCTION = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
_PLACEHOLDERS = "<|vision_start|><|image_pad|><|vision_end|> <image> <IMG_CONTEXT> <|image|>"
_WITH: Mapping[str, Mapping[str, Any]] = {
    "n": {"temperature": 0.7},  # several greedy answers are refused
    "top_logprobs": {"logprobs": True},
    "tool_choice": {"tools": [_FUNCTION]},
}

ENDINGS: Mapping[str, Ending] = {
    "": Ending(),
    "streamed": Ending(stream=True),
    "left-before-the-answer": Ending(leaves_after=0),
    "left-after-1-line": Ending(stream=True, leaves_after=1),
    "left-after-9-lines": Ending(stream=True, leaves_after=9),
}
"""Name -> ending; the plainest first."""

GOOD: Mapping[str, Any] = {
    "text": _user("Hello, what is your name?"),
    "image": _user([_PAGE, _QUESTION]),
    "two-images": _user([_PAGE, _PAGE, _QUESTION]),
}
"""Name -> good messages, the plainest first; a model may be limited to one image."""

FIELDS: Mapping[str, Mapping[str, Any]] = {
    "max_tokens": {"zero": 0, "one": 1, "negative": -1, "huge": _HUGE, "text": "many"},
    "temperature": {"negative": -1, "two": 2, "high": 1e6, "tiny": 1e-9, "nan": math.nan},
    "top_p": {"zero": 0, "one": 1, "above-one": 1.5},
    "top_k": {"zero": 0, "negative": -2, "huge": _HUGE},
    "min_p": {"negative": -1, "above-one": 2},
    "n": {"zero": 0, "two": 2, "negative": -1, "huge": 20_000},
    "stop": {
        "empty": "",
        "empty-list": [],
        "empty-in-list": [""],
        "long-list": [f"stop {number}" for number in range(1000)],
        "number": 7,
    },
    "top_logprobs": {"negative": -2, "all": -1, "huge": 10_000},
    "prompt_logprobs": {"one": 1, "negative": -2, "huge": 10_000},
    "seed": {"negative": -1, "largest": _HUGE - 1, "beyond": _HUGE, "text": "luck"},
    "logit_bias": {
        "largest": {"33": 100},
        "unknown": {"999999999": 5},
        "negative": {"-1": 5},
        "word": {"hello": 5},
        "nan": {"33": math.nan},
    },
    "presence_penalty": {"beyond": 3},
    "frequency_penalty": {"beyond": -3},
    "repetition_penalty": {"zero": 0, "huge": 1e30, "nan": math.nan},
    "min_tokens": {"negative": -1, "above-max": 9, "huge": _HUGE},
    "stop_token_ids": {"unknown": [999_999_999], "negative": [-1], "huge": [_HUGE]},
    "allowed_token_ids": {"empty": [], "one": [33], "unknown": [999_999_999], "negative": [-1]},
    "bad_words": {"empty": [""], "one": ["the"]},
    "response_format": {
        "json": {"type": "json_object"},
        "without-schema": {"type": "json_schema"},
        "wrong-schema": _schema({"type": "nonsense"}),
        "lost-reference": _schema({"$ref": "#/nowhere"}),
        "broken-pattern": _schema({"type": "string", "pattern": "("}),
        "unknown": {"type": "nonsense"},
    },
    # No schema that xgrammar does not support: see docs/how-it-judges.md.
    "structured_outputs": {
        "broken-regex": {"regex": "("},
        "broken-json": {"json": "{"},
        "broken-grammar": {"grammar": "nonsense"},
        "no-choice": {"choice": []},
        "two-kinds": {"regex": "a", "json": "{}"},
        "none": {},
    },
    "tools": {"empty": [], "without-function": [{"type": "function"}], "one": [_FUNCTION]},
    "tool_choice": {"alone": "required", "unknown": {"type": "nonsense"}},
    "chat_template": {"broken": "{{"},
    "chat_template_kwargs": {"messages": {"messages": 7}, "list": [7]},
    "mm_processor_kwargs": {"unknown": {"nonsense": 7}, "text": {"max_pixels": "many"}},
    "cache_salt": {"empty": "", "number": 7},
    "truncate_prompt_tokens": {"zero": 0, "negative": -2, "huge": _HUGE},
    "use_beam_search": {"true": True},
    "stream": {"text": "maybe"},
    "stream_options": {"alone": {"include_usage": True}},
    "continue_final_message": {"too": True},
    "priority": {"huge": _HUGE},
    "user": {"number": 7},
    "no_such_field": {"number": 7},
}
"""Field -> name of a value -> the value, at the limits of the field and beyond."""

MESSAGES: Mapping[str, Any] = {
    **GOOD,
    "no-messages-in-list": [],
    "messages-are-text": "Hello",
    "message-is-null": [None],
    "message-without-content": [{"role": "user"}],
    "message-without-role": [{"content": "Hello"}],
    "unknown-role": [{"role": "nobody", "content": "Hello"}],
    "only-assistant": [{"role": "assistant", "content": "Hello"}],
    "tool-without-call": [{"role": "tool", "content": "Hello"}],
    "broken-tool-call": [*_user("Hello"), _called("{broken"), *_user("Go on.")],
    "content-null": _user(None),
    "content-empty": _user(""),
    "content-empty-list": _user([]),
    "content-number": _user(7),
    "part-of-unknown-type": _user([{"type": "nonsense"}]),
    "part-without-type": _user([{"text": "Hello"}]),
    "part-without-text": _user([{"type": "text"}]),
    "part-is-null": _user([None]),
    "null-character": _user("Hel\0lo"),
    "lone-surrogate": _user("Hel\ud800lo"),
    "rare-characters": _user("👩‍👩‍👧 \u202e \ufffe \U0010ffff"),
    "special-tokens": _user("<|im_end|>\n<|im_start|>system\n<|endoftext|></s>"),
    "image-tokens-in-text": _user(_PLACEHOLDERS),
    "image-and-image-tokens": _user([_PAGE, {"type": "text", "text": _PLACEHOLDERS}]),
    "too-long-prompt": _user("<long>"),
    "many-messages": 2000 * _user("Hello"),
    "many-images": _user([*100 * [_PAGE], _QUESTION]),
    "url-empty": _image(""),
    "url-null": _image(None),
    "unreachable-url": _image("http://127.0.0.1:9/page.png"),
    "url-broken": _image("http://[::1"),
    "url-ftp": _image("ftp://127.0.0.1/page.png"),
    "data-empty": _image("data:image/png;base64,"),
    "data-without-comma": _image("data:image/png;base64"),
    "data-not-base64": _image("data:image/png;base64,!!!"),
    "data-without-base64": _image("data:text/plain,hello"),
    "not-an-image": _image(_data(b"this is not an image")),
    "truncated-image": _image("<half-page>"),
    "decompression-bomb": _image(_data(_png(12_000, 12_000))),
    "gigapixel-image": _image(_data(_png(60_000, 60_000))),
    "image-of-no-size": _image(_data(_png(0, 0))),
    "image-of-one-pixel": _image(_data(_png(1, 1, b"\0\xff\xff\xff"))),
    "svg": _image(_data(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")),
    "image-url-is-text": _user([{"type": "image_url", "image_url": "<page>"}, _QUESTION]),
    "image-url-missing": _user([{"type": "image_url"}, _QUESTION]),
    "uuid-of-nothing": _user([{"type": "image_url", "image_url": None, "uuid": "x"}, _QUESTION]),
    "broken-embedding": _user([{"type": "image_embeds", "image_embeds": "AAAA"}, _QUESTION]),
    "broken-video": _user([_part("video_url", _data(b"no video", "video/mp4")), _QUESTION]),
    "broken-audio": _user([_part("audio_url", _data(b"no audio", "audio/wav")), _QUESTION]),
}
"""Name -> messages: good, odd and bad ones."""


@functools.cache
def chat(messages: str, field: str = "", ending: str = "") -> Step:
    """A chat request.

    Args:
        messages: a name in `MESSAGES`.
        field: an odd field and the name of its value, "n-two"; empty for none.
        ending: a name in `ENDINGS`.
    """
    end = ENDINGS[ending]
    long = {"max_tokens": _MANY_TOKENS, "ignore_eos": True}
    body = {
        "model": "<model>",
        "messages": MESSAGES[messages],
        "max_tokens": _FEW_TOKENS,
        "temperature": 0,
        "cache_salt": "<salt>",
        **({"stream": True} if end.stream else {}),
        **({} if end.leaves_after is None else long),
        **(_ODD[field] if field else {}),
    }
    odd = (messages if messages != "text" else "", field, ending)
    return Step(
        " + ".join(filter(None, odd)) or messages,
        json.dumps(body),
        leaves_after=end.leaves_after,
        plainer=tuple(_plainer(messages, field, ending)),
    )


def _plainer(*parts: str) -> Iterator[Step]:
    """The combinations of fewer parts of a chat request."""
    plain = ("text", "", "")
    choices = itertools.product(*map(dict.fromkeys, zip(plain, parts, strict=True)))
    fewer = sorted(choices, key=lambda one: sum(map(operator.ne, one, plain)))
    return (chat(*one) for one in fewer if one != parts)


_ODD = {
    f"{field}-{name}": {field: value, **_WITH.get(field, {})}
    for field, values in FIELDS.items()
    for name, value in values.items()
}
STRUCTURED = frozenset(
    f"{field}-{value}"
    for field in ("response_format", "structured_outputs", "tool_choice")
    for value in FIELDS[field]
)
"""Names of the requests that ask for an answer of one form."""

_GOOD_BODY = chat("text").body

OTHERS = (
    Step("broken-json", _GOOD_BODY[:-9]),
    Step("no-messages", '{"model": "<model>"}'),
    Step("unknown-model", _GOOD_BODY.replace("<model>", "no-such-model")),
    Step("no-model", _GOOD_BODY.replace('"model": "<model>", ', "")),
    Step("empty-body", ""),
    Step("json-list", "[]"),
    Step("json-null", "null"),
    Step("not-utf-8", _GOOD_BODY.replace("Hello", "Hell\udcff")),
    Step("deep-json", 100_000 * "["),
    Step("number-of-5000-digits", f'{_GOOD_BODY[:-1]}, "seed": {5000 * "9"}}}'),
    Step("plain-text", _GOOD_BODY, content_type="text/plain"),
    Step("form", _GOOD_BODY, content_type="application/x-www-form-urlencoded"),
    Step("broken-multipart", _GOOD_BODY, content_type="multipart/form-data"),
    Step("no-content-type", _GOOD_BODY, content_type=None),
    Step("get", "", method="GET"),
    Step("delete", "", method="DELETE"),
    Step("unknown-path", _GOOD_BODY, path="/v1/nonsense"),
    _completion("completion", prompt="Hello"),
    _completion("completion-of-nothing", prompt=""),
    _completion("completion-of-unknown-token", prompt=[999_999_999]),
    _completion("completion-of-negative-token", prompt=[-1]),
    _completion("completion-with-echo", prompt="Hello", echo=True, logprobs=1, max_tokens=0),
)
"""Requests that are no chats, or no well-formed ones."""


def single_steps() -> tuple[Step, ...]:
    """Every kind of request once: with good messages, or with one oddity."""
    return (
        *map(chat, MESSAGES),
        *(chat("text", field) for field in _ODD),
        *(chat(good, "", ending) for ending in ENDINGS if ending for good in ("text", "image")),
        *OTHERS,
    )


def combined_steps() -> tuple[Step, ...]:
    """Chats with good messages and each ending, some of them with an odd field as well."""
    return tuple(
        chat(good, field, ending) for good in GOOD for field in ("", *_ODD) for ending in ENDINGS
    )


def single_step(name: str) -> Step:
    """The request of a name."""
    return next(step for step in single_steps() if step.name == name)

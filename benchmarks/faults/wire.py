"""Faults of the wire: requests and replies that a proxy changes on their way."""

from __future__ import annotations

import base64
import binascii
import contextlib
import copy
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
from PIL import Image

from .fault import (
    MINERU,
    QWEN2_5,
    QWEN3,
    SEVERAL_PICTURES,
    WITH_TOOLS,
    Fault,
    Kind,
    Place,
)
from .proxy import Body, Changes

Part = dict[str, Any]
"""A part of a message's content."""

_LOSSY_QUALITY = 20
_CUT_TOKENS = 32
_FETCH_SECONDS = 8.0
_NOT_FETCHED = (httpx.HTTPError, httpx.InvalidURL)
_WARM = 0.7
_DEFAULT_TOKENS = 16
_EVERY = 5
_BUFFER = 2**14
_ENDLESS_BUFFER = 2**40
MANY = 100
CROWD = 16
_ADDED_PENALTIES = ("presence_penalty", "frequency_penalty")
_BEYOND_OPENAI = ("top_k", "min_p", "repetition_penalty", "min_tokens", "structured_outputs")


@dataclass(frozen=True, kw_only=True)
class WireFault(Fault):
    """A fault on the way to the server or back.

    Attributes:
        changes: makes what the proxy changes. Changes may remember earlier requests.
    """

    place: ClassVar[Place] = Place.WIRE

    changes: Callable[[], Changes]


def _request(change: Callable[[Body], Body]) -> Callable[[], Changes]:
    return lambda: Changes(request=change)


def _messages(change: Callable[[list[Body]], list[Body]]) -> Callable[[], Changes]:
    """Changes the messages of a request that has any."""

    def changed(body: Body) -> Body:
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
            return body
        return {**body, "messages": change(messages)}

    return _request(changed)


def _reply(change: Callable[[Body, Body], Body]) -> Callable[[], Changes]:
    """Changes whole replies and the events of streamed ones alike."""
    return lambda: Changes(reply=change, event=change)


def _parts(message: Body) -> list[Part]:
    """The parts of a message's content; none if it is a text."""
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _is_picture(part: Part) -> bool:
    image = part.get("image_url")
    is_whole = isinstance(image, dict) and isinstance(image.get("url"), str)
    return part.get("type") == "image_url" and is_whole


def _pictures_in(messages: list[Body]) -> Iterator[Part]:
    for message in messages:
        yield from filter(_is_picture, _parts(message))


def _pixels(change: Callable[[Image.Image], Image.Image], **how: Any) -> Callable[[], Changes]:
    """Changes every readable picture of a request that is in a data URL."""
    how = how or {"format": "PNG"}

    def changed(messages: list[Body]) -> list[Body]:
        for part in _pictures_in(messages):
            picture = _decoded(part)
            if picture is not None:
                part["image_url"] = {"url": _encoded(change(picture), **how)}
        return messages

    return _messages(changed)


def _decoded(part: Part) -> Image.Image | None:
    try:
        data = part["image_url"]["url"].partition("base64,")[2]
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            return picture.convert("RGB")
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, binascii.Error,
        Image.DecompressionBombError,
    ):  # fmt: skip
        return None


def _encoded(picture: Image.Image, **how: Any) -> str:
    file = io.BytesIO()
    picture.save(file, **how)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/{how['format'].lower()};base64,{data}"


# --- what is wrong -------------------------------------------------------------------------------


def _blank(picture: Image.Image) -> Image.Image:
    return Image.new("RGB", picture.size, "white")


def _halved(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.resize((max(width // 2, 1), max(height // 2, 1)))


def _turned(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.ROTATE_180)


def _reordered(order: Callable[[list[Any]], list[Any]]) -> Callable[[], Changes]:
    """Puts other pictures into the places of a request's pictures."""

    def change(messages: list[Body]) -> list[Body]:
        parts = list(_pictures_in(messages))
        addresses = [part.get("image_url") for part in parts]
        for part, address in zip(parts, order(addresses), strict=True):
            part["image_url"] = address
        return messages

    return _messages(change)


def _contents(change: Callable[[list[Part]], list[Part]]) -> Callable[[list[Body]], list[Body]]:
    """Changes the content of each message that has parts."""

    def changed(messages: list[Body]) -> list[Body]:
        return [
            {**message, "content": change(_parts(message))} if _parts(message) else message
            for message in messages
        ]

    return changed


def _pictures_first(content: list[Part]) -> list[Part]:
    return sorted(content, key=lambda part: not _is_picture(part))


def _one_picture(content: list[Part]) -> list[Part]:
    """Leaves out all pictures but the last."""
    pictures = [index for index, part in enumerate(content) if _is_picture(part)]
    return [part for index, part in enumerate(content) if index not in pictures[:-1]]


def _each_once(content: list[Part]) -> list[Part]:
    """Leaves out each picture that was there before."""
    return [
        part
        for index, part in enumerate(content)
        if not _is_picture(part) or _url(part) not in map(_url, content[:index])
    ]


def _url(part: Part) -> str | None:
    return part["image_url"]["url"] if _is_picture(part) else None


def _last_turn(messages: list[Body]) -> list[Body]:
    """Leaves out the turns before the last question, and keeps what follows it."""
    asked = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    system = [message for message in messages if message.get("role") == "system"]
    return [*system, *messages[asked[-1] :]] if asked else messages


def _no_system(messages: list[Body]) -> list[Body]:
    return [message for message in messages if message.get("role") != "system"]


def _history_without_pictures(messages: list[Body]) -> list[Body]:
    asked = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    earlier = messages[: asked[-1]] if asked else []
    for message in earlier:
        if _parts(message):
            message["content"] = [part for part in _parts(message) if not _is_picture(part)]
    return messages


def _texts(change: Callable[[str], str]) -> Callable[[], Changes]:
    """Changes each text of a request."""

    def changed(messages: list[Body]) -> list[Body]:
        for message in messages:
            content = message.get("content")
            if isinstance(content, str):
                message["content"] = change(content)
            for part in _parts(message):
                if isinstance(part.get("text"), str):
                    part["text"] = change(part["text"])
        return messages

    return _messages(changed)


def _misread(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _of_16_bits(text: str) -> str:
    """The text without the characters that UTF-16 writes as two."""
    return re.sub(r"[^\x00-\uffff]", "", text)


def _blank_after_refusal() -> Changes:
    """A refused request leaves a blank picture in a cache, to be found with the same salt."""
    refused: set[str] = set()
    blank = _pixels(_blank)().request

    def request(body: Body) -> Body:
        return blank(body) if body.get("cache_salt") in refused else body

    def reply(told: Body, asked: Body) -> Body:
        if "error" in told and asked.get("cache_salt"):
            refused.add(asked["cache_salt"])
        return told

    return Changes(request=request, reply=reply)


def _fetched_at_once(messages: list[Body]) -> list[Body]:
    """Fetches the pictures of http addresses, and answers nobody meanwhile."""
    for part in _pictures_in(messages):
        with contextlib.suppress(*_NOT_FETCHED):
            part["image_url"] = {"url": _fetched(part["image_url"]["url"])}
    return messages


def _kept_by_url() -> Changes:
    """Fetches the picture of an http address once."""
    files: dict[str, str] = {}

    def change(messages: list[Body]) -> list[Body]:
        for part in _pictures_in(messages):
            url = part["image_url"]["url"]
            with contextlib.suppress(*_NOT_FETCHED):
                files[url] = files.get(url) or _fetched(url)
                part["image_url"] = {"url": files[url]}
        return messages

    return _messages(change)()


def _fetched(url: str) -> str:
    """The data URL of the file at an http address; another address itself.

    Raises:
        httpx.HTTPError, httpx.InvalidURL: there is none.
    """
    if not url.startswith("http:"):
        return url
    file = httpx.get(url, timeout=_FETCH_SECONDS, trust_env=False)
    file.raise_for_status()
    return f"data:image/png;base64,{base64.b64encode(file.content).decode('ascii')}"


def _copied(reply: Body, _request: Body) -> Body:
    """All answers to a request are its first one."""
    choices = reply.get("choices") or []
    copies = [{**choices[0], "index": index} for index in range(len(choices))]
    return {**reply, "choices": copies} if copies else reply


def _warm(body: Body) -> Body:
    return {**body, "temperature": _WARM} if body.get("temperature") == 0 else body


def _without(*fields: str) -> Callable[[], Changes]:
    return _request(lambda body: {name: body[name] for name in body if name not in fields})


def _lukewarm(body: Body) -> Body:
    return {**body, "temperature": 1.0} if body.get("temperature") else body


def _unlimited(body: Body) -> Body:
    one = {"top_k": 1, "top_p": 1e-6, "min_p": 1.0}
    return {name: value for name, value in body.items() if one.get(name, value) == value}


def _without_seed_zero(body: Body) -> Body:
    return {name: value for name, value in body.items() if name != "seed" or value}


def _first_stop(body: Body) -> Body:
    stop = body.get("stop")
    return {**body, "stop": stop[0]} if isinstance(stop, list) and stop else body


def _cut_by_default(body: Body) -> Body:
    is_given = body.get("max_tokens") or body.get("max_completion_tokens")
    return body if is_given else {**body, "max_tokens": _DEFAULT_TOKENS}


def _rewarding(body: Body) -> Body:
    """Turns the sign of the penalties for tokens of the answer."""
    added = {name: -body[name] for name in _ADDED_PENALTIES if body.get(name)}
    return {**body, **added}


def _plain_streams(body: Body) -> Body:
    """Leaves out of streamed requests what only this server knows."""
    if not body.get("stream"):
        return body
    return {name: body[name] for name in body if name not in _BEYOND_OPENAI}


def _without_braces(event: Body, _request: Body) -> Body:
    """Leaves closing braces out of the arguments of a streamed call."""
    for choice in event.get("choices") or ():
        for call in choice.get("delta", {}).get("tool_calls") or ():
            function = call.get("function") or {}
            if isinstance(function.get("arguments"), str):
                function["arguments"] = function["arguments"].replace("}", "")
    return event


def _endless(body: Body) -> Body:
    return {**body, "ignore_eos": True} if "messages" in body else body


def _cut(body: Body) -> Body:
    limit = body.get("max_tokens")
    return {**body, "max_tokens": _CUT_TOKENS} if (limit or 0) > _CUT_TOKENS else body


def _low_usage(reply: Body, _request: Body) -> Body:
    """Reports a third fewer prompt tokens; the total agrees."""
    usage = reply.get("usage")
    if not isinstance(usage, dict) or not usage.get("prompt_tokens"):
        return reply
    hidden = usage["prompt_tokens"] // 3
    less = {name: usage[name] - hidden for name in ("prompt_tokens", "total_tokens")}
    return {**reply, "usage": {**usage, **less}}


def _entries(reply: Body) -> Iterator[list[Body]]:
    """The positions of each answer with its log-probabilities."""
    for choice in reply.get("choices") or ():
        listed = choice.get("logprobs")
        if isinstance(listed, dict) and listed.get("content"):
            yield listed["content"]


def _of_the_neighbour(reply: Body, _request: Body) -> Body:
    """Each token has the list of the token behind it; the last one keeps its own."""
    for content in _entries(reply):
        lists = [entry.get("top_logprobs") for entry in content]
        for entry, listed in zip(content, lists[1:], strict=False):
            entry["top_logprobs"] = listed
    return reply


def _flat(reply: Body, _request: Body) -> Body:
    """Log-probabilities shrink by a tenth, as after a temperature that nobody asked for."""
    for content in _entries(reply):
        for entry in content:
            for one in (entry, *(entry.get("top_logprobs") or ())):
                if one.get("logprob") is not None:
                    one["logprob"] *= 0.9
    return reply


def _of_another_request() -> Changes:
    """Every fifth answer is the one before."""
    told: list[Any] = []

    def change(reply: Body, _request: Body) -> Body:
        choices = reply.get("choices")
        if not choices:
            return reply
        told.append(copy.deepcopy(choices))
        return {**reply, "choices": told[-2]} if len(told) % _EVERY == 0 else reply

    return Changes(reply=change)


def _of_an_old_request() -> Changes:
    """From some number on, each answer is that of the request so many requests ago."""
    told: list[Any] = []

    def change(reply: Body, _request: Body) -> Body:
        choices = reply.get("choices")
        if not choices:
            return reply
        told.append(copy.deepcopy(choices))
        return {**reply, "choices": told.pop(0)} if len(told) > MANY else reply

    return Changes(reply=change)


def _of_the_crowd() -> Changes:
    """While many requests are open, each answer is the one before."""
    open_requests = 0
    last: Any = None

    def request(body: Body) -> Body:
        nonlocal open_requests
        open_requests += 1
        return body

    def reply(told: Body, _request: Body) -> Body:
        nonlocal open_requests, last
        is_crowd, before = open_requests > CROWD, last
        open_requests -= 1
        last = copy.deepcopy(told.get("choices")) or last
        return {**told, "choices": before} if is_crowd and before and "choices" in told else told

    def event(told: Body, _request: Body) -> Body:
        nonlocal open_requests
        # The last event of a stream has the usage.
        open_requests -= bool(told.get("usage"))
        return told

    return Changes(request=request, reply=reply, event=event)


_PROMPT = ("baseline.prompt",)

FAULTS = (
    WireFault(
        name="pictures-blank",
        kind=Kind.FORMATS,
        what="every picture is replaced by a white one of its size",
        changes=_pixels(_blank),
        caught_by=("baseline.image", "document.characters", "numerics.images"),
        suspect="picture bytes",
    ),
    WireFault(
        name="pictures-upside-down",
        kind=Kind.FORMATS,
        what="every picture is turned by 180 degrees",
        changes=_pixels(_turned),
        caught_by=("baseline.image", "document.characters", "numerics.images"),
        suspect="picture bytes",
    ),
    WireFault(
        name="pictures-lossy",
        kind=Kind.FORMATS,
        what="every picture is compressed as a JPEG of quality 20",
        changes=_pixels(lambda picture: picture, format="JPEG", quality=_LOSSY_QUALITY),
        caught_by=("numerics.images",),
        suspect="picture bytes",
    ),
    WireFault(
        name="text-in-another-encoding",
        kind=Kind.FORMATS,
        what="texts of requests are decoded as Latin-1",
        changes=_texts(_misread),
        caught_by=("baseline.text", "baseline.prompt"),
        suspect="messages",
    ),
    WireFault(
        name="characters-beyond-16-bits-lost",
        kind=Kind.FORMATS,
        what="texts of requests lose the characters beyond U+FFFF, such as emoji",
        changes=_texts(_of_16_bits),
        caught_by=("serving.prompt_text",),
        suspect="messages",
    ),
    WireFault(
        name="files-kept-by-url",
        kind=Kind.FORMATS,
        what="a proxy fetches the picture of an http address once, and keeps it",
        changes=_kept_by_url,
        caught_by=("serving.urls",),
        suspect="picture bytes",
    ),
    WireFault(
        name="pictures-halved",
        kind=Kind.SIZE,
        what="every picture is scaled to half of its sides",
        changes=_pixels(_halved),
        caught_by=("baseline.prompt", "serving.image_sizes"),
        suspect="picture bytes",
    ),
    WireFault(
        name="pictures-exchanged",
        kind=Kind.WHICH,
        what="the pictures of a request are in reverse order",
        changes=_reordered(lambda pictures: pictures[::-1]),
        caught_by=("baseline.order",),
        suspect="places of images",
        models=SEVERAL_PICTURES,
    ),
    WireFault(
        name="first-picture-repeated",
        kind=Kind.WHICH,
        what="every picture of a request is its first one",
        changes=_reordered(lambda pictures: pictures[:1] * len(pictures)),
        caught_by=("baseline.order",),
        suspect="places of images",
        models=SEVERAL_PICTURES,
    ),
    WireFault(
        name="pictures-before-text",
        kind=Kind.WHICH,
        what="the pictures of a message are moved before its text",
        changes=_messages(_contents(_pictures_first)),
        caught_by=_PROMPT,
        suspect="messages",
    ),
    WireFault(
        name="one-picture-kept",
        kind=Kind.WHICH,
        what="all pictures of a message but the last are left out",
        changes=_messages(_contents(_one_picture)),
        caught_by=_PROMPT,
        suspect="messages",
        models=SEVERAL_PICTURES,
    ),
    WireFault(
        name="earlier-turns-dropped",
        kind=Kind.WHICH,
        what="the turns before the last question are left out",
        changes=_messages(_last_turn),
        caught_by=_PROMPT,
        suspect="messages",
    ),
    WireFault(
        name="system-message-dropped",
        kind=Kind.WHICH,
        what="the system message is left out",
        changes=_messages(_no_system),
        caught_by=_PROMPT,
        suspect="messages",
    ),
    WireFault(
        name="history-without-pictures",
        kind=Kind.WHICH,
        what="the pictures of earlier turns are left out",
        changes=_messages(_history_without_pictures),
        caught_by=_PROMPT,
        suspect="messages",
        models=(QWEN2_5, QWEN3, MINERU),
    ),
    WireFault(
        name="answer-of-another-request",
        kind=Kind.LOAD,
        what="every fifth answer is that of the request before",
        changes=_of_another_request,
        caught_by=("baseline.text", "determinism.repeat"),
        suspect="another request's answer",
    ),
    WireFault(
        name="refused-picture-is-blank",
        kind=Kind.AFTERMATH,
        what="a picture of a request that was refused is read as a blank one if it is sent again",
        changes=_blank_after_refusal,
        caught_by=("recovery.request",),
        suspect="aborted requests",
    ),
    WireFault(
        name="pictures-fetched-one-by-one",
        kind=Kind.AFTERMATH,
        what="while a proxy waits for the picture of an http address, it answers nobody",
        changes=_messages(_fetched_at_once),
        caught_by=("recovery.request",),
        suspect="picture bytes",
    ),
    WireFault(
        name="answer-of-an-old-request",
        kind=Kind.GROWTH,
        what="behind 100 answers, each answer is that of the request 100 requests ago",
        changes=_of_an_old_request,
        caught_by=("growth.answers",),
        suspect="state between requests",
    ),
    WireFault(
        name="answers-mixed-above-16",
        kind=Kind.CROWD,
        what="while more than 16 requests are open, each answer is the one before",
        changes=_of_the_crowd,
        caught_by=("ladder.concurrent",),
        suspect="another request's answer",
    ),
    WireFault(
        name="temperature-zero-as-0.7",
        kind=Kind.PARAMETERS,
        what="a greedy request is sampled at temperature 0.7",
        changes=_request(_warm),
        caught_by=("determinism.unsure",),
        suspect="parameters",
    ),
    WireFault(
        name="equal-pictures-sent-once",
        kind=Kind.WHICH,
        what="a picture that is in a message again is left out",
        changes=_messages(_contents(_each_once)),
        caught_by=_PROMPT,
        suspect="messages",
        models=SEVERAL_PICTURES,
    ),
    WireFault(
        name="seed-dropped",
        kind=Kind.PARAMETERS,
        what="the seed of a request is left out",
        changes=_without("seed"),
        caught_by=("determinism.seeded",),
        suspect="parameters",
    ),
    WireFault(
        name="n-dropped",
        kind=Kind.PARAMETERS,
        what="the number of answers of a request is left out",
        changes=_without("n"),
        caught_by=("parameters.greedy", "serving.limits"),
        suspect="parameters",
    ),
    WireFault(
        name="answers-to-a-request-copied",
        kind=Kind.PARAMETERS,
        what="all answers to a request with n are the first one",
        changes=_reply(_copied),
        caught_by=("determinism.seeded",),
        suspect="parameters",
    ),
    WireFault(
        name="stop-dropped",
        kind=Kind.PARAMETERS,
        what="the stop strings of a request are left out",
        changes=_without("stop"),
        caught_by=("serving.limits",),
        suspect="parameters",
    ),
    WireFault(
        name="limits-of-sampling-dropped",
        kind=Kind.PARAMETERS,
        what="top_p, top_k and min_p are left out",
        changes=_without("top_p", "top_k", "min_p"),
        caught_by=("parameters.greedy",),
        suspect="parameters",
    ),
    WireFault(
        name="temperature-one-for-all-samples",
        kind=Kind.PARAMETERS,
        what="each temperature above 0 is taken for 1",
        changes=_request(_lukewarm),
        caught_by=("parameters.greedy",),
        suspect="parameters",
    ),
    WireFault(
        name="limits-of-sampling-all-or-nothing",
        kind=Kind.PARAMETERS,
        what="top_p, top_k and min_p are left out unless they leave one token",
        changes=_request(_unlimited),
        caught_by=("parameters.sampled",),
        suspect="parameters",
    ),
    WireFault(
        name="seed-zero-dropped",
        kind=Kind.PARAMETERS,
        what="the seed of a request is left out if it is 0",
        changes=_request(_without_seed_zero),
        caught_by=("determinism.seeded",),
        suspect="parameters",
    ),
    WireFault(
        name="stop-list-shortened",
        kind=Kind.PARAMETERS,
        what="of a list of stop strings, only the first is passed on",
        changes=_request(_first_stop),
        caught_by=("parameters.end",),
        suspect="parameters",
    ),
    WireFault(
        name="max-tokens-by-default",
        kind=Kind.PARAMETERS,
        what="a request without max_tokens gets 16",
        changes=_request(_cut_by_default),
        caught_by=("parameters.end",),
        suspect="parameters",
    ),
    WireFault(
        name="special-tokens-skipped",
        kind=Kind.PARAMETERS,
        what="skip_special_tokens is left out",
        changes=_without("skip_special_tokens"),
        caught_by=("parameters.end",),
        suspect="parameters",
    ),
    WireFault(
        name="penalties-dropped",
        kind=Kind.PARAMETERS,
        what="repetition, presence and frequency penalty are left out",
        changes=_without("repetition_penalty", *_ADDED_PENALTIES),
        caught_by=("parameters.choice",),
        suspect="parameters",
    ),
    WireFault(
        name="penalties-as-rewards",
        kind=Kind.PARAMETERS,
        what="presence and frequency penalty have the other sign",
        changes=_request(_rewarding),
        caught_by=("parameters.choice",),
        suspect="parameters",
    ),
    WireFault(
        name="logit-bias-dropped",
        kind=Kind.PARAMETERS,
        what="logit_bias is left out",
        changes=_without("logit_bias"),
        caught_by=("parameters.choice",),
        suspect="parameters",
    ),
    WireFault(
        name="min-tokens-dropped",
        kind=Kind.PARAMETERS,
        what="min_tokens is left out",
        changes=_without("min_tokens"),
        caught_by=("parameters.end",),
        suspect="parameters",
    ),
    WireFault(
        name="stop-tokens-dropped",
        kind=Kind.PARAMETERS,
        what="stop_token_ids and include_stop_str_in_output are left out",
        changes=_without("stop_token_ids", "include_stop_str_in_output"),
        caught_by=("parameters.end",),
        suspect="parameters",
    ),
    WireFault(
        name="max-completion-tokens-dropped",
        kind=Kind.PARAMETERS,
        what="max_completion_tokens is left out",
        changes=_without("max_completion_tokens"),
        caught_by=("parameters.end",),
        suspect="parameters",
    ),
    WireFault(
        name="form-dropped",
        kind=Kind.PARAMETERS,
        what="response_format and structured_outputs are left out",
        changes=_without("response_format", "structured_outputs"),
        caught_by=("parameters.form",),
        suspect="parameters",
    ),
    WireFault(
        name="streams-without-parameters",
        kind=Kind.PARAMETERS,
        what="streamed requests lose top_k, min_p, min_tokens and other fields of vLLM alone",
        changes=_request(_plain_streams),
        caught_by=("parameters.greedy", "parameters.end", "parameters.choice", "parameters.form"),
        suspect="parameters",
    ),
    WireFault(
        name="tools-dropped",
        kind=Kind.PARAMETERS,
        what="tools and tool_choice are left out",
        changes=_without("tools", "tool_choice"),
        caught_by=("parameters.tools",),
        suspect="parameters",
        models=WITH_TOOLS,
    ),
    WireFault(
        name="tool-choice-dropped",
        kind=Kind.PARAMETERS,
        what="tool_choice is left out, and the model need not call a function",
        changes=_without("tool_choice"),
        caught_by=("parameters.tools",),
        suspect="parameters",
        models=WITH_TOOLS,
    ),
    WireFault(
        name="streamed-calls-without-braces",
        kind=Kind.STREAMS,
        what="the arguments of a streamed call lose their closing braces",
        changes=lambda: Changes(event=_without_braces),
        caught_by=("parameters.tools",),
        suspect="reply",
        models=WITH_TOOLS,
    ),
    WireFault(
        name="answers-cut-at-32",
        kind=Kind.PARAMETERS,
        what="an answer ends after 32 tokens",
        changes=_request(_cut),
        caught_by=("baseline.image", "document.characters"),
        suspect="end of answers",
    ),
    WireFault(
        name="answers-never-end",
        kind=Kind.PARAMETERS,
        what="an answer goes on behind its end until max_tokens",
        changes=_request(_endless),
        caught_by=("baseline.text", "baseline.image"),
        suspect="end of answers",
    ),
    WireFault(
        name="stream-at-its-end",
        kind=Kind.STREAMS,
        what="a streamed answer is collected, and passed on when it is complete",
        changes=lambda: Changes(held_bytes=_ENDLESS_BUFFER),
        caught_by=("serving.streaming",),
        suspect="reply",
    ),
    WireFault(
        name="stream-in-large-parts",
        kind=Kind.STREAMS,
        what="a streamed answer is passed on in parts of 16 KiB",
        changes=lambda: Changes(held_bytes=_BUFFER),
        caught_by=("serving.streaming",),
        suspect="reply",
    ),
    WireFault(
        name="usage-too-low",
        kind=Kind.NUMBERS,
        what="usage reports a third fewer prompt tokens",
        changes=_reply(_low_usage),
        caught_by=("serving.text", "serving.image"),
        suspect="reply",
    ),
    WireFault(
        name="logprobs-of-the-neighbour",
        kind=Kind.NUMBERS,
        what="each token of an answer has the log-probabilities of the token behind it",
        changes=_reply(_of_the_neighbour),
        caught_by=("serving.text", "serving.image"),
        suspect="reply",
    ),
    WireFault(
        name="logprobs-flat",
        kind=Kind.NUMBERS,
        what="the log-probabilities that an answer lists are a tenth smaller",
        changes=_reply(_flat),
        caught_by=("numerics.answers",),
        suspect="reply",
    ),
)

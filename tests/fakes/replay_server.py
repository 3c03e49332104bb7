"""An OpenAI-compatible server that answers from goldens as vLLM would, with or without a defect.

Without a defect it replays the reference's answers: text, token ids, log-probabilities, usage. A
`Defect` is one realistic way in which a server is wrong. Goldens are read here without the
package's own reader, so that a mistake in that reader shows.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import enum
import functools
import hashlib
import html
import io
import itertools
import json
import math
import random
import re
import select
import socket
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps
from safetensors.numpy import load_file

from fakes.prompts import IMAGE, UNIT, Prompts, image_tokens

END = 258  # <|im_end|> of the tiny checkpoints; ids below 256 are bytes of UTF-8
FILLER = 32  # follows the end of an answer that is not to end
IMAGE_TOKEN = 261
VIDEO_TOKEN = 262
BLOCK = 16  # tokens of one block of the prefix cache
LONGEST_PROMPT = 16384
MOST_TOKENS = 2000
STREAM_SECONDS = 0.04  # from the first to the last piece of a stream
_EVENTS_BEHIND_TEXT = 3  # the finish reason, the usage, and the end
_FEW_EVENTS = 1 + _EVENTS_BEHIND_TEXT
_SLOW_SECONDS = 0.5
_FETCH_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0
_PIECE_SECONDS = 0.01  # between two pieces of a stream that nobody reads to its end
_LARGE = 1_000_000  # pixels; no picture of serving.image_sizes has as many
TOP = 20
LISTED = 64  # tokens that a row lists
VERSION = "99.0"  # of vLLM, as it states itself; no known failure was seen in it


# The sampling parameters that vLLM takes from generation_config.json if a request omits them, and
# the values that switch them off.
_NEUTRAL = {"top_p": (1,), "top_k": (-1, 0), "min_p": (0,), "repetition_penalty": (1,)}

# Fields that this server refuses, and the values of each that it accepts.
_UNKNOWN: dict[str, tuple[Any, ...]] = {
    **_NEUTRAL,
    "top_p": (1, 0.001),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": (),
    "min_tokens": (),
    "stop_token_ids": (),
    "include_stop_str_in_output": (),
    "skip_special_tokens": (True,),
    "structured_outputs": (),
    "response_format": (),
}

EVICTED = 50
"""Number of images after which a server confuses those that it has seen."""

CROWD = 16
"""Number of requests at once above which a server answers wrongly."""

_CROWD_SECONDS = 5.0
"""How long a request waits for so many others."""

_COMPANY_SECONDS = 1.0
"""How long a request waits for one beside it."""

KEPT_MIB = 2
_KEPT: list[bytearray] = []
"""Memory that a server keeps for each image."""

Fetch = Callable[[str], bytes]
View = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Clip:
    """A video.

    Attributes:
        frames: digests of the frames' pixels, in order.
        frames_a_second: the frame rate.
    """

    frames: tuple[str, ...]
    frames_a_second: float

    @property
    def shape(self) -> tuple[int, float]:
        """The properties that the tokens of a prompt depend on."""
        return len(self.frames), self.frames_a_second


Medium = str | Clip
"""An image as the digest of its pixels, or a clip."""

Message = tuple[str, Sequence["str | tuple[Medium]"]]
"""The role and the parts of a message: texts, and media in tuples of one."""


# --- the server's knowledge ----------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """The distribution of the token that follows a position.

    Attributes:
        logprobs: token id -> log-probability (nats).
        logsumexp: raw logit minus log-probability.
    """

    logprobs: Mapping[int, float]
    logsumexp: float

    @property
    def ranked(self) -> list[int]:
        """The tokens, most likely first."""
        return sorted(self.logprobs, key=lambda token: -self.logprobs[token])


@dataclass(frozen=True)
class Known:
    """One golden: the answer to a prompt under an image, with the numbers of bf16.

    Attributes:
        prompt: the prompt's tokens.
        rows: position in prompt and forced answer -> its row; only the golden's positions.
    """

    prompt: tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    forced: tuple[int, ...]
    rows: Mapping[int, Row]

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt)


@dataclass(frozen=True)
class Knowledge:
    """All goldens of one model.

    Attributes:
        model: the model's name.
        known: (prompt, images and clips) -> golden.
        prompts: makes the prompts of the model's checkpoint.
    """

    model: str
    known: Mapping[tuple[str, tuple[Medium, ...]], Known]
    prompts: Prompts

    @property
    def images(self) -> list[str]:
        """The images that appear in it, in the order of the cases."""
        media = (medium for _, media in self.known for medium in media)
        return list(dict.fromkeys(one for one in media if isinstance(one, str)))

    def prompt_of_shape(self, request: Request) -> tuple[int, ...]:
        """The tokens of a prompt with clips that no golden has; empty if their shapes are new."""
        shapes = [clip.shape for clip in request.clips]
        for (prompt, media), known in self.known.items():
            clips = [one for one in media if isinstance(one, Clip)]
            if clips and prompt == request.prompt and [clip.shape for clip in clips] == shapes:
                return known.prompt
        return ()

    def image_tokens(self, image: str, size: tuple[int, int]) -> int:
        """Number of tokens of an image; it does not depend on the question.

        Args:
            image: the digest of its pixels.
            size: its size, if no golden has it.
        """
        for (_, images), known in self.known.items():
            if images == (image,):
                return known.prompt.count(IMAGE_TOKEN)
        return image_tokens(*size) or 0


def read_goldens(golden: Path, fixtures: Path, checkpoint: Path) -> Knowledge:
    """Reads the goldens under `golden/<model>/<checkpoint>` and the checkpoint's tokenizer."""
    images = _pixels_by_digest(fixtures)
    known = {}
    model = ""
    for path in sorted(golden.rglob("*.json")):
        document = json.loads(path.read_text("utf-8"))
        prompt, seen = conversation(_messages(document["inputs"], images, fixtures))
        if all(seen):  # test_golden_store.py reports a golden whose image is missing
            known[prompt, seen] = _known(document, path.with_suffix(".safetensors"))
        model = document["model"]
    if not known:
        raise FileNotFoundError(f"no goldens in {golden}")
    return Knowledge(model, known, Prompts(checkpoint))


def _messages(asked: Mapping[str, Any], images: Mapping[str, str], fixtures: Path) -> list[Message]:
    """The messages of a golden's request, with images and clips in place of files."""

    def pixels(file: Mapping[str, str]) -> tuple[str]:
        return (images.get(file["sha256"], ""),)

    earlier = [
        (one["role"], [part if isinstance(part, str) else pixels(part) for part in one["content"]])
        for one in asked.get("earlier", ())
    ]
    clips = [
        (read_clip((fixtures / "videos" / video["name"]).read_bytes()),)
        for video in asked.get("videos", ())
    ]
    seen = [pixels(image) for image in asked["images"]]
    if clips:
        return [*earlier, ("user", [*clips, *seen, asked["prompt"]])]
    texts = asked["prompt"].split("<image>")
    if len(texts) == 1:
        return [*earlier, ("user", [*seen, asked["prompt"]])]
    between = [part for pair in zip(texts, seen, strict=False) for part in pair]
    return [*earlier, ("user", [*between, texts[-1]])]


def conversation(messages: Sequence[Message]) -> tuple[str, tuple[Medium, ...]]:
    """The text, and the images and clips, of a conversation.

    The text of a single message whose images and clips come first is the bare text. Any other text
    has the roles and the places of the images.
    """
    parts = [part for _, content in messages for part in content]
    images = tuple(part[0] for part in parts if not isinstance(part, str))
    first = parts[: len(images)]
    if len(messages) == 1 and not any(isinstance(part, str) for part in first):
        return "".join(part for part in parts if isinstance(part, str)), images
    lines = (
        f"{role}:" + "".join(part if isinstance(part, str) else "<image>" for part in content)
        for role, content in messages
    )
    return "\n".join(lines), images


def _known(document: Mapping[str, Any], tensor_path: Path) -> Known:
    tensors, completion = load_file(tensor_path), document["completion"]
    lists = (tensors["listed"], _bf16(tensors["bf16"]), tensors["bf16_logsumexp"])
    rows = (_row(*row) for row in zip(*(part.tolist() for part in lists), strict=True))
    return Known(
        prompt=_unpacked(completion["prompt_token_ids"]),
        text=completion["text"],
        token_ids=tuple(completion["token_ids"]),
        forced=tuple(tensors["forced_token_ids"].tolist()),
        rows=dict(zip(tensors["rows"].tolist(), rows, strict=True)),
    )


def _unpacked(text: str) -> tuple[int, ...]:
    """The tokens of a text like `257 261*140`."""
    runs = (run.split("*") for run in text.split())
    return tuple(int(run[0]) for run in runs for _ in range(int(run[1]) if run[1:] else 1))


def _bf16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """float32 numbers from their upper 16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _row(listed: Sequence[int], logits: Sequence[float], logsumexp: float) -> Row:
    """A golden's row; tokens that it does not list get much lower log-probabilities."""
    known = {t: logit - logsumexp for t, logit in zip(listed, logits, strict=True)}
    others = _others(known, LISTED - len(known))
    least = min(known.values())
    return Row({**known, **{t: least - 5 - i / 10 for i, t in enumerate(others)}}, logsumexp)


def _others(known: Collection[int], count: int) -> list[int]:
    """N tokens that are not among the known ones."""
    return [token for token in range(count + len(known)) if token not in known][:count]


def _pixels_by_digest(fixtures: Path) -> dict[str, str]:
    """Digest of an image file -> digest of its pixels."""
    found = {}
    for path in sorted(fixtures.rglob("*.png")):
        data = path.read_bytes()
        found[hashlib.sha256(data).hexdigest()] = pixel_digest(Image.open(io.BytesIO(data)))
    return found


def pixel_digest(image: Image.Image) -> str:
    """Digest of an image's pixels without the last one; it does not depend on the file format."""
    pixels = image.convert("RGB")
    return hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()[:-3]).hexdigest()


def read_clip(data: bytes) -> Clip:
    """The frames of a video file; none if it is not a video."""
    import cv2

    capture = cv2.VideoCapture(io.BytesIO(data), cv2.CAP_FFMPEG, [])  # type: ignore[call-overload]
    frames = []
    while (read := capture.read())[0]:
        frames.append(hashlib.sha256(read[1].tobytes()).hexdigest())
    return Clip(tuple(frames), capture.get(cv2.CAP_PROP_FPS))


# --- requests ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A parsed chat request."""

    model: str
    prompt: str
    turns: tuple[tuple[str, tuple[str | None, ...]], ...]  # role -> its parts, None for a medium
    images: tuple[Medium, ...]
    formats: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    modes: tuple[str, ...]
    forced: str | None
    listed: int
    max_tokens: int
    temperature: float
    seed: int | None
    stops: tuple[str, ...]
    n: int
    seeds_differ: bool  # between the answers to one request
    salt: str | None
    stream: bool
    lists: bool
    is_neutral: bool
    ignores_end: bool
    unknown: tuple[str, ...]
    call: tuple[str, str] | None

    @property
    def clips(self) -> list[Clip]:
        """Its clips, in order."""
        return [one for one in self.images if isinstance(one, Clip)]

    @property
    def is_endless(self) -> bool:
        """True if its answer would take so long that its client leaves before."""
        return self.ignores_end and self.max_tokens > MOST_TOKENS


@dataclass(eq=False)
class Refused(Exception):
    """An HTTP error in place of an answer."""

    status: int
    message: str
    kind: str
    is_json: bool = True


_MISTAKES = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)

# Fields whose values this server checks.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "max_tokens": lambda value: 1 <= value < 2**31,
    "temperature": lambda value: 0 <= value <= 2,
    "n": lambda value: 1 <= value <= 100,
    "stop": lambda value: all(isinstance(one, str) and one != "" for one in _stops(value)),
    "top_logprobs": lambda value: 0 <= value <= TOP,
    "prompt_logprobs": lambda value: 0 <= value <= LISTED,
    "seed": lambda value: abs(value) < 2**63,
    "cache_salt": lambda value: isinstance(value, str) and value != "",
    "bad_words": all,
    "stream": lambda value: isinstance(value, bool),
}


def _validate(asked: dict[str, Any]) -> None:
    """Raises ValueError if a field has a value that it must not have."""
    for name, is_right in _CHECKS.items():
        if asked.get(name) is not None and not is_right(asked[name]):
            raise ValueError(f"{name}={str(asked[name])[:40]}")


def parse(body: bytes, fetch: Fetch, view: View) -> Request:
    """Parses a body.

    Args:
        body: a request's body.
        fetch: returns the file at an image's URL.
        view: converts an opened image to the RGB image that the model sees.

    Raises:
        Refused: the body is not a valid request.
    """
    try:
        asked = json.loads(body)
        return _parsed(asked, fetch, view)
    except _MISTAKES as error:
        raise Refused(400, f"invalid request: {error!r}", "json") from error


def _parsed(asked: dict[str, Any], fetch: Fetch, view: View) -> Request:
    model, chat = asked["model"], asked["messages"]
    _validate(asked)
    forced = chat[-1]["content"] if chat[-1]["role"] == "assistant" else None
    chat = chat if forced is None else chat[:-1]
    contents = [(message["role"], _parts(message["content"])) for message in chat]
    parts = [part for _, content in contents for part in content]
    if unknown := {part["type"] for part in parts} - {"text", "image_url", "video_url"}:
        raise ValueError(f"unknown parts: {unknown}")
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    opened = [_open(fetch(url)) for url in urls]
    viewed = [view(image) for image in opened]
    seen = _seen_messages(contents, map(pixel_digest, viewed))
    prompt, images = conversation(seen)
    prompt.encode()  # a lone surrogate is no text
    if IMAGE in prompt:
        raise Refused(400, "a text with the token of an image", "image token")
    return Request(
        model=model,
        prompt=prompt,
        turns=tuple((role, tuple(map(_text_of, content))) for role, content in seen),
        images=images,
        formats=tuple(image.format or "" for image in opened),
        sizes=tuple(image.size for image in viewed),
        modes=tuple(image.mode for image in opened),
        forced=forced,
        listed=asked.get("prompt_logprobs") or 0,
        max_tokens=asked.get("max_tokens") or asked.get("max_completion_tokens") or MOST_TOKENS,
        temperature=_temperature(asked),
        seed=asked.get("seed"),
        stops=_stops(asked.get("stop")),
        n=asked.get("n") or 1,
        seeds_differ=True,
        salt=asked.get("cache_salt"),
        stream=bool(asked.get("stream")),
        lists=bool(asked.get("logprobs")),
        is_neutral=all(asked.get(name) in values for name, values in _NEUTRAL.items()),
        ignores_end=bool(asked.get("ignore_eos")),
        unknown=tuple(
            name for name, values in _UNKNOWN.items() if asked.get(name) not in (None, *values)
        ),
        call=_call(asked),
    )


def _stops(value: str | list[str] | None) -> tuple[str, ...]:
    if value is None or isinstance(value, str):
        return () if value is None else (value,)
    return tuple(value)


def _temperature(asked: Mapping[str, Any]) -> float:
    """The temperature; 0 where only the likeliest token is left."""
    temperature = asked.get("temperature") or 0.0
    return 0.0 if temperature <= 0.01 or asked.get("top_p") == 0.001 else temperature


def _text_of(part: str | tuple[Medium]) -> str | None:
    return part if isinstance(part, str) else None


def _call(asked: Mapping[str, Any]) -> tuple[str, str] | None:
    """The function that `tool_choice` makes the model call, with its first arguments."""
    choice, tools = asked.get("tool_choice"), asked.get("tools")
    if not tools or not (choice == "required" or isinstance(choice, dict)):
        return None
    named = [tool["function"] for tool in tools]
    if choice != "required":
        named = [function for function in named if function["name"] == choice["function"]["name"]]
    function = named[0]
    arguments = function["parameters"]["properties"].items()
    return function["name"], json.dumps({name: schema["enum"][0] for name, schema in arguments})


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _seen_messages(
    contents: Sequence[tuple[str, list[dict[str, Any]]]], digests: Iterator[str]
) -> list[Message]:
    """The messages of a request, with the digests of its images in order, and its clips."""

    def seen(part: dict[str, Any]) -> str | tuple[Medium]:
        if part["type"] == "text":
            return str(part["text"])
        if part["type"] == "video_url":
            return (read_clip(base64.b64decode(part["video_url"]["url"].partition(",")[2])),)
        return (next(digests),)

    return [(role, [seen(part) for part in content]) for role, content in contents]


def fetch(url: str) -> bytes:
    """The file at a URL, as vLLM fetches it.

    Raises:
        Refused: the URL has no file, or is that of a file on this host.
    """
    if url.startswith("data:"):
        try:
            return base64.b64decode(url.partition(";base64,")[2], validate=True)
        except binascii.Error as error:
            raise Refused(400, f"cannot identify image file: {error}", "image") from error
    if not url.startswith("http:"):
        raise Refused(400, "Cannot load local files without `--allowed-local-media-path`.", "url")
    try:
        reply = httpx.get(url, trust_env=False, timeout=_FETCH_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Refused(422, f"Failed to fetch media from URL: {error!r}", "url") from error
    if reply.is_error:
        raise Refused(422, f"Failed to fetch media from URL: HTTP {reply.status_code}", "url")
    return reply.content


def view(image: Image.Image) -> Image.Image:
    """The RGB image that the model sees: upright, and with transparent pixels on white."""
    return rgb(ImageOps.exif_transpose(image))


def rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """An image as RGB, with transparent pixels on a background and 16 bits scaled to 8."""
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba, onto = image.convert("RGBA"), Image.new("RGB", image.size, background)
    onto.paste(rgba, mask=rgba.getchannel("A"))
    return onto


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        # vLLM notices that such a file has no pixels by decoding it, which needs half a gigabyte.
        if image.width * image.height > 2**26:
            raise OSError("image file is truncated")
        image.load()
    except Image.DecompressionBombError as error:
        raise Refused(500, str(error), "image") from error  # so does vLLM 0.32
    except (OSError, SyntaxError) as error:
        raise Refused(400, f"cannot identify image file: {error}", "image") from error
    return image


# --- answers -------------------------------------------------------------------------------------


@dataclass
class State:
    """State of a server between requests."""

    asked: Counter[object] = field(default_factory=Counter)
    cached: set[object] = field(default_factory=set)
    first_images: dict[object, tuple[Medium, ...]] = field(default_factory=dict)
    in_flight: int = 0
    is_broken: bool = False
    is_gone: bool = False
    spoiled: set[str | None] = field(default_factory=set)  # salts
    stops: list[str] = field(default_factory=list)  # of the running requests
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Choice:
    """One answer as it leaves the engine."""

    text: str
    token_ids: tuple[int, ...]
    rows: tuple[Row, ...]
    finish: str


def decode(token_ids: Sequence[int]) -> str:
    """The text of tokens; special tokens have no text."""
    return bytes(token for token in token_ids if token < 256).decode("utf-8", "replace")


def encode(text: str) -> tuple[int, ...]:
    """The tokens of a text, without an end token."""
    return tuple(text.encode("utf-8"))


def sure(token: int) -> Row:
    """A row in which one token is certain; all others have much lower log-probabilities."""
    others = _others({token}, LISTED - 1)
    return Row({token: -0.01, **{other: -8.0 - other / 10 for other in others}}, 20.0)


def _certain(images: tuple[Medium, ...]) -> Callable[[int], Row]:
    """Makes rows in which one token is certain; the other tokens' numbers depend on the images."""
    noise = random.Random(str(images))
    return (lambda token: _shaken(sure(token), noise)) if images else sure


def unsure(token: int) -> Row:
    """A row in which two tokens are about as likely."""
    row = sure(token)
    return Row({**row.logprobs, token: -0.6, row.ranked[1]: -0.9}, row.logsumexp)


def _whole_text(request: Request, knowledge: Knowledge, index: int) -> str:
    known = knowledge.known.get((request.prompt, request.images))
    text = known.text if known else "I can tell nothing about that."
    if request.temperature == 0:
        return text
    # A sampler: the order depends on the seed, and each answer to one request has its own seed.
    words = text.split(" ") if " " in text else list(text)
    random.Random(f"{request.seed}/{index * request.seeds_differ}").shuffle(words)
    return " ".join(words) if " " in text else "".join(words)


def _choice(request: Request, knowledge: Knowledge, text: str) -> Choice:
    finish = "stop"
    tokens = (*encode(text), END)
    ends = [text.index(stop) for stop in request.stops if stop in text]
    if ends:
        text = text[: min(ends)]
        tokens = encode(text)
    if request.ignores_end:
        tokens = (*tokens, *(FILLER for _ in range(request.max_tokens)))
    if len(tokens) > request.max_tokens:
        tokens, finish = tokens[: request.max_tokens], "length"
        text = decode(tokens)
    known = knowledge.known.get((request.prompt, request.images))
    rows = _rows(tokens, known) if request.temperature == 0 else tuple(map(_sampled, tokens))
    return Choice(text, tokens, rows, finish)


def _sampled(token: int) -> Row:
    """A row in which three tokens are likelier than the one that was sampled."""
    row = sure(token)
    likelier = dict.fromkeys(row.ranked[1:4], -1.2)
    return Row({**row.logprobs, **likelier, token: -4.0}, row.logsumexp)


def _rows(tokens: tuple[int, ...], known: Known | None) -> tuple[Row, ...]:
    """The golden's rows while its tokens agree, then rows in which one token is certain.

    Each token of a greedy answer is the most likely one, also if a defect changed the answer.
    """
    rows = []
    for index, token in enumerate(tokens):
        is_known = known is not None and known.token_ids[:index] == tokens[:index]
        row = known.rows.get(known.prompt_tokens - 1 + index) if known and is_known else None
        guess = sure(token) if known else unsure(token)
        rows.append(row if row and row.ranked[0] == token else guess)
    return tuple(rows)


def prompt_items(request: Request, knowledge: Knowledge) -> list[object]:
    """The prompt's tokens; an image token includes the image's digest, as in cache keys."""
    if known := knowledge.known.get((request.prompt, request.images)):
        return _with_digests(known.prompt, request.images)
    if prompt := knowledge.prompt_of_shape(request):
        return [*prompt]
    images = [image for image in request.images if isinstance(image, str)]
    counts = [
        knowledge.image_tokens(image, size)
        for image, size in zip(images, request.sizes, strict=False)
    ]
    if len(request.turns) == 1:
        return _with_digests(knowledge.prompts.ids(request.prompt, counts), images)
    # A defect may have dropped the images.
    turns = [
        (role, [part for part in parts if part is not None or images])
        for role, parts in request.turns
    ]
    return _with_digests(knowledge.prompts.ids_of(turns, counts), images)


def _with_digests(prompt: Sequence[int], images: Sequence[Medium]) -> list[object]:
    """A prompt's tokens; the image tokens of each run include the digest of their image."""
    items: list[object] = []
    left = iter(images)
    for token, run in itertools.groupby(prompt):
        image = next(left, "") if token == IMAGE_TOKEN else ""
        items += [(token, image) if token == IMAGE_TOKEN else token for _ in run]
    return items


def _ids(items: Sequence[object]) -> list[int]:
    """The ids of a prompt's tokens."""
    return [item if isinstance(item, int) else IMAGE_TOKEN for item in items]


def _cached_tokens(
    items: Sequence[object], answer: Sequence[int], salt: str | None, state: State
) -> int:
    """Number of a prompt's tokens found in the prefix cache; caches the prompt and its answer.

    They are in whole blocks.
    """
    # The last token is always computed, because the next one is sampled from its output.
    ends, every = range(BLOCK, len(items), BLOCK), [*items, *answer]
    with state.lock:
        hits = [end for end in ends if (salt, tuple(items[:end])) in state.cached]
        made = range(BLOCK, len(every), BLOCK)
        state.cached.update((salt, tuple(every[:end])) for end in made)
    return max(hits, default=0)


# --- defects -------------------------------------------------------------------------------------


def _black(image: Image.Image) -> Image.Image:
    return rgb(ImageOps.exif_transpose(image), "black")


def _indices(image: Image.Image) -> Image.Image:
    is_palette = image.mode == "P"
    return Image.frombytes("L", image.size, image.tobytes()) if is_palette else view(image)


def _clipped(image: Image.Image) -> Image.Image:
    return image.convert("RGB") if image.mode == "I;16" else view(image)


def _garbled(image: Image.Image) -> Image.Image:
    if image.mode != "I;16":
        return view(image)
    return Image.fromarray((np.asarray(image) * 3 % 256).astype(np.uint8))


def _inverted(mode: str) -> View:
    return lambda image: (
        ImageChops.invert(image).convert("RGB") if image.mode == mode else view(image)
    )


def _turned_in_jpeg(image: Image.Image) -> Image.Image:
    """Turns a picture as EXIF says only if its file is a JPEG."""
    return view(image) if image.format == "JPEG" else rgb(image)


def _fetch_files(url: str) -> bytes:
    is_file = url.startswith("file:")
    return Path(url.removeprefix("file://")).read_bytes() if is_file else fetch(url)


def _fetch_another(url: str) -> bytes:
    """Another image in place of that at an http URL."""
    data = fetch(url)
    return _png(ImageOps.mirror(_open(data))) if url.startswith("http:") else data


@functools.cache
def _fetch_once(url: str) -> bytes:
    return fetch(url)


def _fetch_something(url: str) -> bytes:
    """A grey image in place of one that is missing."""
    try:
        return fetch(url)
    except Refused as refused:
        if refused.kind != "url" or url.startswith("file:"):
            raise
        return _png(Image.new("RGB", (56, 56), "grey"))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def _listed(names: list[str]) -> list[str]:
    return names


def _accept(_request: Request, _state: State) -> Refused | None:
    return None


def _refuse(refused: Refused, _state: State) -> Refused | None:
    return refused


def _seen(request: Request, _knowledge: Knowledge, _state: State) -> Request:
    return request


def _answered(text: str, _request: Request, _state: State) -> str:
    return text


def _candidates(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return rows


def _prompt(items: list[object]) -> list[object]:
    return items


def _usage(usage: dict[str, Any], _request: Request) -> dict[str, Any]:
    return usage


def _deltas(text: str) -> list[str]:
    return re.findall(r"\s*\S{1,4}|\s+", text)


def _sent(events: Iterator[bytes]) -> Iterator[bytes]:
    return events


def _sent_at_the_end(events: Iterator[bytes]) -> Iterator[bytes]:
    """All events together; a long answer is made slowly, so that no busy host explains it."""
    made = [*events]
    time.sleep(_SLOW_SECONDS if len(made) > _FEW_EVENTS else 0)
    yield b"".join(made)


def _chunk(chunk: dict[str, Any]) -> dict[str, Any]:
    return chunk


_STREAMS: Counter[str] = Counter()
_OPENED = threading.Lock()


def _lost_in_company(events: Iterator[bytes]) -> Iterator[bytes]:
    """Every other piece of text goes to nobody while another stream is open.

    A comment takes the place of the piece, so that the reply has the announced length.
    """
    with _OPENED:
        _STREAMS["open"] += 1
    try:
        for index, event in enumerate(events):
            is_lost = index % 2 and _STREAMS["open"] > 1 and b'"content"' in event
            yield b":" * (len(event) - 2) + b"\n\n" if is_lost else event
    finally:
        with _OPENED:
            _STREAMS["open"] -= 1


def _reply(reply: dict[str, Any]) -> dict[str, Any]:
    return reply


def _begun(_request: Request, _state: State) -> None:
    return


def _health(_state: State) -> int:
    return 200


@dataclass(frozen=True)
class Behaviour:
    """Points at which a server can be wrong; each default is vLLM's behaviour.

    Attributes:
        fetch: returns the file at an image's URL.
        view: converts an opened image to the RGB image that the model sees.
        listed: changes the names in `/v1/models`.
        crash: refuses a valid request, and breaks off a stream that its client will leave.
        refuse: changes a refusal; None means that the request is answered instead.
        seen: changes the request before the engine gets it.
        answered: changes the text that the engine generates.
        candidates: changes the rows of an answer.
        prompt: changes the prompt's tokens.
        usage: changes the token counts.
        deltas: splits the text into the pieces of a stream.
        chunk: changes a chunk of a stream.
        sent: changes the events of a stream, which are made one after another.
        reply: changes the body of the response.
        begun: called when a stream begins that its client will leave.
        health: the status of `/health`.
        left: called if the client of an endless answer leaves; None: nobody notices that.
    """

    fetch: Fetch = fetch
    view: View = view
    listed: Callable[[list[str]], list[str]] = _listed
    crash: Callable[[Request, State], Refused | None] = _accept
    refuse: Callable[[Refused, State], Refused | None] = _refuse
    seen: Callable[[Request, Knowledge, State], Request] = _seen
    answered: Callable[[str, Request, State], str] = _answered
    candidates: Callable[[tuple[Row, ...]], tuple[Row, ...]] = _candidates
    prompt: Callable[[list[object]], list[object]] = _prompt
    usage: Callable[[dict[str, Any], Request], dict[str, Any]] = _usage
    deltas: Callable[[str], list[str]] = _deltas
    chunk: Callable[[dict[str, Any]], dict[str, Any]] = _chunk
    sent: Callable[[Iterator[bytes]], Iterator[bytes]] = _sent
    reply: Callable[[dict[str, Any]], dict[str, Any]] = _reply
    begun: Callable[[Request, State], None] = _begun
    health: Callable[[State], int] = _health
    left: Callable[[State], None] | None = None


def changed(text: str) -> str:
    """The text with one wrong character in its middle."""
    middle = len(text) // 2
    wrong = "x" if text[middle : middle + 1] != "x" else "y"
    return text[:middle] + wrong + text[middle + 1 :]


def _text_500(request: Request, _state: State) -> Refused | None:
    return None if request.images else Refused(500, "list index out of range", "crash")


def _small_500(request: Request, _state: State) -> Refused | None:
    """Refuses pictures that are smaller than a merged patch, as Qwen2-VL's processor once did."""
    small = [size for size in request.sizes if min(size) < UNIT]
    message = f"height or width of {small} must be larger than factor:{UNIT}"
    return Refused(500, message, "crash") if small else None


def _sixteen_bits_500(request: Request, _state: State) -> Refused | None:
    message = "cannot write mode I;16 as RGB"
    return Refused(500, message, "crash") if "I;16" in request.modes else None


def _grey_jpeg_500(request: Request, _state: State) -> Refused | None:
    """Cannot read a JPEG with one channel, as decoders that keep the channels of a file."""
    is_grey = ("JPEG", "L") in zip(request.formats, request.modes, strict=True)
    return Refused(500, "shape mismatch: (1, 217, 333) and (3, 1, 1)", "crash") if is_grey else None


def _large_500(request: Request, _state: State) -> Refused | None:
    large = any(map(_is_large, request.sizes))
    return Refused(500, "EngineCore: out of memory", "crash") if large else None


def _is_large(size: tuple[int, int]) -> bool:
    return size[0] * size[1] > _LARGE


def _large_kills_engine(request: Request, state: State) -> Refused | None:
    return _engine_dies(refused, state) if (refused := _large_500(request, state)) else None


def _only(kind: str, **changes: Any) -> Callable[[Refused, State], Refused | None]:
    def refuse(refused: Refused, _state: State) -> Refused | None:
        return dataclasses.replace(refused, **changes) if refused.kind == kind else refused

    return refuse


def _answers(kind: str) -> Callable[[Refused, State], Refused | None]:
    return lambda refused, _state: None if refused.kind == kind else refused


def _engine_dies(refused: Refused, state: State) -> Refused:
    state.is_broken = True
    return refused


def _written_tokens_kill_engine(refused: Refused, state: State) -> Refused:
    """Looks for the image of a token that a text spells, as engines with M-RoPE once did."""
    if refused.kind != "image token":
        return refused
    return _engine_dies(dataclasses.replace(refused, status=500), state)


def _process_dies(refused: Refused, state: State) -> Refused:
    state.is_gone = True
    return refused


def _another_image(image: Medium, knowledge: Knowledge) -> Medium:
    images: list[Medium] = [*knowledge.images]
    return images[(images.index(image) + 1) % len(images)] if image in images else image


def _other_page(request: Request, knowledge: Knowledge, _state: State) -> Request:
    images = tuple(_another_image(image, knowledge) for image in request.images)
    return dataclasses.replace(request, images=images)


def _webp_wrong(request: Request, knowledge: Knowledge, state: State) -> Request:
    is_webp = "WEBP" in request.formats
    return _other_page(request, knowledge, state) if is_webp else request


def _first_image(request: Request, _knowledge: Knowledge, state: State) -> Request:
    if not request.images:
        return request
    images = state.first_images.setdefault((request.salt, request.prompt), request.images)
    return dataclasses.replace(request, images=images)


def _rounded_down(request: Request, _knowledge: Knowledge, _state: State) -> Request:
    """The request with sides that are cut to whole patches instead of being resized."""
    cut = ((width // UNIT * UNIT, height // UNIT * UNIT) for width, height in request.sizes)
    sizes = tuple((max(width, UNIT), max(height, UNIT)) for width, height in cut)
    return dataclasses.replace(request, sizes=sizes)


def _without(**fields: Any) -> Callable[[Request, Knowledge, State], Request]:
    return lambda request, _knowledge, _state: dataclasses.replace(request, **fields)


def _prompt_changed(
    change: Callable[[str], str],
) -> Callable[[Request, Knowledge, State], Request]:
    """Changes the texts of requests."""
    return lambda request, _knowledge, _state: dataclasses.replace(
        request, prompt=change(request.prompt)
    )


def _escaped(text: str) -> str:
    return html.escape(text).replace(html.escape("<image>"), "<image>")


def _one_streamed(request: Request, _knowledge: Knowledge, _state: State) -> Request:
    return dataclasses.replace(request, n=1) if request.stream else request


def _all_of_the_first(events: Iterator[bytes]) -> Iterator[bytes]:
    return (event.replace(b'"index": 1', b'"index": 0') for event in events)


def _samples(request: Request, knowledge: Knowledge, _state: State) -> Request:
    """Samples a greedy request; a trained answer is too certain to change."""
    if request.temperature or (request.prompt, request.images) in knowledge.known:
        return request
    return dataclasses.replace(request, temperature=0.7, seed=random.getrandbits(32))


def _reversed_images(request: Request, _knowledge: Knowledge, _state: State) -> Request:
    return dataclasses.replace(request, images=request.images[::-1])


def clips_changed(change: Callable[[Clip], Clip]) -> Callable[[Request, Knowledge, State], Request]:
    """Changes the clips of requests."""

    def seen(request: Request, _knowledge: Knowledge, _state: State) -> Request:
        media = (change(one) if isinstance(one, Clip) else one for one in request.images)
        return dataclasses.replace(request, images=tuple(media))

    return seen


def _reversed_frames(clip: Clip) -> Clip:
    return dataclasses.replace(clip, frames=clip.frames[::-1])


def _repeated_frame(clip: Clip) -> Clip:
    first, _, *others = clip.frames
    return dataclasses.replace(clip, frames=(first, first, *others))


def _every_other_frame(clip: Clip) -> Clip:
    return dataclasses.replace(clip, frames=clip.frames[::2])


def _two_a_second(clip: Clip) -> Clip:
    return dataclasses.replace(clip, frames_a_second=2.0)


def _random_seed(request: Request, _knowledge: Knowledge, _state: State) -> Request:
    return dataclasses.replace(request, seed=random.getrandbits(32))


def _alternating(text: str, request: Request, state: State) -> str:
    same = dataclasses.replace(request, salt=None)
    with state.lock:
        state.asked[same] += 1
        is_odd = state.asked[same] % 2 == 1
    return text if is_odd else changed(text)


def _large_garbled_at_first(text: str, request: Request, state: State) -> str:
    if not any(map(_is_large, request.sizes)):
        return text
    with state.lock:
        state.asked[request.images] += 1
        return changed(text) if state.asked[request.images] == 1 else text


def _confused_after_many(text: str, request: Request, state: State) -> str:
    """Reads another page in an image that was evicted from a cache of `EVICTED` images."""
    if not request.images:
        return text
    with state.lock:
        state.asked["images"] += 1
        return changed(text) if state.asked["images"] > EVICTED else text


def _kept(text: str, request: Request, _state: State) -> str:
    """Keeps memory for each image."""
    if request.images:
        _keep()
    return text


def _keep() -> None:
    """Keeps `KEPT_MIB` of memory."""
    # Zeros would be pages that the kernel does not allocate.
    _KEPT.append(bytearray(b"1") * (KEPT_MIB * 2**20))


def _kept_if_too_long(refused: Refused, _state: State) -> Refused:
    if refused.kind == "too long":
        _keep()
    return refused


def _kept_if_left(_state: State) -> None:
    _keep()


def _garbled_in_company(text: str, _request: Request, state: State) -> str:
    time.sleep(0.05)  # the other requests arrive meanwhile
    return changed(text) if state.in_flight > 1 else text


def _wrong_behind_own_answer(text: str, request: Request, state: State) -> str:
    """Reads wrong blocks behind a prompt: those of an answer that was generated before."""
    said = [parts[0] for role, parts in request.turns if role == "assistant"]
    with state.lock:
        state.asked[request.salt, text] += 1
        return changed(text) if any((request.salt, one) in state.asked for one in said) else text


def _cut_by_others(text: str, request: Request, state: State) -> str:
    """Ends an answer at the stop strings of all requests of a batch.

    Beside others, an answer waits for a request with such a string: a busy host sends slowly.
    """
    with state.lock:
        state.stops += request.stops
    until = time.monotonic() + _COMPANY_SECONDS
    while state.in_flight > 1 and not state.stops and time.monotonic() < until:
        time.sleep(0.01)
    cut = min((text.find(stop) for stop in state.stops if stop in text), default=None)
    while request.stops and state.in_flight > 1 and time.monotonic() < until:
        time.sleep(0.01)  # until the others have looked
    with state.lock:
        for stop in request.stops:
            state.stops.remove(stop)
    return text[:cut]


def _garbled_in_a_crowd(text: str, _request: Request, state: State) -> str:
    """A request that has company waits for a crowd, which a busy host sends slowly."""
    crowds, until = state.asked["crowds"], time.monotonic() + _CROWD_SECONDS
    time.sleep(0.2)  # the other requests arrive meanwhile
    while state.asked["crowds"] == crowds and state.in_flight > 1 and time.monotonic() < until:
        state.asked["crowds"] += state.in_flight > CROWD
        time.sleep(0.02)
    return changed(text) if state.asked["crowds"] > crowds else text


def _on(modality: str, change: Callable[[str], str]) -> Callable[[str, Request, State], str]:
    """Changes the answers to texts ("text") or to images ("image")."""

    def answered(text: str, request: Request, _state: State) -> str:
        return change(text) if bool(request.images) == (modality == "image") else text

    return answered


def _penalized(text: str, request: Request, _state: State) -> str:
    """Applies the repetition penalty of generation_config.json unless the request sets its own."""
    return text if request.is_neutral else changed(text)


def _always(answer: str) -> Callable[[str, Request, State], str]:
    return lambda _text, _request, _state: answer


def _swapped_lines(text: str) -> str:
    first, *rest = text.split("\n")
    return "\n".join([*rest[:1], first, *rest[1:]])


def _another_digit(text: str) -> str:
    return re.sub(r"\d", lambda found: str((int(found[0]) + 1) % 10), text, count=1)


def _noisy(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    noise = random.Random(0)
    return tuple(_shaken(row, noise) for row in rows)


def _shaken(row: Row, noise: random.Random, size: float = 0.5) -> Row:
    """The row with noise on its logits; its probabilities still add up to what they did."""
    shaken = {token: value + noise.gauss(0, size) for token, value in row.logprobs.items()}
    sums = (math.log(sum(map(math.exp, one.values()))) for one in (shaken, row.logprobs))
    total = next(sums) - next(sums)
    return Row({token: value - total for token, value in shaken.items()}, row.logsumexp + total)


def _restless(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Noise below that of bf16, but another one for each request."""
    noise = random.Random()
    return tuple(_shaken(row, noise, 0.01) for row in rows)


def _one_token_off(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The logit of the letter e is a little too low everywhere."""
    return tuple(
        Row({**row.logprobs, 101: row.logprobs[101] - 0.1}, row.logsumexp)
        if 101 in row.logprobs
        else row
        for row in rows
    )


def _nan(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(Row(dict.fromkeys(row.logprobs, math.nan), math.nan) for row in rows)


def _lists_few(request: Request, _state: State) -> Refused | None:
    message = (
        f"Requested prompt logprobs of {request.listed}, which is greater than max allowed: {TOP}"
    )
    return Refused(400, message, "too many logprobs") if request.listed > TOP else None


def _bytes_one_by_one(text: str) -> list[str]:
    return [bytes([byte]).decode("utf-8", "replace") for byte in text.encode("utf-8")]


def _less(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Drops fields from the body and from its choices, like a proxy that does not know them."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        choices = [_dropped(choice, names) for choice in body["choices"]]
        return {**_dropped(body, names), "choices": choices}

    return reply


def _dropped(body: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


def _more(name: str, by: int) -> Callable[[dict[str, Any], Request], dict[str, Any]]:
    def usage(usage: dict[str, Any], _request: Request) -> dict[str, Any]:
        total = usage["total_tokens"] + (0 if name == "total_tokens" else by)
        return {**usage, "total_tokens": total, name: usage[name] + by}

    return usage


def _another_prompt_counted(chunk: dict[str, Any]) -> dict[str, Any]:
    """The chunk; its usage counts a prompt of one token."""
    usage = chunk.get("usage")
    if usage is None:
        return chunk
    prompt = {"prompt_tokens": 1, "total_tokens": 1 + usage["completion_tokens"]}
    return {**chunk, "usage": {**usage, **prompt}}


def _halved(chunk: dict[str, Any]) -> dict[str, Any]:
    """The chunk; its log-probabilities are those of a temperature of 2, not normalised."""
    for choice in chunk["choices"]:
        for position in choice.get("logprobs", {}).get("content", ()):
            for entry in (position, *position["top_logprobs"]):
                entry["logprob"] /= 2
    return chunk


def _of_another_token(body: dict[str, Any]) -> dict[str, Any]:
    """The body; the entry of each token of an answer is that of the second likeliest one."""
    for choice in body["choices"]:
        for position in choice["logprobs"]["content"]:
            position.update(position["top_logprobs"][1])
    return body


def _with_number_of_another(body: dict[str, Any]) -> dict[str, Any]:
    """The body; the entry of each token of an answer has the number of the second likeliest one."""
    for choice in body["choices"]:
        for position in choice["logprobs"]["content"]:
            position["logprob"] = position["top_logprobs"][1]["logprob"]
    return body


def _lists_of_the_next_token(body: dict[str, Any]) -> dict[str, Any]:
    """The body; each token of an answer gets the candidates of the next token."""
    for choice in body["choices"]:
        content = choice["logprobs"]["content"]
        lists = [position["top_logprobs"] for position in content]
        for position, top in zip(content, [*lists[1:], *lists[:1]], strict=True):
            position["top_logprobs"] = top
    return body


def _lists_end_at_512(body: dict[str, Any]) -> dict[str, Any]:
    """The body; the tokens behind the 512th get the candidates of a token that is 256 before."""
    for choice in body["choices"]:
        content = choice["logprobs"]["content"]
        lists = [position["top_logprobs"] for position in content]
        for index, position in enumerate(content[512:]):
            position["top_logprobs"] = lists[(index + 256) % 512]
    return body


def _lists_of_five(body: dict[str, Any]) -> dict[str, Any]:
    """The body; an answer has five tokens at each position, whatever was asked for."""
    for choice in body["choices"]:
        for position in choice["logprobs"]["content"]:
            position["top_logprobs"] = position["top_logprobs"][:5]
    return body


def _prompt_lists_of_five(body: dict[str, Any]) -> dict[str, Any]:
    """The same of a prompt; each position keeps its own token, which comes first."""

    def cut(owner: dict[str, Any]) -> None:
        if rows := owner.get("prompt_logprobs"):
            owner["prompt_logprobs"] = [row and dict([*row.items()][:6]) for row in rows]

    for owner in (body, *body["choices"]):
        cut(owner)
    return body


def _one_answer_counted(usage: dict[str, Any], request: Request) -> dict[str, Any]:
    completion = usage["completion_tokens"] // request.n
    total = usage["prompt_tokens"] + completion
    return {**usage, "completion_tokens": completion, "total_tokens": total}


def _cache_not_told(usage: dict[str, Any], _request: Request) -> dict[str, Any]:
    return {**usage, "prompt_tokens_details": None}


def _stays(state: State) -> None:
    with state.lock:
        state.in_flight += 1


def _stream_stays(_request: Request, state: State) -> None:
    _stays(state)


def _spoils(request: Request, state: State) -> None:
    """Wrong blocks of the prefix cache stay behind, to be found with the same salt."""
    state.spoiled.add(request.salt)


def _spoils_all(_request: Request, state: State) -> None:
    """What an aborted request leaves in the batch changes all later answers."""
    state.spoiled.add(None)


def _too_long_spoils(request: Request, state: State) -> Refused | None:
    if len(request.prompt) > MOST_TOKENS:
        state.spoiled.add(request.salt)
    return None


def _file_spoils(refused: Refused, state: State) -> Refused:
    if refused.kind == "image":
        state.spoiled.add(None)
    return refused


def _if_spoiled(text: str, request: Request, state: State) -> str:
    is_spoiled = request.images and state.spoiled & {request.salt, None}
    return changed(text) if is_spoiled else text


_EVENT_LOOP = threading.Lock()


def _fetch_in_the_event_loop(url: str) -> bytes:
    with _EVENT_LOOP:
        return fetch(url)


def _in_the_event_loop(_request: Request, _state: State) -> Refused | None:
    with _EVENT_LOOP:
        return None


def _noted(what: str) -> Callable[[State], None]:
    """Notes in the server's state what has happened."""

    def note(state: State) -> None:
        state.asked[what] += 1

    return note


def _was_left(request: Request, state: State) -> bool:
    """True if a client left before; waits for those that are leaving."""
    if request.ignores_end:
        return False
    until = time.monotonic() + 5
    while state.in_flight > 1 and time.monotonic() < until:
        time.sleep(0.01)
    return bool(state.asked.pop("left", 0))


def _dies_if_left(request: Request, state: State) -> Refused | None:
    state.is_gone = bool(request.images) and _was_left(request, state)
    return Refused(500, "the process has ended", "crash") if state.is_gone else None


def _hangs_if_left(request: Request, state: State) -> None:
    if _was_left(request, state):
        state.in_flight -= 1  # nobody waits for it
        time.sleep(16)
        state.in_flight += 1


def _changed_after_two(text: str, request: Request, state: State) -> str:
    """Changes the answer to the request that follows one with n=2."""
    after_two = state.asked.pop("two", 0)
    state.asked["two"] = request.n == 2
    return changed(text) if after_two and request.n == 1 else text


def _remember_bias(refused: Refused, state: State) -> Refused:
    state.asked["bias"] += "logit_bias" in refused.message
    return refused


def _with_last_bias(text: str, _request: Request, state: State) -> str:
    return changed(text) if state.asked.pop("bias", 0) else text


def _min_p_500(refused: Refused, _state: State) -> Refused:
    return dataclasses.replace(refused, status=500) if "min_p" in refused.message else refused


class Defect(enum.Enum):
    """Realistic defects of a server, one at a time."""

    NAME_NOT_LISTED = Behaviour(listed=lambda _names: [])
    TEXT_GIVES_500 = Behaviour(crash=_text_500)
    USAGE_DOES_NOT_ADD_UP = Behaviour(usage=_more("total_tokens", 7))
    NO_FINISH_REASON = Behaviour(reply=_less("finish_reason"))
    IMAGE_COSTS_NOTHING = Behaviour(seen=_without(images=()))
    WEBP_READ_WRONGLY = Behaviour(seen=_webp_wrong)
    EXIF_IS_IGNORED = Behaviour(view=rgb)
    TRANSPARENT_IS_BLACK = Behaviour(view=_black)
    TRANSPARENCY_IS_IGNORED = Behaviour(
        view=lambda image: ImageOps.exif_transpose(image).convert("RGB")
    )
    PALETTE_IS_READ_AS_GREY = Behaviour(view=_indices)
    SIXTEEN_BITS_ARE_CLIPPED = Behaviour(view=_clipped)
    SIXTEEN_BITS_ARE_GARBLED = Behaviour(view=_garbled)
    CMYK_IS_INVERTED = Behaviour(view=_inverted("CMYK"))
    BILEVEL_IS_INVERTED = Behaviour(view=_inverted("1"))
    EXIF_IS_READ_IN_JPEG_ALONE = Behaviour(view=_turned_in_jpeg)
    FILES_ARE_READ = Behaviour(fetch=_fetch_files)
    URL_GIVES_ANOTHER_IMAGE = Behaviour(fetch=_fetch_another)
    FILES_ARE_KEPT_BY_URL = Behaviour(fetch=_fetch_once)
    MISSING_URL_IS_ANSWERED = Behaviour(fetch=_fetch_something)
    STREAM_LOSES_ITS_END = Behaviour(deltas=lambda text: _deltas(text)[:-1])
    STREAM_COUNTS_ANOTHER_PROMPT = Behaviour(chunk=_another_prompt_counted)
    STREAM_LACKS_LOGPROBS = Behaviour(chunk=_less("logprobs"))
    STREAM_HALVES_LOGPROBS = Behaviour(chunk=_halved)
    STREAM_IS_BUFFERED = Behaviour(sent=_sent_at_the_end)
    STREAMS_LOSE_PIECES_IN_COMPANY = Behaviour(sent=_lost_in_company)
    STREAM_BREAKS_CHARACTERS = Behaviour(deltas=_bytes_one_by_one)
    IGNORES_MAX_TOKENS = Behaviour(seen=_without(max_tokens=MOST_TOKENS))
    IGNORES_STOP = Behaviour(seen=_without(stops=()))
    IGNORES_N = Behaviour(seen=_without(n=1))
    TEXTS_ARE_NORMALIZED = Behaviour(
        seen=_prompt_changed(lambda text: unicodedata.normalize("NFKC", text))
    )
    TEXTS_ARE_ESCAPED = Behaviour(seen=_prompt_changed(_escaped))
    EMPTY_LINES_ARE_LOST = Behaviour(seen=_prompt_changed(lambda text: re.sub(r"\n+", "\n", text)))
    EMOJI_ARE_LOST = Behaviour(
        seen=_prompt_changed(lambda text: re.sub(r"[^\x00-\uffff]", "", text))
    )
    STREAM_HAS_ONE_ANSWER = Behaviour(seen=_one_streamed)
    STREAM_JOINS_ANSWERS = Behaviour(sent=_all_of_the_first)
    DROPS_PARAMETERS = Behaviour(refuse=_answers("parameter"))
    ANSWERS_TOO_MANY_IMAGES = Behaviour(refuse=_answers("too many images"))
    ANSWERS_VIDEO = Behaviour(refuse=_answers("video"))
    BAD_IMAGE_GIVES_500 = Behaviour(refuse=_only("image", status=500))
    BAD_IMAGE_KILLS_ENGINE = Behaviour(refuse=_engine_dies)
    BAD_IMAGE_KILLS_PROCESS = Behaviour(refuse=_process_dies)
    SMALL_PICTURES_GIVE_500 = Behaviour(crash=_small_500)
    SIXTEEN_BITS_GIVE_500 = Behaviour(crash=_sixteen_bits_500)
    GREY_JPEGS_GIVE_500 = Behaviour(crash=_grey_jpeg_500)
    WRITTEN_TOKENS_KILL_ENGINE = Behaviour(refuse=_written_tokens_kill_engine)
    SIDES_ARE_CUT = Behaviour(seen=_rounded_down)
    TOO_THIN_PICTURES_ARE_ANSWERED = Behaviour(refuse=_answers("too thin"))
    TOO_THIN_PICTURES_GIVE_500 = Behaviour(refuse=_only("too thin", status=500))
    LARGE_PICTURES_GIVE_500 = Behaviour(crash=_large_500)
    LARGE_PICTURES_KILL_ENGINE = Behaviour(crash=_large_kills_engine)
    LARGE_PICTURES_ARE_GARBLED_AT_FIRST = Behaviour(answered=_large_garbled_at_first)
    ABORTED_REQUESTS_STAY = Behaviour(begun=_stream_stays)
    ABORTED_UNSTREAMED_REQUESTS_STAY = Behaviour(left=_stays)
    ABORTED_PREFIX_IS_WRONG = Behaviour(begun=_spoils, answered=_if_spoiled)
    ABORTED_STATE_STAYS = Behaviour(begun=_spoils_all, answered=_if_spoiled)
    TOO_LONG_SPOILS_ITS_IMAGE = Behaviour(crash=_too_long_spoils, answered=_if_spoiled)
    BAD_FILE_SPOILS_IMAGES = Behaviour(refuse=_file_spoils, answered=_if_spoiled)
    HANGING_URL_BLOCKS_ALL = Behaviour(fetch=_fetch_in_the_event_loop, crash=_in_the_event_loop)
    UNKNOWN_MODEL_IS_ANSWERED = Behaviour(refuse=_answers("model"))
    LONG_PROMPT_GIVES_500 = Behaviour(refuse=_only("too long", status=500))
    ERRORS_ARE_PLAIN_TEXT = Behaviour(refuse=_only("json", is_json=False))
    AN_ODD_FIELD_GIVES_500 = Behaviour(refuse=_min_p_500)
    DIES_OF_AN_IMAGE_AFTER_A_CLIENT_LEFT = Behaviour(left=_noted("left"), crash=_dies_if_left)
    HANGS_AFTER_A_CLIENT_LEFT = Behaviour(left=_noted("left"), crash=_hangs_if_left)
    TWO_ANSWERS_CHANGE_THE_NEXT = Behaviour(answered=_changed_after_two)
    BIAS_STAYS_FOR_THE_NEXT = Behaviour(refuse=_remember_bias, answered=_with_last_bias)
    SECOND_RUN_DIFFERS = Behaviour(answered=_alternating)
    IGNORES_SEED = Behaviour(seen=_random_seed)
    ONE_SEED_FOR_ALL = Behaviour(seen=_without(seed=7))
    ONE_SEED_FOR_ALL_ANSWERS = Behaviour(seen=_without(seeds_differ=False))
    SAMPLES_GREEDILY = Behaviour(seen=_without(temperature=0.0))
    SAMPLES_A_GREEDY_REQUEST = Behaviour(seen=_samples)
    NUMBERS_CHANGE_A_LITTLE = Behaviour(candidates=_restless)
    ONE_TOKEN_IS_OFF = Behaviour(candidates=_one_token_off)
    IMAGES_ARE_REVERSED = Behaviour(seen=_reversed_images)
    FRAMES_ARE_REVERSED = Behaviour(seen=clips_changed(_reversed_frames))
    A_FRAME_IS_REPEATED = Behaviour(seen=clips_changed(_repeated_frame))
    FRAMES_ARE_DROPPED = Behaviour(seen=clips_changed(_every_other_frame))
    TIMES_ARE_ASSUMED = Behaviour(seen=clips_changed(_two_a_second))
    EVICTED_IMAGES_ARE_CONFUSED = Behaviour(answered=_confused_after_many)
    IMAGES_ARE_KEPT = Behaviour(answered=_kept)
    IMAGES_OF_REFUSED_REQUESTS_ARE_KEPT = Behaviour(refuse=_kept_if_too_long)
    IMAGES_OF_ABORTED_REQUESTS_ARE_KEPT = Behaviour(left=_kept_if_left)
    COMPANY_CHANGES_ANSWER = Behaviour(answered=_garbled_in_company)
    STOP_STRINGS_END_OTHER_ANSWERS = Behaviour(answered=_cut_by_others)
    A_CROWD_CHANGES_ANSWERS = Behaviour(answered=_garbled_in_a_crowd)
    CACHE_IGNORES_IMAGE = Behaviour(seen=_first_image)
    GENERATED_BLOCKS_ARE_WRONG = Behaviour(answered=_wrong_behind_own_answer)
    CACHE_IGNORES_SALT = Behaviour(seen=_without(salt=None))
    USAGE_COUNTS_ONE_OF_N = Behaviour(usage=_one_answer_counted)
    CACHE_IS_NOT_TOLD = Behaviour(usage=_cache_not_told)
    TEXT_OFF_BY_ONE_TOKEN = Behaviour(answered=_on("text", changed))
    ANOTHER_PAGE_IS_READ = Behaviour(seen=_other_page)
    LOGPROBS_ARE_NOISY = Behaviour(candidates=_noisy)
    LOGPROBS_OF_THE_NEXT_TOKEN = Behaviour(reply=_lists_of_the_next_token)
    ENTRY_OF_ANOTHER_TOKEN = Behaviour(reply=_of_another_token)
    NUMBER_OF_ANOTHER_TOKEN = Behaviour(reply=_with_number_of_another)
    IGNORES_IGNORE_EOS = Behaviour(seen=_without(ignores_end=False))
    LONG_ANSWERS_GO_WRONG = Behaviour(reply=_lists_end_at_512)
    LOGPROBS_ARE_NAN = Behaviour(candidates=_nan)
    PROMPT_LOGPROBS_ARE_DROPPED = Behaviour(reply=_less("prompt_logprobs"))
    LISTS_ARE_CUT = Behaviour(reply=_lists_of_five)
    PROMPT_LISTS_ARE_CUT = Behaviour(reply=_prompt_lists_of_five)
    LINES_ARE_SWAPPED = Behaviour(answered=_on("image", _swapped_lines))
    A_DIGIT_IS_WRONG = Behaviour(answered=_on("image", _another_digit))
    LAST_LINE_IS_LOST = Behaviour(answered=_on("image", lambda text: text.rpartition("\n")[0]))
    EXCLAMATION_MARKS = Behaviour(answered=_always("!" * MOST_TOKENS))
    ENDLESS_LOOP = Behaviour(answered=_always("the page " * MOST_TOKENS))
    EMPTY_ANSWER = Behaviour(answered=_always(""))
    PROMPT_IS_LONGER = Behaviour(prompt=lambda items: [*items[:1], *items])
    USAGE_IS_TOO_LOW = Behaviour(usage=_more("prompt_tokens", -3))
    USAGE_HIDES_AN_ANSWERS_END = Behaviour(usage=_more("completion_tokens", -1))


# No defect: vLLM with its default maximum of listed tokens.
LISTS_FEW = Behaviour(crash=_lists_few)

# No defect: vLLM that someone started with none of the arguments that the suite adds.
NO_FLAGS = Behaviour(crash=_lists_few, usage=_cache_not_told, answered=_penalized)


# --- the engine ----------------------------------------------------------------------------------


class Stub:
    """Answers chat requests from goldens."""

    def __init__(
        self,
        knowledge: Knowledge,
        behaviour: Behaviour,
        image_limit: int,
        video_tokens: int,
        raw_logits: bool,
        *,
        longest_prompt: int,
        name: str | None = None,
    ) -> None:
        self.knowledge = knowledge
        self.name = name or knowledge.model
        self.behaviour = behaviour
        self.image_limit = image_limit
        self.video_tokens = video_tokens
        self.raw_logits = raw_logits
        self.longest_prompt = longest_prompt
        self.state = State()

    def models(self) -> dict[str, Any]:
        """The body of `/v1/models`."""
        names = self.behaviour.listed([self.name])
        told = {"object": "model", "max_model_len": self.longest_prompt}
        return {"object": "list", "data": [{"id": name, **told} for name in names]}

    def metrics(self) -> str:
        """The text of `/metrics`."""
        return f"vllm:num_requests_running {self.state.in_flight}\n"

    def accept(self, body: bytes) -> Request:
        """Parses a body.

        Raises:
            Refused: the request is refused.
        """
        request = self._understand(body)
        for refused in self._objections(request):
            self._raise(refused)
        return request

    def answer(self, request: Request) -> dict[str, Any]:
        """The body of the answer to a request."""
        seen = self.behaviour.seen(request, self.knowledge, self.state)
        body = self.behaviour.reply(self._completion(seen))
        return _less("logprobs")(body) if request.stream and not request.lists else body

    def pieces(self, request: Request) -> Iterator[dict[str, Any]]:
        """The chunks of an answer whose end nobody waits for."""
        for _ in range(request.max_tokens):
            if refused := self.behaviour.crash(request, self.state):
                yield {"error": {"message": refused.message}}
                return
            choice = {"index": 0, "delta": {"content": " "}}
            yield {**self.head("chat.completion.chunk"), "choices": [choice]}
            time.sleep(_PIECE_SECONDS)

    def head(self, kind: str) -> dict[str, Any]:
        """The first fields of a reply."""
        return {"id": "chatcmpl-0", "object": kind, "created": 0, "model": self.name}

    def score(self, body: bytes) -> dict[str, Any]:
        """The numbers of a prompt that is given as tokens.

        Raises:
            Refused: it is not given so, or no numbers are asked for.
        """
        try:
            asked = json.loads(body)
            tokens, count = tuple(map(int, asked["prompt"])), int(asked["prompt_logprobs"])
        except _MISTAKES as error:
            raise Refused(400, f"invalid request: {error!r}", "json") from error
        known = self._known_behind(tokens)
        prompt = known.prompt_tokens if known else len(tokens)
        rows = [known.rows.get(i) if known else None for i in range(prompt - 1)]
        given = [row or sure(tokens[i + 1]) for i, row in enumerate(rows)]
        given += _rows(tokens[prompt:], known)
        listed = [
            self._prompt_row(row, token, count)
            for row, token in zip(self.behaviour.candidates(tuple(given)), tokens[1:], strict=True)
        ]
        choice = {
            "index": 0,
            "text": "",
            "finish_reason": "stop",
            "logprobs": {"content": []},
            "prompt_logprobs": [None, *listed],
        }
        head = {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": self.name}
        return self.behaviour.reply({**head, "choices": [choice]})

    def _known_behind(self, tokens: tuple[int, ...]) -> Known | None:
        """The golden whose prompt the tokens begin with."""
        for known in self.knowledge.known.values():
            if tokens[: known.prompt_tokens] == known.prompt:
                return known
        return None

    def _understand(self, body: bytes) -> Request:
        if self.state.is_broken:
            raise Refused(500, "EngineDeadError: see the stack trace above", "dead")
        try:
            return parse(body, self.behaviour.fetch, self.behaviour.view)
        except Refused as refused:
            # An invalid request cannot be answered, whatever the defect.
            raise self.behaviour.refuse(refused, self.state) or refused from None

    def _objections(self, request: Request) -> Iterator[Refused]:
        if crash := self.behaviour.crash(request, self.state):
            yield crash
        if request.model != self.name:
            yield Refused(404, f"The model `{request.model}` does not exist.", "model")
        if request.unknown:
            yield Refused(400, f"not supported: {', '.join(request.unknown)}", "parameter")
        if request.clips and not self.video_tokens:
            yield Refused(400, "At most 0 video(s) may be provided in one prompt.", "video")
        if self.video_tokens and not all(clip.frames for clip in request.clips):
            yield Refused(400, "Could not open video stream", "clip")
        if len(request.images) - len(request.clips) > self.image_limit:
            message = f"At most {self.image_limit} image(s) may be provided in one prompt."
            yield Refused(400, message, "too many images")
        if any(image_tokens(*size) is None for size in request.sizes):
            yield Refused(400, "absolute aspect ratio must be smaller than 200", "too thin")
        # The answer needs at least one token. No token has as many characters.
        is_far_too_long = len(request.prompt) > 20 * self.longest_prompt
        if is_far_too_long or len(prompt_items(request, self.knowledge)) >= self.longest_prompt:
            yield Refused(400, f"maximum context length is {self.longest_prompt}", "too long")

    def _raise(self, refused: Refused) -> None:
        if after := self.behaviour.refuse(refused, self.state):
            raise after

    def _completion(self, request: Request) -> dict[str, Any]:
        items = self.behaviour.prompt(
            [*prompt_items(request, self.knowledge), *self._unknown_clips(request)]
        )
        choices = [self._choice(request, index) for index in range(request.n)]
        forced = self._forced(request, items) if request.forced is not None else {}
        return {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": self.name,
            "choices": [
                self._choice_body(choice, index) | _called(request.call)
                for index, choice in enumerate(choices)
            ],
            "usage": self._usage(request, items, choices),
            "prompt_token_ids": _ids(items),
            **forced,
        }

    def _unknown_clips(self, request: Request) -> list[int]:
        """The tokens of clips that no golden has."""
        known = (request.prompt, request.images) in self.knowledge.known
        if known or self.knowledge.prompt_of_shape(request):
            return []
        return [VIDEO_TOKEN] * (self.video_tokens * sum(len(clip.frames) for clip in request.clips))

    def _choice(self, request: Request, index: int) -> Choice:
        if request.forced is not None:
            return Choice("", (END,), (sure(END),), "stop")
        text = _whole_text(request, self.knowledge, index)
        text = self.behaviour.answered(text, request, self.state)
        choice = _choice(request, self.knowledge, text)
        return dataclasses.replace(choice, rows=self.behaviour.candidates(choice.rows))

    def _usage(
        self, request: Request, items: Sequence[object], choices: Sequence[Choice]
    ) -> dict[str, Any]:
        prompt, completion = len(items), sum(len(choice.token_ids) for choice in choices)
        cached = _cached_tokens(items, choices[0].token_ids, request.salt, self.state)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached} if cached else None,
        }
        return self.behaviour.usage(usage, request)

    def _forced(self, request: Request, items: Sequence[object]) -> dict[str, Any]:
        prompt = _ids(items)
        known = self.knowledge.known.get((request.prompt, request.images))
        rows = known.rows if known else {}
        if known and request.forced == known.text:
            answer = known.forced
        else:  # only the rows of the prompt are known
            answer = encode(request.forced or "")
            rows = {position: row for position, row in rows.items() if position < len(prompt) - 1}
        tokens = [*prompt, *answer]
        # If the forced answer is not the golden's, the model expects the end token everywhere.
        expected = [*prompt[1:], *([END] * len(answer))]
        other = _certain(request.images)
        given = tuple(rows.get(i) or other(token) for i, token in enumerate(expected))
        listed = [
            self._prompt_row(row, token, request.listed)
            for row, token in zip(self.behaviour.candidates(given), tokens[1:], strict=True)
        ]
        return {"prompt_token_ids": tokens, "prompt_logprobs": [None, *listed]}

    def _prompt_row(self, row: Row, token: int, count: int) -> dict[str, Any]:
        # vLLM lists the prompt's own token first, whatever its rank.
        ranks = {token: len(row.logprobs) + 1}
        ranks |= {name: rank for rank, name in enumerate(row.ranked, start=1)}
        return {
            str(name): {"logprob": self._value(row, name), "rank": rank, "decoded_token": None}
            for name, rank in ranks.items()
            if rank <= count or name == token
        }

    def _value(self, row: Row, token: int) -> float:
        """The listed value of a token; a token that the row does not list ranks last."""
        known = row.logprobs
        logprob = known[token] if token in known else min(known.values()) - 1
        return logprob + row.logsumexp if self.raw_logits else logprob

    def _choice_body(self, choice: Choice, index: int) -> dict[str, Any]:
        content = [
            {
                **self._listed_token(row, token),
                "top_logprobs": [self._listed_token(row, top) for top in row.ranked[:TOP]],
            }
            for token, row in zip(choice.token_ids, choice.rows, strict=True)
        ]
        return {
            "index": index,
            "message": {"role": "assistant", "content": choice.text},
            "logprobs": {"content": content},
            "finish_reason": choice.finish,
            "token_ids": list(choice.token_ids),
        }

    def _listed_token(self, row: Row, token: int) -> dict[str, Any]:
        return {"token": f"token_id:{token}", "logprob": self._value(row, token), "bytes": None}


def _called(call: tuple[str, str] | None) -> dict[str, Any]:
    """The fields of an answer that calls a function; none if it calls none."""
    if call is None:
        return {}
    function = dict(zip(("name", "arguments"), call, strict=True))
    calls = [{"id": "call-0", "type": "function", "function": function}]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    return {"message": message, "finish_reason": "tool_calls"}


def _version() -> dict[str, str]:
    return {"version": VERSION}


# --- HTTP ----------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._send(200, self.server.stub.metrics().encode(), "text/plain")
            return
        if self.path == "/health":
            stub = self.server.stub
            self._send_json(stub.behaviour.health(stub.state), {})
            return
        known = {"/version": _version, "/v1/models": self.server.stub.models}
        # vLLM asks for a key below /v1 only.
        if not self.path.startswith("/v1") or self._may_pass():
            answer = known.get(self.path)
            self._send_json(200, answer()) if answer else self._send_error_body(
                Refused(404, "Not Found", "path")
            )

    def do_DELETE(self) -> None:
        self._send_error_body(Refused(405, "Method Not Allowed", "method"))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._may_pass():
            return
        with self._in_flight():
            try:
                if self.path == "/v1/completions":
                    self._send_json(200, self.server.stub.score(body))
                    return
                if self.path != "/v1/chat/completions":
                    raise Refused(404, "Not Found", "path")
                request = self.server.stub.accept(body)
                if request.is_endless:
                    (self._send_endless if request.stream else self._compute_endless)(request)
                    return
                answer = self.server.stub.answer(request)
            except Refused as refused:
                if not self._hang_up():
                    self._send_error_body(refused)
                return
            left = self.server.stub.behaviour.left
            if left and request.ignores_end:
                self._answer_unless_left(request, answer, left)
                return
        self._answer(request, answer)

    def _answer(self, request: Request, answer: Mapping[str, Any]) -> None:
        if request.stream:
            self._send_stream(answer)
        else:
            self._send_json(200, answer)

    def _answer_unless_left(
        self, request: Request, answer: Mapping[str, Any], left: Callable[[State], None]
    ) -> None:
        try:
            if request.stream:
                self._send_stream(answer)
            is_left = self._client_leaves()
        except ConnectionError:  # it left while the stream was sent
            is_left = self.close_connection = True
        if is_left:
            left(self.server.stub.state)
        elif not request.stream:
            self._send_json(200, answer)

    def _client_leaves(self, seconds: float = 1.0) -> bool:
        """True if the client closes the connection in time."""
        readable, _, _ = select.select([self.connection], [], [], seconds)
        try:
            self.close_connection = bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            self.close_connection = True
        return self.close_connection

    def _may_pass(self) -> bool:
        if self._hang_up():
            return False
        key = self.server.key
        if key is not None and self.headers["Authorization"] != f"Bearer {key}":
            self._send_error_body(Refused(401, "Unauthorized", "key"))
            return False
        return True

    def _hang_up(self) -> bool:
        """Closes the connection without an answer if the process is dead."""
        self.close_connection = self.close_connection or self.server.stub.state.is_gone
        return self.server.stub.state.is_gone

    @contextlib.contextmanager
    def _in_flight(self) -> Iterator[None]:
        state = self.server.stub.state
        with state.lock:
            state.in_flight += 1
        try:
            yield
        finally:
            with state.lock:
                state.in_flight -= 1

    def _send_error_body(self, refused: Refused) -> None:
        if refused.is_json:
            error = {"message": refused.message, "type": refused.kind, "code": refused.status}
            self._send_json(refused.status, {"error": error})
        else:
            self._send(refused.status, refused.message.encode(), "text/plain")

    def _send_json(self, status: int, body: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send_endless(self, request: Request) -> None:
        """Sends the pieces of a stream one by one, until the client leaves."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        stub = self.server.stub
        stub.behaviour.begun(request, stub.state)
        with contextlib.suppress(ConnectionError):
            for piece in stub.pieces(request):
                self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
                self.wfile.flush()

    def _compute_endless(self, _request: Request) -> None:
        """Computes an answer that is not streamed, until the client leaves."""
        left = self.server.stub.behaviour.left
        if self._client_leaves(_PATIENCE_SECONDS) and left:
            left(self.server.stub.state)

    def _send_stream(self, answer: Mapping[str, Any]) -> None:
        behaviour = self.server.stub.behaviour
        chunks = [json.dumps(behaviour.chunk(chunk)) for chunk in _chunks(answer, behaviour)]
        events = [f"data: {event}\n\n".encode() for event in [*chunks, "[DONE]"]]
        self._send_head(200, sum(map(len, events)), "text/event-stream")
        for event in behaviour.sent(_as_made(events)):
            self.wfile.write(event)
            self.wfile.flush()

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self._send_head(status, len(body), kind)
        self.wfile.write(body)

    def _send_head(self, status: int, length: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Prints nothing, so that the test's output stays readable."""


def _as_made(events: Sequence[bytes]) -> Iterator[bytes]:
    """The events of a stream, each at the time at which it is made.

    The first piece of the text takes no time, nor does what is behind the text.
    """
    for index, event in enumerate(events):
        if 0 < index < len(events) - _EVENTS_BEHIND_TEXT:
            time.sleep(STREAM_SECONDS / len(events))
        yield event


def _chunks(answer: Mapping[str, Any], behaviour: Behaviour) -> Iterator[dict[str, Any]]:
    """The chunks of a stream: the pieces of each answer by turns, and the usage."""
    head = {"id": answer["id"], "object": "chat.completion.chunk", "created": 0}
    head["model"] = answer["model"]
    pieces = (_pieces(choice, behaviour) for choice in answer["choices"])
    for piece in itertools.chain.from_iterable(itertools.zip_longest(*pieces)):
        if piece is not None:
            yield {**head, "choices": [piece]}
    yield {**head, "choices": [], "usage": answer["usage"]}


def _pieces(choice: Mapping[str, Any], behaviour: Behaviour) -> Iterator[dict[str, Any]]:
    """The pieces of an answer: of its text, and the finish reason with the tokens without text."""
    index, lists = choice["index"], choice.get("logprobs")
    left = iter(lists["content"] if lists else ())
    for delta in _streamed(choice["message"], behaviour):
        tokens = [*itertools.islice(left, len(encode(delta.get("content", ""))))]
        yield {"index": index, "delta": delta, **_with_lists(tokens)}
    end = {"delta": {}, "finish_reason": choice.get("finish_reason")}
    yield {"index": index, **end, **_with_lists([*left])}


def _with_lists(tokens: list[dict[str, Any]]) -> dict[str, Any]:
    """The field of a piece with the log-probabilities of its tokens, if there are any."""
    return {"logprobs": {"content": tokens}} if tokens else {}


def _streamed(message: Mapping[str, Any], behaviour: Behaviour) -> Iterator[dict[str, Any]]:
    """A message in pieces: of its text, or of the arguments of its calls."""
    for index, call in enumerate(message.get("tool_calls", ())):
        yield {
            "tool_calls": [{**call, "index": index, "function": {"name": call["function"]["name"]}}]
        }
        for piece in behaviour.deltas(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
    for piece in behaviour.deltas(message["content"] or ""):
        yield {"content": piece}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # simultaneous requests do not have to be retried

    def __init__(self, stub: Stub, key: str | None, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.stub = stub
        self.key = key

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that close the connection."""


@contextlib.contextmanager
def serve(
    knowledge: Knowledge,
    behaviour: Behaviour | None = None,
    *,
    key: str | None = None,
    port: int = 0,
    image_limit: int = 1,
    video_tokens: int = 0,
    raw_logits: bool = False,
    longest_prompt: int = LONGEST_PROMPT,
    name: str | None = None,
) -> Iterator[str]:
    """Runs a server on the loopback interface and yields its URL.

    Args:
        knowledge: the goldens that it answers from.
        behaviour: its defect, or None.
        key: the API key that clients have to send, or None.
        port: its port; 0 means any free port.
        image_limit: maximum number of images in one prompt.
        video_tokens: number of tokens of a frame; 0 means that clips are refused.
        raw_logits: True if it lists raw logits instead of log-probabilities.
        longest_prompt: maximum tokens of a prompt with its answer.
        name: the name under which it serves; None for the model's name.
    """
    behaviour = behaviour or Behaviour()
    others: dict[str, Any] = {"longest_prompt": longest_prompt, "name": name}
    stub = Stub(knowledge, behaviour, image_limit, video_tokens, raw_logits, **others)
    server = _Server(stub, key, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

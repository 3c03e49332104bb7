"""Sends requests as they are, without a library that knows the API, and replays them.

A copy of this module with data behind it is the script that a failure prints. So it needs nothing
but httpx when it runs.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from ..spec.step import Step

_MOMENT_SECONDS = 0.05  # a client that leaves before the answer waits as long
_LONG_TEXT = "字 " * 200_000
_SHOWN = 200


def send(
    http: httpx.Client, step: Step | SimpleNamespace, words: Mapping[str, str]
) -> tuple[int | None, str]:
    """Sends a request; returns the status and the body of the reply.

    The status is 0 if the reply does not come, or not to its end; the text is the reason then. It
    is None if the client left before the reply began.

    Args:
        http: the client, with its address, its key and its timeout.
        step: the request.
        words: the words of the body's template and what they stand for.
    """
    is_leaving = step.leaves_after == 0
    try:
        with http.stream(
            step.method,
            step.path,
            content=filled(step.body, words),
            # After an exception vLLM up to 0.23 closes the connection behind its reply without
            # saying so, and the next request on it would be lost.
            headers={"Connection": "close"}
            | ({} if step.content_type is None else {"Content-Type": step.content_type}),
            timeout=httpx.Timeout(http.timeout.read, read=_MOMENT_SECONDS)
            if is_leaving
            else http.timeout,
        ) as reply:
            if is_leaving:
                return reply.status_code, ""
            return reply.status_code, _read(reply, step.leaves_after)
    except httpx.RequestError as error:
        has_left = is_leaving and isinstance(error, httpx.ReadTimeout)
        return (None, "") if has_left else (0, repr(error))


def filled(template: str, words: Mapping[str, str]) -> bytes:
    """A body: a template with its words replaced."""
    for word, meaning in {**words, "<long>": _LONG_TEXT}.items():
        template = template.replace(word, meaning)
    head, *tails = template.split("<salt>")
    salted = head + "".join(secrets.token_hex(8) + tail for tail in tails)
    return salted.encode("utf-8", "surrogateescape")


def _read(reply: httpx.Response, leaves_after: int | None) -> str:
    """The body, or its first lines."""
    if leaves_after is None:
        return reply.read().decode("utf-8", "replace")
    return "\n".join(itertools.islice(reply.iter_lines(), leaves_after))


def script(data: Mapping[str, Any]) -> str:
    """A program that replays requests; `data` as for `replay`."""
    told = json.dumps(data, indent=1)
    start = f'raise SystemExit(replay(json.loads(r"""{told}""")))'
    source = Path(__file__).read_text("utf-8")
    return f'{source}\n\nif __name__ == "__main__":\n    {start}\n'


def replay(data: Mapping[str, Any]) -> int:
    """Sends a good request, some requests and the good one again, and prints the replies.

    Args:
        data: what a script contains: the server's `url`, `trust_env` and `seconds` of the client,
            the `words` of the templates, and `steps` with the good request first.

    Returns:
        The exit code: 1 if a reply is missing or a 5xx, or if the good request's answer changed.
    """
    key = os.environ.get("VLM_SERVER_API_KEY", "none")
    http = httpx.Client(
        base_url=os.environ.get("BASE_URL", data["url"]),
        headers={"Authorization": f"Bearer {key}"},
        timeout=data["seconds"],
        trust_env=data["trust_env"],
    )
    canary, *steps = (SimpleNamespace(**fields) for fields in data["steps"])
    answers, is_wrong = [], False
    for step in (canary, *steps, canary):
        status, text = send(http, step, data["words"])
        is_wrong |= status is not None and not 200 <= status < 500
        print(f"{step.name}: {'the client left' if status is None else status} {text[:_SHOWN]!r}")
        if step is canary:
            answers.append(_answer(status, text))
    if answers[0] != answers[1]:
        is_wrong = True
        print("the answer to the good request changed:", *answers, sep="\n")
    print("a reply is wrong" if is_wrong else "all replies are right")
    return int(is_wrong)


def _answer(status: int | None, text: str) -> Any:
    """The part of a reply to the good request that must not change."""
    if status != 200:
        return status
    choice = json.loads(text)["choices"][0]
    return choice["message"]["content"], choice.get("token_ids")

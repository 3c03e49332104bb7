"""Requests that can be copied and run: curl, the OpenAI SDK, and offline inference."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .rows import Json
from .serve_command import PORT, ServeCommand

_URL = f"http://localhost:{PORT}/v1"


@dataclass(frozen=True)
class Examples:
    """Requests of the suite as code; each file path is relative to the project.

    Attributes:
        curl_text: a text request, for bash; empty if the report has no text case.
        curl_image: an image request, for bash; empty if the report has no image case.
        sdk: the same request with the OpenAI SDK, a Python script.
        offline: the same request with `LLM.chat`, a Python script; empty if the suite started no
            server.
        picture: path of the image in these requests; empty if there is none.
    """

    curl_text: str
    curl_image: str
    sdk: str
    offline: str
    picture: str


@dataclass(frozen=True)
class _Request:
    prompt: str
    picture: str
    max_tokens: int


def examples(cases: Mapping[str, Json], name: str, serve: ServeCommand | None) -> Examples | None:
    """The requests of a model's document; None if the report has no case to make them from.

    Args:
        cases: case id -> the case, as in report.json.
        name: the served model's name.
        serve: the serve command in its parts, if there is one.
    """
    text = _first(cases, ("text/",), images=0)
    image = _first(cases, ("document/", "image/", ""), images=1)
    shown = image or text
    if shown is None:
        return None
    return Examples(
        _curl_text(text, name) if text else "",
        _curl_image(image, name) if image else "",
        _sdk(shown, name),
        _offline(shown, serve) if serve else "",
        shown.picture,
    )


def _first(cases: Mapping[str, Json], groups: Sequence[str], images: int) -> _Request | None:
    """The first case of one user message with so many images, by group in order of preference."""
    for group in groups:
        for case_id, case in cases.items():
            files, messages = list(case.get("images") or ()), list(case.get("messages") or ())
            alone = len(messages) == 1 and len(files) == images and not case.get("videos")
            if alone and case_id.startswith(group):
                picture = str(files[0]["file"]) if files else ""
                prompt = str(messages[0]["text"]).replace("<image>", "").strip()
                return _Request(prompt, picture, int(case.get("max_tokens") or 256))
    return None


def _curl_text(request: _Request, name: str) -> str:
    body = _body(name, request.prompt, request.max_tokens)
    return (
        f"curl {_URL}/chat/completions \\\n"
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False, indent=2))}"
    )


def _curl_image(request: _Request, name: str) -> str:
    """The image is read by the shell: a page is too large for an argument of a command."""
    place = "IMAGE_AS_BASE64"
    url = f"data:{_mime(request.picture)};base64,{place}"
    parts = [_image(url), {"type": "text", "text": request.prompt}]
    body = json.dumps(_body(name, parts, request.max_tokens), ensure_ascii=False, indent=2)
    for special in ("\\", "$", "`"):  # these three have a meaning in a here-document
        body = body.replace(special, f"\\{special}")
    encoded = f"$(base64 < {shlex.quote(request.picture)} | tr -d '\\n')"
    return (
        f"curl {_URL}/chat/completions \\\n"
        '  -H "Content-Type: application/json" \\\n'
        f"  -d @- <<EOF\n{body.replace(place, encoded)}\nEOF"
    )


def _sdk(request: _Request, name: str) -> str:
    before = "import base64\nfrom pathlib import Path\n\n" if request.picture else ""
    return f"""{before}from openai import OpenAI

{_reading(request)}client = OpenAI(base_url="{_URL}", api_key="EMPTY")
response = client.chat.completions.create(
    model={_literal(name)},
    messages={_messages(request, indent=4)},
    max_tokens={request.max_tokens},
    temperature=0,
)
print(response.choices[0].message.content)"""


def _offline(request: _Request, serve: ServeCommand) -> str:
    """The engine reads its environment when it is imported, so the variables come before."""
    used = {"base64": request.picture, "os": serve.env}
    imports = "".join(f"import {name}\n" for name, user in used.items() if user)
    imports += "from pathlib import Path\n" if request.picture else ""
    variables = "".join(
        f"os.environ[{_literal(key)}] = {_literal(value)}\n" for key, value in serve.env.items()
    )
    head = "\n".join(part for part in (imports, variables) if part)
    arguments = "".join(
        f"        {key}={_literal(value)},\n" for key, value in serve.python_arguments.items()
    )
    reading = _reading(request).replace("\n", "\n    ").removesuffix("    ")
    return f"""{head}{chr(10) if head else ""}from vllm import LLM, SamplingParams

if __name__ == "__main__":
    {reading.lstrip()}{"    " if reading else ""}llm = LLM(
        model={_literal(serve.name)},
{arguments}    )
    outputs = llm.chat(
        {_messages(request, indent=8)},
        SamplingParams(temperature=0, max_tokens={request.max_tokens}),
    )
    print(outputs[0].outputs[0].text)"""


def _reading(request: _Request) -> str:
    """The lines that read the image; empty without one."""
    if not request.picture:
        return ""
    return (
        f"image = base64.b64encode(Path({_literal(request.picture)}).read_bytes()).decode()\n"
        f'url = f"data:{_mime(request.picture)};base64,{{image}}"\n'
    )


def _messages(request: _Request, indent: int) -> str:
    """The messages as Python source, at an indentation."""
    if not request.picture:
        return f'[{{"role": "user", "content": {_literal(request.prompt)}}}]'
    lines = (
        "[",
        "    {",
        '        "role": "user",',
        '        "content": [',
        '            {"type": "image_url", "image_url": {"url": url}},',
        f'            {{"type": "text", "text": {_literal(request.prompt)}}},',
        "        ],",
        "    }",
        "]",
    )
    return ("\n" + " " * indent).join(lines)


def _body(name: str, content: Any, max_tokens: int) -> Json:
    messages = [{"role": "user", "content": content}]
    return {"model": name, "messages": messages, "max_tokens": max_tokens, "temperature": 0}


def _image(url: str) -> Json:
    return {"type": "image_url", "image_url": {"url": url}}


def _literal(value: Any) -> str:
    """A value as Python source."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _mime(path: str) -> str:
    return "image/jpeg" if path.lower().endswith((".jpg", ".jpeg")) else "image/png"

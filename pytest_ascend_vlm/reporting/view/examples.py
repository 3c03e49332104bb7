"""Requests that can be copied and run: curl, the OpenAI SDK, and offline inference."""

from __future__ import annotations

import json
import shlex
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from .answers import cost
from .rows import Json, Rows, evidence, of
from .serve_command import URL, ServeCommand

_FILES_PORT = 8001
_CURL = f"""curl {URL}/chat/completions \\
  -H "Content-Type: application/json" \\
"""


@dataclass(frozen=True)
class Examples:
    """Requests of the suite as code; each file path is relative to the project.

    Attributes:
        curl_text: a text request, for bash; empty if the report has no text case.
        curl_image: an image request, for bash; empty if the report has no image case.
        reply: the reply to the image request, or to the text request without one, in JSON: the
            fields that the report has. Empty if no criterion judged this answer.
        file_server: the command that serves the directory of this image; empty without one.
        curl_url: the image request with the image's address at that server, for bash.
        curl_system: a request with a system message, for bash; empty if the report has no such
            case.
        sdk: the same request with the OpenAI SDK, a Python script.
        offline: the same request with `LLM.chat`, a Python script; empty if the suite started no
            server.
        picture: path of the image in these requests; empty if there is none.
    """

    curl_text: str
    curl_image: str
    reply: str
    file_server: str
    curl_url: str
    curl_system: str
    sdk: str
    offline: str
    picture: str


@dataclass(frozen=True)
class _Request:
    case: str
    prompt: str
    picture: str
    max_tokens: int
    system: str = ""


def examples(
    cases: Mapping[str, Json], rows: Rows, name: str, serve: ServeCommand | None
) -> Examples | None:
    """The requests of a model's document; None if the report has no case to make them from.

    Args:
        cases: case id -> the case, as in report.json.
        rows: the rows of the model's test class.
        name: the served model's name.
        serve: the serve command in its parts, if there is one.
    """
    text = _first(cases, ("text/",), images=0)
    image = _first(cases, ("document/", "image/", ""), images=1)
    shown = image or text
    if shown is None:
        return None
    return Examples(
        _curl(text, name) if text else "",
        _curl_image(image, name) if image else "",
        _reply(shown, name, rows),
        _file_server(image) if image else "",
        _curl(image, name, _file_url(image)) if image else "",
        _curl_system(cases, name),
        _sdk(shown, name),
        _offline(shown, serve) if serve else "",
        shown.picture,
    )


def _first(cases: Mapping[str, Json], groups: Sequence[str], images: int) -> _Request | None:
    """The first case of one user message with so many images, by group in order of preference."""
    for group in groups:
        for case_id, case in cases.items():
            is_wanted = _roles(case) == ["user"] and len(case.get("images") or ()) == images
            if is_wanted and not case.get("videos") and case_id.startswith(group):
                return _request(case_id, case)
    return None


def _curl_system(cases: Mapping[str, Json], name: str) -> str:
    """The first case of a system message and one of the user, with one image or none."""
    for case_id, case in cases.items():
        is_simple = len(case.get("images") or ()) < 2 and not case.get("videos")
        if _roles(case) == ["system", "user"] and is_simple:
            request = _request(case_id, case)
            return _curl_image(request, name) if request.picture else _curl(request, name)
    return ""


def _roles(case: Json) -> list[str]:
    return [str(message["role"]) for message in case.get("messages") or ()]


def _request(case_id: str, case: Json) -> _Request:
    """The request of a case with at most one image, and at most a system message before."""
    files, messages = list(case.get("images") or ()), list(case["messages"])
    return _Request(
        case_id,
        str(messages[-1]["text"]).replace("<image>", "").strip(),
        str(files[0]["file"]) if files else "",
        int(case.get("max_tokens") or 256),
        str(messages[0]["text"]) if len(messages) > 1 else "",
    )


def _curl(request: _Request, name: str, url: str = "") -> str:
    """A request without an image, or with the image at an address."""
    body = json.dumps(_body(request, name, url), ensure_ascii=False, indent=2)
    return _CURL + f"  -d {shlex.quote(body)}"


def _curl_image(request: _Request, name: str) -> str:
    """The image is read by the shell: a page is too large for an argument of a command."""
    place = "IMAGE_AS_BASE64"
    url = f"data:{_mime(request.picture)};base64,{place}"
    body = json.dumps(_body(request, name, url), ensure_ascii=False, indent=2)
    for special in ("\\", "$", "`"):  # these three have a meaning in a here-document
        body = body.replace(special, f"\\{special}")
    encoded = f"$(base64 < {shlex.quote(request.picture)} | tr -d '\\n')"
    return _CURL + f"  -d @- <<EOF\n{body.replace(place, encoded)}\nEOF"


def _reply(request: _Request, name: str, rows: Rows) -> str:
    """The reply to a request, as the criteria of plain answers recorded it."""
    for row in of(rows, "serving.text", "serving.image", "baseline.text", "baseline.image"):
        told, spent = evidence(row), cost(row)
        if row["case"] != request.case or "got" not in told or spent.output_tokens is None:
            continue
        message = {"role": "assistant", "content": told["got"]}
        choice = {"index": 0, "message": message, "finish_reason": spent.finish_reason}
        usage = {"prompt_tokens": spent.prompt_tokens, "completion_tokens": spent.output_tokens}
        reply = {"model": name, "choices": [choice], "usage": usage}
        return json.dumps(reply, ensure_ascii=False, indent=2)
    return ""


def _file_server(request: _Request) -> str:
    directory = shlex.quote(str(PurePosixPath(request.picture).parent))
    return f"python3 -m http.server {_FILES_PORT} --bind 127.0.0.1 --directory {directory}"


def _file_url(request: _Request) -> str:
    name = urllib.parse.quote(PurePosixPath(request.picture).name)
    return f"http://127.0.0.1:{_FILES_PORT}/{name}"


def _sdk(request: _Request, name: str) -> str:
    before = "import base64\nfrom pathlib import Path\n\n" if request.picture else ""
    return f"""{before}from openai import OpenAI

{_reading(request)}client = OpenAI(base_url="{URL}", api_key="EMPTY")
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


def _body(request: _Request, name: str, url: str) -> Json:
    """The body of a request, with an image at a URL if there is one."""
    image = {"type": "image_url", "image_url": {"url": url}}
    content = [image, {"type": "text", "text": request.prompt}] if url else request.prompt
    system = [{"role": "system", "content": request.system}] if request.system else []
    return {
        "model": name,
        "messages": [*system, {"role": "user", "content": content}],
        "max_tokens": request.max_tokens,
        "temperature": 0,
    }


def _literal(value: Any) -> str:
    """A value as Python source."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _mime(path: str) -> str:
    return "image/jpeg" if path.lower().endswith((".jpg", ".jpeg")) else "image/png"

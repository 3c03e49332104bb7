"""Cold requests: the same pixels, which no cache of a server contains."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from fakes.replay_server import Behaviour, Knowledge, Refused, Request, State
from helpers.outcome import Judged, Serve
from helpers.paths import FIXTURES
from PIL import Image

from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.cold import cold_part, with_comment, without_uuid
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.engines.messages import image_part, messages
from pytest_ascend_vlm.spec.case import Capability, Case
from pytest_ascend_vlm.spec.case_files import load_cases

PAGE = FIXTURES / "documents" / "page-01.png"


def file_of(part: dict[str, Any]) -> bytes:
    return base64.b64decode(part["image_url"]["url"].partition(";base64,")[2])


def pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.convert("RGB").tobytes()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_cold_image_has_the_same_pixels(form: str) -> None:
    file = io.BytesIO()
    with Image.open(PAGE) as page:
        page.convert("RGB").save(file, form)
    part = image_part(file.getvalue(), f"image/{form.lower()}")
    one, other = cold_part(part), cold_part(part)
    assert pixels(file_of(one)) == pixels(file_of(other)) == pixels(file.getvalue())
    assert len({one["uuid"], other["uuid"]}) == 2
    if form in {"PNG", "JPEG"}:  # vLLM may compute its hash from the file
        assert len({file_of(one), file_of(other), file.getvalue()}) == 3
    assert without_uuid(one) == {name: one[name] for name in ("type", "image_url")}


def test_a_comment_is_one_that_readers_know() -> None:
    marked = with_comment(PAGE.read_bytes(), "a remark")
    with Image.open(io.BytesIO(marked)) as image:
        image.load()
        assert image.info["Comment"] == "a remark"


def client_of(url: str) -> Client:
    return Client(Endpoint(url, "OpenDataLab/MinerU2.5-2509-1.2B", "none"), lambda: None)


def page_case() -> Case:
    return next(case for case in load_cases((FIXTURES,)) if case.id == "document/page-01")


def test_a_cold_request_hits_no_cached_token(stub: Serve) -> None:
    client, case = client_of(stub()), page_case()
    warm = [client.complete(case) for _ in range(2)]
    cold = [client.complete(case, cold=True) for _ in range(2)]
    cached = [answer.usage.cached_tokens for answer in [*warm, *cold] if answer.usage]
    assert cached[1]
    assert cached[2:] == [None, None]
    assert {answer.text for answer in [*warm, *cold]} == {warm[0].text}


def without_salt(request: Request, _knowledge: Knowledge, _state: State) -> Request:
    return dataclasses.replace(request, salt=None)


def test_a_server_that_ignores_salts_is_not_compared_with_itself(
    stub: Serve, judged: Judged
) -> None:
    outcome = judged(stub(Behaviour(seen=without_salt)), "-k", "determinism.prefix_cache")
    assert outcome.criteria("error") == {"determinism.prefix_cache"}
    assert "ignores cache_salt" in outcome.text


def test_a_server_that_knows_no_uuid_gets_none(
    stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fakes import replay_server

    bodies: list[str] = []
    parse = replay_server.parse

    def seen(body: bytes, *media: Any) -> Request:
        bodies.append(body.decode())
        return parse(body, *media)

    def strict(_request: Request, _state: State) -> Refused | None:
        refused = '"uuid"' in bodies[-1]
        return (
            Refused(400, "image_url.uuid: extra inputs are not permitted", "x") if refused else None
        )

    monkeypatch.setattr(replay_server, "parse", seen)
    client, case = client_of(stub(Behaviour(crash=strict))), page_case()
    assert client.complete(case, cold=True).text
    assert client.complete(case, cold=True).text
    assert ['"uuid"' in body for body in bodies] == [True, False, False]
    files = {json.loads(body)["messages"][0]["content"][0]["image_url"]["url"] for body in bodies}
    assert len(files) == 3


def test_messages_keep_texts_and_images_in_their_order(tmp_path: Path) -> None:
    images = [tmp_path / name for name in ("a.png", "b.png")]
    for path in images:
        path.write_bytes(path.name.encode())
    case = Case("x/y", Capability.IMAGE, "Compare <image> with <image>.", tuple(images))
    (message,) = messages(case)
    shown = [
        part["text"] if part["type"] == "text" else file_of(part).decode()
        for part in message["content"]
    ]
    assert shown == ["Compare ", "a.png", " with ", "b.png", "."]

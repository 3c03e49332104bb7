"""The suite against servers that misread image files, or that read URLs which they should not."""

from __future__ import annotations

import dataclasses

import pytest
from fakes import replay_server
from fakes.replay_server import Behaviour, Defect, Refused, State, fetch
from helpers.models import model_file
from helpers.outcome import Judged, Outcome, Serve

from pytest_ascend_vlm.engines.endpoint import Endpoint

TRANSPARENT = {"rgba", "grey-alpha", "palette-transparent", "webp-alpha"}
MISREAD = {
    Defect.EXIF_IS_IGNORED: (
        {"exif-3", "exif-6", "exif-8", "exif-6-png", "exif-6-webp"},
        "its EXIF orientation is ignored",
    ),
    Defect.EXIF_IS_READ_IN_JPEG_ALONE: (
        {"exif-6-png", "exif-6-webp"},
        "its EXIF orientation is ignored",
    ),
    Defect.TRANSPARENT_IS_BLACK: (TRANSPARENT, "its transparent pixels are put on black"),
    Defect.TRANSPARENCY_IS_IGNORED: (TRANSPARENT, "its transparency is ignored"),
    Defect.PALETTE_IS_READ_AS_GREY: (
        {"palette", "palette-transparent", "gif"},
        "the indices of its palette are read as grey",
    ),
    Defect.CMYK_IS_INVERTED: ({"cmyk"}, "its CMYK colours are inverted"),
    Defect.BILEVEL_IS_INVERTED: ({"bilevel", "fax"}, "its black and its white are swapped"),
}
BAD_URL = {
    Defect.URL_GIVES_ANOTHER_IMAGE: {"http", "replaced"},
    Defect.FILES_ARE_KEPT_BY_URL: {"replaced"},
    Defect.MISSING_URL_IS_ANSWERED: {"missing"},
    Defect.FILES_ARE_READ: {"file"},
}
SIXTEEN_BITS = (Defect.SIXTEEN_BITS_ARE_CLIPPED, Defect.SIXTEEN_BITS_ARE_GARBLED)
DEFECTS = {*MISREAD, *BAD_URL, *SIXTEEN_BITS, Defect.GREY_JPEGS_GIVE_500}


def rows(outcome: Outcome, status: str) -> set[str]:
    """The criteria with their cases that have a status."""
    found = (row for row in outcome.rows if row["status"] == status)
    return {f"{row['criterion']}[{row['case']}]" for row in found}


@pytest.mark.catches("serving.formats")
@pytest.mark.parametrize("defect", MISREAD, ids=lambda defect: defect.name)
def test_a_misread_file_is_red_and_the_mistake_is_named(
    defect: Defect, stub: Serve, judged: Judged
) -> None:
    forms, mistake = MISREAD[defect]
    outcome = judged(stub(defect.value), "-k", "formats or urls")
    assert rows(outcome, "fail") == {f"serving.formats[{form}]" for form in forms}
    assert not rows(outcome, "error")
    for reason in outcome.reasons("serving.formats"):
        assert f"the server misreads the file: {mistake}" in reason


def test_clipped_16_bits_are_the_failure_that_is_known_of_vllm(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Defect.SIXTEEN_BITS_ARE_CLIPPED.value), "-k", "formats")
    assert rows(outcome, "xfail") == {"serving.formats[16-bit]"}
    assert not rows(outcome, "fail")


@pytest.mark.catches("serving.formats")
def test_other_wrong_16_bits_are_not_excused(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Defect.SIXTEEN_BITS_ARE_GARBLED.value), "-k", "formats")
    assert rows(outcome, "fail") == {"serving.formats[16-bit]"}
    assert "misreads" not in outcome.text


@pytest.mark.catches("serving.formats")
def test_a_grey_jpeg_that_is_refused_is_red(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Defect.GREY_JPEGS_GIVE_500.value), "-k", "formats")
    assert rows(outcome, "fail") == {"serving.formats[grey-jpeg]"}


@pytest.mark.catches("serving.urls")
@pytest.mark.parametrize("defect", BAD_URL, ids=lambda defect: defect.name)
def test_a_url_that_is_obeyed_wrongly_is_red(defect: Defect, stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(defect.value), "-k", "urls or encodings")
    assert rows(outcome, "fail") == {f"serving.urls[{row}]" for row in BAD_URL[defect]}
    assert not rows(outcome, "error")


def test_the_old_image_of_a_url_is_named(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Defect.FILES_ARE_KEPT_BY_URL.value), "-k", "urls and replaced")
    (reason,) = outcome.reasons("serving.urls")
    assert "the server misreads the file: the image that the URL had before is read" in reason


def refused_with_500(refused: Refused, _state: State) -> Refused:
    return dataclasses.replace(refused, status=500)


def test_refusals_with_500_are_known_of_some_releases_of_vllm(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stub(Behaviour(refuse=refused_with_500))
    for release, known in {"0.18.0": {"missing", "file"}, "0.32.0": {"file"}}.items():
        monkeypatch.setattr(replay_server, "VERSION", release)
        outcome = judged(url, "-k", "urls")
        assert rows(outcome, "xfail") == {f"serving.urls[{one}]" for one in known}
        assert "serving.urls[http]" in rows(outcome, "pass")
    assert rows(outcome, "fail") == {"serving.urls[missing]"}


def test_a_failure_that_is_fixed_in_a_release_is_not_shown_as_an_unexpected_pass(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    for release, word in {"0.20.0": "xpassed", "0.32.0": "passed"}.items():
        monkeypatch.setattr(replay_server, "VERSION", release)
        outcome = judged(stub(), "-k", "urls and missing")
        assert f" 1 {word}" in outcome.text
        assert rows(outcome, "pass") == {"serving.urls[missing]"}


def test_a_known_failure_that_a_release_does_not_have_is_red(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_server, "VERSION", "0.18.0")
    outcome = judged(stub(), "-k", "urls and missing")
    assert rows(outcome, "fail") == {"serving.urls[missing]"}
    assert "It was seen in vLLM ==0.18.*. Report this pass" in outcome.text


def refused_unread(url: str) -> bytes:
    if url.startswith("http:"):
        raise Refused(500, "Cannot connect to host 127.0.0.1", "url")
    return fetch(url)


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("", "the endpoint did not ask this host for the image"),
        ("http://127.0.0.1:9", "the server asked a proxy for the image: set no_proxy=127.0.0.1"),
    ],
    ids=["container", "proxy"],
)
def test_a_server_that_cannot_reach_this_host_is_not_judged(
    proxy: str, reason: str, stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", proxy)
    outcome = judged(stub(Behaviour(fetch=refused_unread)), "-k", "urls")
    rows_at_urls = {f"serving.urls[{row}]" for row in ("http", "replaced", "missing")}
    assert rows(outcome, "skip") == rows_at_urls
    assert all(row["reason"].startswith(reason) for row in outcome.rows if row["status"] == "skip")


def test_an_endpoint_on_another_host_is_not_judged(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stub()
    monkeypatch.setattr(Endpoint, "is_local", property(lambda _self: False))
    outcome = judged(url, "-k", "urls")
    assert {row["status"] for row in outcome.rows} == {"skip"}
    assert "the endpoint is on another host" in outcome.rows[0]["reason"]


@pytest.mark.parametrize(
    ("serve", "row"),
    [
        ("'allowed_local_media_path': '/'", "file"),
        ("'allowed_media_domains': ['example.org']", "http"),
    ],
)
def test_what_a_model_declares_about_urls_is_not_judged(
    serve: str, row: str, project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    limits = "'limit_mm_per_prompt': {'image': 1, 'video': 0}"
    model_file(project, "    pass", serve=f"{{{limits}, {serve}}}")
    outcome = judged(stub(), "-k", "urls", "test_own_model.py")
    assert f"serving.urls[{row}]" in rows(outcome, "na")
    assert not rows(outcome, "fail") | rows(outcome, "error")

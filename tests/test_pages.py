"""The documents show the pictures of the pages that a model read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image
from test_document import Row, read, report

from pytest_ascend_vlm.reporting import write_document
from pytest_ascend_vlm.reporting.markdown import render

NAME = "fixtures/a page.png"


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Row:
    """The report of a model that read one page, whose picture is a file of the project."""
    monkeypatch.chdir(tmp_path)
    Path(NAME).parent.mkdir()
    Image.new("RGB", (28, 28), "white").save(NAME)
    sha256 = hashlib.sha256(Path(NAME).read_bytes()).hexdigest()
    cases = {"a": {"messages": [], "images": [{"file": NAME, "sha256": sha256}]}}
    rows = read("a", "truth", "truth", characters=0.0, lines=1.0, numbers=1.0, order=1.0)
    return {"schema": 2, **report(*rows, cases=cases)}


def pictures(directory: Path) -> list[Path]:
    return sorted(directory.glob("page.*.png"))


def test_a_document_shows_a_page_that_was_read(document: Row, tmp_path: Path) -> None:
    written = write_document(document, tmp_path / "report")
    (picture,) = pictures(tmp_path / "report")
    assert picture in written.paths
    assert picture.read_bytes() == Path(NAME).read_bytes()
    (path,) = (tmp_path / "report").glob("adaptation.*--*.en.md")
    assert f"![a]({picture.name})" in path.read_text("utf-8")


def test_a_picture_that_changed_since_the_run_is_not_shown(document: Row, tmp_path: Path) -> None:
    Path(NAME).write_bytes(b"other")
    write_document(document, tmp_path / "report")
    assert not pictures(tmp_path / "report")
    (path,) = (tmp_path / "report").glob("adaptation.*--*.en.md")
    assert "![" not in path.read_text("utf-8")


def test_a_document_on_the_terminal_links_no_picture(document: Row) -> None:
    assert "![" not in render(document, "en", charts=False)


def test_the_picture_of_an_earlier_report_is_removed(document: Row, tmp_path: Path) -> None:
    write_document(document, tmp_path / "report")
    gone = write_document({**document, "rows": document["rows"][:0]}, tmp_path / "report").removed
    assert [path.suffix for path in gone if path.name.startswith("page.")] == [".png"]
    assert not pictures(tmp_path / "report")

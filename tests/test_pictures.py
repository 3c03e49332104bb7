"""Generated pictures, the search for the smallest with a wrong reply, and the largest page."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.prompts import Prompts, image_tokens
from helpers.models import model_spec
from helpers.paths import CHECKPOINT, FIXTURES, REPOSITORY
from PIL import Image

from pytest_ascend_vlm import Capability, Case
from pytest_ascend_vlm.engines import pictures
from pytest_ascend_vlm.engines.transformers.model import Encoder
from pytest_ascend_vlm.observation.answers import Completion, Refusal
from pytest_ascend_vlm.observation.pictures import Expected, PictureReply, PictureSearch
from pytest_ascend_vlm.session import picture_search
from pytest_ascend_vlm.session.pictures import PictureRequests, largest_page, longest_prompt
from pytest_ascend_vlm.session.run_logs import RunLogs
from pytest_ascend_vlm.spec.picture import MODES, Picture
from pytest_ascend_vlm.spec.thresholds import SHRINK_REQUESTS

PAGE = FIXTURES / "documents" / "page-01.png"
CASE = Case("image/a", Capability.IMAGE, "Hello", (PAGE,))
PATCH_SIDES = (14, 28)
RIGHT = Completion("image/a", "", (), "length", None, None, 0.1, None, (1, 2, 3))
CRASH = Refusal(500, "list index out of range", is_json_error=True)
LOST = Refusal(0, "no answer", is_json_error=False)


# --- drawing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 30)])
def test_a_file_has_the_size_and_mode_that_were_asked_for(
    mode: str, size: tuple[int, int], tmp_path: Path
) -> None:
    picture = Picture(*size, mode)
    path = pictures.write(picture, tmp_path)
    with Image.open(path) as image:
        image.load()
    assert (image.size, image.mode) == (size, mode)
    assert image.format == ("JPEG" if mode == "CMYK" else "PNG")
    assert path.read_bytes() == pictures.write(picture, tmp_path).read_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_is_neither_blank_nor_white(mode: str) -> None:
    drawn = np.asarray(pictures.draw(Picture(64, 48, mode))).astype(float)
    assert drawn.std() > 0
    if mode == "RGB":
        red, green, blue = np.moveaxis(drawn, -1, 0)
        assert not np.array_equal(red, green)
        assert not np.array_equal(green, blue)
        assert drawn.mean() < 200


def test_pages_fill_the_sheet_in_different_colours() -> None:
    with Image.open(PAGE) as page:
        size = page.size
    sheet = pictures.draw_pages(PAGE, size[0] * 2 + 5, size[1] + 7)
    assert sheet.size == (size[0] * 2 + 5, size[1] + 7)
    corners = {
        sheet.getpixel((left, top)) for left in (0, size[0], size[0] * 2) for top in (0, size[1])
    }
    assert len(corners) == 6


# --- the search ----------------------------------------------------------------------------------


@dataclasses.dataclass
class Asked:
    """Replies to pictures: right, unless a condition holds."""

    is_wrong: Callable[[Picture], bool] = lambda _picture: False
    wrong: Completion | Refusal = CRASH
    pictures: list[Picture] = dataclasses.field(default_factory=list)

    def __call__(self, picture: Picture) -> PictureReply:
        self.pictures.append(picture)
        got = self.wrong if self.is_wrong(picture) else RIGHT
        return PictureReply(picture, Expected((1, 2, 3)), got)

    def search(self, examples: int = 60) -> PictureSearch:
        return picture_search.search(self, lambda: RIGHT, PATCH_SIDES, examples)


def thinness(picture: Picture) -> float:
    return max(picture.width, picture.height) / min(picture.width, picture.height)


def test_a_search_asks_borders_first_and_no_picture_twice() -> None:
    asked = Asked()
    found = asked.search()
    borders = picture_search.border_pictures(PATCH_SIDES)
    assert tuple(asked.pictures[: len(borders)]) == borders
    assert {(26, 28), (500, 19), (1, 1), (28, 5600), (5601, 28)} <= {
        (one.width, one.height) for one in borders
    }
    assert len(set(asked.pictures)) == len(asked.pictures) == len(found.replies)
    assert len(asked.pictures) > len(borders) + 40
    assert (found.smallest, found.shrinking, found.afterwards) == (None, 0, RIGHT)


def test_the_generated_pictures_are_of_every_kind() -> None:
    asked = Asked()
    asked.search(200)
    assert {one.mode for one in asked.pictures} == set(MODES)
    sizes = [(one.width, one.height) for one in asked.pictures]
    assert sum(width == height for width, height in sizes) >= 10
    assert sum(one.width > one.height for one in asked.pictures) >= 40
    assert sum(one.width < one.height for one in asked.pictures) >= 40
    assert sum(thinness(one) > 20 for one in asked.pictures) >= 10
    assert sum(min(size) < 14 for size in sizes) >= 10
    assert sum(min(size) > 112 for size in sizes) >= 40
    assert any(thinness(one) > 200 for one in asked.pictures)
    assert all(math.prod(size) <= 2**19 for size in sizes)


LIST = """
import json, sys
sys.path.insert(0, "tests")
{imports}
from test_pictures import Asked
asked = Asked()
asked.search(60)
print(json.dumps([[one.width, one.height, one.mode] for one in asked.pictures]))
"""


def test_the_pictures_do_not_depend_on_what_else_is_imported(tmp_path: Path) -> None:
    # Hypothesis takes numbers from the source of modules that are not installed packages.
    numbers = "\n".join(f"N{number} = {number}" for number in range(2, 1000))
    (tmp_path / "numbers_of_a_project.py").write_text(numbers, "utf-8")
    imports = f"sys.path.insert(0, {str(tmp_path)!r}); import numbers_of_a_project"
    listed = [
        subprocess.run(
            [sys.executable, "-c", LIST.format(imports=line)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for line in ("", imports)
    ]
    assert listed[0] == listed[1]
    assert len(json.loads(listed[0])) > 50


@pytest.mark.parametrize(
    ("is_wrong", "smallest"),
    [
        (lambda picture: thinness(picture) > 20, 21),
        (lambda picture: thinness(picture) > 200, 201),
        (lambda picture: min(picture.width, picture.height) >= 113, 113 * 113),
        (lambda picture: picture.mode == "I;16", 1),
        (lambda picture: picture.width >= 337, 337),
    ],
    ids=["thin", "too thin", "many windows", "16 bits", "wide"],
)
def test_a_failure_shrinks_to_the_smallest_picture(
    is_wrong: Callable[[Picture], bool], smallest: int
) -> None:
    asked = Asked(is_wrong)
    found = asked.search()
    assert found.smallest is not None
    assert is_wrong(found.smallest.picture)
    assert found.smallest.picture.width * found.smallest.picture.height == smallest
    assert 0 < found.shrinking <= SHRINK_REQUESTS
    assert len(asked.pictures) == len(found.replies) + found.shrinking
    assert is_wrong(found.replies[-1].picture)


def test_a_picture_that_no_other_resembles_is_its_own_smallest() -> None:
    found = Asked(lambda picture: (picture.width, picture.height) == (500, 19)).search()
    assert found.smallest is not None
    assert found.smallest.picture == Picture(500, 19)


def test_the_search_for_a_smaller_picture_ends_with_its_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(picture_search, "SHRINK_REQUESTS", 3)
    asked = Asked(lambda picture: picture.width >= 100)
    found = asked.search()
    assert found.shrinking == 3
    assert len(asked.pictures) == len(found.replies) + 3


def test_the_search_for_a_smaller_picture_ends_with_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(picture_search, "SHRINK_SECONDS", 0.0)
    assert Asked(lambda picture: picture.width >= 100).search().shrinking == 0


def test_a_server_that_is_lost_gets_no_more_pictures() -> None:
    found = Asked(lambda picture: picture.width >= 100, LOST).search()
    assert found.smallest is not None
    assert (found.smallest.picture, found.shrinking) == (Picture(500, 19), 0)


# --- what is expected ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(CHECKPOINT, trust_remote_code=False)


class FakeClient:
    """Answers nothing; tells a max_model_len."""

    def __init__(self, told: int | None) -> None:
        self.told = told

    def max_model_len(self) -> int | None:
        return self.told


def requests(encoder: Encoder, limit: int | None, directory: Path) -> PictureRequests:
    return PictureRequests(FakeClient(None), encoder, CASE, limit, directory)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (26, 28), (500, 19), (57, 83), (1500, 900)])
def test_the_expected_prompt_is_the_processors(
    size: tuple[int, int], encoder: Encoder, tmp_path: Path
) -> None:
    file = pictures.write(Picture(*size), tmp_path)
    expected = requests(encoder, 16384, tmp_path).expected(file, 1)
    count = image_tokens(*size)
    assert count is not None
    assert expected == Expected(tuple(Prompts(CHECKPOINT).ids("Hello", [count])))


def test_what_the_processor_refuses_has_to_be_refused(encoder: Encoder, tmp_path: Path) -> None:
    file = pictures.write(Picture(1, 201), tmp_path)
    expected = requests(encoder, None, tmp_path).expected(file, 1)
    assert expected.prompt == ()
    assert "refuses it: absolute aspect ratio must be smaller than 200" in str(expected.refusal)


def test_what_max_model_len_has_no_room_for_has_to_be_refused(
    encoder: Encoder, tmp_path: Path
) -> None:
    length = len(requests(encoder, None, tmp_path).expected(PAGE, 1).prompt)
    assert requests(encoder, length + 1, tmp_path).expected(PAGE, 1).refusal is None
    expected = requests(encoder, length, tmp_path).expected(PAGE, 1)
    assert f"of {length} tokens and 1 for the answer exceed max_model_len {length}" in str(
        expected.refusal
    )


def test_the_processor_gets_the_arguments_of_the_server(tmp_path: Path) -> None:
    bounded = Encoder(CHECKPOINT, trust_remote_code=False, arguments={"max_pixels": 10 * 28**2})
    assert len(requests(bounded, None, tmp_path).expected(PAGE, 1).prompt) < 40


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("qwen2_vl", (14, 28)),
        ("glm_ocr", (14, 28)),
        ("internvl", (14, 28)),
        ("internvl_chat", (14, 28)),
    ],
)
def test_the_sides_of_patches_are_those_of_the_checkpoint(
    name: str, sides: tuple[int, int]
) -> None:
    checkpoint = FIXTURES / "tiny" / name
    assert Encoder(checkpoint, trust_remote_code=False).patch_sides == sides


@pytest.mark.parametrize(
    ("told", "declared", "limit"),
    [(4096, 16384, 4096), (None, 16384, 16384), (None, "16k", None), (None, None, None)],
)
def test_the_length_limit_is_the_servers_else_the_declared_one(
    told: int | None, declared: object, limit: int | None
) -> None:
    model = model_spec(serve={} if declared is None else {"max_model_len": declared})
    assert longest_prompt(FakeClient(told), model) == limit  # type: ignore[arg-type]


def test_a_log_directory_that_cannot_be_written_does_not_hide_the_finding(
    encoder: Encoder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    logs = RunLogs(tmp_path / "file", "run")
    kept = requests(encoder, None, tmp_path).saved(Picture(1, 1), logs)
    assert kept.startswith("not possible, because the picture could not be kept: ")


# --- the largest page ----------------------------------------------------------------------------


def patches(width: int, height: int) -> int:
    """The tokens of a processor that shrinks nothing."""
    return round(width / 28) * round(height / 28)


def shrunk(width: int, height: int) -> int:
    return min(patches(width, height), 1280)


def test_a_processor_with_a_limit_gets_a_page_of_200_dpi() -> None:
    page = largest_page(shrunk, 16384)
    assert (page.width, page.height) == (1654, 2339)
    assert page.limited_by == "the processor, which shrinks larger pages"


def test_a_page_is_larger_where_that_adds_tokens() -> None:
    page = largest_page(lambda width, height: min(patches(width, height), 12000), 16384)
    assert patches(page.width, page.height) >= 12000
    assert patches(page.width - 28, page.height - 28) < 12000


@pytest.mark.parametrize("longest", [16352, 200, 5])
def test_the_length_limit_bounds_the_page(longest: int) -> None:
    page = largest_page(patches, longest)
    assert patches(page.width, page.height) <= longest
    assert patches(page.width + 28, page.height + 28) > longest
    assert page.limited_by == f"the {longest} tokens that max_model_len leaves for a prompt"


def test_a_processor_that_refuses_bounds_the_page() -> None:
    page = largest_page(
        lambda width, height: patches(width, height) if height <= 3000 else None, 16384
    )
    assert page.height == 3000
    assert page.limited_by == "the processor, which refuses larger pages"


def test_without_any_limit_a_page_has_600_dpi() -> None:
    page = largest_page(patches, math.inf)
    assert page.height >= 7016 - 28
    assert page.limited_by.startswith("600 dpi")

"""Image files of many formats: what they show, their mistakes, and where they are served."""

from __future__ import annotations

import math

import httpx
import numpy as np
import pytest
from helpers.paths import FIXTURES
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_criteria_numerics import golden, seen

from pytest_ascend_vlm.criteria import formats as rules
from pytest_ascend_vlm.criteria.comparison import own_error, score_difference
from pytest_ascend_vlm.engines.file_server import serve_file
from pytest_ascend_vlm.engines.formats import FORMATS, LOSSLESS, opened, shown
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.answers import Refusal
from pytest_ascend_vlm.observation.caches import CacheUse
from pytest_ascend_vlm.observation.numerics import Forced, TokenScores
from pytest_ascend_vlm.observation.reading import Reading
from pytest_ascend_vlm.spec.thresholds import FORMAT_RATIO

PICTURE = Image.open(FIXTURES / "pictures" / "odd.png").convert("RGB")
GREY = PICTURE.convert("L").convert("RGB")
BILEVEL = PICTURE.convert("1").convert("RGB")


def distance(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two images' values; infinite if their sizes differ."""
    if one.size != other.size:
        return math.inf
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_file_shows_every_pixel(name: str) -> None:
    data = LOSSLESS[name].encode(PICTURE)
    assert distance(shown(opened(data)), PICTURE) == 0


# Format -> Pillow's mode for the file, and the picture that it shows nearly; a JPEG is not exact.
STORED = {
    "exif-3": ("RGB", PICTURE.rotate(180)),
    "exif-6": ("RGB", PICTURE.rotate(-90, expand=True)),
    "exif-8": ("RGB", PICTURE.rotate(90, expand=True)),
    "exif-6-png": ("RGB", PICTURE.rotate(-90, expand=True)),
    "exif-6-webp": ("RGB", PICTURE.rotate(-90, expand=True)),
    "palette": ("P", PICTURE),
    "gif": ("P", PICTURE),
    "bilevel": ("1", BILEVEL),
    "fax": ("1", BILEVEL),
    "grey": ("L", GREY),
    "grey-jpeg": ("L", GREY),
    "16-bit": ("I;16", GREY),
    "cmyk": ("CMYK", PICTURE),
    "progressive": ("RGB", PICTURE),
    "jpeg-20": ("RGB", PICTURE),
}
TRANSPARENT = {
    "rgba": "RGBA",
    "grey-alpha": "LA",
    "palette-transparent": "P",
    "webp-alpha": "RGBA",
}


def test_the_tables_here_have_every_format() -> None:
    assert STORED.keys() | TRANSPARENT.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", STORED)
def test_a_file_shows_the_picture_upright_and_in_its_colours(name: str) -> None:
    mode, picture = STORED[name]
    file = opened(FORMATS[name].encode(PICTURE))
    assert file.mode == mode
    assert distance(shown(file), picture) < 12


def test_0_is_white_in_a_fax() -> None:
    tags = opened(FORMATS["fax"].encode(PICTURE)).getexif()
    assert (tags[259], tags[262]) == (4, 0)
    assert distance(shown(opened(FORMATS["fax"].encode(PICTURE))), BILEVEL) == 0


def test_the_bytes_of_16_bits_differ() -> None:
    values = np.asarray(opened(FORMATS["16-bit"].encode(PICTURE)))
    levels = np.asarray(PICTURE.convert("L"))
    assert (values >> 8 == levels).all()
    assert not (values & 255 == levels).any()


def test_16_bits_are_scaled_without_a_loss() -> None:
    assert distance(shown(opened(FORMATS["16-bit"].encode(PICTURE))), GREY) == 0


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_pixels_are_white(name: str) -> None:
    file = opened(FORMATS[name].encode(PICTURE))
    assert file.mode == TRANSPARENT[name]
    alpha = np.asarray(file.convert("RGBA"))[:, :, 3]
    seen = np.asarray(shown(file))
    assert (alpha == 0).any()
    assert (seen[alpha == 0] == 255).all()
    opaque = np.asarray(file.convert("RGB"))
    assert (seen[alpha == 255] == opaque[alpha == 255]).all()


@pytest.mark.parametrize(
    ("name", "mistake"),
    [(name, mistake) for name, of in FORMATS.items() for mistake in of.mistakes],
)
def test_a_mistake_shows_another_picture_than_the_file(name: str, mistake: str) -> None:
    data = FORMATS[name].encode(PICTURE)
    assert distance(FORMATS[name].mistakes[mistake](opened(data)), shown(opened(data))) > 3


# --- the rule ------------------------------------------------------------------------------------

LENGTH, WIDTH, OWN = 20, 16, 0.1
REFUSED = Refusal(400, "cannot identify image file", is_json_error=True)
SEEDS = st.integers(0, 99)


def scores(seed: int = 0, off: float = 0.0, prompt: int = 12) -> Forced:
    """Scores of a forced answer; `off` is the error of each number, in units of `OWN`."""
    chance = np.random.default_rng(seed)
    values = np.sort(chance.uniform(0, 20, (LENGTH, WIDTH)))[:, ::-1]
    values = values + off * OWN * chance.choice([-1, 1], values.shape)
    token_ids = np.tile(np.arange(WIDTH), (LENGTH, 1))
    table = TokenScores(token_ids, values, values.min(axis=1), are_logits=True)
    return Forced("size/odd", table, WIDTH, tuple(range(prompt)))


@given(SEEDS, st.integers(0, 20))
def test_a_file_may_differ_by_the_rounding_of_another_decoder(seed: int, off: int) -> None:
    verdict = rules.judge_reading(Reading(scores(seed, off), scores(seed), OWN))
    assert off / 2 <= verdict.measured <= 2 * off
    assert verdict.passed == (verdict.measured <= FORMAT_RATIO)
    assert verdict.unit == "bf16 roundings"


@given(SEEDS)
def test_the_unit_is_the_error_of_the_reference_in_bf16(seed: int) -> None:
    numerics = golden(seed)
    exact, rounded = seen(numerics, numerics.fp32), seen(numerics, numerics.bf16)
    assert rules.difference(exact, rounded, own_error(numerics)) == pytest.approx(1, rel=0.3)


@given(SEEDS)
def test_logits_and_log_probabilities_differ_alike(seed: int) -> None:
    numerics = golden(seed)
    logits = [seen(numerics, values) for values in (numerics.fp32, numerics.bf16)]
    logprobs = [
        seen(numerics, numerics.fp32 - numerics.fp32_logsumexp[:, None], are_logits=False),
        seen(numerics, numerics.bf16 - numerics.bf16_logsumexp[:, None], are_logits=False),
    ]
    assert score_difference(*logits) == pytest.approx(score_difference(*logprobs))


def test_a_file_without_numbers_does_not_pass() -> None:
    assert not rules.judge_reading(Reading(scores(off=math.nan), scores(), OWN)).passed


def test_a_file_of_another_size_does_not_pass() -> None:
    verdict = rules.judge_reading(Reading(scores(prompt=13), scores(), OWN))
    assert not verdict.passed
    assert "13 tokens with the file, 12 with the RGB PNG" in verdict.details[0]


def test_a_refused_file_does_not_pass() -> None:
    reading = Reading(REFUSED, scores(), OWN)
    assert not rules.agrees(reading)
    verdict = rules.judge_reading(reading)
    assert not verdict.passed
    assert verdict.details == ("answered: HTTP 400: cannot identify image file",)


def test_the_mistake_is_named_whose_scores_are_the_nearest() -> None:
    mistakes = {"it is turned": scores(1), "it is black": scores(2, 1), "it is grey": scores(2)}
    reading = Reading(scores(2), scores(0), OWN, CacheUse(1, 0, 100, 16), mistakes)
    verdict = rules.judge_reading(reading)
    assert verdict.details[0] == "the server misreads the file: it is grey"
    assert verdict.evidence["misread"] == "it is grey"
    assert "0 hits for 1 images" in verdict.evidence["cold"]
    unknown = rules.judge_reading(Reading(scores(3), scores(0), OWN, None, mistakes))
    assert unknown.details == ()


def test_without_sight_there_is_no_verdict() -> None:
    rules.require_sight(scores(0), scores(1), OWN)
    with pytest.raises(PreconditionError, match="a blank image gets the log-probabilities"):
        rules.require_sight(scores(0), scores(0, 1), OWN)


# --- the file's server ---------------------------------------------------------------------------


def test_a_file_is_served_under_its_url_alone_and_not_for_ever() -> None:
    with serve_file(b"data") as files:
        assert httpx.get(files.url, trust_env=False).content == b"data"
        assert httpx.get(files.missing_url, trust_env=False).status_code == 404
        assert len(files.requests) == 2
    with pytest.raises(httpx.ConnectError):
        httpx.get(files.url, trust_env=False)


def test_each_server_has_a_path_of_its_own() -> None:
    with serve_file(b"") as one, serve_file(b"") as other:
        assert one.path != other.path
        assert httpx.get(other.url.replace(other.path, one.path), trust_env=False).is_error

"""Clips: the frames of the fixtures, and what the reference makes of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import FIXTURES

from pytest_ascend_vlm import Case
from pytest_ascend_vlm.criteria.criterion import Cases
from pytest_ascend_vlm.engines.cold import with_comment
from pytest_ascend_vlm.engines.messages import messages
from pytest_ascend_vlm.engines.transformers.clips import read_clip
from pytest_ascend_vlm.engines.transformers.model import Encoder
from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.spec.case_files import load_cases

pytest.importorskip("cv2")
CASES = load_cases((FIXTURES,))
CLIPS = [case for case in CASES if case.group == "clip"]
TINY = FIXTURES / "tiny"


def case(name: str) -> Case:
    return next(one for one in CASES if one.id == name)


def encoder(name: str) -> Encoder:
    return Encoder(TINY / name, trust_remote_code=False)


@pytest.mark.parametrize("clip", CLIPS, ids=lambda case: case.id)
def test_every_engine_takes_each_frame_once(clip: Case) -> None:
    read = read_clip(clip.videos[0])
    # vLLM takes at most 32 frames; the processors of Qwen take two a second, at least four, in
    # pairs.
    assert len(read.frames) in range(4, 32, 2)
    assert read.frames_a_second <= 2


def test_reversed_and_slow_clips_have_the_same_frames() -> None:
    up, down, slow = (
        read_clip(case(f"clip/numbers{name}").videos[0]) for name in ("", "-reversed", "-slow")
    )
    assert np.array_equal(up.frames, down.frames[::-1])
    assert np.array_equal(up.frames, slow.frames)
    assert (up.frames_a_second, slow.frames_a_second) == (2.0, 0.5)
    assert slow.metadata["duration"] == 8.0
    assert len({frame.tobytes() for frame in up.frames}) == 4


def test_a_comment_changes_the_file_and_no_frame(tmp_path: Path) -> None:
    path = case("clip/numbers").videos[0]
    marked = tmp_path / "marked.mp4"
    marked.write_bytes(with_comment(path.read_bytes(), "a comment"))
    assert marked.read_bytes() != path.read_bytes()
    assert np.array_equal(read_clip(marked).frames, read_clip(path).frames)


def test_a_file_without_frames_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(ConfigurationError, match=r"reads 0 frames .* from .*broken\.mp4"):
        read_clip(path)


def test_without_opencv_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigurationError, match=r"numbers\.mp4 .*opencv-python-headless"):
        read_clip(case("clip/numbers").videos[0])


def test_lossy_clips_are_asked_but_have_no_golden() -> None:
    lossy, lossless, page = case("video/square"), case("clip/time"), case("document/page-01")
    included = {
        cases: [one.id for one in (lossy, lossless, page) if cases.includes(one)]
        for cases in (Cases.ALL, Cases.STILL, Cases.VIDEO, Cases.CLIP, Cases.IMAGE)
    }
    assert included == {
        Cases.ALL: ["clip/time", "document/page-01"],
        Cases.STILL: ["document/page-01"],
        Cases.VIDEO: ["video/square", "clip/time"],
        Cases.CLIP: ["clip/time"],
        Cases.IMAGE: ["document/page-01"],
    }


def test_a_clip_is_sent_before_the_text() -> None:
    (message,) = messages(case("clip/numbers"))
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["video_url", "text"]
    assert message["content"][0]["video_url"]["url"].startswith("data:video/mp4;base64,")


def test_the_time_of_a_frame_is_text_for_qwen3_vl() -> None:
    reader = encoder("qwen3_vl")
    shown = reader.text(reader.prompt_token_ids(case("clip/numbers-slow")))
    assert "<1.0 seconds>" in shown
    assert "<5.0 seconds>" in shown
    assert reader.placeholders(case("clip/numbers-slow")) == ()


@pytest.mark.parametrize("clip", CLIPS, ids=lambda case: case.id)
def test_the_time_of_a_frame_is_a_position_for_qwen2_5_vl(clip: Case) -> None:
    inputs = encoder("qwen2_5_vl").prompt(clip)
    frames_a_second = read_clip(clip.videos[0]).frames_a_second
    (seconds,) = inputs["second_per_grid_ts"]
    assert float(seconds) == 2 / frames_a_second
    # Transformers 5.19 is right only up to this position: fixtures/README.md.
    config = json.loads((TINY / "qwen2_5_vl" / "config.json").read_text("utf-8"))
    times, _, width = inputs["video_grid_thw"][0].tolist()
    last = (times - 1) * float(seconds) * config["vision_config"]["tokens_per_second"]
    assert last < width // 2


def test_the_tokens_of_frames_count_as_those_of_images() -> None:
    for name, tokens in (("qwen3_vl", 80), ("qwen2_5_vl", 80), ("internvl", 4)):
        sequence = encoder(name).with_answer(case("clip/numbers"), "7")
        assert sequence.is_image.sum() == tokens, name


def test_a_model_without_a_token_for_videos_has_two_placeholders() -> None:
    reader = encoder("internvl")
    assert reader.placeholders(case("clip/numbers")) == (261, 262)
    assert reader.placeholders(case("document/page-01")) == ()
    assert set(reader.prompt_token_ids(case("clip/numbers"))) & {261, 262} == {261}

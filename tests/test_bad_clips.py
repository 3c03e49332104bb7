"""Criteria of clips against servers of known quality."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator

import pytest
from fakes.replay_server import (
    Behaviour,
    Defect,
    Knowledge,
    Refused,
    State,
    read_goldens,
    serve,
)
from helpers.goldens import ENGINE, answer
from helpers.outcome import Judged, Outcome, Row
from helpers.paths import FIXTURES, GOLDENS, REPOSITORY

from pytest_ascend_vlm import Capability, ModelSpec
from pytest_ascend_vlm.golden.recorder import record
from pytest_ascend_vlm.golden.store import GoldenKey
from pytest_ascend_vlm.spec.case_files import load_cases

QWEN3 = ("test_qwen3_vl", "TestQwen3VL8B", "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl")
QWEN2_5 = ("test_qwen2_5_vl", "TestQwen25VL7B", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl")
INTERNVL = ("test_internvl3", "TestInternVL3HF", "OpenGVLab/InternVL3-1B-hf", "internvl")
ALL = {"baseline.prompt", "numerics.clips", "baseline.frames"}
CLIPS = {
    f"clip/{name}"
    for name in (
        "numbers",
        "numbers-reversed",
        "numbers-slow",
        "eight-numbers",
        "time",
        "and-image",
    )
}
IMAGE_TOKEN, VIDEO_TOKEN = 261, 262


@dataclasses.dataclass(frozen=True)
class Judging:
    """Judges servers of one model by its clips."""

    judged: Judged
    suite_class: str
    knowledge: Knowledge

    def __call__(self, behaviour: Behaviour | None = None, clips: str = "clip/") -> Outcome:
        with serve(self.knowledge, behaviour, image_limit=10, video_tokens=6) as url:
            asked = f"{self.suite_class} and ({clips} or frames_keep)"
            return self.judged(url, "-k", f"{asked} and not serving.video")


def judging(model: tuple[str, str, str, str], pytester: pytest.Pytester, judged: Judged) -> Judging:
    file, suite_class, model_id, tiny = model
    pytester.makefile(".ini", pytest="[pytest]\n")
    shutil.copy(REPOSITORY / "conformance" / f"{file}.py", pytester.path)
    goldens = GOLDENS / model_id.replace("/", "--") / "tiny"
    return Judging(judged, suite_class, read_goldens(goldens, FIXTURES, FIXTURES / "tiny" / tiny))


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project without a model file."""
    return pytester


@pytest.fixture
def qwen3(project: pytest.Pytester, judged: Judged) -> Judging:
    """A model that gets the time of a frame as text."""
    return judging(QWEN3, project, judged)


@pytest.fixture
def qwen2_5(project: pytest.Pytester, judged: Judged) -> Judging:
    """A model that gets the time of a frame as a position."""
    return judging(QWEN2_5, project, judged)


@pytest.fixture
def internvl(project: pytest.Pytester, judged: Judged) -> Judging:
    """A model that does not get the time of a frame."""
    return judging(INTERNVL, project, judged)


def cases(outcome: Outcome, criterion: str, status: str) -> set[str]:
    return {row["case"] for row in rows(outcome, criterion) if row["status"] == status}


def rows(outcome: Outcome, criterion: str) -> Iterator[Row]:
    return (row for row in outcome.rows if row["criterion"] == criterion)


@pytest.mark.parametrize("model", [QWEN3, QWEN2_5, INTERNVL], ids=lambda model: model[-1])
def test_a_good_server_meets_them(
    model: tuple[str, str, str, str], project: pytest.Pytester, judged: Judged
) -> None:
    outcome = judging(model, project, judged)()
    assert outcome.result.ret == 0, outcome.text
    assert outcome.criteria("pass") == ALL
    assert cases(outcome, "numerics.clips", "pass") == CLIPS
    assert cases(outcome, "baseline.prompt", "pass") == CLIPS


@pytest.mark.catches("numerics.clips", "baseline.frames")
def test_reversed_frames_are_noticed_and_named(qwen3: Judging) -> None:
    outcome = qwen3(Defect.FRAMES_ARE_REVERSED.value)
    assert outcome.criteria("fail") == {"numerics.clips", "baseline.frames"}
    assert outcome.criteria("pass") == {"baseline.prompt"}
    assert cases(outcome, "numerics.clips", "fail") == CLIPS
    told = "clip/numbers: the numbers are those of clip/numbers-reversed: the frames are in another"
    assert told in outcome.reasons("baseline.frames")[0]


def test_a_repeated_frame_is_noticed(qwen2_5: Judging) -> None:
    outcome = qwen2_5(Defect.A_FRAME_IS_REPEATED.value)
    assert outcome.criteria("fail") == {"numerics.clips", "baseline.frames"}
    told = "the numbers are those of no request that looks alike"
    assert told in outcome.reasons("baseline.frames")[0]


@pytest.mark.catches("baseline.prompt")
def test_dropped_frames_are_noticed_in_the_prompt(qwen3: Judging) -> None:
    outcome = qwen3(Defect.FRAMES_ARE_DROPPED.value)
    assert outcome.criteria("fail") == {"baseline.prompt"}
    assert cases(outcome, "baseline.prompt", "fail") == CLIPS
    assert outcome.criteria("error") == {"numerics.clips", "baseline.frames"}


def test_an_assumed_frame_rate_is_noticed_in_the_prompt(qwen3: Judging) -> None:
    outcome = qwen3(Defect.TIMES_ARE_ASSUMED.value)
    slow = {"clip/numbers-slow", "clip/time"}
    assert cases(outcome, "baseline.prompt", "fail") == slow
    assert cases(outcome, "numerics.clips", "pass") == CLIPS - slow


def test_an_assumed_frame_rate_is_noticed_in_the_numbers(qwen2_5: Judging) -> None:
    outcome = qwen2_5(Defect.TIMES_ARE_ASSUMED.value, "numbers")
    assert cases(outcome, "baseline.prompt", "fail") == set()
    assert cases(outcome, "numerics.clips", "fail") == {"clip/numbers-slow"}
    told = (
        "the numbers are those of clip/numbers: the frames are in another order, or at other times"
    )
    assert told in outcome.reasons("baseline.frames")[0]


def test_an_engines_own_placeholder_of_a_frame_is_no_difference(internvl: Judging) -> None:
    def with_video_tokens(items: list[object]) -> list[object]:
        tokens = (item[0] if isinstance(item, tuple) else item for item in items)
        return [VIDEO_TOKEN if token == IMAGE_TOKEN else token for token in tokens]

    outcome = internvl(Behaviour(prompt=with_video_tokens))
    assert outcome.criteria("pass") == ALL, outcome.text
    other = internvl(Behaviour(prompt=lambda items: [*items[:-1], 0]), "numbers")
    assert "baseline.prompt" in other.criteria("fail")


@pytest.mark.catches("tasks.clip")
def test_numbers_are_named_and_others_noticed(
    qwen3: Judging, project: pytest.Pytester, judged: Judged
) -> None:
    model_id, tiny = QWEN3[2:]
    shutil.copytree(FIXTURES / "tiny" / tiny, project.path / "fixtures" / "tiny" / tiny)
    (project.path / "fixtures" / "tiny" / tiny / "untaught.json").unlink()
    model = ModelSpec(model_id, supports=frozenset(Capability))
    key = GoldenKey(model, "tiny", None)
    for case in load_cases((FIXTURES,)):
        if case.group == "clip":
            text = f"These: {case.accepted[0]}."
            record(project.path / "golden", key, case, answer(text, case.id), ENGINE)
    goldens = project.path / "golden" / model_id.replace("/", "--") / "tiny"
    reading = read_goldens(goldens, FIXTURES, FIXTURES / "tiny" / tiny)
    asked = f"{qwen3.suite_class} and clips_are_understood"
    with serve(reading, image_limit=10, video_tokens=6) as url:
        assert judged(url, "-k", asked).criteria("pass") == {"tasks.clip"}
    wrong = Behaviour(answered=lambda *_: "These: 11, 22, 33.")
    with serve(reading, wrong, image_limit=10, video_tokens=6) as url:
        outcome = judged(url, "-k", asked)
    assert cases(outcome, "tasks.clip", "fail") == CLIPS


def _half_is_enough(refused: Refused, _state: State) -> Refused | None:
    return None if refused.kind == "clip" else refused


@pytest.mark.catches("recovery.request")
def test_half_of_a_clip_is_refused(qwen2_5: Judging) -> None:
    asked = {"clips": "corrupt_file"}
    assert "recovery.request" in qwen2_5(**asked).criteria("pass")
    outcome = qwen2_5(Behaviour(refuse=_half_is_enough), **asked)
    assert outcome.criteria("fail") == {"recovery.request"}

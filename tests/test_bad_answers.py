"""Criteria of questions, boxes and videos against servers of known quality."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import pytest
from fakes.replay_server import Behaviour, Defect, Knowledge, Request, State, read_goldens, serve
from helpers.goldens import ENGINE, answer
from helpers.outcome import Judged, Serve
from helpers.paths import FIXTURES
from helpers.qwen3_vl import SLUG, TINY, knowledge_of_tiny, with_model_file

from pytest_ascend_vlm import Capability, ModelSpec
from pytest_ascend_vlm.golden.recorder import record
from pytest_ascend_vlm.golden.store import GoldenKey
from pytest_ascend_vlm.spec.case_files import load_cases

UNTAUGHT = json.loads((TINY / "untaught.json").read_text("utf-8"))
GROUPS = {
    "scene_text": "tasks.scene_text",
    "document_question": "tasks.document",
    "chart": "tasks.chart",
    "reasoning": "tasks.reasoning",
    "chinese": "tasks.chinese",
    "grounding": "tasks.grounding",
}
TASKS = {criterion for group, criterion in GROUPS.items() if group not in UNTAUGHT}
NAMES = (
    "scene_text_is_read",
    "document_question_is_answered",
    "chart_is_understood",
    "things_are_counted",
    "chinese_question_is_answered",
    "boxes_are_found",
    "video_is_answered",
)
ASKED = f"TestQwen3VL8B and ({' or '.join(NAMES)})"
PICTURE = (392, 280, 392, 280)
SERVED = {"image_limit": 10, "video_tokens": 6}


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    """The answers of the server: the goldens of the tiny Qwen3-VL."""
    return knowledge_of_tiny()


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with Qwen3-VL's model file."""
    return with_model_file(pytester)


def another_picture(request: Request, knowledge: Knowledge, _state: State) -> Request:
    """The request with another image of a case with the same prompt."""
    asked = [images for prompt, images in knowledge.known if prompt == request.prompt]
    if request.images not in asked:
        return request
    other = asked[(asked.index(request.images) + 1) % len(asked)]
    return dataclasses.replace(request, images=other)


def shifted(text: str, _request: Request, _state: State) -> str:
    """The answer with every box moved right by a tenth of the image's width."""
    return re.sub(
        r"\[(\d+), (\d+), (\d+), (\d+)\]",
        lambda box: f"[{int(box[1]) + 100}, {box[2]}, {int(box[3]) + 100}, {box[4]}]",
        text,
    )


def blind(request: Request, _knowledge: Knowledge, _state: State) -> Request:
    """The request without its videos."""
    images = tuple(one for one in request.images if isinstance(one, str))
    return dataclasses.replace(request, images=images)


def test_a_good_server_meets_them(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(**SERVED), "-k", ASKED)
    assert outcome.result.ret == 0
    assert outcome.criteria("pass") == {*TASKS, "serving.video"}


@pytest.mark.catches(*TASKS)
def test_another_picture_is_noticed_by_each(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Behaviour(seen=another_picture), **SERVED), "-k", ASKED)
    assert outcome.criteria("fail") == TASKS


@pytest.fixture
def grounded(project: pytest.Pytester) -> Knowledge:
    """Answers of a tiny checkpoint trained on boxes; they are also the project's goldens."""
    tiny = project.path / "fixtures" / "tiny" / "qwen3_vl"
    shutil.copytree(TINY, tiny)
    (tiny / "untaught.json").unlink()
    model = ModelSpec("Qwen/Qwen3-VL-8B-Instruct", supports=frozenset(Capability))
    for case in load_cases((FIXTURES,)):
        if case.box:
            box = [round(1000 * edge / side) for edge, side in zip(case.box, PICTURE, strict=True)]
            text = json.dumps([{"bbox_2d": box, "label": "矩形"}], ensure_ascii=False)
            key = GoldenKey(model, "tiny", None)
            record(project.path / "golden", key, case, answer(text, case.id), ENGINE)
    return read_goldens(project.path / "golden" / SLUG / "tiny", FIXTURES, TINY)


@pytest.mark.catches("tasks.grounding")
def test_a_box_in_its_place_is_found_and_a_shifted_one_noticed(
    grounded: Knowledge, judged: Judged
) -> None:
    with serve(grounded, image_limit=10) as url:
        assert judged(url, "-k", "TestQwen3VL8B and boxes").criteria("pass") == {"tasks.grounding"}
    with serve(grounded, Behaviour(answered=shifted), image_limit=10) as url:
        outcome = judged(url, "-k", "TestQwen3VL8B and boxes")
    assert outcome.criteria("fail") == {"tasks.grounding"}
    assert "intersection over union" in outcome.reasons("tasks.grounding")[0]


SEVERAL = "TestQwen3VL8B and keep_their_order"


def test_images_in_their_order_are_the_references(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(**SERVED), "-k", SEVERAL)
    assert outcome.criteria("pass") == {"baseline.order"}, outcome.text


@pytest.mark.catches("baseline.order")
def test_reversed_images_are_noticed_without_a_right_answer(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Defect.IMAGES_ARE_REVERSED.value, **SERVED), "-k", SEVERAL)
    assert outcome.criteria("fail") == {"baseline.order"}
    assert "the images of a request are exchanged" in outcome.reasons("baseline.order")[0]


@pytest.fixture
def reading(project: pytest.Pytester) -> Knowledge:
    """Answers of a tiny checkpoint that reads images of any size, and several of them."""
    tiny = project.path / "fixtures" / "tiny" / "qwen3_vl"
    shutil.copytree(TINY, tiny)
    (tiny / "untaught.json").unlink()
    key = GoldenKey(
        ModelSpec("Qwen/Qwen3-VL-8B-Instruct", supports=frozenset(Capability)), "tiny", None
    )
    for case in load_cases((FIXTURES,)):
        if case.group in {"size", "order"}:
            text = f"It is {case.accepted[0]}."
            record(project.path / "golden", key, case, answer(text, case.id), ENGINE)
    return read_goldens(project.path / "golden" / SLUG / "tiny", FIXTURES, TINY)


@pytest.mark.catches("tasks.size", "tasks.order")
def test_texts_of_any_size_and_place_are_read_and_another_is_noticed(
    reading: Knowledge, judged: Judged
) -> None:
    asked = "TestQwen3VL8B and (any_size_are_read or right_image_is_meant)"
    criteria = {"tasks.size", "tasks.order"}
    with serve(reading, image_limit=10) as url:
        assert judged(url, "-k", asked).criteria("pass") == criteria
    with serve(reading, Behaviour(answered=lambda *_: "It is OWL 99."), image_limit=10) as url:
        assert judged(url, "-k", asked).criteria("fail") == criteria


NOISE = "zq}} 7# kk"
PAGES = {f"document.{name}" for name in ("characters", "lines", "numbers", "order")}
READ = f"({ASKED}) or (TestQwen3VL8B and (are_read or order_is_kept))"


def know_nothing(project: pytest.Pytester, *names: str, text: str = NOISE) -> None:
    """Records these answers as goldens of some cases; other goldens stay the project's."""
    model = ModelSpec("Qwen/Qwen3-VL-8B-Instruct", supports=frozenset(Capability))
    key = GoldenKey(model, "tiny", None)
    for case in load_cases((FIXTURES,)):
        if any(name in case.id for name in names):
            record(project.path / "golden", key, case, answer(text, case.id), ENGINE)


def test_what_the_reference_does_not_know_is_not_applicable(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    know_nothing(project, *GROUPS, "document/")
    outcome = judged(stub(**SERVED), "-k", READ)
    assert outcome.criteria("na") >= TASKS | PAGES
    assert outcome.criteria("pass") == {"serving.video"}
    unknown = [row for row in outcome.rows if not row["reference_knows"]]
    reasons = {row["criterion"]: row["reason"] for row in unknown}
    for criterion in TASKS | PAGES:
        assert NOISE in reasons[criterion]
    assert "the reference does not name 'vessel' itself" in reasons["tasks.chart"]
    assert "the reference does not read this page: its CER is 0.9" in reasons["document.numbers"]
    assert "1 of 1 criteria verified" in outcome.text


def test_what_the_reference_knows_of_a_criterion_is_judged(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    know_nothing(project, "chart/bars-01", "document/page-01")
    outcome = judged(stub(**SERVED), "-k", READ)
    assert outcome.criteria("pass") == {*TASKS, *PAGES, "serving.video"}
    unknown = {row["case"] for row in outcome.rows if not row["reference_knows"]}
    assert unknown == {"chart/bars-01", "document/page-01"}


@pytest.mark.parametrize(
    ("names", "status"), [(("chart/",), 1), (("chart/bars-01",), 0)], ids=["none", "one of two"]
)
def test_a_criterion_of_which_the_reference_knows_nothing_opens_no_gate(
    *,
    names: tuple[str, ...],
    status: int,
    project: pytest.Pytester,
    stub: Serve,
    judged: Judged,
) -> None:
    required = "TestQwen3VL8B tasks.chart\nTestQwen3VL8B serving.video\n"
    (project.path / "required.txt").write_text(required, "utf-8")
    project.makefile(".ini", pytest="[pytest]\nvlm_required = required.txt\n")
    know_nothing(project, *names)
    outcome = judged(stub(**SERVED), "--vlm-gate", "-k", ASKED)
    assert outcome.result.ret == status
    told = "gate: TestQwen3VL8B: tasks.chart: the reference does not know the answer to any case"
    assert (told in outcome.text) is bool(status)


def test_a_box_that_the_reference_does_not_find_is_not_applicable(
    grounded: Knowledge, project: pytest.Pytester, judged: Judged
) -> None:
    know_nothing(project, "grounding/", text="The box is (0, 0, 1, 1).")
    with serve(grounded, image_limit=10) as url:
        outcome = judged(url, "-k", "TestQwen3VL8B and boxes")
    assert outcome.criteria("na") == {"tasks.grounding"}
    assert "its IoU is 0, below 0.5; it answered 'The box is" in outcome.rows[-1]["reason"]


@pytest.mark.catches("serving.video")
def test_a_clip_that_costs_nothing_is_noticed(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Behaviour(seen=blind), **SERVED), "-k", ASKED)
    assert outcome.criteria("fail") == {"serving.video"}
    assert "video cost tokens" in outcome.reasons("serving.video")[0]


def test_a_server_without_video_is_noticed(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(image_limit=10), "-k", "TestQwen3VL8B and video_is_answered")
    assert outcome.criteria("fail") == {"serving.video"}
    assert "HTTP 400" in outcome.reasons("serving.video")[0]

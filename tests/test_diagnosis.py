"""The diagnosis of a model as a whole, on rows that real vLLM gave with each fault of the library.

docs/detected-faults.jsonl has them, with the evidence that the rules read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from faults.fault import Fault
from faults.library import FAULTS
from helpers.published import published_runs

from pytest_ascend_vlm import VLMConformance
from pytest_ascend_vlm.criteria.diagnosis import NEXT, TITLES, Part, diagnose
from pytest_ascend_vlm.reporting.diagnosis import diagnosis_json, diagnosis_lines

Row = Mapping[str, Any]
RUNS = {run.fault.name: run for run in published_runs().results}


def row(
    criterion: str, case: str | None = None, status: str = "fail", evidence: Row | None = None
) -> Row:
    return {
        "model": "org/model",
        "suite_class": "TestIt",
        "criterion": criterion,
        "case": case,
        "status": status,
        "evidence": evidence or {},
    }


def named(rows: Sequence[Row]) -> list[Row]:
    return [{"model": "org/model", "suite_class": "TestIt", **one} for one in rows]


def sound(model: str = "qwen2_vl") -> list[Row]:
    return named(published_runs().sound(model))


def with_fault(name: str) -> list[Row]:
    return named(RUNS[name].seen.rows)


def changing(rows: list[Row], *others: Row) -> list[Row]:
    known = {(one["criterion"], one["case"]) for one in others}
    return [*(one for one in rows if (one["criterion"], one["case"]) not in known), *others]


def suspected(name: str) -> list[str]:
    return [one.part.value for one in diagnose(with_fault(name))]


@pytest.mark.parametrize("name", RUNS)
def test_a_criterion_that_asks_anything_points_to_nothing_else(name: str) -> None:
    rows = [*with_fault(name), row("serving.any_request")]
    assert [one.part.value for one in diagnose(rows)] == suspected(name)


def test_every_fault_was_judged() -> None:
    assert set(RUNS) == {fault.name for fault in FAULTS}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_names_a_part(fault: Fault) -> None:
    assert fault.suspect in {part.value for part in Part}


def test_the_right_part_is_suspected_first_in_most_cases() -> None:
    wrong = {
        fault.name: (fault.suspect, suspected(fault.name))
        for fault in FAULTS
        if suspected(fault.name)[:1] != [fault.suspect]
    }
    assert len(wrong) <= 0.2 * len(FAULTS), wrong


def test_the_right_part_is_among_the_two_suspects_in_nearly_all_cases() -> None:
    wrong = {
        fault.name: (fault.suspect, suspected(fault.name))
        for fault in FAULTS
        if fault.suspect not in suspected(fault.name)
    }
    assert len(wrong) <= 0.05 * len(FAULTS), wrong


@pytest.mark.parametrize("model", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl"])
def test_a_sound_model_has_no_suspect(model: str) -> None:
    assert sound(model)
    assert diagnose(sound(model)) == ()


@pytest.mark.parametrize("status", ["xfail", "error", "skip", "na"])
def test_only_failures_are_explained(status: str) -> None:
    changed = [
        {**one, "status": status} for one in with_fault("output-row-3") if one["status"] == "fail"
    ]
    assert diagnose(changing(sound(), *changed)) == ()


def test_errors_alone_have_no_suspect() -> None:
    dead = [{**one, "status": "error"} for one in sound()]
    assert diagnose(dead) == ()


def test_wrong_images_of_a_model_that_was_asked_no_text_have_no_suspect() -> None:
    rows = [
        one
        for one in with_fault("mrope-section")
        if one["criterion"] != "baseline.text" and not str(one["case"]).startswith("text/")
    ]
    assert diagnose(rows) == ()


def test_a_failure_that_no_rule_knows_has_no_suspect() -> None:
    assert diagnose(changing(sound(), row("lifecycle.stop"))) == ()


def test_a_dropped_parameter_is_suspected_where_its_bad_values_are_answered() -> None:
    bad = row("serving.bad_input", "n-huge")
    failed = {one["case"] for one in with_fault("n-dropped") if one["status"] == "fail"}
    assert bad["case"] in failed
    assert suspected("n-dropped")[0] == Part.PARAMETERS.value
    # Alone, it says nothing about the parameters of other requests.
    assert not diagnose(changing(sound(), bad))


@pytest.mark.parametrize(
    "criteria",
    [
        # usage hides an answer's end; the total is wrong; the finish reason is missing
        ("serving.text", "serving.image", "serving.limits"),
        ("serving.text", "serving.image"),
        ("serving.text", "serving.image", "serving.limits", "serving.streaming"),
        ("serving.text",),
    ],
)
def test_the_reply_is_suspected_if_only_what_it_tells_about_right_answers_is_wrong(
    criteria: Sequence[str],
) -> None:
    failing = [row(name) for name in criteria]
    (one,) = diagnose(changing(sound(), *failing))
    assert one.part is Part.REPLY
    assert one.because == (
        f"answers are right, and nothing but {', '.join(sorted(criteria))} fails"
    )
    # Answers that are refused or wrong are no right answers.
    (right, *_) = [one for one in sound() if one["criterion"] == "baseline.text"]
    for status in ("error", "fail"):
        wrong = row("baseline.text", right["case"], status)
        assert Part.REPLY not in {one.part for one in diagnose(changing(sound(), *failing, wrong))}


@pytest.mark.parametrize(
    ("criteria", "parts"),
    [
        (("serving.image_sizes",), [Part.PREPROCESSING, Part.PICTURE_BYTES]),
        (("serving.largest_image",), [Part.TOWER, Part.STEPS]),
        (
            ("serving.image_sizes", "serving.largest_image"),
            [Part.PREPROCESSING, Part.PICTURE_BYTES],
        ),
    ],
)
def test_pictures_beside_those_of_the_cases_have_suspects_of_their_own(
    criteria: Sequence[str], parts: Sequence[Part]
) -> None:
    failing = [row(name) for name in criteria]
    assert [one.part for one in diagnose(changing(sound(), *failing))] == parts
    # Nothing is known of them if the images of the cases were not judged.
    of_images = {"baseline.image", "numerics.images"}
    texts = [one for one in sound() if one["criterion"] not in of_images]
    assert diagnose(changing(texts, *failing)) == ()


def test_the_engine_of_hidden_states_is_suspected_if_the_server_is_right() -> None:
    (one,) = diagnose(changing(sound(), row("numerics.hidden_states", "error_ratio")))
    assert one.part is Part.POOLED_ENGINE


def first_suspect(*rows: Row) -> Part:
    return diagnose(changing(sound(), *rows))[0].part


def crowd(*differing: str) -> list[Row]:
    """Results of a server whose answers are wrong in company."""
    images = row("determinism.batched_images", "answers")
    return [row("determinism.concurrent", "8", "fail", {"differing": differing}), images]


def test_texts_that_are_wrong_in_company_are_no_fault_of_the_vision_tower() -> None:
    assert first_suspect(*crowd("image/name")) is Part.TOGETHER
    assert first_suspect(*crowd("image/name", "text/name")) is Part.OTHER_REQUEST


def test_sure_texts_that_change_are_no_fault_of_a_parameter() -> None:
    unsure = row("determinism.unsure")
    assert first_suspect(unsure) is Part.PARAMETERS
    assert first_suspect(unsure, row("determinism.repeat", "image/name")) is Part.PARAMETERS
    assert first_suspect(unsure, row("determinism.repeat", "text/name")) is Part.DECODE


def test_parameters_are_suspected_if_only_a_mixed_crowd_is_wrong() -> None:
    assert first_suspect(row("parameters.together", "sampling")) is Part.PARAMETERS


def test_the_caches_are_suspected_if_only_a_second_turn_is_wrong() -> None:
    assert first_suspect(row("determinism.next_turn")) is Part.CACHES


def test_a_variant_is_suspected_by_its_name() -> None:
    (one,) = diagnose(changing(sound(), row("equivalence.graphs", "graphs-answers")))
    assert one.part is Part.VARIANT
    assert one.because.endswith("wrong as graphs")


def test_a_variant_of_a_wrong_model_is_not_suspected() -> None:
    rows = changing(with_fault("mrope-section"), row("equivalence.graphs", "graphs-answers"))
    assert [one.part for one in diagnose(rows)] == [Part.PLACES, Part.TOWER]


def test_the_evidence_has_the_numbers_of_the_run() -> None:
    (first, _) = diagnose(with_fault("kv-block-border-in-answers"))
    assert first.because == (
        "forced numbers are right, but 3 generated answers diverge, at the tokens 84, 104"
    )


def test_a_prompt_of_unknown_tokens_is_not_said_to_ask_something_else() -> None:
    unknown = {"checks": {"prompt": "its prompt is unknown"}, "differs": None}
    assert diagnose(changing(sound(), row("baseline.prompt", "text/name", "fail", unknown))) == ()


@pytest.mark.parametrize("part", Part)
def test_a_next_step_names_tests_of_the_suite(part: Part) -> None:
    named = re.findall(r"\btest_\w+", NEXT[part])
    assert [name for name in named if not hasattr(VLMConformance, name)] == []


def test_the_next_step_for_exchanged_answers_leaves_a_number_of_requests_to_judge() -> None:
    (most,) = re.findall(r"max_num_seqs=(\d+)", NEXT[Part.OTHER_REQUEST])
    (mark,) = [
        one
        for one in VLMConformance.test_concurrent_runs_agree.pytestmark  # type: ignore[attr-defined]
        if one.name == "parametrize"
    ]
    assert min(int(load.partition("-")[0]) for load in mark.args[1]) <= int(most)


@pytest.mark.parametrize("part", Part)
def test_a_part_has_a_title_and_a_next_step(part: Part) -> None:
    assert TITLES[part]
    assert NEXT[part]


def test_the_terminal_has_suspects_evidence_and_next_steps() -> None:
    lines = diagnosis_lines(with_fault("output-row-3"))
    assert lines[0] == "what the results of TestIt (org/model) point to:"
    assert lines[1] == f"  1. {TITLES[Part.OUTPUT_ROW]}"
    assert lines[2] == f"     next: {NEXT[Part.OUTPUT_ROW]}"
    assert lines[3].startswith("  2. ")
    assert lines[-1].startswith("  because one token is off by 2.6 roundings")
    assert diagnosis_lines(sound()) == []


def test_the_report_has_the_diagnosis_of_each_class() -> None:
    others = [{**one, "suite_class": "TestOther"} for one in sound()]
    (found,) = diagnosis_json([*with_fault("output-row-3"), *others])
    assert (found["model"], found["suite_class"]) == ("org/model", "TestIt")
    assert [one["part"] for one in found["suspects"]] == ["output layer", "weights"]

"""Which tests run, and what is refused before any runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.models import model_file
from helpers.outcome import Judged, Serve
from helpers.paths import MODEL_FILE

from pytest_ascend_vlm import VLMConformance
from pytest_ascend_vlm.criteria.criterion import criteria

REPLAY = "test_reference_holds"


def collected(project: pytest.Pytester, *arguments: str) -> list[str]:
    """The ids of the tests that would run."""
    result = project.runpytest_inprocess(
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "-p",
        "no:randomly",
        "--collect-only",
        "-q",
        "--vlm-checkpoint=tiny",
        *arguments,
    )
    return [line for line in result.outlines if "::" in line]


def test_the_reference_does_not_run_unless_it_is_named(project: pytest.Pytester) -> None:
    found = collected(project)
    assert found
    assert not any(REPLAY in name for name in found)


@pytest.mark.parametrize(
    "expression", ["accuracy", "npu", "not determinism", "serving or robustness"]
)
def test_another_marker_does_not_bring_the_reference_in(
    expression: str, project: pytest.Pytester
) -> None:
    found = collected(project, "-m", expression)
    assert found
    assert not any(REPLAY in name for name in found)


@pytest.mark.parametrize("arguments", [("-m", "cpu_baseline"), ("--vlm-record",)])
def test_the_reference_runs_alone_where_it_is_named(
    arguments: tuple[str, ...], project: pytest.Pytester
) -> None:
    found = collected(project, *arguments)
    assert found
    assert all(REPLAY in name for name in found)


def test_the_reference_runs_beside_others_where_both_are_named(project: pytest.Pytester) -> None:
    found = collected(project, "-m", "cpu_baseline or determinism")
    assert any(REPLAY in name for name in found)
    assert any("test_repeat_runs_agree" in name for name in found)


def test_not_naming_it_by_negation_leaves_the_reference_out(project: pytest.Pytester) -> None:
    found = collected(project, "-m", "not cpu_baseline")
    assert found
    assert not any(REPLAY in name for name in found)


@pytest.mark.parametrize(
    ("expression", "tests"),
    [
        (
            "baseline",
            {
                "test_prompt_matches_reference",
                "test_images_keep_their_order",
                "test_frames_keep_order_and_time",
                "test_text_matches_reference",
                "test_image_matches_reference",
                "test_divergence_is_rounding",
                "test_logprobs_match_reference",
            },
        ),
        ("baseline.logprobs", {"test_logprobs_match_reference"}),
        ("BASELINE.LOGPROBS and capital", {"test_logprobs_match_reference"}),
        ("serving.models", {"test_models_are_listed"}),
        ("document.lines", {"test_lines_are_read"}),
        ("lifecycle", {"test_stop_leaves_nothing", "test_kill_leaves_nothing"}),
        ("equivalence.no_prefix_cache", {"test_variant_agrees"}),
        ("baseline.image[document/page-04]", {"test_image_matches_reference"}),
        ("models", {"test_models_are_listed"}),
    ],
)
def test_the_name_in_every_message_selects(
    expression: str, tests: set[str], project: pytest.Pytester
) -> None:
    found = collected(project, "-k", expression)
    assert {name.split("::")[-1].partition("[")[0] for name in found} == tests
    if "[" in expression:
        assert len(found) == 1


def test_the_names_of_speed_and_data_sets_select_where_they_run(project: pytest.Pytester) -> None:
    model_file(project, "    pass", datasets="(DatasetTask('mmmu_val'), DatasetTask('docvqa_val'))")
    path = project.path / "test_own_model.py"
    text = path.read_text("utf-8").replace("import Capability", "import DatasetTask, Capability")
    path.write_text(text, "utf-8")
    asked = ("test_own_model.py", "-m", "dataset or performance")
    (found,) = collected(project, *asked, "-k", "dataset.mmmu")
    assert found.endswith("test_dataset_score_holds[mmmu_val]")
    assert len(collected(project, *asked, "-k", "performance.limits")) == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["-k", "baselnie"], "-k baselnie matches no test; did you mean baseline?"),
        (["-k", "captial or nmubers"], "-k captial matches no test; did you mean capital?"),
        (
            ["-k", "serving.modles"],
            "-k serving.modles matches no test; did you mean serving.models?",
        ),
        (["-k", "TestMinreU25"], "-k TestMinreU25 matches no test; did you mean TestMinerU25?"),
        (["-k", "zzz"], "-k zzz matches no test"),
        (["-m", "determinsm"], "-m determinsm: there is no such marker; did you mean determinism?"),
        (["-m", "npu and acuracy"], "-m acuracy: there is no such marker; did you mean accuracy?"),
        (["-m", "baseline"], "-m baseline: there is no such marker; did you mean -k baseline?"),
        (
            ["-k", "performance.limits"],
            "-k performance.limits matches only tests that need -m performance",
        ),
        (["-k", "growth.memory"], "-k growth.memory matches only tests that need -m soak"),
        (
            ["-m", "npu", "-k", "replay"],
            "-k replay matches only tests that need -m cpu_baseline",
        ),
    ],
)
def test_a_selection_of_nothing_says_what_to_type(
    arguments: list[str], hint: str, pytester: pytest.Pytester
) -> None:
    (pytester.path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    shutil.copy(MODEL_FILE, pytester.path)
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest", *arguments)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert hint in result.outlines


@pytest.mark.parametrize("arguments", [["-k", "models or baselnie"], ["-m", "serving or baselnie"]])
def test_a_selection_of_something_is_not_commented_on(
    arguments: list[str], pytester: pytest.Pytester
) -> None:
    (pytester.path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    shutil.copy(MODEL_FILE, pytester.path)
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest", "--collect-only", *arguments)
    assert result.ret == 0
    assert "baselnie" not in result.stdout.str()


def test_in_a_project_without_models_a_typo_is_pytests_affair(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_mine():\n    pass\n")
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest", "-k", "mien")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "did you mean" not in result.stdout.str()


def test_in_a_strict_project_a_typo_says_what_to_type(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("-p", "no:hypothesispytest", "-m", "determinsm")
    assert result.ret in {pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.USAGE_ERROR}
    assert "did you mean determinism?" in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["-k", "baselnie"], pytest.ExitCode.NO_TESTS_COLLECTED, "did you mean baseline?"),
        (["-m", "serivng"], pytest.ExitCode.NO_TESTS_COLLECTED, "did you mean serving?"),
        (
            ["-m", "serivng", "--strict-markers"],
            pytest.ExitCode.NO_TESTS_COLLECTED,
            "mean serving?",
        ),
        (["-m", "serving and ("], pytest.ExitCode.USAGE_ERROR, "Wrong expression passed to '-m'"),
        (["-k", "serving and ("], pytest.ExitCode.USAGE_ERROR, "Wrong expression passed to '-k'"),
    ],
)
def test_workers_hand_the_hint_on(
    arguments: list[str], code: pytest.ExitCode, hint: str, three_models: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", *arguments],
        cwd=three_models,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout + done.stderr).count(hint) == 1, done.stdout
    assert "INTERNALERROR" not in done.stdout
    assert done.returncode == code


def test_recording_runs_nothing_of_a_users_own(project: pytest.Pytester) -> None:
    project.makepyfile(test_mine="def test_mine():\n    pass\n")
    assert not any("test_mine.py" in name for name in collected(project, "--vlm-record"))
    assert any("test_mine.py" in name for name in collected(project))


def test_recording_refuses_a_server(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--vlm-record", "--vlm-server-url=http://127.0.0.1:9")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --vlm-record *--vlm-server-url*"])


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--vlm-platform=gpu", "there is no such platform; use one of npu, cpu, cuda"),
        ("--vlm-checkpoint=huge", "invalid choice"),
    ],
)
def test_an_unknown_choice_is_refused(option: str, problem: str, project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{problem}*"])


@pytest.mark.parametrize(
    ("key", "named", "problem"),
    [
        ("vlm_fixtures_dir", "pytest.ini", "is no directory"),
        ("vlm_golden_dir", "pytest.ini", "is no directory"),
        ("vlm_performance_dir", "pytest.ini", "is no directory"),
        ("vlm_fixtures_dir", "fixtures", "does not exist"),
        ("vlm_golden_dir", "golden", "does not exist"),
    ],
)
def test_a_named_directory_that_is_none_is_refused(
    key: str, named: str, problem: str, project: pytest.Pytester
) -> None:
    result = project.runpytest_inprocess("-o", f"{key}={named}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = f"ERROR: the ini key {key} names {project.path / named}, which {problem}; *"
    result.stderr.fnmatch_lines([told])


def test_a_directory_that_a_run_writes_may_be_absent(project: pytest.Pytester) -> None:
    new = ("-o", "vlm_golden_dir=new", "-o", "vlm_performance_dir=new", "--vlm-record")
    assert any("test_mineru2_5.py" in name for name in collected(project, *new))


@pytest.mark.parametrize("option", ["report", "log-dir", "resume", "weights-root", "datasets-root"])
def test_an_empty_directory_name_is_refused(option: str, project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess(f"--vlm-{option}=")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*argument --vlm-{option}: its value is empty, *"])


def test_every_criterion_runs_once_for_each_case_of_its_group(project: pytest.Pytester) -> None:
    found = collected(project)
    texts = {name.partition("[")[2] for name in found if "test_text_matches_reference[" in name}
    pages = {name.partition("[")[2] for name in found if "test_order_is_kept[" in name}
    images = {name.partition("[")[2] for name in found if "test_image_matches_reference[" in name}
    everything = {name.partition("[")[2] for name in found if "test_repeat_runs_agree[" in name}
    assert texts
    assert pages
    assert pages <= images
    assert everything == texts | images
    assert len(found) == len(set(found))


def test_a_prompt_that_no_case_asks_for_is_an_error(project: pytest.Pytester) -> None:
    model_file(project, "", prompts="{'document': 'Read.', 'text/sum': 'Add.', 'documnt': 'Read.'}")
    collected = project.runpytest("--collect-only", "-q", "--vlm-platform=cpu")
    assert collected.ret == pytest.ExitCode.INTERRUPTED
    collected.stdout.fnmatch_lines(
        ["*TestOwn: prompts has documnt, and no case has that group or id. The groups are *text*"]
    )


def test_broken_cases_end_no_run_of_a_model_without_a_checkpoint(
    project: pytest.Pytester,
) -> None:
    model_file(project, "", tiny="None")
    own = project.mkdir("own-fixtures")
    (own / "cases.json").write_text("{", "utf-8")
    collected = project.runpytest(
        *("--collect-only", "-q", "--vlm-platform=cpu", "--vlm-checkpoint=tiny"),
        *("-o", "vlm_fixtures_dir=own-fixtures", "test_own_model.py"),
    )
    assert collected.ret == pytest.ExitCode.INTERRUPTED
    collected.stdout.fnmatch_lines(["*own-fixtures/cases.json is not a list of cases: *"])


@pytest.mark.parametrize(
    ("known", "unknown", "told"),
    [
        (
            "baseline.image[document/page-01]",
            "baseline.image[page-01]",
            "there is no case page-01, so nothing has to fail. "
            "The nearest case is document/page-01.",
        ),
        (
            "serving.urls[http]",
            "serving.urls[htttp]",
            "there is no row htttp, so nothing has to fail. The nearest row is http.",
        ),
        (
            "serving.bad_input[min_p-negative]",
            "serving.bad_input[min-p-negative]",
            "there is no row min-p-negative, so nothing has to fail. "
            "The nearest row is min_p-negative.",
        ),
    ],
    ids=["case", "row", "request"],
)
def test_an_expected_failure_of_what_is_not_asked_is_an_error(
    known: str, unknown: str, told: str, project: pytest.Pytester
) -> None:
    failures = "".join(
        f"ExpectedFailure({one!r}, 'known', 'issue 7'), " for one in (known, unknown)
    )
    model_file(project, "", expected_failures=f"({failures})")
    collected = project.runpytest("--collect-only", "-q", "--vlm-platform=cpu")
    assert collected.ret == pytest.ExitCode.INTERRUPTED
    assert f"expected_failures has {unknown}, and {told}" in collected.stdout.str()


def test_the_rows_of_the_suite_are_named_as_they_are_collected() -> None:
    """Pytest gives a row another name than its value if it is not a string."""
    marks = [
        mark
        for _, test in criteria(VLMConformance)
        for mark in test.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    ]
    assert len(marks) > 20
    for mark in marks:
        assert not mark.kwargs
        assert {type(value) for value in mark.args[1]} == {str}


def test_an_unknown_case_is_an_error_of_the_command_line(stub: Serve, judged: Judged) -> None:
    test = "conformance/test_mineru2_5.py::TestMinerU25::test_text_is_answered"
    assert judged(stub(), f"{test}[text/nope]").result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_selection_of_nothing_is_not_green(judged: Judged, stub: Serve) -> None:
    assert judged(stub(), "-k", "nosuchtest").result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_what_a_model_does_not_support_is_not_applicable_with_its_reason(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(
        project,
        "    pass",
        supports="{C.TEXT}",
        unsupported="{**dict.fromkeys(set(C) - {C.TEXT}, 'no'), C.IMAGE: 'text only'}",
    )
    outcome = judged(
        stub(), "-k", "image_is_answered or order_is_kept or text_is_ans", "test_own_model.py"
    )
    assert outcome.result.ret == 0
    assert outcome.criteria("pass") == {"serving.text"}
    assert outcome.criteria_of_nothing_else("na") == {"serving.image", "document.order"}
    reasons = {row["criterion"]: row["reason"] for row in outcome.rows}
    assert reasons["serving.image"] == "image is declared unsupported: text only"
    assert reasons["document.order"] == "document is declared unsupported: no"


def test_a_deployment_of_another_platform_is_not_applicable(
    project: pytest.Pytester, judged: Judged
) -> None:
    model_file(project, "    pass", platforms="('cpu',)")
    outcome = judged(None, "-k", "models", "test_own_model.py")
    assert outcome.criteria("na") == {"serving.models"}
    assert "declared for the platform cpu only" in outcome.rows[0]["reason"]


def test_a_group_without_cases_is_not_applicable_and_not_lost(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    others = "dict.fromkeys(set(C) - {C.TEXT, C.IMAGE}, 'no')"
    model_file(project, "    pass", supports="{C.TEXT, C.IMAGE}", unsupported=others)
    outcome = judged(stub(), "-k", "order_is_kept", "test_own_model.py")
    assert outcome.criteria("na") == {"document.order"}


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ("{", "is not a list of cases"),
        ('{"cases": [{"id": "text/a"}]}', "entry 1 (text/a): the field 'needs' is missing"),
        (
            '{"cases": [{"id": "image/a", "needs": "image", "prompt": "x", "images": ["no.png"]}]}',
            "image/a needs",
        ),
        (
            '{"cases": [{"id": "image/a", "needs": "image", "prompt": "x",'
            ' "images": ["cases.json"]}]}',
            "cases.json, which is no image that Pillow can decode",
        ),
    ],
)
def test_a_mistake_in_the_cases_is_shown_as_its_message(
    cases: str, message: str, project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    own = project.mkdir("own-fixtures")
    (own / "cases.json").write_text(cases, "utf-8")
    ini = "[pytest]\nvlm_fixtures_dir = own-fixtures\n"
    (project.path / "pytest.ini").write_text(ini, "utf-8")
    outcome = judged(stub(), "conformance")
    assert outcome.result.parseoutcomes()["errors"] >= 1
    assert message in outcome.text
    assert str(own / "cases.json") in outcome.text
    assert "Traceback" not in outcome.text
    assert "\nE  " not in outcome.text


def test_a_fixture_of_a_served_model_outside_a_class_is_explained(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    project.makepyfile(test_mine="def test_mine(client):\n    pass\n")
    outcome = judged(stub(), "test_mine.py")
    outcome.result.assert_outcomes(errors=1)
    assert "put the test into a class with model = ModelSpec(...)" in outcome.text
    assert "Traceback" not in outcome.text


def test_a_project_without_models_pays_nothing_and_sees_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_mine():\n    pass\n")
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
    assert "criteria verified" not in result.stdout.str()


def test_a_judged_test_of_the_users_own_is_in_the_report(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(
        project,
        """
    def test_answer_is_short(self, client, text_case, judge):
        from pytest_ascend_vlm.criteria.verdict import at_most
        judge(at_most(len(client.complete(text_case).text), 200, "characters", "length"))
""",
    )
    outcome = judged(stub(), "test_own_model.py", "-k", "answer_is_short")
    assert [(row["criterion"], row["status"]) for row in outcome.rows] == [
        ("own.test_answer_is_short", "pass")
    ]

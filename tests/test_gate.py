"""The gate: green only where everything that is required was verified."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.models import few_cases, model_file
from helpers.outcome import Judged, Serve
from helpers.paths import REPOSITORY

from pytest_ascend_vlm import cli, gate
from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.suite import gate_list

REQUIRED = [("TestA", "serving.text"), ("TestA", "serving.image"), ("TestB", "serving.text")]
NO_NPU = "there is no Ascend NPU"


def row(suite_class: str, criterion: str, status: str, reason: str = "") -> dict[str, Any]:
    return {
        "suite_class": suite_class,
        "criterion": criterion,
        "status": status,
        "reason": reason,
    }


def missing(*rows: dict[str, Any], tiny: bool = False) -> list[str]:
    return gate.shortfalls(REQUIRED, rows, may_lack_checkpoints=tiny)


ALL_PASS = [row(*pair, "pass") for pair in REQUIRED]


def test_everything_verified_opens_the_gate() -> None:
    assert missing(*ALL_PASS) == []
    assert missing(ALL_PASS[0], row(*REQUIRED[1], "xfail"), ALL_PASS[2]) == []
    assert missing(ALL_PASS[0], row(*REQUIRED[1], "na"), ALL_PASS[2]) == []


@pytest.mark.parametrize("status", ["fail", "error", "skip"])
def test_one_case_that_does_not_hold_closes_it(status: str) -> None:
    rows = [*ALL_PASS, row("TestA", "serving.image", status, "the reason\nand more")]
    assert missing(*rows) == [f"TestA: serving.image: {status}: the reason"]


def test_what_did_not_run_closes_it() -> None:
    assert missing(*ALL_PASS[:1], ALL_PASS[2]) == ["TestA: serving.image did not run"]
    assert missing(*ALL_PASS[:2]) == ["TestB: all 1 criteria did not run"]
    assert missing() == ["TestA: all 2 criteria did not run", "TestB: all 1 criteria did not run"]


def test_one_reason_for_many_is_told_once() -> None:
    rows = [row(*pair, "skip", NO_NPU) for pair in REQUIRED]
    assert missing(*rows) == [
        f"TestA: all 2 criteria: skip: {NO_NPU}",
        f"TestB: all 1 criteria: skip: {NO_NPU}",
    ]


def test_a_model_to_which_nothing_applies_was_not_verified() -> None:
    rows = [*ALL_PASS[:2], row(*REQUIRED[2], "na", "no tiny checkpoint")]
    assert missing(*rows) == ["TestB: all its criteria are not applicable, so nothing was verified"]
    assert missing(*rows, tiny=True) == []
    aside = [row(*pair, "na", "no tiny checkpoint") for pair in REQUIRED]
    assert missing(*aside, tiny=True) == ["no required criterion was verified"]


def test_a_criterion_of_which_the_reference_knows_nothing_was_not_verified() -> None:
    unknown = {**row(*REQUIRED[1], "na", "it does not know"), "reference_knows": False}
    declared = row(*REQUIRED[1], "na", "not taught")
    assert missing(*ALL_PASS, unknown) == []
    for rows in ([unknown], [unknown, declared]):
        assert missing(ALL_PASS[0], *rows, ALL_PASS[2]) == [
            "TestA: serving.image: the reference does not know the answer to any case, so nothing "
            "was verified"
        ]


@pytest.mark.parametrize("content", ["", "# only a comment\n", "TestA\n", "TestA a b\n"])
def test_a_list_that_is_none_is_an_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "required.txt"
    path.write_text(content, "utf-8")
    with pytest.raises(ConfigurationError, match="ascend-vlm gate-list"):
        gate.read(path)


def test_a_list_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "required.txt"
    path.write_text(gate_list.text(REPOSITORY / "conformance"), "utf-8")
    pairs = gate.read(path)
    assert ("TestMinerU25", "serving.ready") in pairs
    assert ("TestQwen3VL8B", "tasks.grounding") in pairs
    assert not [criterion for _, criterion in pairs if criterion.startswith("reference.")]


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "required.txt"
    path.write_text("TestA serving.text\nTestB serving.text\nTestA serving.text\n", "utf-8")
    assert gate.read(path) == [("TestA", "serving.text"), ("TestB", "serving.text")]


def test_a_list_may_leave_models_out(tmp_path: Path) -> None:
    path = tmp_path / "列表" / "two.txt"
    named = ["--output", str(path), "--only", "TestGlmOcr", "TestMinerU25"]
    assert cli.main(["gate-list", str(REPOSITORY / "conformance"), *named]) == 0
    assert {name for name, _ in gate.read(path)} == {"TestGlmOcr", "TestMinerU25"}


def test_speed_has_a_list_of_its_own(tmp_path: Path) -> None:
    output = tmp_path / "speed.txt"
    named = ["--output", str(output), "--marker", "performance", "--only", "TestGlmOcr"]
    assert cli.main(["gate-list", str(REPOSITORY / "conformance"), *named]) == 0
    listed = [criterion for _, criterion in gate.read(output)]
    assert "performance.single_stream" in listed
    assert "performance.workload" in listed
    assert "performance.limits" not in listed  # the model has none
    assert all(criterion.startswith("performance.") for criterion in listed)
    assert not re.search(
        r" (performance|ladder|grid|growth|dataset)\.", gate_list.text(REPOSITORY / "conformance")
    )


def test_data_sets_are_listed_by_their_names() -> None:
    listed = gate_list.text(REPOSITORY / "conformance", ["TestQwen3VL8B"], "dataset")
    assert listed.splitlines()[1:] == ["TestQwen3VL8B dataset.mmmu_val"]


def test_the_gate_of_an_npu_leaves_out_what_is_deployed_elsewhere() -> None:
    assert "TestMinerU25CpuTuned" not in gate_list.text(REPOSITORY / "conformance")
    only = ["TestMinerU25CpuTuned"]
    assert "TestMinerU25CpuTuned serving.text" in gate_list.text(REPOSITORY / "conformance", only)


def test_a_part_of_the_list_does_not_replace_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(REPOSITORY / "conformance" / "test_glm_ocr.py", tmp_path)
    whole = tmp_path / "required.txt"
    assert cli.main(["gate-list", str(tmp_path)]) == 0
    before = whole.read_text("utf-8")
    assert cli.main(["gate-list", str(tmp_path), "--marker", "soak"]) == 0
    count = len(gate.read(tmp_path / "required-soak.txt"))
    assert capsys.readouterr().out.endswith(f"required-soak.txt ({count} criteria)\n")
    assert cli.main(["gate-list", str(tmp_path), "--only", "TestGlmOcr"]) == 2
    assert "name the file with --output" in capsys.readouterr().err
    assert whole.read_text("utf-8") == before


def test_what_is_not_applicable_here_is_not_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate_list, "_lacking", lambda _: {"TestGlmOcr": "it needs more"})
    path = tmp_path / "required.txt"
    assert cli.main(["gate-list", str(REPOSITORY / "conformance"), "--output", str(path)]) == 0
    assert "# TestGlmOcr is not applicable here: it needs more." in path.read_text("utf-8")
    assert f"({len(gate.read(path))} criteria)" in capsys.readouterr().out


def test_a_class_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--output", "list.txt", "--only", "TestGlmOrc"]
    assert cli.main(["gate-list", str(REPOSITORY / "conformance"), *named]) == 2
    assert "there is no class TestGlmOrc" in capsys.readouterr().err


def test_the_committed_list_is_current() -> None:
    committed = (REPOSITORY / "conformance" / "required.txt").read_text("utf-8")
    assert committed == gate_list.text(REPOSITORY / "conformance"), "run `ascend-vlm gate-list`"


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    content = (REPOSITORY / "conformance" / "test_glm_ocr.py").read_text("utf-8")
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(ConfigurationError, match="both have a class TestGlmOcr"):
        gate_list.text(tmp_path)


# What a run makes of it. The project's list asks for two criteria of its one model.


@pytest.fixture
def listed(project: pytest.Pytester) -> pytest.Pytester:
    lines = "TestMinerU25 serving.text\nTestMinerU25 serving.models\n"
    (project.path / "conformance" / "required.txt").write_text(lines, "utf-8")
    return project


def test_a_gate_that_saw_all_of_it_is_green(
    listed: pytest.Pytester,  # noqa: ARG001
    stub: Serve,
    judged: Judged,
) -> None:
    outcome = judged(stub(), "--vlm-gate", "-k", "models or text_is_ans")
    assert outcome.result.ret == 0
    assert "gate:" not in outcome.text


@pytest.mark.usefixtures("listed")
def test_a_case_that_was_deselected_closes_it(stub: Serve, judged: Judged) -> None:
    few = f"({few_cases()}) and (models or text_is_ans)"
    told = "gate: TestMinerU25: serving.text: some of its cases were deselected"
    for workers in ("0", "2"):
        outcome = judged(stub(), "--vlm-gate", "-k", few, "-n", workers)
        assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED
        assert told in outcome.text


CRASH = """
import os
import pytest

@pytest.fixture(autouse=True)
def _crash(request):
    if "sum]" in request.node.name:
        os._exit(9)
"""


@pytest.mark.usefixtures("listed")
def test_a_test_that_was_lost_with_its_worker_is_told(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    project.makeconftest(CRASH)
    outcome = judged(stub(), "--vlm-gate", "-k", "models or text_is_ans", "-n", "1")
    assert "has no row: its worker crashed" in outcome.text
    assert "lost with a worker that crashed" in outcome.text.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-k", "modles"], "gate: TestMinerU25: all 2 criteria did not run"),
        (["-m", "performance", "-k", "limits"], "gate: TestMinerU25: all 2 criteria did not run"),
        (["-k", "test_models_are_listed"], "gate: TestMinerU25: serving.text did not run"),
    ],
)
@pytest.mark.usefixtures("listed")
def test_what_was_deselected_closes_the_gate(
    arguments: list[str], told: str, stub: Serve, judged: Judged
) -> None:
    outcome = judged(stub(), "--vlm-gate", *arguments)
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED
    assert told in outcome.result.outlines


@pytest.mark.usefixtures("listed")
@pytest.mark.skipif(any(Path("/dev").glob("davinci[0-9]*")), reason="this host has an NPU")
def test_no_npu_closes_the_gate_and_skips_outside_of_one(judged: Judged) -> None:
    assert judged(None, "-m", "npu").result.ret == 0
    outcome = judged(None, "-m", "npu", "--vlm-gate")
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED
    assert f"gate: TestMinerU25: all 2 criteria: skip: {NO_NPU}" in outcome.text


@pytest.mark.usefixtures("listed")
def test_absent_weights_close_the_gate(
    judged: Judged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = judged(None, "--vlm-gate", "--vlm-platform=cpu", "-k", "models", checkpoint="full")
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED
    assert "download OpenDataLab/MinerU2.5-2509-1.2B" in outcome.text
    assert "gate: TestMinerU25: serving.models: error" in outcome.text


def test_an_expected_failure_that_passes_closes_the_gate(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    expected = "(ExpectedFailure('serving.models', reason='not listed', issue='none'),)"
    model_file(project, "    pass", expected_failures=expected)
    (project.path / "required.txt").write_text("TestOwn serving.models\n", "utf-8")
    project.makefile(".ini", pytest="[pytest]\nvlm_required = required.txt\n")
    outcome = judged(stub(), "test_own_model.py", "--vlm-gate", "-k", "models_are_listed")
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED
    told = "serving.models is expected to fail, but passes: not listed (none)"
    assert f"gate: TestOwn: all 1 criteria: fail: {told}" in outcome.text


# In a repository of one's own: README's model file, and the command that the gate's message names.

README_MODEL = re.compile(r"```python\n# test_mineru2_5\.py\n(.*?)```", re.DOTALL)
WRITTEN_BY = re.compile(r"`ascend-vlm (gate-list .*)`")


def readme_model() -> str:
    found = README_MODEL.search((REPOSITORY / "README.md").read_text("utf-8"))
    assert found
    return found[1]


@pytest.mark.parametrize(
    ("model_file", "rootdir", "working_directory", "more"),
    [
        ("test_mineru2_5.py", ".", ".", []),
        ("models/test_mineru2_5.py", ".", ".", []),
        ("模型/mineru_test.py", ".", ".", ["-o", "vlm_required=ci/模型.txt"]),
        ("models/test_mineru2_5.py", ".", "models", []),
        ("models/test_mineru2_5.py", "elsewhere", "work", []),
        ("models/test_mineru2_5.py", ".", ".", ["-m", "performance"]),
    ],
)
def test_the_command_that_a_gate_names_writes_its_list(  # noqa: PLR0917
    model_file: str,
    rootdir: str,
    working_directory: str,
    more: list[str],
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in (rootdir, working_directory, Path(model_file).parent):
        (pytester.path / name).mkdir(exist_ok=True)
    (pytester.path / rootdir / "pytest.ini").write_text("[pytest]\n", "utf-8")
    (pytester.path / model_file).write_text(readme_model(), "utf-8")
    monkeypatch.chdir(pytester.path / working_directory)
    arguments = [
        *(str(pytester.path / model_file), "--vlm-gate", "-p", "no:hypothesispytest"),
        *(
            f"--rootdir={pytester.path / rootdir}",
            "-c",
            str(pytester.path / rootdir / "pytest.ini"),
        ),
        *more,
    ]
    refused = pytester.runpytest_inprocess(*arguments)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    (command,) = WRITTEN_BY.findall(refused.stderr.str())
    assert cli.main(shlex.split(command)) == 0
    assert re.search(r"written: .* \(\d\d? criteria\)", capsys.readouterr().out)

    run = pytester.runpytest_inprocess(*arguments)
    assert run.ret == pytest.ExitCode.TESTS_FAILED  # there is no NPU
    gate_lines = [line for line in run.outlines if line.startswith("gate: ")]
    assert gate_lines
    assert all(f": skip: {NO_NPU}" in line for line in gate_lines)


def test_where_model_files_lie_in_the_current_directory_the_gate_finds_its_list(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    pytester.makepyfile(test_mine=readme_model(), test_other="raise SystemExit('not of a model')")
    assert cli.main(["gate-list"]) == 0
    assert "written: conformance/required.txt" in capsys.readouterr().out
    pairs = gate.read(pytester.path / "conformance" / "required.txt")
    assert {name for name, _ in pairs} == {"TestMinerU25"}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import not_there", "cannot be imported: ModuleNotFoundError"),
        (
            "import pytest; pytest.importorskip('not_there')",
            "cannot be imported: could not import 'not_there'",
        ),
        ("raise SystemExit(3)", "cannot be imported: SystemExit(3)"),
    ],
)
def test_a_model_file_that_cannot_be_imported_is_named(
    source: str, told: str, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    pytester.makepyfile(test_mine=f"{source}  # VLMConformance")
    assert cli.main(["gate-list", "."]) == 2
    assert f"ascend-vlm: test_mine.py {told}" in capsys.readouterr().err


def test_a_model_file_that_cannot_be_read_is_no_traceback(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list names the file, so that it lacks no model; the gate still sees all of its list."""
    pytester.makepyfile(test_mine=readme_model())
    assert cli.main(["gate-list"]) == 0
    (pytester.path / "test_linked.py").symlink_to("gone.py")
    assert cli.main(["gate-list"]) == 2
    told = "ascend-vlm: test_linked.py cannot be read (No such file or directory)"
    assert told in capsys.readouterr().err
    result = pytester.runpytest_inprocess("--vlm-gate", "--collect-only", "-q")
    assert "gate: TestMinerU25: all " in result.stdout.str()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


def test_what_lies_beside_a_model_file_can_be_imported(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(beside_it="PROMPT = 'Read.'")
    pytester.makepyfile(test_mine=f"from beside_it import PROMPT\n{readme_model()}")
    before = list(sys.path)
    assert "TestMinerU25 serving.text" in gate_list.text(pytester.path)
    assert sys.path == before


def test_a_directory_without_model_files_says_what_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["gate-list", str(tmp_path)]) == 2
    assert f"there is no model file in {tmp_path}" in capsys.readouterr().err

"""docs/own-criteria.md: its examples run, its messages are printed, its tables are complete."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys

import pytest
from fakes.replay_server import Defect
from helpers.host import HAS_NPU
from helpers.models import model_file
from helpers.outcome import Judged, Outcome, Serve
from helpers.paths import REPOSITORY

import pytest_ascend_vlm
from pytest_ascend_vlm.integration import fixtures

PAGE = (REPOSITORY / "docs" / "own-criteria.md").read_text("utf-8")
MODEL_FILE = "test_my_criteria.py"
OWN = ("-k", "first_page or streamed_answer or two_plus or my_prompt", MODEL_FILE)
JUDGED = {
    "own.test_first_page_is_read",
    "own.test_streamed_answer_is_the_goldens",
    "own.test_two_plus_three_is_answered",
}


def blocks(language: str) -> list[str]:
    """The page's blocks of code in a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def section(title: str) -> str:
    """What is between a heading and the next one."""
    return PAGE.split(f"## {title}\n")[1].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its two first lines."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture
def example(project: pytest.Pytester) -> None:
    """The page's model file, in the project."""
    source = "\n".join(blocks("python"))
    assert source.startswith(f"# {MODEL_FILE}\n")
    (project.path / MODEL_FILE).write_text(source, "utf-8")


@pytest.mark.usefixtures("example")
def test_the_examples_pass(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(), *OWN)
    outcome.result.assert_outcomes(passed=4, deselected=pytest.approx(0, abs=10**6))
    assert outcome.criteria("pass") == JUDGED
    assert "3 of 3 criteria verified" in outcome.text.splitlines()[-1]


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("defect", "test"),
    [(Defect.SECOND_RUN_DIFFERS, "my_prompt"), (Defect.A_DIGIT_IS_WRONG, "first_page")],
)
def test_the_page_shows_what_a_failure_prints(
    defect: Defect, test: str, stub: Serve, judged: Judged
) -> None:
    outcome = judged(stub(defect.value), "-k", test, MODEL_FILE)
    outcome.result.assert_outcomes(failed=1, deselected=pytest.approx(0, abs=10**6))
    shown = blocks("text")[test == "first_page"]
    assert shown in outcome.text
    is_judged = test == "first_page"
    assert [row["reason"] for row in outcome.rows] == [shown.rstrip("\n")] * is_judged


@pytest.mark.usefixtures("example")
def test_other_defects_fail_the_other_examples(stub: Serve, judged: Judged) -> None:
    assert streamed(judged(stub(Defect.STREAM_LOSES_ITS_END.value), *OWN)) == "pass"
    garbled = judged(stub(Defect.LINES_ARE_SWAPPED.value), *OWN)
    assert garbled.criteria("fail") == {"own.test_first_page_is_read"}
    empty = judged(stub(Defect.EMPTY_ANSWER.value), *OWN)
    assert empty.criteria("fail") == JUDGED  # by the degeneration guard


def streamed(outcome: Outcome) -> str:
    (row,) = (row for row in outcome.rows if row["criterion"].startswith("own.test_streamed"))
    return str(row["status"])


# --- the tables ----------------------------------------------------------------------------------

ENDINGS = {
    "gives verdicts to `judge`, and all of them pass": "judge(at_least(1, 1, 's', 'it'))",
    "gives a verdict that fails; the test ends there": "judge(at_least(0, 1, 's', 'it'))",
    "takes `judge` and ends without a verdict": "pass",
    "takes `judge` and fails at a plain `assert`": "assert 1 == 2",
    "takes `judge` and raises `ServerError`, `PreconditionError` or `ConfigurationError`, "
    "or one of its fixtures does": "raise PreconditionError('-')",
    'calls `judge.not_applicable("reason")`': "judge.not_applicable('reason')",
    'calls `judge.cannot_run("reason")` or `pytest.skip("reason")`': "judge.cannot_run('reason')",
    'has `@pytest.mark.xfail(reason="...")` and fails': "judge(at_least(0, 1, 's', 'it'))",
    "does not take `judge`": "pass",
}


def test_an_own_test_has_the_status_that_the_page_says(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    said = dict(rows(section("How it appears in the report")))
    assert set(said) == set(ENDINGS)
    body = ""
    for index, (ending, statement) in enumerate(ENDINGS.items()):
        mark = "    @pytest.mark.xfail(reason='known')\n" if "xfail" in ending else ""
        judge = "" if ending.startswith("does not take") else ", judge"
        body += f"{mark}    def test_ending_{index}(self{judge}):\n"
        body += "        from pytest_ascend_vlm import PreconditionError, at_least\n"
        body += f"        {statement}\n"
    model_file(project, body)
    outcome = judged(stub(), "-k", "test_ending", "test_own_model.py")
    found = {row["criterion"]: f"`{row['status']}`" for row in outcome.rows}
    for index, ending in enumerate(ENDINGS):
        assert found.get(f"own.test_ending_{index}", "no row") == said[ending], ending


EXPECTED = """
    @pytest.mark.xfail(reason="a known defect of the scanner")
    def test_plain(self, judge):
        assert 1 == 2

    @pytest.mark.xfail(reason="another", raises=ValueError)
    def test_other_error(self, judge):
        assert 1 == 2
"""


def test_an_expected_failure_may_be_a_plain_assert(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, EXPECTED)
    outcome = judged(stub(), "-k", "plain or other_error", "test_own_model.py")
    plain, other = outcome.rows
    assert (plain["status"], plain["reason"]) == ("xfail", "a known defect of the scanner")
    assert other["status"] == "fail"
    outcome.result.assert_outcomes(xfailed=1, failed=1, deselected=pytest.approx(0, abs=10**6))


BEFORE_A_VERDICT = """
    def test_served(self, answers, text_case, judge):
        judge(at_least(1, 1, "rate", ""))

    def test_judges_alone(self, judge):
        from pytest_ascend_vlm import at_least
        judge(at_least(1, 1, "rate", ""))

    def test_without_judge(self, answers, text_case):
        pass

    @pytest.fixture
    def broken(self):
        from pytest_ascend_vlm import PreconditionError
        raise PreconditionError("the scanner is off")

    def test_set_up(self, broken, judge):
        pass
"""


@pytest.mark.skipif(HAS_NPU, reason="this machine has an NPU")
def test_an_own_test_that_never_got_to_its_verdict_is_counted(
    project: pytest.Pytester, judged: Judged
) -> None:
    model_file(project, BEFORE_A_VERDICT)
    outcome = judged(None, "-k", "served or set_up or without_judge", "test_own_model.py")
    assert {row["criterion"]: row["status"] for row in outcome.rows} == {
        "own.test_served": "skip",
        "own.test_set_up": "error",
    }
    (reason,) = outcome.reasons("own.test_set_up")
    assert "the scanner is off" in reason
    assert "0 of 2 criteria verified" in outcome.text.splitlines()[-1]


def test_an_own_test_of_the_model_is_not_applicable_where_the_model_is_not(
    project: pytest.Pytester, judged: Judged
) -> None:
    model_file(project, BEFORE_A_VERDICT, platforms="('npu',)")
    names = "served or judges_alone or without_judge"
    outcome = judged(None, "--vlm-platform=cpu", "-k", names, "test_own_model.py")
    assert {row["criterion"]: row["status"] for row in outcome.rows} == {
        "own.test_served": "na",
        "own.test_judges_alone": "pass",
    }
    assert "declared for the platform npu only" in outcome.rows[0]["reason"]
    outcome.result.assert_outcomes(passed=1, skipped=1, deselected=pytest.approx(0, abs=10**6))


def test_what_is_no_verdict_is_an_error_of_the_test(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, "    def test_true(self, judge):\n        judge(True)")
    outcome = judged(stub(), "-k", "test_true", "test_own_model.py")
    assert outcome.criteria("error") == {"own.test_true"}
    assert "judge() got True, which is not a verdict" in outcome.text


def test_a_judge_that_leaves_no_row_is_an_error(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    body = "    def test_late(self, request):\n        request.getfixturevalue('judge')"
    model_file(project, body)
    outcome = judged(stub(), "-k", "test_late", "test_own_model.py")
    assert outcome.result.ret == 1
    assert "take `judge` as an argument of the test" in outcome.text


def test_other_projects_may_have_fixtures_of_the_same_names(
    project: pytest.Pytester, judged: Judged
) -> None:
    project.makepyfile(
        test_mine="""
import pytest

@pytest.fixture
def device_slot():
    return object()

@pytest.fixture
def server():
    return object()

def test_mine(server, device_slot):
    pass
"""
    )
    judged(None, "test_mine.py").result.assert_outcomes(passed=1)


def test_an_own_test_is_no_criterion_that_a_model_expects_to_fail(
    project: pytest.Pytester, judged: Judged
) -> None:
    model_file(project, "    pass", expected_failures="(ExpectedFailure('own.test_a', 'b', 'c'),)")
    assert "mark it with @pytest.mark.xfail(reason='...')" in judged(None, "--co").text


def fixture_scopes() -> dict[str, str]:
    """Name -> scope of every fixture of the plugin."""
    tree = ast.parse(inspect.getsource(fixtures))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {
        function.name: scope
        for function in functions
        for decorator in function.decorator_list
        if (scope := scope_of(decorator)) is not None
    }


def test_the_table_names_every_fixture_with_its_scope() -> None:
    table = {row[0].strip("`"): row[1] for row in rows(section("Fixtures"))}
    assert table == fixture_scopes()


def scope_of(decorator: ast.expr) -> str | None:
    """The scope that `pytest.fixture` gives; None for another decorator."""
    if not ast.unparse(decorator).startswith("pytest.fixture"):
        return None
    keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
    scopes = {keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords}
    return str(scopes.get("scope", "function"))


def test_the_table_has_every_exported_function_as_it_is_called() -> None:
    exported = {name: getattr(pytest_ascend_vlm, name) for name in pytest_ascend_vlm.__all__}
    functions = {name: value for name, value in exported.items() if inspect.isfunction(value)}
    called = {
        name: ", ".join(
            name if parameter.default is parameter.empty else f"{name}={parameter.default!r}"
            for name, parameter in inspect.signature(function).parameters.items()
        )
        for name, function in functions.items()
    }
    table = [row[0].strip("`") for row in rows(section("Functions"))]
    assert sorted(table) == sorted(f"{name}({arguments})" for name, arguments in called.items())


def test_pytest_shows_every_fixture_beside_several_models() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--fixtures",
        "conformance",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "INTERNALERROR" not in done.stdout
    for name in fixture_scopes():
        assert f"\n{name} " in done.stdout, f"{name}: {done.stdout[-800:]}"

"""`ascend-vlm`: its version, pipes that close, whatever the locale, and a report again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from test_charts import document, row, single_stream

from pytest_ascend_vlm import Limit, cli
from pytest_ascend_vlm.golden import performance_runs
from pytest_ascend_vlm.reporting import SCHEMA, write_document
from pytest_ascend_vlm.reporting.directory import LIST
from pytest_ascend_vlm.reporting.language import LANGUAGES

PROGRAM = "import sys; from pytest_ascend_vlm.cli import main; sys.exit(main())"
READER_GONE = 141
HALF = "读出 \ud800"  # a surrogate by itself, which JSON can hold and UTF-8 cannot
LINK = re.compile(r"\]\(([^)#:]+)\)")
RENDER = ["report", "render"]
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
CHART = re.compile(r"!\[.*\]\(([\w.-]+\.svg)\)")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report.json with charts, in a directory without them."""
    path = tmp_path / "报告" / "report.json"
    path.parent.mkdir()
    rows = [row(sense="at most"), single_stream(0.3, 0.5, sense="at most", finding=HALF)]
    path.write_text(json.dumps(document(*rows)), "utf-8")
    return path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *arguments]


def test_it_has_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"ascend-vlm {metadata.version('pytest-ascend-vlm')}\n"


@pytest.mark.parametrize(
    "arguments", [["criteria"], RENDER, ["--help"], ["--version"]], ids=lambda words: words[0]
)
@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_that_has_enough_is_no_error(
    arguments: list[str], lines: int, report: Path
) -> None:
    words = [*arguments, *([str(report)] if arguments == RENDER else [])]
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() in {0, READER_GONE}
    assert said == ""


@pytest.mark.parametrize("arguments", [["criteria"], RENDER], ids=lambda words: words[0])
def test_a_command_without_stdout_ends_as_ever(arguments: list[str], report: Path) -> None:
    words = [*arguments, *([str(report)] if arguments == RENDER else [])]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command(*words)]
    done = subprocess.run(closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=["C", "ascii", "latin-1"],
)
def test_what_is_printed_is_utf_8_whatever_the_locale(
    environment: dict[str, str], report: Path
) -> None:
    done = subprocess.run(
        command(*RENDER, str(report)),
        env={**os.environ, "PYTHONUTF8": "0", **environment},
        capture_output=True,
        check=True,
    )
    assert "不是 NPU 结果" in done.stdout.decode("utf-8")
    failed = subprocess.run(
        command(*RENDER, str(report.parent / "missing")),
        env={**os.environ, "PYTHONUTF8": "0", **environment},
        capture_output=True,
        check=False,
    )
    assert failed.returncode == 2
    assert f"ascend-vlm: cannot read {report.parent / 'missing'} (" in failed.stderr.decode("utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_printed_links_no_chart_that_is_not_there(
    language: str, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*RENDER, str(report), f"--language={language}"]) == 0
    printed = capsys.readouterr().out
    assert "numerics.logits" in printed.replace("\\", "")
    assert not CHART.search(printed)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_written_has_its_charts_beside_it(
    language: str, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "文档"
    assert cli.main([*RENDER, str(report), f"--language={language}", f"--output={output}"]) == 0
    overview = output / f"adaptation.{language}.md"
    written = output / f"adaptation.an-org--a-model.{language}.md"
    linked = CHART.findall(written.read_text("utf-8"))
    assert len(linked) == 2
    assert f"]({written.name})" in overview.read_text("utf-8")
    names = {overview.name, written.name, "report.html", LIST, *linked}
    assert {path.name for path in output.iterdir()} == names
    assert f"written: {written}\n" in capsys.readouterr().out


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.name != LIST}


def test_the_files_of_a_model_that_the_report_no_longer_has_are_removed(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, other = tmp_path / "out", tmp_path / "other.json"
    rows = [row(sense="at most") | {"model": "an-org/other", "suite_class": "TestOther"}]
    other.write_text(json.dumps(document(*rows)), "utf-8")
    cli.main([*RENDER, str(report), f"--output={output}"])
    first = names_in(output)
    capsys.readouterr()
    cli.main([*RENDER, str(other), f"--output={output}"])
    second = names_in(output)
    assert second == {
        "adaptation.zh.md",
        "adaptation.an-org--other.zh.md",
        "logits-error.TestOther.svg",
        "report.html",
    }
    told = {Path(line.partition(": ")[2]).name for line in lines_of(capsys) if "removed" in line}
    assert told == first - second != set()


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_what_nobody_wrote_as_a_report_stays(report: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    told = json.loads(report.read_text("utf-8"))
    write_document(told, output)
    foreign = {"adaptation.mine.zh.md", "logits-error.TestMine.svg", "notes.md"}
    for name in foreign:
        (output / name).write_text("mine", "utf-8")
    changed = output / "adaptation.an-org--a-model.en.md"
    changed.write_text(changed.read_text("utf-8") + "my own words", "utf-8")
    outside = tmp_path / "outside.md"
    outside.write_bytes(b"")
    listed = json.loads((output / LIST).read_text("utf-8"))
    (output / LIST).write_text(json.dumps(listed | {"../outside.md": EMPTY_SHA256}), "utf-8")
    write_document({**told, "rows": [], "models": []}, output)
    left = {"report.json", "report.html", *(f"adaptation.{one}.md" for one in LANGUAGES)}
    assert names_in(output) == {*left, *foreign, changed.name}
    assert outside.exists()


def test_a_document_in_one_language_leaves_the_others_of_its_report(
    report: Path, tmp_path: Path
) -> None:
    write_document(json.loads(report.read_text("utf-8")), tmp_path / "out")
    before = names_in(tmp_path / "out")
    cli.main([*RENDER, str(report), "--language=zh", f"--output={tmp_path / 'out'}"])
    assert names_in(tmp_path / "out") == before


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "[" * 200_000, '{"/": "x"}'])
def test_a_list_of_files_that_is_none_removes_nothing(
    content: str, report: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("a", "utf-8")
    (tmp_path / LIST).write_text(content, "utf-8")
    cli.main([*RENDER, str(report), f"--output={tmp_path}"])
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"receipt": {}, "models": [], "rows": []}', "[" * 200_000],
    ids=["empty", "a list", "no receipt", "empty parts", "nested deeply"],
)
def test_what_is_no_report_is_told_in_one_line(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    path.write_text(content, "utf-8")
    assert cli.main([*RENDER, str(path)]) == 2
    assert f"ascend-vlm: {path} is not a report written by pytest" in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"schema": 2}'.encode("utf-16"), b"\x89PNG" + b"\0" * 5000])
def test_a_file_in_another_encoding_is_not_printed(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    assert cli.main([*RENDER, str(path)]) == 2
    problem = f"{path} is not a report written by pytest --vlm-report (it is not UTF-8).\n"
    assert capsys.readouterr().err == f"ascend-vlm: {problem}"


def test_a_report_with_a_byte_order_mark_is_read(report: Path) -> None:
    report.write_bytes(b"\xef\xbb\xbf" + report.read_bytes())
    assert cli.main([*RENDER, str(report)]) == 0


def test_a_report_of_another_schema_is_told_apart(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = {**json.loads(report.read_text("utf-8")), "schema": SCHEMA - 1}
    report.write_text(json.dumps(older), "utf-8")
    assert cli.main([*RENDER, str(report)]) == 2
    problem = f"has schema {SCHEMA - 1}, but this version reads schema {SCHEMA}"
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("action", ["compare", "merge"])
def test_a_corrupt_field_is_told_in_one_line_of_both_reports(
    action: str, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrupt = json.loads(report.read_text("utf-8"))
    corrupt["models"] = [{"model": "a", "suite_class": "TestA", "variants": {"eager": {}}}]
    path = tmp_path / "corrupt.json"
    path.write_text(json.dumps(corrupt), "utf-8")
    options = [f"--output={tmp_path / 'merged'}"] if action == "merge" else []
    assert cli.main(["report", action, str(path), str(path), *options]) == 2
    problem = f"ascend-vlm: {path} or {path} is not a report written by pytest"
    assert problem in capsys.readouterr().err


def test_half_a_surrogate_pair_can_be_compared(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = json.loads(report.read_text("utf-8"))
    failed["rows"][0] |= {"status": "fail", "finding": "half \ud800", "reason": "half \ud800"}
    path = tmp_path / "failed.json"
    path.write_text(json.dumps(failed), "utf-8")
    assert cli.main(["report", "compare", str(report), str(path)]) == 1
    assert "half ?" in capsys.readouterr().out


def test_a_directory_is_the_report_in_it(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*RENDER, str(report)]) == 0
    of_file = capsys.readouterr().out
    assert cli.main([*RENDER, str(report.parent)]) == 0
    assert capsys.readouterr().out == of_file


def stored_runs(root: Path, count: int) -> None:
    key = {"model": "an-org/a-model", "device": "1 x 910B4", "versions": {"vllm": "0.18.0"}}
    for number in range(count):
        run = {"image.ttft.median": 0.5 + number / 100, "image.ttft.p90": 0.9}
        performance_runs.append(performance_runs.load(root, "an-org--a-model", key), run)


def test_limits_are_printed_as_lines_of_a_model_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs(tmp_path, 3)
    assert cli.main(["limits", str(tmp_path)]) == 0
    head, path, *lines = capsys.readouterr().out.splitlines()
    assert head == "# an-org/a-model on 1 x 910B4, vllm 0.18.0"
    assert path.endswith("the slowest of 3 runs, margin 20%")
    limits = eval("\n".join(lines).removeprefix("limits=").rstrip(", \n"), {"Limit": Limit})  # noqa: S307
    assert limits == (Limit("image.ttft.median", 0.624, device="1 x 910B4"),)


def test_too_few_stored_runs_propose_no_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_runs(tmp_path, 2)
    assert cli.main(["limits", str(tmp_path), "--margin=0.1"]) == 0
    out = capsys.readouterr().out
    assert "2 of 3 runs are stored" in out
    assert "Limit(" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "has no stored runs"), (["--margin=1.5"], "--margin=1.5 is not above 0 and below 1")],
)
def test_limits_that_cannot_be_proposed_are_told_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["limits", str(tmp_path), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_directory_of_stored_runs_that_does_not_exist_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["limits", str(tmp_path / "nope")]) == 2
    assert f"{tmp_path / 'nope'} is no directory; name the" in capsys.readouterr().err


def test_stored_runs_nested_deeply_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a-model" / "a.json"
    path.parent.mkdir()
    path.write_text("[" * 200_000, "utf-8")
    assert cli.main(["limits", str(tmp_path)]) == 2
    assert f"{path} is not a file of stored performance runs" in capsys.readouterr().err


@pytest.mark.parametrize("key", [{"model": "a", "device": "b", "versions": "c"}, {}, []])
def test_stored_runs_with_another_key_are_told(
    key: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    performance_runs.append(performance_runs.load(tmp_path, "a-model", key), {"a": 1.0})
    assert cli.main(["limits", str(tmp_path)]) == 2
    (path,) = tmp_path.glob("*/*.json")
    assert f"{path} " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "render", "a", "--output="],
        ["report", "merge", "a", "b", "--output= "],
        ["report", "compare", "", "b"],
        ["limits", ""],
        ["cluster", "--models="],
    ],
)
def test_an_empty_path_is_not_the_current_directory(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    said = "its value is empty, as an unset shell variable is; name a path (. is the current"
    assert f"{said} directory)" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["render", "merge", "compare"])
def test_every_command_has_a_help_text(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", action, "--help"])
    assert ended.value.code == 0
    assert f"usage: ascend-vlm report {action} [-h]" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_to_is_told_in_one_line(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*RENDER, str(report), f"--output={report}/below"]) == 2
    problem = "below (Not a directory); name another directory with --output.\n"
    assert capsys.readouterr().err.endswith(problem)

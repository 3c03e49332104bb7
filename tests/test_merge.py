"""Several runs, one report: later verdicts replace earlier ones, and nothing else does."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm import cli, reporting
from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.reporting import Report
from pytest_ascend_vlm.reporting.merge import Merged, Named, merge, refusals
from pytest_ascend_vlm.reporting.rows import STATUSES, VERDICTS
from pytest_ascend_vlm.reporting.totals import totals

Document = dict[str, Any]
SCHEMA = resources.files(reporting).joinpath("report.schema.json")
NUMBERS = itertools.count()

MODEL: Document = {
    "model": "an-org/a-model",
    "suite_class": "TestIt",
    "checkpoint": "full",
    "revision": "abc",
    "weights_sha256": "47c4de707d83787c4691f43629aec276",
    "serve_command": "vllm serve an-org/a-model --dtype bfloat16 --max-model-len 8192",
    "suite_arguments": "--max-logprobs 64",
    "env": {"OMP_NUM_THREADS": "1"},
    "cards": [0],
    "phases_seconds": {"start": 30.0},
    "server_starts": 2,
    "requests": 30,
    "variants": {"eager": {"serve_command": "vllm --eager", "phases_seconds": {}, "requests": 3}},
}


def row(criterion: str, status: str = "pass", case: str | None = None, **more: Any) -> Document:
    reason = "" if status == "pass" else f"{criterion}: why"
    nothing = dict.fromkeys(("measured", "threshold", "sense", "unit", "margin", "told_at"))
    own = {"criterion": criterion, "case": case, "status": status, "reason": reason, "seconds": 0.1}
    return {"model": "an-org/a-model", "suite_class": "TestIt", **nothing, **own, **more}


def date(number: int) -> str:
    return f"2026-01-01T{number // 60:02d}:{number % 60:02d}:00.000+00:00"


def report(
    *rows: Document,
    models: tuple[Document, ...] = (MODEL,),
    number: int | None = None,
    **receipt: Any,
) -> Document:
    """A report of one run; each has a date of its own."""
    number = next(NUMBERS) if number is None else number
    own = {"argv": [f"-m run{number}"], "seconds": 1.5}
    taken = Report()
    taken.take([("vlm_model", json.loads(json.dumps(model))) for model in models])
    for one in rows:
        taken.take([("vlm_row", one)])
    return taken.document(
        {
            "platform": "npu",
            "checkpoint": "full",
            "simulated": False,
            "device": "8 x 910B4",
            "versions": {"torch": "2.9.0", "vllm-ascend": "0.18.0"},
            "serve_overrides": {},
            **own,
            "runs": [{**own, "date": date(number)}],
            **receipt,
        }
    )


def merged(*documents: Document) -> Merged:
    return merge(
        [Named(name, document) for name, document in zip("ABCDE", documents, strict=False)]
    )


def statuses(document: Document) -> dict[str, str]:
    return {one["criterion"]: one["status"] for one in document["rows"]}


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", STATUSES)
@pytest.mark.parametrize("earlier", STATUSES)
def test_only_what_was_judged_again_replaces_a_verdict(earlier: str, later: str) -> None:
    both = merged(report(row("serving.text", earlier)), report(row("serving.text", later)))
    (status,) = statuses(both.document).values()
    if earlier in VERDICTS:
        assert status == (later if later in VERDICTS else earlier)
    elif later in VERDICTS:
        assert status == later
    else:
        assert status in {earlier, later}
    assert bool(both.outlived) == (earlier in VERDICTS and later == "error")


@pytest.mark.parametrize("hides", ["na", "skip"])
def test_nothing_hides_an_error(hides: str) -> None:
    for pair in (("error", hides), (hides, "error")):
        both = merged(*(report(row("serving.text", status)) for status in pair))
        assert statuses(both.document) == {"serving.text": "error"}


def test_a_test_with_two_verdicts_is_replaced_as_a_whole() -> None:
    speed = "performance.regression"
    before = report(row(speed, finding="ttft"), row(speed, "fail", finding="latency"))
    after = report(row(speed, finding="ttft"), row(speed, finding="latency"))
    both = merged(before, after).document["rows"]
    assert [(one["status"], one["finding"]) for one in both] == [
        ("pass", "ttft"),
        ("pass", "latency"),
    ]


def test_an_error_whose_full_text_is_replaced_moves_to_the_next_row() -> None:
    told = {"told_at": "serving.ready", "reason": "the server died; in full at test_ready"}
    before = report(
        row("serving.ready", "error", reason="the server died.\nlog line"),
        row("serving.models", "error", **told),
        row("serving.text", "error", case="text/a", **told),
    )
    ready, models, text = merged(before, report(row("serving.ready"))).document["rows"]
    assert ready["status"] == "pass"
    assert (models["told_at"], models["reason"]) == (None, "the server died.\nlog line")
    assert text["told_at"] == "serving.models"
    assert text["reason"] == "the server died; in full at serving.models"


def test_rows_are_in_the_places_of_their_class() -> None:
    def placed(criterion: str, *order: int, **more: Any) -> Document:
        return row(criterion, order=list(order), **more)

    every = report(placed("serving.text", 1, 1, 1), placed("lifecycle.stop", 9, 40, 40))
    speed = report(placed("performance.load", 5, 20, 20))
    # A test that is named by its node id is collected alone, so its place is too small.
    again = report(placed("lifecycle.stop", 9, 0, 0, finding="again"))
    rows = merged(every, speed, again).document["rows"]
    names = [one["criterion"] for one in rows]
    assert names == ["serving.text", "performance.load", "lifecycle.stop"]
    assert rows[2]["finding"] == "again"
    assert rows[2]["order"] == [9, 40, 40]


# --- any reports ---------------------------------------------------------------------------------

ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from(["serving.text", "numerics.logits", "reference.replay"]),
        st.sampled_from(STATUSES),
        st.sampled_from([None, "text/a", "text/b"]),
        suite_class=st.sampled_from(["TestIt", "TestOther"]),
        order=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    ),
    max_size=6,
    unique_by=lambda one: (one["suite_class"], one["criterion"], one["case"]),
)
FACTS = st.lists(
    st.sampled_from(["TestIt", "TestOther"]).map(lambda name: {**MODEL, "suite_class": name}),
    max_size=2,
    unique_by=lambda model: model["suite_class"],
)
REPORTS = st.builds(lambda rows, facts: report(*rows, models=tuple(facts), number=0), ROWS, FACTS)


def numbered(document: Document, number: int) -> Document:
    return {**document, "receipt": report(number=number)["receipt"] | {
        name: document["receipt"][name] for name in ("origin", "server_starts", "requests")
    }}  # fmt: skip


@given(REPORTS)
def test_a_report_merged_with_itself_is_itself(one: Document) -> None:
    assert merged(one, one).document == one


@given(REPORTS, REPORTS, REPORTS)
def test_it_does_not_matter_which_two_are_merged_first(
    one: Document, two: Document, three: Document
) -> None:
    a, b, c = (numbered(each, number) for number, each in enumerate((one, two, three)))
    at_once = merged(a, b, c).document
    assert merged(merged(a, b).document, c).document == at_once
    assert merged(a, merged(b, c).document).document == at_once
    assert merged(at_once, b).document == at_once


# --- what was run --------------------------------------------------------------------------------


def test_counts_add_up_and_each_run_is_kept() -> None:
    npu = report(row("serving.text"), row("serving.image", "fail"))
    speed = report(row("performance.load"))
    both = merged(npu, speed).document
    receipt = both["receipt"]
    assert receipt["seconds"] == 3.0
    assert receipt["requests"] == npu["receipt"]["requests"] + speed["receipt"]["requests"] == 66
    assert receipt["server_starts"] == 6
    assert [run["argv"] for run in receipt["runs"]] == [
        npu["receipt"]["argv"],
        speed["receipt"]["argv"],
    ]
    assert receipt["runs"][0]["statuses"] == {"pass": 1, "fail": 1}
    (model,) = both["models"]
    assert (model["requests"], model["server_starts"]) == (60, 4)
    assert model["variants"]["eager"]["requests"] == 6


def test_facts_that_one_run_knows_are_kept() -> None:
    knows = {**MODEL, "memory": {"weights_gib": 2.5}, "cases": {"text/a": {"truth": "a"}}}
    other = {**MODEL, "memory": None, "cases": {"text/b": {"truth": "b"}}}
    host = {"os": "x", "image": None}
    first = report(
        row("serving.text", case="text/a"), models=(knows,), environment=host, tests={"TestIt": "a"}
    )
    second = report(
        row("serving.text", case="text/b"),
        models=(other,),
        environment={"image": "i"},
        tests={"TestOther": "b"},
    )
    both = merged(first, second).document
    assert both["models"][0]["memory"] == {"weights_gib": 2.5}
    assert set(both["models"][0]["cases"]) == {"text/a", "text/b"}
    assert both["receipt"]["environment"] == {"os": "x", "image": "i"}
    assert both["receipt"]["tests"] == {"TestIt": "a", "TestOther": "b"}


def test_where_it_comes_from_is_told_anew() -> None:
    reference, served = report(row("reference.replay")), report(row("serving.text"))
    assert reference["receipt"]["origin"] == "reference"
    assert merged(reference, served).document["receipt"]["origin"] == "npu"
    failed = merged(served, report(row("serving.text", "fail"))).document
    assert failed["receipt"]["origin"] == "npu, nothing verified"


def test_a_merged_report_is_one_by_the_schema() -> None:
    both = merged(report(row("serving.text", order=[1, 1, 1])), report(row("serving.image")))
    jsonschema.validate(both.document, json.loads(SCHEMA.read_text("utf-8")))


def test_a_run_counts_once() -> None:
    one, two, three = (report(row("serving.text")) for _ in range(3))
    assert merged(merged(one, two).document, two).document == merged(one, two).document
    assert merged(two, merged(one, two).document).document == merged(one, two).document
    with pytest.raises(ConfigurationError, match="B contains some of the runs"):
        merged(merged(one, two).document, merged(two, three).document)


def part(document: Document, *criteria: str) -> Document:
    """A part of a report with all of its runs, as a bundle has it."""
    rows = [one for one in document["rows"] if one["criterion"] in criteria]
    classes = {one["suite_class"] for one in rows}
    models = [one for one in document["models"] if one["suite_class"] in classes]
    runs = [{**run, "statuses": {}} for run in document["receipt"]["runs"]]
    receipt = {**document["receipt"], "runs": runs, **totals(models), "origin": "nothing"}
    return {**document, "receipt": receipt, "models": models, "rows": rows}


def test_parts_of_one_report_are_merged_to_the_whole() -> None:
    other = {**MODEL, "suite_class": "TestOther"}
    whole = report(
        row("serving.text"),
        row("performance.load", "fail"),
        row("serving.image", suite_class="TestOther"),
        models=(MODEL, other),
    )
    parts = [part(whole, name) for name in ("serving.text", "performance.load", "serving.image")]
    both = merged(*parts).document
    assert both["rows"] == whole["rows"]
    assert both["models"] == whole["models"]
    for name in ("requests", "server_starts", "seconds", "origin"):
        assert both["receipt"][name] == whole["receipt"][name]
    assert merged(whole, *parts).document == whole
    assert statuses(merged(parts[1], whole).document) == statuses(whole)


def test_a_part_adds_what_a_report_of_its_run_and_another_one_lacks() -> None:
    one = report(row("serving.text"), row("serving.image", "fail"))
    two = report(row("serving.text", "error"))
    rest = part(one, "serving.image")
    every = merged(one, two).document
    for both in (merged(part(one, "serving.text"), two, rest), merged(rest, every)):
        assert statuses(both.document) == {"serving.text": "pass", "serving.image": "fail"}
        assert len(both.document["receipt"]["runs"]) == 2


@pytest.mark.parametrize("status", ["fail", "error"])
def test_two_results_of_one_run_are_refused(status: str) -> None:
    one, other = (report(row("serving.text", each), number=5) for each in ("pass", status))
    for pair in ((one, other), (other, one)):
        with pytest.raises(ConfigurationError, match=r"another result of TestIt: serving\.text"):
            merged(*pair)


def test_another_result_of_the_last_of_several_runs_is_refused() -> None:
    before, one = report(number=4), report(row("serving.text"), number=5)
    other = report(row("serving.text", "fail"), number=5)
    with pytest.raises(ConfigurationError, match=r"another result of TestIt: serving\.text"):
        merged(before, one, other)


def test_an_older_run_replaces_no_newer_verdict() -> None:
    monday, friday = report(row("serving.text")), report(row("serving.text", "fail"))
    speed = report(row("performance.load"))
    assert statuses(merged(monday, friday).document) == {"serving.text": "fail"}
    with pytest.raises(ConfigurationError, match=r"B has a run of .*name the reports in the order"):
        merged(friday, monday)
    # Nothing is replaced.
    assert len(merged(speed, friday).document["rows"]) == 2


# --- what does not belong together ---------------------------------------------------------------

OTHER_RECEIPTS = {
    "platform": ("endpoint", "platform: npu in A, endpoint in B; keep the reports"),
    "checkpoint": ("tiny", "checkpoint: full in A, tiny in B; keep the reports"),
    "simulated": (True, "simulated: false in A, true in B; keep"),
    "device": ("1 x 910B4", "device: 8 x 910B4 in A, 1 x 910B4 in B; run both on the same device"),
    "versions": (
        {"torch": "2.8.0", "vllm-ascend": "0.18.0"},
        "versions: torch: 2.9.0 in A, 2.8.0 in B; run both with the same versions",
    ),
    "serve_overrides": (
        {"max_model_len": 4096},
        "serve_overrides: max_model_len: none in A, 4096 in B; run both with the same --vlm-serve",
    ),
    "environment": ({"driver": "25.2"}, "environment: driver: 25.0 in A, 25.2 in B; run both on"),
}
OTHER_FACTS = {
    "weights_sha256": (
        "0" * 64,
        "digest of the weights: 47c4de707d83787c in A, 0000000000000000 in B; run both with the",
    ),
    "revision": ("def", "revision: abc in A, def in B; run both with the same weights"),
    "serve_command": (
        "vllm serve an-org/a-model --dtype bfloat16 --max-model-len 4096",
        "serve command: --max-model-len 8192 in A, --max-model-len 4096 in B; run both with",
    ),
    "suite_arguments": ("", "suite arguments: --max-logprobs 64 in A,  in B; run both"),
    "env": ({}, "env: OMP_NUM_THREADS: 1 in A, none in B; run both with the same model file"),
    "variants": (
        {"eager": {"serve_command": "vllm", "phases_seconds": {}, "requests": 1}},
        "serve command of the variant eager: --eager in A, none in B; run both with",
    ),
    "unmodified": ({"vllm": ["a.py"]}, 'unmodified: vllm: true in A, ["a.py"] in B; run both'),
    "cases": ({"text/a": 2}, "cases: text/a: 1 in A, 2 in B; run both with the same cases.json"),
}


@pytest.mark.parametrize("field", OTHER_RECEIPTS)
def test_another_set_up_is_refused(field: str) -> None:
    value, line = OTHER_RECEIPTS[field]
    first = report(row("serving.text"), environment={"driver": "25.0", "image": None})
    second = report(row("serving.image"), **{field: value})
    (found,) = refusals([Named("A", first), Named("B", second)])
    assert found.startswith(line)
    with pytest.raises(ConfigurationError, match="these reports cannot be merged:\n  "):
        merged(first, second)


@pytest.mark.parametrize("field", OTHER_FACTS)
def test_another_deployment_is_refused(field: str) -> None:
    value, line = OTHER_FACTS[field]
    first = {**MODEL, "unmodified": {"vllm": True}, "cases": {"text/a": 1, "text/b": 1}}
    second = {**MODEL, field: value}
    rows = (row("serving.text", case="text/a"), row("serving.text", "text/b"))
    documents = (report(*rows, models=(facts,)) for facts in (first, second))
    (found,) = refusals([Named(name, one) for name, one in zip("AB", documents, strict=True)])
    assert found.startswith(f"an-org/a-model (TestIt): {line}")


def test_a_third_report_is_compared_with_each() -> None:
    other = {**MODEL, "suite_class": "TestOther"}
    first, second = report(row("serving.text")), report(models=(other,))
    third = report(models=({**other, "revision": "def"},))
    (line,) = refusals([Named("A", first), Named("B", second), Named("C", third)])
    assert line.startswith("an-org/a-model (TestOther): revision: abc in B, def in C")


def test_what_one_run_does_not_know_is_no_difference() -> None:
    unknown = {"model": MODEL["model"], "suite_class": "TestIt", "variants": {}}
    assert not refusals([Named("A", report()), Named("B", report(models=(unknown,)))])
    assert not refusals([Named("A", report(environment={"image": None})), Named("B", report())])


# --- the command ---------------------------------------------------------------------------------

Write = Callable[[str, Document], Path]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(name: str, document: Document) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "report.json").write_text(json.dumps(document), "utf-8")
        return directory

    return write


def test_files_and_directories_are_merged_and_written(
    written: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = written("a", report(row("serving.text"), row("serving.image", "fail")))
    second = written("b", report(row("serving.text", "error"), row("serving.image")))
    output = tmp_path / "both"
    arguments = [str(first), str(second / "report.json"), f"--output={output}"]
    assert cli.main(["report", "merge", *arguments]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "2 rows; 1 earlier results were replaced by later ones"
    assert told[1] == "an earlier verdict stays, a later run has an error: TestIt: serving.text"
    assert f"written: {output / 'report.json'}" in told
    assert (output / "adaptation.zh.md").is_file()
    found = json.loads((output / "report.json").read_text("utf-8"))
    assert statuses(found) == {"serving.text": "pass", "serving.image": "pass"}


def test_a_refusal_writes_nothing(
    written: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = written("a", report()), written("b", report(device="1 x 910B4"))
    output = tmp_path / "both"
    assert cli.main(["report", "merge", str(first), str(second), f"--output={output}"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "ascend-vlm: these reports cannot be merged:"
    assert told[1] == (
        f"  device: 8 x 910B4 in {first}, 1 x 910B4 in {second}; run both on the same device"
    )
    assert not output.exists()

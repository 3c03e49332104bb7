"""Two releases compared: what turned, moved, came or went, and nothing else."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_merge import MODEL, report, row

from pytest_ascend_vlm import cli
from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.reporting.compare import Comparison, compare
from pytest_ascend_vlm.reporting.intervals import Interval
from pytest_ascend_vlm.reporting.merge import Named
from pytest_ascend_vlm.reporting.rows import STATUSES

NO_OTHER = "0 now a known failure, 0 better, 0 new"
ABSENT = "absent"
ASKED = frozenset({"pass", "fail", "xfail", "error"})

Document = dict[str, Any]
Plant = Callable[[Document], None]


def compared(old: Document, new: Document) -> Comparison:
    return compare(Named("OLD", old), Named("NEW", new))


def numbers(factor: float = 1.0, **evidence: Any) -> Document:
    """A row about R, whose interval is 3 % to each side."""
    found = {"R": 0.9, "R_low": 0.87, "R_high": 0.93}
    found = {name: value * factor for name, value in found.items()}
    more = {"numbers": "raw logits", "cases": 17, **evidence}
    judged = {"measured": found["R"], "threshold": 1.5, "sense": "at most", "unit": "roundings"}
    return row(
        "numerics.logits", case="error_ratio", finding="R", evidence={**found, **more}, **judged
    )


def speed(factor: float = 1.0, **evidence: Any) -> Document:
    """A row about 48 latencies around 0.5 s."""
    seeded = random.Random(0)
    values = [factor * seeded.gauss(0.5, 0.02) for _ in range(48)]
    series = [{"name": "latency", "unit": "s", "values": values}]
    judged = {"measured": 1.0, "threshold": 1.0, "sense": "at least", "unit": "rate"}
    found = {"series": series, "generator": "suite", **evidence}
    return row("performance.single_stream", case="text", finding="all", evidence=found, **judged)


def score(difference: float, **evidence: Any) -> Document:
    """A row about a data set's score, whose interval is two points to each side."""
    bounds = [difference - 0.02, difference + 0.02]
    found = {"difference": difference, "bounds_95": bounds, "samples": 900, **evidence}
    judged = {"measured": bounds[0], "threshold": -0.05, "sense": "at least", "unit": "rate"}
    return row("dataset.mmmu", finding="points", evidence=found, **judged)


def whole(**receipt: Any) -> Document:
    """A report with a row of each kind."""
    return report(
        row("serving.text", case="text/a"),
        row("serving.video", "na"),
        row("lifecycle.kill", "xfail"),
        row("tasks.question", "fail"),
        row("serving.urls", "error"),
        numbers(),
        speed(),
        score(0.0),
        **receipt,
    )


def of(document: Document, criterion: str) -> Document:
    (found,) = (one for one in document["rows"] if one["criterion"] == criterion)
    return dict(found)


def put(document: Document, new: Document) -> None:
    names = [one["criterion"] for one in document["rows"]]
    document["rows"][names.index(new["criterion"])] = new


# --- planted changes -----------------------------------------------------------------------------

WORSE: dict[str, tuple[Plant, str]] = {
    "a failure": (
        lambda new: put(new, row("serving.text", "fail", case="text/a")),
        "pass -> fail: serving.text[text/a]: serving.text: why",
    ),
    "an error": (
        lambda new: put(new, row("lifecycle.kill", "error")),
        "xfail -> error: lifecycle.kill: lifecycle.kill: why",
    ),
    "a skip": (
        lambda new: put(new, row("serving.text", "skip", case="text/a")),
        "pass -> skip: serving.text[text/a]: serving.text: why",
    ),
    "an excuse": (
        lambda new: put(new, row("serving.text", "xfail", case="text/a")),
        "pass -> xfail: serving.text[text/a]: serving.text: why",
    ),
    "an error that nobody asks about": (
        lambda new: put(new, row("serving.urls", "skip")),
        "error -> skip: serving.urls: serving.urls: why",
    ),
    "a row less": (
        lambda new: new["rows"].pop(0),
        "gone: serving.text[text/a]: it was pass",
    ),
    "a larger error": (
        lambda new: put(new, numbers(1.2)),
        "R moved: numerics.logits[error_ratio]: 0.9 (0.87 to 0.93) -> 1.08 (1.04 to 1.12), "
        "at most 1.5 is required",
    ),
    "a lower score": (
        lambda new: put(new, score(-0.05)),
        "score minus the reference's moved: dataset.mmmu: 0 (-0.02 to 0.02) -> -0.05 (-0.07 to "
        "-0.03)",
    ),
    "a slower answer": (
        lambda new: put(new, speed(1.3)),
        "median latency moved: performance.single_stream[text]: ",
    ),
}
BETTER: dict[str, Plant] = {
    "a pass": lambda new: put(new, row("tasks.question")),
    "no error": lambda new: put(new, row("serving.urls")),
    "a smaller error": lambda new: put(new, numbers(0.9)),
    "a higher score": lambda new: put(new, score(0.05)),
    "a faster answer": lambda new: put(new, speed(0.7)),
}
NOTHING: dict[str, Plant] = {
    "the same": lambda _: None,
    "within the interval": lambda new: put(new, numbers(1.03)),
    "another base of R": lambda new: put(new, numbers(1.3, numbers="log-probabilities")),
    "within the score's interval": lambda new: put(new, score(-0.03)),
    "other samples": lambda new: put(new, score(-0.06, samples=30)),
    "a busy host": lambda new: put(new, speed(1.08)),
    "another generator": lambda new: put(new, speed(2.0, generator="evalscope")),
    "a skip that does not apply": lambda new: put(new, row("serving.video", "skip")),
}


@pytest.mark.parametrize("planted", WORSE)
def test_a_planted_regression_is_found_and_nothing_else(planted: str) -> None:
    plant, line = WORSE[planted]
    old = whole()
    new = copy.deepcopy(old)
    plant(new)
    found = compared(old, new)
    assert len(found.changes) == 1
    assert found.is_worse
    _, model, shown, counts = str(found).splitlines()
    assert model == "an-org/a-model (TestIt)"
    assert shown.strip().startswith(line)
    assert counts == f"1 worse, {NO_OTHER}, 7 without a change"


@pytest.mark.parametrize("planted", BETTER)
def test_what_got_better_is_told_and_is_not_worse(planted: str) -> None:
    old = whole()
    new = copy.deepcopy(old)
    BETTER[planted](new)
    found = compared(old, new)
    assert not found.is_worse
    assert str(found).endswith(
        "\n0 worse, 0 now a known failure, 1 better, 0 new, 7 without a change"
    )


@pytest.mark.parametrize("planted", NOTHING)
def test_nothing_is_told_where_nothing_shows_a_change(planted: str) -> None:
    old = whole()
    new = copy.deepcopy(old)
    NOTHING[planted](new)
    expected = [
        "OLD -> NEW (npu, full checkpoints)",
        f"0 worse, {NO_OTHER}, 8 without a change",
    ]
    assert str(compared(old, new)).splitlines() == expected


@pytest.mark.parametrize("after", [*STATUSES, ABSENT])
@pytest.mark.parametrize("before", [*STATUSES, ABSENT])
def test_each_turn_is_worse_better_or_neither(before: str, after: str) -> None:
    other = row("serving.models")
    old, new = (
        report(other, *([] if status == ABSENT else [row("serving.text", status)]))
        for status in (before, after)
    )
    is_lost = before in ASKED and after not in ASKED
    is_bad = after in {"fail", "error"} or (before, after) == ("pass", "xfail")
    is_better = after == "pass" and before != ABSENT
    found = compared(old, new)
    changes = [(change.is_worse, change.kind == "better") for change in found.changes]
    if before == after or not {before, after} & ASKED:
        assert not any(map(any, changes))
    else:
        assert changes == [(is_lost or is_bad, is_better)]
    assert found.is_worse == (before != after and (is_lost or is_bad))


@pytest.mark.parametrize("before", ["fail", "error", "skip", ABSENT])
def test_a_declared_failure_is_a_known_one_and_no_improvement(before: str) -> None:
    other = row("serving.models")
    old = report(other, *([] if before == ABSENT else [row("serving.text", before)]))
    found = compared(old, report(other, row("serving.text", "xfail")))
    assert not found.is_worse
    assert str(found).endswith(
        "\n0 worse, 1 now a known failure, 0 better, 0 new, 1 without a change"
    )


def test_times_of_two_devices_are_not_compared() -> None:
    found = compared(report(speed()), report(speed(3.0), device="1 x 910B4"))
    assert not found.changes


def test_figures_that_are_no_numbers_compare_as_well() -> None:
    broken = numbers(R="inf", R_low="inf", R_high="inf")
    broken["measured"] = "inf"
    found = compared(report(numbers()), report(broken))
    assert [change.kind for change in found.changes] == ["moved"]


@pytest.mark.parametrize("status", ["fail", "error", "pass"])
def test_what_is_new_has_to_pass(status: str) -> None:
    new = report(row("serving.text"), *(row("tasks.size", status, case=f"{n}") for n in range(5)))
    found = compared(report(row("serving.text")), new)
    assert found.is_worse == (status != "pass")
    assert f"  new: {status}: tasks.size: 5 cases (0, 1, 2, ...): " in str(found)


@pytest.mark.parametrize("status", ["fail", "error"])
def test_a_class_that_is_new_has_to_pass(status: str) -> None:
    mine, other = row("serving.text"), row("serving.text", status, suite_class="TestOther")
    found = compared(
        report(mine), report(mine, row("serving.models", suite_class="TestOther"), other)
    )
    assert [(change.kind, change.what) for change in found.changes] == [(status, "new")]
    assert found.is_worse


def test_a_class_that_is_gone_is_one_change() -> None:
    other = [row(f"serving.{n}", suite_class="TestOther") for n in range(9)]
    mine = row("serving.text")
    found = compared(report(mine, *other), report(mine))
    assert [change.what for change in found.changes] == ["gone"]
    assert "9 of its tests ran in the old one" in str(found)
    back = compared(report(mine), report(mine, *other))
    assert not back.is_worse
    assert "9 tests, 0 of them a failure or an error" in str(back)
    skipped = [{**one, "status": "na"} for one in other]
    assert not compared(report(mine, *skipped), report(mine)).changes


def test_the_worst_is_first_and_versions_are_at_the_top() -> None:
    old = whole()
    new = whole(versions={"torch": "2.10.0", "vllm-ascend": "0.18.0"})
    for name in ("a larger error", "a failure"):
        WORSE[name][0](new)
    BETTER["a pass"](new)
    new["models"][0]["serve_command"] += " --enforce-eager"
    lines = str(compared(old, new)).splitlines()
    assert lines[1] == "  versions: torch: 2.9.0 -> 2.10.0"
    assert lines[2] == f"{MODEL['model']} (TestIt)"
    assert lines[3] == "  serve command: none -> --enforce-eager"
    assert [line.split(":")[0].strip() for line in lines[4:7]] == [
        "pass -> fail",
        "R moved",
        "fail -> pass",
    ]
    assert lines[7] == "2 worse, 0 now a known failure, 1 better, 0 new, 5 without a change"


@pytest.mark.parametrize(
    ("field", "value"), [("platform", "cpu"), ("checkpoint", "tiny"), ("simulated", True)]
)
def test_what_cannot_be_compared_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"compare two reports of the same {field}"):
        compared(whole(), whole(**{field: value}))


def test_the_exit_code_is_for_a_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = whole(), whole()
    WORSE["a failure"][0](new)
    paths = [tmp_path / name for name in ("old.json", "new.json", "tiny.json")]
    for path, document in zip(paths, (old, new, whole(checkpoint="tiny")), strict=True):
        path.write_text(json.dumps(document), "utf-8")
    first, second, third = map(str, paths)
    assert cli.main(["report", "compare", first, second]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 worse, ")
    assert cli.main(["report", "compare", first, first]) == 0
    assert cli.main(["report", "compare", second, first]) == 0
    assert cli.main(["report", "compare", first, third]) == 2
    assert "ascend-vlm: these reports cannot be compared:" in capsys.readouterr().err


def test_a_large_number_has_no_exponent() -> None:
    interval = Interval("median ttft", 2130.0, 1270.0, 3000.0, "ms")
    assert str(interval) == "2130 ms (1270 to 3000)"


def test_no_control_character_reaches_the_terminal() -> None:
    bad = "Paris\x1b]0;owned\x07\x9b31m"
    old, new = report(row("serving.text")), report(row("serving.text", "fail", finding=bad))
    new["rows"][0] |= {"measured": 1, "threshold": 1, "sense": "at most", "unit": bad}
    new["receipt"]["device"] = bad
    shown = str(compared(old, new))
    assert r"Paris\x1b]0;owned\x07\x9b31m" in shown
    assert all(char.isprintable() for char in shown.replace("\n", ""))

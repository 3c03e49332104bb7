"""The ten steps of an adaptation with their evidence, and the conclusion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..phrase import Phrase, Text, listed, phrase
from .answers import Comparisons, Repeats
from .datasets import Score
from .missing import Missing
from .numerics import Numerics
from .reading import Reading, Tasks
from .rows import Json, Rows, counts, of
from .speed import Runs, Speed

DONE, FAILED, UNKNOWN = "pass", "fail", "missing"
"""The results of a step or of a dimension: shown, refuted, without evidence."""

_CONSISTENCY = ("determinism.", "ladder.")
"""The groups of criteria of equal requests: `ladder.` continues determinism.concurrent."""

_COUNTS = {
    "pass": phrase("{count} passed"),
    "fail": phrase("{count} failed"),
    "error": phrase("{count} errors"),
    "xfail": phrase("{count} expected failures"),
    "skip": phrase("{count} skipped"),
}


@dataclass(frozen=True)
class Step:
    """One step of the adaptation, or one dimension of the conclusion.

    Attributes:
        number: "1-2"; empty for a dimension of the conclusion.
        name: the step or the dimension.
        result: "pass", "fail" or "missing" (no evidence).
        evidence: what the report shows.
    """

    number: str
    name: Phrase
    result: str
    evidence: tuple[Text, ...]


@dataclass(frozen=True)
class Conclusion:
    """The conclusion of a model's document.

    Attributes:
        sentence: the conclusion in one sentence.
        result: "pass", "fail" or "missing".
        dimensions: one line per dimension.
    """

    sentence: Phrase
    result: str
    dimensions: tuple[Step, ...]


@dataclass(frozen=True)
class Sections:
    """The sections that the steps take their evidence from; see `page.ModelPage`."""

    model: Json
    rows: Rows
    repeats: Repeats | Missing
    text: Comparisons | Missing
    image: Comparisons | Missing
    reading: Reading | Missing
    tasks: Tasks | Missing
    numerics: Numerics | Missing
    datasets: tuple[Score, ...] | Missing
    speed: Speed | Missing


def steps(sections: Sections, *, serves: bool) -> tuple[Step, ...]:
    """The ten steps of an adaptation.

    Args:
        sections: the sections of the document.
        serves: True if a served model was judged.
    """
    model, rows = sections.model, sections.rows
    card = model.get("card") or {}
    return (
        Step(
            "1-2",
            phrase("analysis (architecture, source, download)"),
            DONE if card.get("architecture") else UNKNOWN,
            tuple(_analysis(model)),
        ),
        Step("3", phrase("Ascend compatibility"), *_compatibility(model)),
        Step("4", phrase("implementation"), *_changes(model)),
        Step("5", phrase("load and deploy"), *_judged(rows, "serving.ready", "serving.models")),
        Step(
            "6",
            phrase("functional checks"),
            *_judged([row for row in rows if not _is_deployment(row)], "serving.", "tasks."),
        ),
        Step("7", phrase("accuracy"), *_accuracy(sections)),
        Step("8", phrase("self-consistency"), *_judged(rows, *_CONSISTENCY)),
        Step("9", phrase("performance"), *_judged(rows, "performance.")),
        Step(
            "10",
            phrase("delivery of the document"),
            DONE if serves else UNKNOWN,
            (phrase("this document and report.json"),),
        ),
    )


def conclusion(sections: Sections) -> Conclusion:
    """The conclusion from all rows of a served model."""
    found = counts(sections.rows)
    passed, failed = found.get("pass", 0), found.get("fail", 0) + found.get("error", 0)
    values: Mapping[str, Any] = {
        "passed": passed,
        "failed": failed,
        "expected": found.get("xfail", 0),
        "skipped": found.get("skip", 0),
    }
    if failed:
        sentence = phrase(
            "Not ready: {failed} checks failed or ended with an error, {passed} passed."
        )
    elif passed:
        sentence = phrase(
            "Every check that was judged passed: {passed} passed, {expected} failed as declared, "
            "{skipped} could not run."
        )
    else:
        sentence = phrase("Nothing was verified.")
    result = FAILED if failed else DONE if passed else UNKNOWN
    return Conclusion(sentence.of(**values), result, tuple(_dimensions(sections)))


def _dimensions(sections: Sections) -> Iterator[Step]:
    model, rows = sections.model, sections.rows
    yield Step("", phrase("architecture"), *_compatibility(model))
    yield Step("", phrase("code changes"), *_changes(model))
    text, image = sections.text, sections.image
    for name, criteria, shown in (
        (phrase("accuracy of text"), ("baseline.text",), _exact(text)),
        (phrase("accuracy of images"), ("baseline.image",), _exact(image)),
        (phrase("reading of documents"), ("document.",), _read(sections)),
        (phrase("questions about images"), ("tasks.",), _tasks(sections)),
        (phrase("numerics"), ("numerics.",), _numerics(sections)),
        (phrase("self-consistency"), _CONSISTENCY, _repeats(sections)),
        (phrase("data sets"), ("dataset.",), _scores(sections)),
        (phrase("performance"), ("performance.",), _speed(sections)),
    ):
        yield Step("", name, *_measured(rows, criteria, shown))


def _analysis(model: Json) -> Iterator[Text]:
    card = model.get("card") or {}
    if card.get("architecture"):
        yield str(card["architecture"])
    if card.get("parameters"):
        yield phrase("{count:,.0f} parameters", count=card["parameters"])
    if model.get("weights_sha256"):
        yield phrase("weights {digest}", digest=str(model["weights_sha256"])[:12])


def _compatibility(model: Json) -> tuple[str, tuple[Text, ...]]:
    known = model.get("in_registry")
    if known is None:
        return UNKNOWN, ()
    if known:
        return DONE, (phrase("the architecture is in the registry of the installed vLLM"),)
    return FAILED, (phrase("the architecture is not in the registry of the installed vLLM"),)


def _changes(model: Json) -> tuple[str, tuple[Text, ...]]:
    """The engine is unmodified if every installed package equals its release."""
    told: Mapping[str, Any] = model.get("unmodified") or {}
    changed = {name: files for name, files in told.items() if isinstance(files, (list, tuple))}
    if changed:
        return FAILED, tuple(
            phrase("{package}: changed files: {files}", package=name, files=", ".join(files))
            for name, files in changed.items()
        )
    unchanged = phrase("{package}: 0 lines changed (every file is that of the release)")
    unknown = phrase("{package}: its files cannot be compared with those of a release")
    is_unchanged = told and all(found is True for found in told.values())
    return DONE if is_unchanged else UNKNOWN, tuple(
        (unchanged if found is True else unknown).of(package=name) for name, found in told.items()
    )


def _is_deployment(row: Json) -> bool:
    return row["criterion"] in {"serving.ready", "serving.models"}


def _accuracy(sections: Sections) -> tuple[str, tuple[Text, ...]]:
    groups = ("baseline.", "document.", "numerics.", "dataset.")
    shown = (*_exact(sections.text), *_exact(sections.image), *_read(sections))
    return _measured(sections.rows, groups, shown)


def _measured(
    rows: Rows, criteria: tuple[str, ...], shown: tuple[Text, ...]
) -> tuple[str, tuple[Text, ...]]:
    """The result of criteria with what they measured, and with what made it a failure.

    Where they passed and measured nothing that can be shown, the rows are counted.
    """
    result, found = _result(rows, *criteria), of(rows, *criteria)
    if result == DONE and not shown:
        return result, _counted(found, *_COUNTS)
    return result, (*shown, *_counted(found, "fail", "error"))


def _judged(rows: Rows, *criteria: str) -> tuple[str, tuple[Text, ...]]:
    return _result(rows, *criteria), _counted(of(rows, *criteria), *_COUNTS)


def _counted(rows: Rows, *statuses: str) -> tuple[Text, ...]:
    """The number of rows by status, as one text; empty if there is none."""
    found = counts(rows)
    shown = listed(*(_COUNTS[name].of(count=found[name]) for name in statuses if name in found))
    return (shown,) if shown else ()


def _result(rows: Rows, *criteria: str) -> str:
    """Returns "pass" only if a row passed, and none failed or ended with an error."""
    statuses = {row["status"] for row in of(rows, *criteria)}
    if statuses & {"fail", "error"}:
        return FAILED
    return DONE if "pass" in statuses else UNKNOWN


def _exact(found: Comparisons | Missing) -> tuple[Text, ...]:
    if isinstance(found, Missing):
        return found.reasons
    return (
        phrase(
            "{exact} of {total} answers equal the reference's ({rate:.0%})",
            exact=found.exact,
            total=len(found.rows),
            rate=found.exact / len(found.rows),
        ),
    )


def _read(sections: Sections) -> tuple[Text, ...]:
    found = sections.reading
    if isinstance(found, Missing):
        return found.reasons
    if found.characters is None:
        return ()
    characters = phrase("characters {rate:.2%} right", rate=found.characters)
    if found.numbers is None:
        return (characters,)
    return (characters, phrase("numbers {rate:.2%} right", rate=found.numbers))


def _tasks(sections: Sections) -> tuple[Text, ...]:
    found = sections.tasks
    if isinstance(found, Missing):
        return found.reasons
    total = len(found.rows)
    return (phrase("{passed} of {total} answers accepted", passed=found.passed, total=total),)


def _numerics(sections: Sections) -> tuple[Text, ...]:
    if isinstance(sections.numerics, Missing):
        return sections.numerics.reasons
    return tuple(
        phrase("{name}: cosine similarity {value:.6f}", name=column.name, value=cosine)
        for column in sections.numerics.columns
        if (cosine := column.figures.get("cosine_similarity")) is not None
    )


def _repeats(sections: Sections) -> tuple[Text, ...]:
    found = sections.repeats
    if isinstance(found, Missing):
        return found.reasons
    return (
        phrase(
            "{equal} of {total} requests give equal answers in {runs} runs",
            equal=found.equal,
            total=len(found.rows),
            runs=found.runs,
        ),
    )


def _scores(sections: Sections) -> tuple[Text, ...]:
    if isinstance(sections.datasets, Missing):
        return sections.datasets.reasons
    return tuple(
        phrase("{name}: {score:.2%}", name=one.name, score=one.score)
        for one in sections.datasets
        if one.score is not None
    )


def _speed(sections: Sections) -> tuple[Text, ...]:
    if isinstance(sections.speed, Missing):
        return sections.speed.reasons
    return tuple(text for runs in sections.speed.runs for text in _of_runs(runs))


def _of_runs(runs: Runs) -> Iterable[Text]:
    if runs.mean_throughput is None:
        return
    if runs.kind == "image":
        yield phrase("images: {rate:.1f} tok/s", rate=runs.mean_throughput)
    else:
        yield phrase("text: {rate:.1f} tok/s", rate=runs.mean_throughput)

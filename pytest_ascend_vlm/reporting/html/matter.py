"""The material of a case: request, answers, numbers along the sequence; all criteria share it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...criteria.groups import OWN_GROUP
from ..labels import NUMBERS
from ..phrase import phrase
from ..summary import group_of
from ..view import Missing, ModelPage
from ..view.answers import Comparison, Cost, Parting, Repeat, cases_of
from ..view.reading import Answered, Page
from ..view.rows import Json, Rows, evidence, number
from .difference import Parts, difference
from .patches import patch_grid
from .pictures import Pictures

VISIBLE = phrase("visible log-probabilities of the answer")
"""The name of the numbers of `baseline.logprobs`."""

_UNKNOWN = Cost()


@dataclass(frozen=True)
class Answer:
    """An answer of the served model, beside the text that it is compared with.

    Attributes:
        criterion: the criterion that judged it.
        status: the status of this criterion's row.
        other: what the other text is: "reference", "ground truth", "accepted answers", "first run".
        source: where the other text comes from; empty if nothing tells.
        served: the text of the served model.
        parts: the pieces of both texts; empty if they are equal or there is no other text.
        accepted: the accepted answers.
        cost: tokens and seconds.
    """

    criterion: str
    status: str
    other: str
    source: str
    served: str
    parts: Parts = ()
    accepted: tuple[str, ...] = ()
    cost: Cost = _UNKNOWN


@dataclass(frozen=True)
class Series:
    """The error along a sequence.

    Attributes:
        name: the compared numbers, in English.
        criterion: the criterion that judged them.
        unit: "rms" for a root mean square beside that of the reference's rounding, or "nats".
        position: positions in prompt and answer.
        part: the first letter of the part of each position: image, prompt, answer.
        error: the errors; None where it is not finite.
        rounding: the reference's bf16 rounding; empty if it was not compared.
    """

    name: str
    criterion: str
    unit: str
    position: tuple[int, ...]
    part: str
    error: tuple[float | None, ...]
    rounding: tuple[float | None, ...]


@dataclass(frozen=True)
class Heat:
    """The error of the logits over the patches of a picture.

    Attributes:
        picture: index of the picture in the case.
        rows: rows of patches.
        columns: columns of patches.
        cells: row, column, and the error there in roundings of the reference in bf16.
    """

    picture: int
    rows: int
    columns: int
    cells: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True)
class Matter:
    """The material of a case of one test class.

    Attributes:
        messages: the conversation as report.json has it; empty if it does not.
        pictures: indices in the page's pictures.
        answers: the answers.
        parting: where the served answer and the reference's part; None if they do not.
        series: errors along the sequence.
        heat: errors over the pictures.
    """

    messages: Sequence[Json]
    pictures: tuple[int, ...]
    answers: tuple[Answer, ...]
    parting: Parting | None
    series: tuple[Series, ...]
    heat: tuple[Heat, ...]


def matters(page: ModelPage, model: Json, rows: Rows, pictures: Pictures) -> dict[str, Matter]:
    """Case id -> its material, for the cases of which there is any.

    Args:
        page: the view of the test class.
        model: its facts in report.json; empty if its server never started.
        rows: its rows.
        pictures: the pictures of the page, which those of the cases are added to.
    """
    cases = cases_of(model)
    answers = _by_case(_answers(page, rows))
    partings = dict(_partings(page))
    along = _by_case(_along(rows))
    named = dict.fromkeys([*cases, *answers, *along])
    return {
        case: Matter(
            messages=cases.get(case, {}).get("messages") or (),
            pictures=tuple(map(pictures.add, cases.get(case, {}).get("images") or ())),
            answers=tuple(answers.get(case, ())),
            parting=partings.get(case),
            series=tuple(series for series, _ in along.get(case, ())),
            heat=_heat(along.get(case, ()), cases.get(case, {}).get("images") or ()),
        )
        for case in named
    }


def _by_case(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for case, value in pairs:
        found.setdefault(case, []).append(value)
    return found


def _answers(page: ModelPage, rows: Rows) -> Iterator[tuple[str, Answer]]:
    told = dict(_of_sections(page, _criteria_of_comparisons(rows)))
    yield from ((case, answer) for (case, _), answer in told.items())
    compared = {case for case, _ in told}
    for row in rows:
        case = str(row["case"])
        if "got" in evidence(row) and case not in compared:
            compared.add(case)
            yield case, Answer(row["criterion"], row["status"], "", "", str(evidence(row)["got"]))


def _criteria_of_comparisons(rows: Rows) -> dict[str, str]:
    return {
        str(row["case"]): row["criterion"]
        for row in rows
        if row["criterion"] in {"baseline.text", "baseline.image"}
    }


def _of_sections(
    page: ModelPage, compared: dict[str, str]
) -> Iterator[tuple[tuple[str, str], Answer]]:
    """(Case, key) -> answer, from the sections of the view."""
    for section in (page.text, page.image):
        if not isinstance(section, Missing):
            for row in section.rows:
                case = row.question.case
                yield (case, "reference"), _compared(row, compared.get(case, ""))
    if not isinstance(page.reading, Missing):
        for read in page.reading.pages:
            yield (read.question.case, "truth"), _read(read)
    if not isinstance(page.tasks, Missing):
        for asked in page.tasks.rows:
            yield (asked.question.case, asked.criterion), _asked(asked)
    if not isinstance(page.repeats, Missing):
        for repeat in page.repeats.rows:
            yield from _repeated(repeat)


def _compared(row: Comparison, criterion: str) -> Answer:
    parts = difference(row.served, row.reference)
    return Answer(criterion, row.status, "reference", row.source, row.served, parts, cost=row.cost)


def _read(page: Page) -> Answer:
    parts = difference(page.read, page.truth)
    status = "pass" if page.passed else "fail"
    return Answer(
        "document.characters", status, "ground truth", "", page.read, parts, cost=page.cost
    )


def _asked(row: Answered) -> Answer:
    return Answer(
        row.criterion,
        row.status,
        "accepted answers",
        "",
        row.answer,
        accepted=row.accepted,
        cost=row.cost,
    )


def _repeated(row: Repeat) -> Iterator[tuple[tuple[str, str], Answer]]:
    for run, text in enumerate(row.texts[1:], start=2):
        if text != row.texts[0]:
            parts = difference(text, row.texts[0])
            answer = Answer("determinism.repeat", row.status, "first run", "", text, parts)
            yield (row.question.case, f"run {run}"), answer


def _partings(page: ModelPage) -> Iterator[tuple[str, Parting]]:
    ties = () if isinstance(page.errors, Missing) else page.errors.near_ties
    for tie in ties:
        if tie.parting is not None:
            yield tie.case, tie.parting
    for section in (page.text, page.image):
        for row in () if isinstance(section, Missing) else section.rows:
            if row.parting is not None:
                yield row.question.case, row.parting


def _along(rows: Rows) -> Iterator[tuple[str, tuple[Series, Json]]]:
    """Case -> its series, with the evidence that it comes from; each comparison once."""
    seen = set()
    for row in rows:
        for told in per_position(row):
            if not isinstance(told, dict):
                yield str(row["case"]), (_visible(row), {})
                break
            key = (told["case"], row["criterion"], _name(row))
            if key not in seen:
                seen.add(key)
                yield str(told["case"]), (_series(row, told), told)


def per_position(row: Json) -> Sequence[Any]:
    """The errors along sequences in a row's evidence; a user's own evidence may be anything."""
    return () if group_of(row) == OWN_GROUP else evidence(row).get("per_position") or ()


def _name(row: Json) -> str:
    """The compared numbers; the criterion itself for those that no document has a column for."""
    criterion, case = row["criterion"], str(row["case"])
    if criterion == "numerics.transformers":
        return NUMBERS[f"transformers {case.partition('-')[0]}"].text
    found = NUMBERS.get(f"served {criterion.removeprefix('numerics.')}")
    return str(criterion) if found is None else found.text


def _series(row: Json, told: Json) -> Series:
    return Series(
        _name(row),
        row["criterion"],
        "rms",
        tuple(told["position"]),
        "".join(part[0] for part in told["part"]),
        tuple(map(_short, told["error"])),
        tuple(map(_short, told["rounding"])),
    )


def _visible(row: Json) -> Series:
    """The differences of the visible log-probabilities of a forced answer."""
    errors = tuple(map(_short, evidence(row)["per_position"]))
    count = len(errors)
    return Series(
        VISIBLE.text, row["criterion"], "nats", tuple(range(count)), "a" * count, errors, ()
    )


def _short(value: Any) -> float | None:
    """A finite number with the digits that a reader can use; None for NaN and infinity."""
    known = number(value)
    return None if known is None else float(f"{known:.4g}")


def _heat(along: Iterable[tuple[Series, Json]], images: Sequence[Json]) -> tuple[Heat, ...]:
    """The maps of the first series that tells where the tokens of each picture are."""
    for series, told in along:
        runs = told.get("image_runs") or ()
        if runs and len(runs) == len(images):
            places = enumerate(zip(runs, images, strict=True))
            maps = (_map(index, series, run, image) for index, (run, image) in places)
            return tuple(found for found in maps if found is not None)
    return ()


def _map(index: int, series: Series, run: Sequence[int], image: Json) -> Heat | None:
    first, tokens = run
    width, height = image.get("width"), image.get("height")
    known = [value for value in series.rounding if value is not None]
    unit = (sum(value**2 for value in known) / len(known)) ** 0.5 if known else 0.0
    grid = patch_grid(tokens, width, height) if width and height else None
    if grid is None or not unit:
        return None
    rows, columns = grid
    cells = tuple(
        (*divmod(position - first, columns), float(f"{error / unit:.3g}"))
        for position, error in zip(series.position, series.error, strict=True)
        if error is not None and 0 <= position - first < tokens
    )
    return Heat(index, rows, columns, cells)

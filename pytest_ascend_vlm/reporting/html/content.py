"""Everything that the page shows, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...criteria.groups import OWN_GROUP
from ..labels import GROUPS, figure_name, named
from ..language import shown, translator
from ..phrase import Text
from ..rows import row_ids
from ..sentences import sentence
from ..summary import group_of, worst_margin
from ..view import ModelPage, View
from ..view.environment import Environment
from ..view.numerics import rounding_ratio
from ..view.rows import Json, Rows, counts, evidence, number
from .matter import Matter, matters, per_position
from .pictures import Pictures
from .texts import Languages, said, texts

Said = Mapping[str, str]
"""Language -> text."""

_SHOWN_ELSEWHERE = frozenset({"got", "expected", "truth", "accepted", "parting", "texts", "answer"})
"""The evidence that is part of a case's material."""

_SENTENCES = ("numbers", "cold", "again", "limited_by", "misread")
"""The evidence that is a sentence of the criterion; no model says it."""


@dataclass(frozen=True)
class Group:
    """The rows of a criterion group of a test class.

    Attributes:
        id: the group's id.
        name: the group's name.
        counts: status -> number of rows.
        worst: index of the row with the smallest margin; None if no row has a margin.
    """

    id: str
    name: Said
    counts: Mapping[str, int]
    worst: int | None


@dataclass(frozen=True)
class Suspected:
    """A part of a served model that its results point to.

    Attributes:
        part: the part.
        because: the results that point to it.
        next_step: the next thing to do.
    """

    part: Said
    because: Said
    next_step: Said


@dataclass(frozen=True)
class Class:
    """A model as one test class declares it.

    Attributes:
        title: the model's id, with the class if several classes declare this model.
        suite_class: the test class.
        result: the conclusion: "pass", "fail" or "missing"; "na" if it is not applicable.
        conclusion: the conclusion, or the reason why it is not applicable.
        groups: its groups of criteria.
        suspects: the parts that its failures point to, the likelier one first.
        published: the rows of its published figures, beside the measured ones.
    """

    title: str
    suite_class: str
    result: str
    conclusion: Said
    groups: tuple[Group, ...]
    suspects: tuple[Suspected, ...] = ()
    published: tuple[tuple[Said, ...], ...] = ()


@dataclass(frozen=True)
class Content:
    """The content of the page.

    Attributes:
        languages: the languages of the page.
        texts: language -> English text -> its translation.
        sentences: language -> English text of a row -> its translation; only those that differ.
        environment: name and value of each fact.
        classes: the test classes.
        rows: the rows of report.json, with `id`, `class` and `matter` in place of the model and its
            class: the id is that of a link, the others are indices.
        matters: the materials of the cases.
    """

    languages: Languages
    texts: Mapping[str, Mapping[str, str]]
    sentences: Mapping[str, Mapping[str, str]]
    environment: Sequence[tuple[Said, Said]]
    classes: Sequence[Class]
    rows: Sequence[Json]
    matters: Sequence[Matter]


def content(document: Json, contents: View, languages: Languages, pictures: Pictures) -> Content:
    """The content of the page, without its pictures.

    Args:
        document: the content of report.json.
        contents: its view.
        languages: the languages of the page.
        pictures: the pictures, which those of the cases are added to.
    """
    materials, places = list[Matter](), dict[Any, int]()
    keys = list(dict.fromkeys(map(_key, document["rows"])))
    facts = {_key(model): model for model in document["models"]}
    for page in contents.models:
        key = (page.model, page.suite_class)
        own = [row for row in document["rows"] if _key(row) == key]
        for case, matter in matters(page, facts.get(key, {}), own, pictures).items():
            places[(*key, case)] = len(materials)
            materials.append(matter)
    return Content(
        languages,
        texts(languages),
        _sentences(document["rows"], materials, languages),
        _environment(contents.environment, languages),
        _classes(contents, document["rows"], keys, languages),
        _rows(document["rows"], keys, places),
        materials,
    )


def _key(entry: Json) -> tuple[str, str]:
    return entry["model"], entry["suite_class"]


def _sentences(
    rows: Rows, materials: Iterable[Matter], languages: Languages
) -> dict[str, dict[str, str]]:
    """The sentences of all rows in the languages besides English, each once."""
    phrases = {text: sentence(text) for text in _texts(rows, materials)} | dict(_figures(rows))
    found: dict[str, dict[str, str]] = {}
    for language in (name for name in languages if name != "en"):
        translate = translator(language)
        own = {text: shown(one, translate) for text, one in phrases.items()}
        found[language] = {text: said for text, said in own.items() if said != text}
    return found


def _texts(rows: Rows, materials: Iterable[Matter]) -> Iterator[str]:
    for row in rows:
        told = (row.get("finding"), row["reason"], row.get("unit"))
        yield from (text for text in told if text)
        if group_of(row) != OWN_GROUP:
            values = (evidence(row).get(name) for name in _SENTENCES)
            yield from (text for text in values if isinstance(text, str))
    for matter in materials:
        yield from (answer.source for answer in matter.answers)


def _figures(rows: Rows) -> Iterator[tuple[str, Text]]:
    """Name of each measured series -> its name for a reader."""
    for row in rows:
        if group_of(row) in {"performance", "growth"}:
            names = (str(one["name"]) for one in evidence(row).get("series") or ())
            yield from ((name, figure_name(name)) for name in names)


def _environment(told: Environment, languages: Languages) -> list[tuple[Said, Said]]:
    items = (*told.items, *told.overrides)
    return [(said(item.name, languages), said(item.value, languages)) for item in items]


def _classes(
    contents: View, rows: Rows, keys: Iterable[tuple[str, str]], languages: Languages
) -> list[Class]:
    judged = {(page.model, page.suite_class): page for page in contents.models}
    reasons = {(one.model, one.suite_class): one.reason for one in contents.not_judged}
    return [
        _judged(judged[key], rows, languages)
        if key in judged
        else Class(key[0], key[1], "na", said(reasons[key], languages), ())
        for key in keys
    ]


def _judged(page: ModelPage, rows: Rows, languages: Languages) -> Class:
    own = [(i, row) for i, row in enumerate(rows) if _key(row) == (page.model, page.suite_class)]
    groups: dict[str, list[tuple[int, Json]]] = {}
    for index, row in own:
        groups.setdefault(group_of(row), []).append((index, row))
    return Class(
        page.title,
        page.suite_class,
        page.conclusion.result,
        said(page.conclusion.sentence, languages),
        tuple(_group(name, found, languages) for name, found in groups.items()),
        tuple(
            Suspected(
                said(one.part, languages),
                said(one.because, languages),
                said(one.next_step, languages),
            )
            for one in page.suspects
        ),
        tuple(
            tuple(said(text or "–", languages) for text in figure.cells)
            for figure in (page.published.figures if page.published else ())
        ),
    )


def _group(name: str, found: Sequence[tuple[int, Json]], languages: Languages) -> Group:
    rows = [row for _, row in found]
    worst = worst_margin(rows)
    index = next((index for index, row in found if row is worst), None)
    return Group(name, said(named(GROUPS, name), languages), counts(rows), index)


def _rows(rows: Rows, keys: Sequence[tuple[str, str]], places: Mapping[Any, int]) -> list[Json]:
    found: list[Json] = []
    for name, row in zip(row_ids(rows), rows, strict=True):
        own = {key: value for key, value in row.items() if key not in _REPLACED}
        found.append(
            {
                **own,
                "id": name,
                "class": keys.index(_key(row)),
                "group": group_of(row),
                "matter": places.get((*_key(row), row["case"])),
                "along": _along(row),
                "evidence": _rest(evidence(row)),
            }
        )
    return found


_REPLACED = frozenset({"model", "suite_class", "reference_knows", "order"})


def _along(row: Json) -> list[tuple[str, float | None]]:
    """Case and R of each sequence of a comparison, the largest first."""
    told = (one for one in per_position(row) if isinstance(one, dict))
    found = [(str(one["case"]), _ratio(one)) for one in told]
    return sorted(found, key=lambda one: float("inf") if one[1] is None else one[1], reverse=True)


def _ratio(told: Json) -> float | None:
    """R of a sequence; None if a value is not finite."""
    return rounding_ratio(map(number, told["error"]), map(number, told["rounding"]))


def _rest(told: Json) -> Json:
    """The evidence that nothing else on the page shows."""
    return {
        name: value
        for name, value in told.items()
        if name not in _SHOWN_ELSEWHERE and name != "per_position"
    }

"""Merges the reports of several runs into one: `-m npu`, `-m performance`, `-m dataset`, reruns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigurationError
from .diagnosis import diagnosis_json
from .differences import Difference, differences
from .origin import origin
from .rows import Key, grouped, in_one_line, name_of
from .totals import totals

Document = Mapping[str, Any]
Groups = dict[Key, list[dict[str, Any]]]

_RANKS = {"skip": 0, "na": 1, "recorded": 2, "error": 2, "fail": 3, "xfail": 3, "pass": 3}
"""A later result replaces an earlier one unless its rank is lower.

So a verdict is replaced by a verdict alone. An error is no verdict: a mistyped option must not
delete the verdicts of hours.
"""

_ADDED = ("requests", "server_starts")

ADVICE = {
    "platform": "keep the reports of two platforms apart",
    "checkpoint": "keep the reports of tiny and full checkpoints apart",
    "simulated": "keep a simulated run apart from a real one",
    "device": "run both on the same device",
    "versions": "run both with the same versions; `ascend-vlm report compare` compares two",
    "serve_overrides": "run both with the same --vlm-serve",
    "environment": "run both on the same system",
    "weights_sha256": "run both with the same weights (--vlm-weights)",
    "revision": "run both with the same weights (--vlm-weights)",
    "serve_command": "run both with the same model file",
    "suite_arguments": "run both with the same model file",
    "env": "run both with the same model file",
    "unmodified": "run both with the same installation",
    "cases": "run both with the same cases.json and images",
    "suite_sha256": "run both with the same files of pytest-ascend-vlm",
    "conditions": "run both with the same options, files and environment variables",
}


@dataclass(frozen=True)
class Named:
    """A report with the name that messages call it by.

    Attributes:
        name: the path of the report.
        document: the content of report.json.
    """

    name: str
    document: Document


@dataclass(frozen=True)
class Merged:
    """Several reports as one.

    Attributes:
        document: the content of report.json.
        replaced: number of tests whose result a later run replaced.
        outlived: the tests that ended with an error after an earlier verdict, which stays.
    """

    document: dict[str, Any]
    replaced: int = 0
    outlived: tuple[str, ...] = ()


def merge(reports: Sequence[Named]) -> Merged:
    """Merges reports, earliest run first.

    A row of a later run replaces the earlier row of the same model, class, criterion and case only
    if the criterion was judged again.

    Args:
        reports: one or more.

    Raises:
        ConfigurationError: two reports were not measured with the same set-up, share some runs,
            or are not in the order of their runs.
    """
    if lines := refusals(reports):
        raise ConfigurationError("\n  ".join(["these reports cannot be merged:", *lines]))
    merged = Merged(dict(reports[0].document))
    for report in reports[1:]:
        merged = _merged(merged, report)
    return merged


def refusals(reports: Sequence[Named]) -> list[str]:
    """One line for each difference that forbids to merge reports; empty if there is none."""
    lines: dict[tuple[str, ...], str] = {}
    for number, second in enumerate(reports):
        for first in reports[:number]:
            for found in differences(first.document, second.document):
                line = _refusal(found, first.name, second.name)
                lines.setdefault((second.name, found.what, *found.model), line)
    return list(lines.values())


def _refusal(found: Difference, first: str, second: str) -> str:
    owner = f"{found.model[0]} ({found.model[1]}): " if found.model else ""
    sides = f"{found.first} in {first}, {found.second} in {second}"
    return f"{owner}{found.what}: {sides}; {ADVICE[found.field]}"


def runs_of(document: Document) -> list[dict[str, Any]]:
    """The runs of a report; a report without the field has one."""
    receipt = document["receipt"]
    return list(receipt.get("runs") or [{name: receipt[name] for name in ("argv", "seconds")}])


def _merged(earlier: Merged, later: Named) -> Merged:
    known, new = _own_facts(earlier.document), _own_facts(later.document)
    shared = [run for run in new if run in known]
    if shared and len(shared) == len(new):
        return replace(earlier, document=_completed(earlier.document, later))
    if shared and len(shared) == len(known):
        whole, part = dict(later.document), Named("an earlier report", earlier.document)
        return replace(earlier, document=_completed(whole, part))
    if shared:
        raise ConfigurationError(
            f"{later.name} contains some of the runs of the reports before it, so their requests "
            "would be counted twice; merge each run once."
        )
    old, added = grouped(earlier.document["rows"]), grouped(later.document["rows"])
    both = [key for key in added if key in old]
    if both:
        _require_order(known, new, later.name)
    stays = {key for key in both if _rank(added[key]) < _rank(old[key])}
    kept = {key: rows for key, rows in old.items() if key not in added or key in stays}
    taken = {key: rows for key, rows in added.items() if key not in stays}
    chosen = _told_in_full(kept, old) | _told_in_full(taken, added)
    for key in both:
        chosen[key] = _placed(chosen[key], [*old[key], *added[key]])
    return Merged(
        continued(earlier.document, later.document, _in_order([*old, *added], chosen)),
        earlier.replaced + len(both) - len(stays),
        (*earlier.outlived, *_outlived(added, stays)),
    )


def _own_facts(document: Document) -> list[dict[str, Any]]:
    """The runs of a report as every report of them has them: a bundle leaves the statuses out."""
    return [{k: v for k, v in run.items() if k != "statuses"} for run in runs_of(document)]


def _require_order(known: list[dict[str, Any]], new: list[dict[str, Any]], name: str) -> None:
    """Raises an error if a run is older than one before it: its verdicts would replace newer ones.

    A run that both reports have a part of, as after `--vlm-resume`, is not compared.
    """
    before = {str(run["date"]) for run in known if "date" in run}
    after = {str(run["date"]) for run in new if "date" in run} - before
    if before and after and min(after) < max(before):
        raise ConfigurationError(
            f"{name} has a run of {min(after)}, but a report before it has the same tests and a "
            f"run of {max(before)}, so older verdicts would replace newer ones; name the reports "
            "in the order of the runs."
        )


def _completed(whole: dict[str, Any], part: Named) -> dict[str, Any]:
    """A report with what another report of its runs, or of some of them, has besides.

    Args:
        whole: the report with all of the runs.
        part: the other report.
    """
    old, others = grouped(whole["rows"]), grouped(part.document["rows"])
    _require_same(whole, part, old, others)
    lacking = _told_in_full({key: others[key] for key in others if key not in old}, others)
    owners = {(model["model"], model["suite_class"]) for model in whole["models"]}
    models = [
        model
        for model in part.document["models"]
        if (model["model"], model["suite_class"]) not in owners
    ]
    if not lacking and not models:
        return whole
    rows = _in_order([*old, *lacking], old | lacking)
    receipt, told = whole["receipt"], part.document["receipt"]
    own = totals(models)
    facts: dict[str, Any] = {name: receipt.get(name, 0) + own[name] for name in _ADDED}
    if tests := _filled(receipt.get("tests"), told.get("tests")):
        facts["tests"] = tests
    return {
        **whole,
        "receipt": {**receipt, **facts, "origin": origin(receipt, rows)},
        "models": _models([*whole["models"], *models], rows),
        "diagnosis": diagnosis_json(rows),
        "rows": rows,
    }


def _require_same(whole: Document, part: Named, old: Groups, others: Groups) -> None:
    """Raises an error if two reports of the same last run tell different results of a test.

    The results of earlier runs may have been replaced by those of the last one; and an error of the
    last run replaced no verdict of the earlier runs, which the part lacks.

    Args:
        whole: the report with all of the runs.
        part: the other report.
        old: the rows of `whole`, by test.
        others: the rows of `part`, by test.
    """
    runs, own = _own_facts(whole), _own_facts(part.document)
    if runs[-1] not in own:
        return
    for key in (key for key in others if key in old):
        is_outranked = len(own) < len(runs) and _rank(others[key]) < _rank(old[key])
        if not is_outranked and _results(others[key]) != _results(old[key]):
            raise ConfigurationError(
                f"{part.name} has another result of {key[1]}: {name_of(key[2], key[3])} than a "
                "report of the same run that it is merged with; merge the reports that pytest "
                "wrote, unchanged."
            )


def _results(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what a merge changes in them."""
    changed = ("order", "told_at", "reason")
    return [{name: row[name] for name in row if name not in changed} for row in rows]


def _rank(rows: Iterable[Mapping[str, Any]]) -> int:
    """The lowest rank of a test's rows: with an error after its first verdict it was not judged."""
    return min(_RANKS[row["status"]] for row in rows)


def _outlived(added: Groups, stays: Iterable[Key]) -> list[str]:
    failed = (key for key in stays if any(row["status"] == "error" for row in added[key]))
    return sorted(f"{key[1]}: {name_of(key[2], key[3])}" for key in failed)


def _told_in_full(chosen: Groups, every: Groups) -> Groups:
    """The chosen rows of a report; an error whose first row is left out moves to another row.

    Args:
        chosen: the rows that stay.
        every: all rows of the same report.
    """
    tellers = {(*key[:2], name_of(key[2], key[3])): key for key in every}
    moved: dict[tuple[str, ...], str] = {}

    def told(row: dict[str, Any]) -> dict[str, Any]:
        place = (row["model"], row["suite_class"], str(row.get("told_at")))
        teller = tellers.get(place)
        if not row.get("told_at") or teller is None or teller in chosen:
            return row
        full = every[teller][-1]["reason"]
        if place in moved:
            return {**row, "told_at": moved[place], "reason": in_one_line(full, moved[place])}
        moved[place] = name_of(row["criterion"], row["case"])
        return {**row, "told_at": None, "reason": full}

    return {key: [told(row) for row in rows] for key, rows in chosen.items()}


def _placed(rows: list[dict[str, Any]], known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the last of the known places: a run of few tests counts its places from fewer."""
    places = [row["order"] for row in known if "order" in row]
    return [{**row, "order": max(places)} for row in rows] if places else rows


def _in_order(keys: Iterable[Key], chosen: Groups) -> list[dict[str, Any]]:
    """Rows by class, in the order of the reports, and by their places in the class."""
    by_class: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for key in dict.fromkeys(keys):
        by_class.setdefault(key[:2], []).extend(chosen[key])
    return [row for rows in by_class.values() for row in sorted(rows, key=_place)]


def _place(row: Mapping[str, Any]) -> tuple[list[int], str, str]:
    """The key that the rows of a class are sorted by; equal places are sorted by name."""
    if "order" not in row:
        return [], "", ""
    return row["order"], row["criterion"], row["case"] or ""


def continued(earlier: Document, later: Document, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A report of a run that went on with what an earlier one began.

    Args:
        earlier: the report of the earlier run.
        later: the report of the run that went on.
        rows: the rows of the result.
    """
    old, new = earlier["receipt"], later["receipt"]
    both = {name: _filled(old.get(name), new.get(name)) for name in ("environment", "tests")}
    receipt = {**new, **old, **{name: facts for name, facts in both.items() if facts}}
    receipt |= {name: old.get(name, 0) + new.get(name, 0) for name in _ADDED}
    receipt["seconds"] = round(old["seconds"] + new["seconds"], 1)
    receipt["runs"] = [*runs_of(earlier), *runs_of(later)]
    receipt["origin"] = origin(old, rows)
    models = _models([*earlier["models"], *later["models"]], rows)
    return {
        **later,
        **earlier,
        "receipt": receipt,
        "models": models,
        "diagnosis": diagnosis_json(rows),
        "rows": rows,
    }


def _models(
    facts: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The facts of each model and class, in the order of the rows."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in facts:
        key = (one["model"], one["suite_class"])
        found[key] = _joined(found[key], one) if key in found else dict(one)
    in_order = [(row["model"], row["suite_class"]) for row in rows]
    return [found[key] for key in dict.fromkeys([*in_order, *found]) if key in found]


def _joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of one server in two runs: counts add up, the later run tells the rest."""
    joined = _filled(new, old)
    joined |= {name: old.get(name, 0) + new.get(name, 0) for name in _ADDED if name in joined}
    if "cases" in joined:
        joined["cases"] = _filled(old.get("cases"), new.get("cases"))
    if "variants" in joined:
        ours, others = old.get("variants") or {}, new.get("variants") or {}
        joined["variants"] = {
            name: _joined(ours.get(name, {}), others.get(name, {}))
            for name in dict.fromkeys([*ours, *others])
        }
    return joined


def _filled(known: Any, other: Any) -> dict[str, Any]:
    """A mapping, with what it does not know from another."""
    stated = {name: value for name, value in (known or {}).items() if value is not None}
    return {**(known or {}), **(other or {}), **stated}

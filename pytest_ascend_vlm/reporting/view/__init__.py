"""A report in the order in which a reader meets it; every renderer takes its content from here.

The content is chosen, ordered and numbered here, without markup and without a language. A
`phrase.Phrase` is a text of the project, which a renderer translates. A string comes from a model,
a user or a tool, and is shown as it is; a renderer escapes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..origin import with_origin
from ..phrase import Text
from ..rows import by_owner
from ..sentences import sentence
from .environment import Environment, Origin, Work, environment, origin_of, work_of_run
from .missing import Missing
from .page import ModelPage, model_page
from .rows import Rows

__all__ = ["Missing", "ModelPage", "NotJudged", "View", "judged_classes", "view"]


@dataclass(frozen=True)
class NotJudged:
    """A model that is not applicable as a whole.

    Attributes:
        model: its id.
        suite_class: its test class.
        reason: the reason.
    """

    model: str
    suite_class: str
    reason: Text


@dataclass(frozen=True)
class View:
    """The contents of a report.

    Attributes:
        origin: where the verdicts come from; a renderer must show it on every page.
        environment: hardware and software.
        work: what the run did.
        models: one document per judged test class.
        not_judged: the models that are not applicable as a whole.
    """

    origin: Origin
    environment: Environment
    work: Work
    models: tuple[ModelPage, ...]
    not_judged: tuple[NotJudged, ...]


def view(report: Mapping[str, Any], *, charts: bool = True) -> View:
    """The view of a report.

    Args:
        report: the content of report.json.
        charts: True if the view names the charts of the report.
    """
    receipt = with_origin(report)
    of_class = by_owner(report["rows"])
    judged = judged_classes(report["rows"])
    known = {(model["model"], model["suite_class"]): model for model in report["models"]}
    classes = Counter(model for model, _ in of_class)
    return View(
        origin_of(receipt),
        environment(receipt),
        work_of_run(receipt),
        tuple(
            model_page(
                receipt,
                # The report has no facts of a model whose server never started.
                known.get(key, {"model": key[0], "suite_class": key[1]}),
                rows,
                is_alone=classes[key[0]] == 1,
                charts=charts,
            )
            for key, rows in of_class.items()
            if key in judged
        ),
        tuple(
            NotJudged(*key, sentence(str(rows[0]["reason"])))
            for key, rows in of_class.items()
            if key not in judged
        ),
    )


def judged_classes(rows: Rows) -> tuple[tuple[str, str], ...]:
    """Model and test class of each document: those with a row that is applicable."""
    return tuple(
        dict.fromkeys((row["model"], row["suite_class"]) for row in rows if row["status"] != "na")
    )

"""Renders the adaptation documents in Markdown: one a model, and an overview.

All output of a model is escaped or put into a code block, because it may contain markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING, Any

from ...rounding import rounded
from ..labels import CHARTS, KINDS, PARTS, PHASES, STATISTICS, STATUSES
from ..language import LANGUAGES, shown, translator
from ..pages import pictures
from ..quantity import interval, with_unit
from ..view import Missing, View, view
from ..view.numerics import FIGURES
from .escape import cell, code_block, short

if TYPE_CHECKING:
    import jinja2

_MARKS = {
    "pass": "✅",
    "xfail": "⚠️",
    "na": "N/A",
    "skip": "⏭️",
    "fail": "❌",
    "error": "💥",
    "recorded": "📝",
    "missing": "–",
}


def files(document: Mapping[str, Any], languages: Iterable[str]) -> dict[str, str | bytes]:
    """File name -> content of the documents in these languages, and of the pictures they show.

    The documents are an overview, and one of each model.
    """
    contents, shown_pages = view(document), pictures(document)
    links = {path: picture.name for path, picture in shown_pages.items()}
    found: dict[str, str | bytes] = {one.name: one.content for one in shown_pages.values()}
    for language in languages:
        found[overview_name(language)] = _overview(contents, language)
        for index, page in enumerate(contents.models):
            text = _adaptation(contents, index, language, links)
            found[f"{page.file_stem}.{language}.md"] = text
    return found


def overview_name(language: str) -> str:
    """The file name of the overview in a language."""
    return f"adaptation.{language}.md"


def render(document: Mapping[str, Any], language: str, *, charts: bool = True) -> str:
    """The documents of a report as one text: an overview unless there is one model, then each.

    A text has no files beside it, so it shows no picture.

    Args:
        document: the content of report.json.
        language: one of `LANGUAGES`.
        charts: True if the documents link their charts, which must be in the same directory.
    """
    contents = view(document, charts=charts)
    models = range(len(contents.models))
    pages = [_adaptation(contents, index, language, links={}) for index in models]
    first = [] if len(pages) == 1 else [_overview(contents, language)]
    return "\n".join([*first, *pages])


def _overview(contents: View, language: str) -> str:
    return template("overview.md", language).render(vars(contents))


def _adaptation(contents: View, index: int, language: str, links: Mapping[str, str]) -> str:
    page = contents.models[index]
    return template("adaptation.md", language).render(
        page=page,
        origin=contents.origin,
        pictures=links,
        environment=contents.environment,
        work=contents.work if len(contents.models) == 1 else page.work,
        languages=LANGUAGES,
    )


@cache
def template(name: str, language: str, package: str = __package__) -> jinja2.Template:
    """A template with the filters and names of all documents; compiled once, for all models.

    Args:
        name: its file name without ".j2".
        language: one of `LANGUAGES`.
        package: the package that contains it; it can extend or import the templates of this one.
    """
    import jinja2

    environment = jinja2.Environment(  # noqa: S701  (Markdown: cells and code blocks are escaped here)
        loader=jinja2.FunctionLoader(partial(_source, (package, __package__))),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    translate = translator(language)
    environment.filters |= {
        "cell": lambda text: cell(_text(text, translate)),
        "text": lambda text: _text(text, translate),
        "short": lambda text, length=60: short(_text(text, translate), length),
        "block": code_block,
        "number": _number,
        "percent": _percent,
        "seconds": _seconds,
        "with_unit": with_unit,
        "interval": _interval,
        "mark": _MARKS.__getitem__,
        "threshold": _threshold,
    }
    environment.tests["missing"] = lambda section: isinstance(section, Missing)
    environment.globals |= {
        "_": translate,
        "language": language,
        "COLON": translate(": ").rstrip(),  # at the end of a line
        "FIGURES": FIGURES,
        "CHARTS": CHARTS,
        "KINDS": KINDS,
        "PARTS": PARTS,
        "PHASES": PHASES,
        "STATISTICS": STATISTICS,
        "STATUSES": STATUSES,
    }
    return environment.get_template(f"{name}.j2")


def _source(packages: Iterable[str], name: str) -> str | None:
    """The template of this name in the first package that has it."""
    paths = (resources.files(package).joinpath(name) for package in packages)
    return next((path.read_text("utf-8") for path in paths if path.is_file()), None)


def _text(text: Any, translate: Any) -> str:
    return "–" if text is None else shown(text, translate)


def _threshold(judged: Any) -> str:
    """The threshold of anything with a `threshold` and its `sense`: "≥ 0.9"."""
    sign = {"at least": "≥ ", "at most": "≤ ", None: ""}[judged.sense]
    return sign + _number(judged.threshold)


def _number(value: Any) -> str:
    return rounded(value, 4) if isinstance(value, (int, float)) else "–"


def _percent(value: Any) -> str:
    return f"{value:.2%}" if isinstance(value, (int, float)) else "–"


def _seconds(value: Any) -> str:
    return with_unit(value, "s") if isinstance(value, (int, float)) else "–"


def _interval(ends: tuple[float | None, float | None] | None, unit: str) -> str:
    """An interval behind its value; empty without one."""
    shown = interval(*ends, unit) if ends else ""
    return f" {shown}" if shown else ""

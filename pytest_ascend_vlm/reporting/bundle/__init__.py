"""Renders the bundle of one model: what a contributor hands in to an Ascend community.

README.md in Chinese, runnable scripts, the model's part of the report, and logs. Of a run of the
real checkpoint on an NPU also the files for vllm-ascend's repository.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import chart_files
from ..markdown import template
from ..origin import origin
from ..totals import totals
from ..view import judged_classes, view
from ..view.missing import Missing, commands
from ..view.page import ModelPage
from . import vllm_ascend
from .attached import Attached

if TYPE_CHECKING:
    import jinja2

__all__ = ["Attached", "files", "of_class", "suite_classes"]

_ACCURACY = ("accuracy", "numerics", "determinism")
_RESULTS = ("performance", "dataset")
"""Groups of criteria with a file of their own; the others are in results/accuracy_eval.json."""


def suite_classes(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The test classes of a report that have a document."""
    return tuple(suite_class for _, suite_class in judged_classes(document["rows"]))


def of_class(document: Mapping[str, Any], suite_class: str) -> dict[str, Any]:
    """The report of one test class.

    Its origin is determined from its own rows: another model's pass on an NPU proves nothing here.
    Its server starts and requests are its own as well. An image that somebody only stated is left
    out.
    """
    return _with_rows(document, [r for r in document["rows"] if r["suite_class"] == suite_class])


def files(document: Mapping[str, Any], attached: Attached) -> dict[str, str | bytes]:
    """File name -> content of a bundle.

    Args:
        document: the report of one test class, see `of_class`.
        attached: what is not in the report.
    """
    contents = view(document)
    (page,) = contents.models
    contributed = vllm_ascend.files(contents, page)
    found: dict[str, str | bytes] = {
        **_scripts(document, page, attached),
        **_results(document),
        **contributed,
        **chart_files.files(document),
        **attached.files,
    }
    readme = _template("readme.md").render(
        page=page,
        pictures={name: name for name in attached.files},
        origin=contents.origin,
        environment=contents.environment,
        work=contents.work,
        attached=attached,
        contributed=sorted(contributed),
        lacks_config=not any(name.endswith(".yaml") for name in contributed),
        dataset_command=commands(document["receipt"], page.suite_class).run("dataset"),
        names=sorted(found),
        lacking=_lacking(page),
        directories={name.partition("/")[0] + "/" for name in found},
    )
    return {"README.md": readme, **found}


def _with_rows(document: Mapping[str, Any], rows: list[Any]) -> dict[str, Any]:
    keys = {(row["model"], row["suite_class"]) for row in rows}
    models = [m for m in document["models"] if (m["model"], m["suite_class"]) in keys]
    return {
        **document,
        "receipt": _receipt(document["receipt"], models, rows),
        "models": models,
        "rows": rows,
    }


def _receipt(told: Mapping[str, Any], models: list[Any], rows: list[Any]) -> dict[str, Any]:
    """The receipt of a part of a report."""
    # How many rows of one model a run had is not known once runs are merged.
    runs = [{k: v for k, v in run.items() if k != "statuses"} for run in told.get("runs", ())]
    known = told.get("environment") or {}
    image = {} if known.get("image_verified") else {"image": None}
    return {
        **told,
        **totals(models),
        **({"environment": {**known, **image}} if known else {}),
        **({"runs": runs} if runs else {}),
        "origin": origin(told, rows),
    }


def _scripts(
    document: Mapping[str, Any], page: ModelPage, attached: Attached
) -> dict[str, str | bytes]:
    test = f"{attached.model_file}::{page.suite_class}"
    # The address of an endpoint is of no use to a reader, who names another.
    told = commands(document["receipt"], page.suite_class).options
    options = [option for option in told if not option.startswith("--vlm-server-url")]
    found: dict[str, str | bytes] = {
        f"eval/eval_{kind}.py": _template("eval.py").render(
            kind=kind,
            arguments=map(repr, [test, "-m", marker, *options, f"--vlm-report=results/{kind}"]),
        )
        for kind, marker in (("accuracy", " or ".join(_ACCURACY)), ("performance", "performance"))
    }
    if page.examples:
        found["inference.py"] = _template("inference.py").render(
            api=_indented(page.examples.sdk), offline=_indented(page.examples.offline)
        )
    return found


def _results(document: Mapping[str, Any]) -> dict[str, str | bytes]:
    kinds: dict[str, list[Any]] = {}
    for row in document["rows"]:
        group = row["criterion"].partition(".")[0]
        kinds.setdefault(group if group in _RESULTS else "accuracy", []).append(row)
    return {
        f"results/{kind}_eval.json": json.dumps(
            _with_rows(document, rows), ensure_ascii=False, indent=1
        )
        + "\n"
        for kind, rows in kinds.items()
    }


def _lacking(page: ModelPage) -> list[tuple[Missing, list[str]]]:
    """Each reason why figures are missing, with the names of the figures."""
    found: dict[Missing, list[str]] = {}
    for figure in page.agreement:
        if isinstance(figure.value, Missing):
            found.setdefault(figure.value, []).append(figure.name)
    return [*found.items()]


def _template(name: str) -> jinja2.Template:
    return template(name, "zh", __package__)


def _indented(code: str) -> str:
    """Code in a function; only a line feed ends a line, other separators are in literals."""
    return "\n".join(f"    {line}" if line else line for line in code.split("\n"))

"""Renders `report.html`: the report as one page without a network, to look at and to search.

What a model said is data: the page's script writes it as text, and the page's policy (CSP) allows
no script and no style but its own, and no address but data.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from ..view import view
from ..view.environment import warning
from .content import content
from .pictures import Pictures
from .texts import NO_SCRIPT, TITLE, said

__all__ = ["NAME", "files"]

NAME = "report.html"

_LARGEST = 15_000_000
"""The largest size of the page, bytes; pictures beyond it are left out."""


def files(document: Mapping[str, Any], languages: Iterable[str]) -> dict[str, str]:
    """The page of a report, in all of these languages: there is a switch."""
    return {NAME: page(document, tuple(languages))}


def page(document: Mapping[str, Any], languages: tuple[str, ...]) -> str:
    """The page of a report.

    Args:
        document: the content of report.json.
        languages: the languages; the first one is shown if the reader's own is not among them.
    """
    import jinja2
    from markupsafe import Markup

    styles = [_asset("vendor/uplot.css"), _asset("style.css")]
    scripts = [_asset("vendor/uplot.js"), _asset("page.js")]
    contents, pictures = view(document), Pictures()
    data = _json(content(document, contents, languages, pictures))
    taken = sum(len(text.encode("utf-8", "replace")) for text in (*styles, *scripts, data))
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        _asset("report.html.j2")
    )
    return template.render(
        policy=_policy(scripts, styles),
        languages=languages,
        title=said(TITLE, languages),
        no_script=said(NO_SCRIPT, languages),
        warnings=[said(text, languages) for text in warning(contents.origin)],
        # Our own files and JSON without markup: they are what the policy's digests are about.
        styles=[Markup(text) for text in styles],  # noqa: S704
        scripts=[Markup(text) for text in scripts],  # noqa: S704
        data=Markup(data),  # noqa: S704
        pictures=Markup(_json(pictures.encoded(_LARGEST - taken))),  # noqa: S704
    )


def _json(value: Any) -> str:
    """A value as JSON that has no markup, so that it can be part of a page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=vars)
    return text.replace("<", "\\u003c")


def _policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """The page's policy: its own scripts and styles by their digests, pictures as data, no more."""
    return (
        f"default-src 'none'; script-src {_digests(scripts)}; style-src {_digests(styles)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digests(texts: Iterable[str]) -> str:
    found = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in found)


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")

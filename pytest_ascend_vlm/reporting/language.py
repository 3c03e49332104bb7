"""Translates the project's texts; English is the key of every translation.

The catalogues are gettext's: `locale/<language>.po` has the texts of documents,
`locale/<language>.sentences.po` those of criteria and errors (`sentences`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from .messages import messages
from .phrase import Phrase, Text

LANGUAGES = ("zh", "en")

_RANGE = "\u4e00-\u9fff"
_CHINESE = re.compile(f"[{_RANGE}]")

Translate = Callable[[str | Phrase], str]
"""Translates a text of the project: a phrase with its values, or a fixed English text."""


def translator(language: str) -> Translate:
    """The function that translates the project's texts to a language.

    A text without a translation stays English. What a model or a user says is never given to it:
    see `shown`.

    Args:
        language: one of `LANGUAGES`.
    """
    translations = {**_sentences(language), **catalogue(language)}

    def translate(text: str | Phrase) -> str:
        if isinstance(text, str):
            return translations.get(text, text)
        pattern, values = translations.get(text.text, text.text), dict(text.values)
        for name, value in text.values.items():
            if isinstance(value, Phrase):
                values[name] = translate(value)
                pattern = _without_spaces_between_chinese(pattern, name, values[name])
        return pattern.format(**values)

    return translate


def _without_spaces_between_chinese(pattern: str, name: str, value: str) -> str:
    """The pattern of a value that is Chinese; the spaces around `{name}` are for English ones."""
    if _CHINESE.match(value[:1]):
        pattern = re.sub(rf"(?<=[{_RANGE}]) (?=\{{{name}\}})", "", pattern)
    if _CHINESE.match(value[-1:]):
        pattern = re.sub(rf"(?<=\{{{name}\}}) (?=[{_RANGE}])", "", pattern)
    return pattern


def shown(text: Text, translate: Translate) -> str:
    """A text of the view: a phrase is translated, a string is as a model or a user wrote it."""
    return translate(text) if isinstance(text, Phrase) else text


def catalogue(language: str) -> Mapping[str, str]:
    """English text of a document -> its translation; empty for English.

    Raises:
        FileNotFoundError: the language has no catalogue.
    """
    return {} if language == "en" else messages(language)


def _sentences(language: str) -> Mapping[str, str]:
    return {} if language == "en" else messages(f"{language}.sentences")

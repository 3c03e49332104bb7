"""Translates the project's texts; English is the key of every translation.

The catalogues are gettext's: `locale/<language>.po` has the texts of documents,
`locale/<language>.sentences.po` those of criteria and errors (`sentences`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .messages import messages
from .phrase import Phrase, Text

LANGUAGES = ("zh", "en")

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
        values = {
            name: translate(value) if isinstance(value, Phrase) else value
            for name, value in text.values.items()
        }
        return translations.get(text.text, text.text).format(**values)

    return translate


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

"""Recognises the sentences of criteria and errors, so that a renderer can translate them.

report.json has them in English, with their values filled in: "R = 0.91 at 12 positions". The
catalogue `locale/zh.sentences.po` has each of them as a pattern, "R = {ratios} at {positions}
positions"; `tests/test_sentences.py` finds the patterns in the source. A text that no pattern
matches, such as an engine's message or a model's answer, stays as it is.
"""

from __future__ import annotations

import re
import string
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from .messages import messages
from .phrase import Phrase, Text, listed

_MINIMUM_LETTERS = 6  # fewer letters in common with a whole line are a coincidence
_ADVICE = "What to try: "
_CONTINUED = "  "  # the beginning of the further lines of an advice, which is wrapped
_QUOTES = ("'", '"')
_NAME = re.compile(r"[\w./:<>\[\]-]+")


def sentence(text: str) -> Text:
    """A finding, reason, detail, advice, unit or declared reason as a phrase.

    Lines are recognised one by one, a wrapped advice as one line. In English the phrase gives the
    same text, except that the advice is not wrapped.

    Args:
        text: the English text of the report.

    Returns:
        The text itself, if no part of it is one of the package's sentences.
    """
    lines = [_line(line) for line in _unwrapped(text)]
    if not any(isinstance(line, Phrase) for line in lines):
        return text
    if len(lines) == 1:
        return lines[0]
    names = [f"line_{number}" for number in range(len(lines))]
    return Phrase("\n".join(f"{{{name}}}" for name in names), dict(zip(names, lines, strict=True)))


@dataclass(frozen=True)
class Pattern:
    """The pattern of a sentence.

    Attributes:
        text: the English sentence with `{name}` at the place of each value; `{{` is a brace.
        regex: matches the sentence and has one group per name.
        letters: the number of letters outside the values.
        word: the longest word outside the values; every text of the sentence has it.
    """

    text: str
    regex: re.Pattern[str]
    letters: int
    word: str

    def values(self, text: str) -> dict[str, str] | None:
        """The value of each name in a text, or None if the text is another sentence."""
        match = self.regex.fullmatch(text)
        return None if match is None else match.groupdict()


def pattern(text: str) -> Pattern:
    """Compiles a sentence with `{name}` at the place of each value."""
    parts = list(string.Formatter().parse(text))
    regex = "".join(
        re.escape(literal) + (f"(?P<{name}>.+?)" if name else "") for literal, name, *_ in parts
    )
    letters = sum(char.isalpha() for literal, *_ in parts for char in literal)
    # A word that touches a value may be longer in a text.
    whole = re.findall(r"(?<![}A-Za-z])[A-Za-z]+(?![{A-Za-z])", re.sub(r"\{\w+\}", "{}", text))
    return Pattern(text, re.compile(regex), letters, max(whole, key=len, default=""))


@cache
def _patterns() -> Mapping[str, Sequence[Pattern]]:
    """Word -> the patterns whose longest word it is."""
    found: dict[str, list[Pattern]] = defaultdict(list)
    for one in map(pattern, messages("zh.sentences")):
        if one.letters:
            found[one.word].append(one)
    return found


@dataclass(frozen=True)
class _Reading:
    """One way to read a text as a sentence.

    Attributes:
        phrase: the text as a phrase.
        score: the number of letters that belong to sentences; the best reading has the most.
    """

    phrase: Phrase
    score: float


def _unwrapped(text: str) -> Iterator[str]:
    """The lines of a text, an advice on one line."""
    advice: str | None = None
    for line in text.split("\n"):
        if advice is not None and line.startswith(_CONTINUED):
            advice = f"{advice} {line.strip()}"
            continue
        if advice is not None:
            yield advice
        advice = line if line.startswith(_ADVICE) else None
        if advice is None:
            yield line
    if advice is not None:
        yield advice


def _line(line: str) -> Text:
    text = line.strip()
    reading = _read(text)
    if reading is None or (reading.phrase.values and reading.score < _MINIMUM_LETTERS):
        return line
    before, after = line[: line.index(text)], line[line.index(text) + len(text) :]
    if not before and not after:
        return reading.phrase
    return Phrase(f"{before}{{text}}{after}", {"text": reading.phrase})


@lru_cache(maxsize=10_000)
def _read(text: str) -> _Reading | None:
    """The best reading of a text; None if no part of it is a sentence."""
    if not any(char.isalpha() for char in text):
        return None
    if text.endswith("."):
        inner = _read(text[:-1])
        return inner and _Reading(_ENDED.of(text=inner.phrase), inner.score)
    readings = (*_joined(text, ": ", _NAMED), *_joined(text, "; ", _FOLLOWED), *_with_note(text))
    return max((*readings, *_whole(text)), key=lambda one: one.score, default=None)


def _whole(text: str) -> Iterator[_Reading]:
    """The readings of a text as one sentence, whose values may be sentences."""
    words = dict.fromkeys(["", *re.findall(r"[A-Za-z]+", text)])
    for one in (one for word in words for one in _patterns().get(word, ())):
        values = one.values(text)
        if values is None:
            continue
        inner = {name: _value(value) for name, value in values.items()}
        unread = (values[name] for name, value in inner.items() if value is None)
        # "{low} to {high}" joins numbers and names. Between other words, "to" is a coincidence.
        if one.letters < _MINIMUM_LETTERS and any(" " in text for text in unread):
            continue
        shown = {name: value.phrase if value else values[name] for name, value in inner.items()}
        score = one.letters + sum(value.score for value in inner.values() if value)
        # "{a} positions" is no reading of "name: 12 positions" if "12 positions" is one.
        swallows = ": " in values[name] if (name := _first(one)) else False
        yield _Reading(Phrase(one.text, shown), score - swallows / 2)


def _first(one: Pattern) -> str | None:
    """The name of the value that a pattern begins with."""
    begins = re.match(r"\{(\w+)\}", one.text)
    return begins[1] if begins else None


def _value(text: str) -> _Reading | None:
    """The reading of a value: a sentence, a word of the catalogue, or a list of them.

    What is quoted is said by a model or a user.
    """
    if text.startswith(_QUOTES) and text.endswith(text[0]):
        return None
    readings = (_read(text), _list(text))
    return max((one for one in readings if one), key=lambda one: one.score, default=None)


def _list(text: str) -> _Reading | None:
    """The reading of items that are separated by commas: each a sentence, a word or a name."""
    items = text.split(", ")
    readings = [_read(item) for item in items]
    if len(items) == 1 or not any(readings):
        return None
    if not all(one or _NAME.fullmatch(item) for one, item in zip(readings, items, strict=True)):
        return None
    shown = listed(
        *(one.phrase if one else item for one, item in zip(readings, items, strict=True))
    )
    assert isinstance(shown, Phrase)  # noqa: S101  (there are two items)
    return _Reading(shown, sum(one.score for one in readings if one))


def _joined(text: str, separator: str, form: Phrase) -> Iterator[_Reading]:
    """The readings of a text as two parts, of which one is a sentence at least."""
    for found in re.finditer(re.escape(separator), text):
        yield from _pair(text[: found.start()], text[found.end() :], form)


def _with_note(text: str) -> Iterator[_Reading]:
    """The readings of a text as a sentence with a note in brackets at its end."""
    if text.endswith(")"):
        for found in re.finditer(r" \(", text):
            yield from _pair(text[: found.start()], text[found.end() : -1], _NOTED)


def _pair(first: str, second: str, form: Phrase) -> Iterator[_Reading]:
    """The reading of two parts, unless neither is more than a word."""
    parts = {"first": first, "second": second}
    readings = {name: one for name, text in parts.items() if (one := _value(text))}
    if any(" " in parts[name] for name in readings):
        shown = {name: readings[name].phrase if name in readings else parts[name] for name in parts}
        yield _Reading(form.of(**shown), sum(one.score for one in readings.values()))


_ENDED = Phrase("{text}.")
_NAMED = Phrase("{first}: {second}")
_FOLLOWED = Phrase("{first}; {second}")
_NOTED = Phrase("{first} ({second})")

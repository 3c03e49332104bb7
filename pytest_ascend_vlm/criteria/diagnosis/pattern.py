"""The results of one model, as the rules of a diagnosis ask about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

SOUND_RATIO = 1.25
"""Mean error of a sound model's texts in bf16 roundings, at most. Measured: 0.8 to 1.1 on sound
tiny checkpoints; 1.8 with int8 weights, 2.8 and more with other faults of the decoder."""

_ASKS_ANYTHING = {"serving.any_request"}
"""Every kind of fault may show in these as well, so they point to none."""


@dataclass(frozen=True)
class Pattern:
    """What holds for a model, and what does not.

    A failure that was declared as expected is neither. An error is no failure: it judges nothing.

    Attributes:
        rows: the model's rows, as in report.json.
    """

    rows: Sequence[Row]

    def failed(self, *criteria: str) -> list[Row]:
        """The rows of some criteria that fail."""
        return self._of(criteria, "fail")

    def passed(self, *criteria: str) -> list[Row]:
        """The rows of some criteria that pass."""
        return self._of(criteria, "pass")

    def errors(self, *criteria: str) -> list[Row]:
        """The rows of some criteria that are errors."""
        return self._of(criteria, "error")

    def holds(self, *criteria: str) -> bool:
        """True if some of these criteria pass, and none fails."""
        return bool(self.passed(*criteria)) and not self.failed(*criteria)

    def only(self, *criteria: str) -> bool:
        """True if some of these criteria fail, and no other one that asks for one thing."""
        failing = self.failing() - _ASKS_ANYTHING
        return bool(failing) and failing <= set(criteria)

    def failing(self) -> set[str]:
        """The criteria that fail in some case."""
        return {row["criterion"] for row in self.rows if row["status"] == "fail"}

    def image_tokens(self) -> dict[str, float]:
        """Case -> number of image tokens in its prompt, as far as known."""
        asked = [*self.passed("baseline.prompt"), *self.failed("baseline.prompt")]
        known = {row["case"]: number(row, "image_tokens") for row in asked}
        return {case: tokens for case, tokens in known.items() if tokens is not None}

    def texts_hold(self) -> bool:
        """True if cases without an image have been judged, and their numbers are right.

        Right are those whose mean error is that of the reference's own rounding.
        """
        ratio = self._text_ratio()
        return not self._failing_texts() and ratio is not None and ratio <= SOUND_RATIO

    def texts_are_wrong(self) -> bool:
        """True if cases without an image have been judged, and their numbers are not right."""
        ratio = self._text_ratio()
        return bool(self._failing_texts()) or (ratio is not None and ratio > SOUND_RATIO)

    def _failing_texts(self) -> list[Row]:
        wrong = self.failed("baseline.text", "baseline.logprobs")
        return [row for row in wrong if not with_image(row)]

    def _text_ratio(self) -> float | None:
        """The mean error of the texts in bf16 roundings; None if none was judged."""
        passed = [row for row in self.passed("baseline.logprobs") if not with_image(row)]
        known = [ratio for row in passed if (ratio := number(row, "ratio")) is not None]
        return sum(known) / len(known) if known else None

    def _of(self, criteria: tuple[str, ...], status: str) -> list[Row]:
        return [
            row for row in self.rows if row["criterion"] in criteria and row["status"] == status
        ]


def evidence(row: Row) -> Mapping[str, Any]:
    """The evidence of a row; empty if it has none."""
    found: Mapping[str, Any] = row.get("evidence") or {}
    return found


def number(row: Row, name: str) -> float | None:
    """A number of a row's evidence; None if it has none. A number that JSON lacks is a text."""
    found = evidence(row).get(name)
    return found if isinstance(found, (int, float)) else None


def with_image(row: Row) -> bool:
    """True if the row is about a case with an image or a clip."""
    return row["case"] is not None and not row["case"].startswith("text/")


def are_the_largest(failing: Sequence[float], passing: Sequence[float]) -> bool:
    """True if every failing size is larger than every passing one."""
    return bool(failing) and bool(passing) and min(failing) > max(passing)

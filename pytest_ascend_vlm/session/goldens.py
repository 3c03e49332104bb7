"""The reference answers of one model."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..errors import GoldenError, PreconditionError
from ..spec.case import Case

if TYPE_CHECKING:
    from ..golden.store import GoldenKey, GoldenStore
    from ..observation.answers import Reference
    from ..observation.numerics import ReferenceNumerics


class Goldens:
    """The reference answers of one model: recorded goldens, otherwise published answers."""

    def __init__(self, store: GoldenStore, key: GoldenKey) -> None:
        self._store = store
        self._key = key
        self._known: dict[str, Reference] = {}

    def __call__(self, case: Case) -> Reference:
        """The reference answer to a case.

        Raises:
            GoldenError: the golden is missing or invalid, and no answer is published.
        """
        if case.id not in self._known:
            self._known[case.id] = self._find(case)
        return self._known[case.id]

    def numerics(self, case: Case) -> ReferenceNumerics:
        """The recorded logits and hidden states of a case.

        Raises:
            GoldenError: the golden is missing or invalid.
            PreconditionError: the reference is text only.
        """
        reference = self(case)
        if reference.numerics is None:
            raise PreconditionError(f"{case.id}: the reference is text only ({reference.source})")
        return reference.numerics

    def text_of(self, case: Case) -> str | None:
        """The text of the reference answer; None if the golden is missing or invalid."""
        with contextlib.suppress(GoldenError):
            return self(case).text
        return None

    def _find(self, case: Case) -> Reference:
        from ..observation.answers import Reference

        published = self._published().get(case.id)
        if published is None or self._store.has(self._key, case):
            return self._store.load(self._key, case)
        source = self._key.model.published.source if self._key.model.published else ""
        return Reference(case.id, f"published in {source}", published, is_published=True)

    def _published(self) -> dict[str, str]:
        """Published answers by case id; empty for a tiny checkpoint, whose answers differ."""
        published = self._key.model.published
        return dict(published.answers) if published and self._key.checkpoint == "full" else {}

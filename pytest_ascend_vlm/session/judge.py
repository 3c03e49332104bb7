"""What the criteria of one model share: its answers, its goldens, the reference, the judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from ..criteria.verdict import Verdict
from ..errors import CriterionFailed, NoAnswer
from ..spec.case import Case
from .explain import explain

if TYPE_CHECKING:
    from ..criteria.criterion import Criterion, Documentation
    from ..engines.client import Client
    from ..observation.answers import Completion
    from .goldens import Goldens


class NotApplicable(pytest.skip.Exception):  # type: ignore[name-defined, misc]
    """A criterion cannot apply to a model as it is declared; the message is the reason.

    A type of its own, because it opens a gate and a skip does not.
    """


@dataclass
class Judge:
    """Takes a test's verdict: keeps it for the report and fails the test if it does not hold.

    Attributes:
        criterion: the criterion being judged.
        documentation: what its failures explain themselves with.
        case_id: the case, where there is one.
        client: its completions pass the degeneration guard before any verdict counts.
        goldens: excuse what the reference does too; None without a client.
        cases: id -> case, of every case of the model that may have a golden.
        verdicts: the verdicts taken so far.
        recorded_path: the golden that was written instead of a verdict.
        doubts: what speaks against judging by it.
        reference_knows: False where the reference does not know what was asked; then there is no
            verdict either.
    """

    criterion: Criterion
    documentation: Documentation
    case_id: str | None
    client: Client | None
    goldens: Goldens | None
    cases: Mapping[str, Case]
    verdicts: list[Verdict] = field(default_factory=list)
    recorded_path: Path | None = None
    doubts: tuple[str, ...] = ()
    reference_knows: bool = True
    _guarded: int = 0

    def __post_init__(self) -> None:
        self._guarded = len(self.client.completions) if self.client else 0

    def __call__(self, verdict: Verdict) -> None:
        """Takes a verdict.

        Raises:
            CriterionFailed: it does not hold.
            NoAnswer: an answer of this test is degenerate.
        """
        for completion, problem in self._degenerate():
            raise NoAnswer(
                f"{self.criterion.id}: what came back for {completion.case_id} is no answer: "
                f"{problem}.\n"
                f"  got: {completion.text[:200]!r}\n"
                "What to try: compare eager with graph mode, then look at attention masks and "
                "the weights' data type. Nothing measured on such an answer means anything."
            )
        self.verdicts.append(verdict)
        if not verdict.passed:
            raise CriterionFailed(
                explain(self.criterion, self.documentation, self.case_id, verdict)
            )

    def cannot_run(self, reason: str) -> NoReturn:
        """Ends the test: the criterion applies, but what it asks for is not to be had here."""
        pytest.skip(reason)

    def not_applicable(self, reason: str) -> NoReturn:
        """Ends the test: the criterion cannot apply to this model as it is declared."""
        raise NotApplicable(reason)

    def recorded(self, path: Path, doubts: tuple[str, ...] = ()) -> None:
        """Notes that a golden was written, and what is doubtful about it; nothing is judged."""
        self.recorded_path, self.doubts = path, doubts

    def _degenerate(self) -> Iterator[tuple[Completion, str]]:
        from ..criteria.degeneration import degeneration

        if self.client is None:
            return
        fresh = self.client.completions[self._guarded :]
        self._guarded = len(self.client.completions)
        for completion in fresh:
            # Goldens are read only where one may excuse something.
            if degeneration(completion) and (
                problem := degeneration(completion, self._reference_text(completion.case_id))
            ):
                yield completion, problem

    def _reference_text(self, case_id: str) -> str | None:
        case = self.cases.get(case_id)
        return self.goldens.text_of(case) if self.goldens and case else None

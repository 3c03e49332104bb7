"""Takes the verdicts of a test, and fails it if one does not pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from ..criteria.verdict import Verdict
from ..errors import ConfigurationError, CriterionFailed, NoAnswer
from ..spec.case import Case
from .explain import explain

if TYPE_CHECKING:
    from ..criteria.criterion import Criterion, Documentation
    from ..engines.client import Client
    from ..observation.answers import Completion
    from .goldens import Goldens


class NotApplicable(pytest.skip.Exception):  # type: ignore[name-defined, misc]
    """The criterion does not apply to the model as declared; the message is the reason.

    It is distinct from a skip, because a gate accepts it and does not accept a skip.
    """


@dataclass
class Judge:
    """Takes the verdicts of one test: adds them to the report, fails the test if one fails.

    Attributes:
        criterion: the criterion that the test judges.
        documentation: the criterion's documentation, quoted by the message of a failure.
        case_id: the case's id, or None.
        client: the client whose completions are checked for degenerate text before each verdict;
            None if the test sends no request.
        goldens: the goldens; text that is degenerate in the golden too is accepted. None without
            a client.
        cases: id -> case, for all cases of the model that may have a golden.
        verdicts: the verdicts taken so far.
        recorded_path: path of the golden that was written instead of a verdict, or None.
        doubts: reasons why that golden may be wrong.
        reference_knows: False if the reference does not know the answer; there is no verdict then.
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
            ConfigurationError: `verdict` is not a `Verdict`.
            CriterionFailed: the verdict does not pass.
            NoAnswer: an answer of this test is degenerate.
        """
        _require_verdict(verdict)
        for completion, problem in self._degenerate():
            raise NoAnswer(
                f"{self.criterion.id}: the answer to {completion.case_id} is degenerate: "
                f"{problem}.\n"
                f"  got: {completion.text[:200]!r}\n"
                "What to try: compare eager with graph mode, then check attention masks and the "
                "weights' data type. Measurements on such an answer are meaningless."
            )
        self.verdicts.append(verdict)
        if not verdict.passed:
            raise CriterionFailed(
                explain(self.criterion, self.documentation, self.case_id, verdict)
            )

    def cannot_run(self, reason: str) -> NoReturn:
        """Skips the test: the criterion applies, but cannot run here."""
        pytest.skip(reason)

    def not_applicable(self, reason: str) -> NoReturn:
        """Ends the test as not applicable to this model as declared."""
        raise NotApplicable(reason)

    def recorded(self, path: Path, doubts: tuple[str, ...] = ()) -> None:
        """Notes that a golden was written, and the doubts about it; the test needs no verdict."""
        self.recorded_path, self.doubts = path, doubts

    def _degenerate(self) -> Iterator[tuple[Completion, str]]:
        from ..criteria.degeneration import degeneration

        if self.client is None:
            return
        fresh = self.client.completions[self._guarded :]
        self._guarded = len(self.client.completions)
        for completion in fresh:
            # Reading a golden takes time, so it is read only if the answer looks degenerate.
            if degeneration(completion) and (
                problem := degeneration(completion, self._reference_text(completion.case_id))
            ):
                yield completion, problem

    def _reference_text(self, case_id: str) -> str | None:
        case = self.cases.get(case_id)
        return self.goldens.text_of(case) if self.goldens and case else None


def _require_verdict(value: object) -> None:
    if not isinstance(value, Verdict):
        raise ConfigurationError(
            f"judge() got {value!r}, which is not a verdict. Give it the result of at_least(), "
            "at_most(), checklist() or a judge_*() function."
        )

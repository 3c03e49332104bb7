"""What a criterion compares: the served answer to a case beside the reference's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..spec.case import Case
from .answers import Answers
from .goldens import Goldens
from .judge import Judge

if TYPE_CHECKING:
    from ..observation.answers import Completion, Reference


@dataclass(frozen=True)
class Comparison:
    """The served answers of one criterion beside the reference's.

    Attributes:
        answers: what the served model answers.
        golden: what the reference answered.
        judge: takes the criterion's verdict.
    """

    answers: Answers
    golden: Goldens
    judge: Judge

    def __call__(self, case: Case) -> tuple[Completion, Reference]:
        """Both answers to a case.

        Raises:
            GoldenError: there is no golden that holds.
            PreconditionError: the two sides saw prompts of different lengths.
            ServerError: the server refused it.
        """
        from ..criteria.baseline import require_same_prompt

        served, reference = self.answers(case), self.golden(case)
        require_same_prompt(served, reference)
        return served, reference

    def require_known(self, case: Case, unknown: Callable[[str], str | None]) -> None:
        """Ends the test as not applicable where the reference does not know what is asked.

        Args:
            case: the case.
            unknown: why the reference's answer shows that it does not know, or None.

        Raises:
            GoldenError: there is no golden that holds.
        """
        text = self.golden(case).text
        if problem := unknown(text):
            self.judge.reference_knows = False
            self.judge.not_applicable(f"{problem}; it answered {text[:80]!r}")

"""The served answer to a case together with the reference's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..spec.case import Case
from .answers import Answers
from .goldens import Goldens
from .judge import Judge

if TYPE_CHECKING:
    from ..observation.answers import Completion, Reference, TokenText


@dataclass(frozen=True)
class Comparison:
    """The served answers and the reference's, for one test.

    Attributes:
        answers: the served model's answers.
        golden: the reference's answers.
        judge: the judge of the test.
        token_text: the text of a token.
    """

    answers: Answers
    golden: Goldens
    judge: Judge
    token_text: TokenText

    def __call__(self, case: Case) -> tuple[Completion, Reference]:
        """Both answers to a case.

        Raises:
            GoldenError: the golden is missing or invalid.
            PromptDiffers: the two sides saw different prompts.
            ServerError: the server refused the request, or died.
        """
        from ..criteria.baseline import require_same_prompt

        served, reference = self.answers(case), self.golden(case)
        require_same_prompt(served, reference)
        return served, reference

    def require_known(self, case: Case, unknown_reason: Callable[[str], str | None]) -> None:
        """Ends the test as not applicable if the reference does not know the answer to a case.

        Args:
            case: the case.
            unknown_reason: gets the reference's answer; returns why it is wrong, or None.

        Raises:
            GoldenError: the golden is missing or invalid.
            NotApplicable: the reference does not know the answer.
        """
        text = self.golden(case).text
        if problem := unknown_reason(text):
            self.judge.reference_knows = False
            self.judge.not_applicable(f"{problem}; it answered {text[:80]!r}")

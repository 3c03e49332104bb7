"""The served model's answers and forced logits, requested once per case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spec.case import Case

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..observation.answers import Completion, Refusal
    from ..observation.numerics import Forced
    from .goldens import Goldens


class Answers:
    """The first greedy answer to each case, shared by all criteria."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Completion | Refusal] = {}

    def __call__(self, case: Case) -> Completion:
        """The answer to a case.

        Raises:
            ServerError: the server refused the request, or died.
        """
        from ..observation.answers import require_answer

        return require_answer(case.id, self.ask(case))

    def ask(self, case: Case) -> Completion | Refusal:
        """The answer to a case, or the HTTP error that the server returned instead."""
        from ..observation.answers import Completion

        known = self._known.get(case.id)
        if known is None:
            known = self._known[case.id] = self._client.ask(case)
        elif isinstance(known, Completion):
            # The judge checks the client's completions for degenerate text, in every test that
            # uses the answer.
            self._client.completions.append(known)
        return known


class ForcedAnswers:
    """The served model's logits for the goldens' answers, shared by all criteria."""

    def __init__(self, client: Client, goldens: Goldens) -> None:
        self._client = client
        self._goldens = goldens
        self._known: dict[str, Forced] = {}

    def __call__(self, case: Case) -> Forced:
        """The served model's logits for the golden's answer to a case.

        Raises:
            GoldenError: the golden is missing or invalid.
            PreconditionError: the server returns no prompt log-probabilities, or its prompt has
                another length.
            ServerError: the server refused the request, or died.
        """
        from ..criteria.baseline import require_same_forced_prompt

        if case.id not in self._known:
            reference, token_ids = self._goldens(case), self._goldens.numerics(case).token_ids
            forced = self._client.force(case, reference.text, token_ids)
            require_same_forced_prompt(forced, reference)
            self._known[case.id] = forced
        return self._known[case.id]

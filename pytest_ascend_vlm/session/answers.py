"""The served model's answers and forced logits, requested once per case."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..spec.case import Case

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..observation.answers import Completion, Refusal
    from ..observation.numerics import Forced
    from .goldens import Goldens


class Answers:
    """The first greedy answer to each case, asked cold; shared by all criteria."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Completion | Refusal] = {}
        self._again: dict[str, list[Completion]] = {}

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
            known = self._known[case.id] = self._client.ask(case, cold=True)
        elif isinstance(known, Completion):
            # The judge checks the client's completions for degenerate text, in every test that
            # uses the answer.
            self._client.completions.append(known)
        return known

    def prompt(self, case: Case) -> Completion | Refusal:
        """An answer to a case, for the tokens of its prompt, or the HTTP error.

        It is the known answer if there is one, otherwise an answer of one token.
        """
        known = self._known.get(case.id)
        return self._client.prompt(case) if known is None else known

    def again(self, case: Case, times: int) -> list[Completion]:
        """Further answers to a case, each asked cold.

        Raises:
            ServerError: the server refused a request, or died.
        """
        known = self._again.setdefault(case.id, [])
        self._client.completions += known
        known += [self._client.complete(case, cold=True) for _ in range(times - len(known))]
        return known[:times]


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
            PreconditionError: the server returns no prompt log-probabilities, or its prompt
                differs.
            ServerError: the server refused the request, or died.
        """
        if case.id not in self._known:
            self._known[case.id] = self.again(case)
        return self._known[case.id]

    def again(self, case: Case) -> Forced:
        """The forced scores of a case, computed again: the request is cold.

        Raises:
            GoldenError, PreconditionError, ServerError: as for the first computation.
        """
        from ..criteria.baseline import require_same_forced_prompt

        reference, token_ids = self._goldens(case), self._goldens.numerics(case).token_ids
        forced = self._client.force(case, reference.text, token_ids)
        require_same_forced_prompt(forced, reference)
        return forced

    def together(self, cases: Sequence[Case]) -> list[Forced]:
        """The forced scores of several cases, with cold requests that are all sent at once.

        Raises:
            GoldenError, PreconditionError, ServerError: as for a single computation.
        """
        with ThreadPoolExecutor(len(cases)) as pool:
            return list(pool.map(self.again, cases))

"""The served model's answers to one model's cases, each asked for once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spec.case import Case

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..observation.answers import Completion, Refusal
    from ..observation.numerics import Forced
    from .goldens import Goldens


class Answers:
    """The first greedy answer to each case; criteria share it instead of asking again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Completion | Refusal] = {}

    def __call__(self, case: Case) -> Completion:
        """The answer to a case.

        Raises:
            ServerError: the server refused it.
        """
        from ..observation.answers import require_answer

        return require_answer(case.id, self.ask(case))

    def ask(self, case: Case) -> Completion | Refusal:
        """The answer to a case, or the HTTP error that came instead."""
        from ..observation.answers import Completion

        known = self._known.get(case.id)
        if known is None:
            known = self._known[case.id] = self._client.ask(case)
        elif isinstance(known, Completion):
            # Every test that uses an answer guards it, not only the one that came first.
            self._client.completions.append(known)
        return known


class ForcedAnswers:
    """What the served model thinks of the references' answers; criteria share it."""

    def __init__(self, client: Client, goldens: Goldens) -> None:
        self._client = client
        self._goldens = goldens
        self._known: dict[str, Forced] = {}

    def __call__(self, case: Case) -> Forced:
        """What it thinks of the reference's answer to a case.

        Raises:
            PreconditionError: the server does not tell, or saw a prompt of another length.
            ServerError: it refused the request.
        """
        from ..criteria.baseline import require_same_forced_prompt

        if case.id not in self._known:
            reference, token_ids = self._goldens(case), self._goldens.numerics(case).token_ids
            forced = self._client.force(case, reference.text, token_ids)
            require_same_forced_prompt(forced, reference)
            self._known[case.id] = forced
        return self._known[case.id]

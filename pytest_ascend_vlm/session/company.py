"""Requests with different parameters, asked alone and at one moment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..engines.vllm.metrics import watch_running
from ..observation.answers import Refusal, require_answer
from ..observation.parameters import UnsuitedError
from ..spec.case import Case
from .parameters import Fields, ParameterRuns

if TYPE_CHECKING:
    from ..criteria.company import Member, Neighbour


@dataclass(frozen=True)
class Wish:
    """A request that is to be in the crowd.

    Attributes:
        name: its name in a verdict.
        case: the case that it asks.
        member: its parameters.
    """

    name: str
    case: Case
    member: Member


@dataclass(frozen=True)
class _Asked:
    """A request with its answer alone, which `neighbour` has in place of that among others too."""

    case: Case
    fields: Fields
    neighbour: Neighbour


@dataclass(frozen=True)
class Company:
    """Greedy requests and requests with parameters.

    Attributes:
        runs: asks a request alone.
        left_out: name of a request -> why it is not among the others.
    """

    runs: ParameterRuns
    left_out: dict[str, str] = field(default_factory=dict)

    def ask(
        self, greedy: Iterable[Wish], others: Iterable[Wish]
    ) -> tuple[list[Neighbour], int | None]:
        """The answers to requests alone and at one moment.

        A request that the server refuses alone, or whose parameters have no effect alone, is left
        out. If the server fails at a lone request, the result is this request alone.

        Returns:
            The requests; the most that the server was seen to compute at once, None if it does not
            tell.

        Raises:
            PreconditionError: a reply lacks what a rule needs.
            ServerError: the server died, or refused a request that it had answered before.
            UnsuitedError: no greedy request, or no other one, is left.
        """
        sides: tuple[list[_Asked], list[_Asked]] = ([], [])
        for side, wishes in zip(sides, (greedy, others), strict=True):
            for one in filter(None, map(self._alone, wishes)):
                if isinstance(one.neighbour.together, Refusal):
                    return [one.neighbour], None
                side.append(one)
        if not all(sides):
            raise UnsuitedError("; ".join(self.left_out.values()))
        everyone = [*sides[0], *sides[1]]
        endpoint = self.runs.client.endpoint
        return watch_running(endpoint, lambda: self._together(everyone))

    def _alone(self, wish: Wish) -> _Asked | None:
        from ..criteria.company import Neighbour, effect_problem

        parameter, plain_fields = wish.member.parameter, wish.member.plain
        try:
            plain = self.runs.answer(wish.case, plain_fields)
            fields = parameter.fields(plain)
        except UnsuitedError as error:
            self.left_out[wish.name] = str(error)
            return None
        alone = self.runs.client.ask_with(wish.case, fields)
        if isinstance(alone, Refusal):
            if alone.status >= 500:
                failed = Neighbour(wish.name, parameter, plain, plain, alone)
                return _Asked(wish.case, fields, failed)
            problem: str | None = str(alone)
        else:
            problem = effect_problem(parameter, plain, alone)
            if problem is None:
                neighbour = Neighbour(wish.name, parameter, plain, alone, alone)
                return _Asked(wish.case, fields, neighbour)
        self.left_out[wish.name] = f"{wish.name}: {problem}"
        return None

    def _together(self, asked: list[_Asked]) -> list[Neighbour]:
        def ask(one: _Asked) -> Neighbour:
            reply = self.runs.client.ask_with(one.case, one.fields)
            if not (isinstance(reply, Refusal) and reply.status >= 500):
                reply = require_answer(one.neighbour.name, reply)
            return dataclasses.replace(one.neighbour, together=reply)

        with ThreadPoolExecutor(len(asked)) as pool:
            return list(pool.map(ask, asked))

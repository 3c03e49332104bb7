"""Request parameters, tried on a served model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import PreconditionError
from ..observation.answers import Completion, require_answer
from ..observation.parameters import Trials, Tried
from ..spec.case import Case

if TYPE_CHECKING:
    from ..criteria.parameters import Parameter
    from ..engines.client import Client

Fields = Mapping[str, Any]

_TEMPERATURE = 2.0  # the highest that vLLM accepts
_SEEDS = range(1, 9)  # a certain answer changes with few of them


@dataclass(frozen=True)
class ParameterRuns:
    """Request parameters, tried on a served model; shared by all tests of a class.

    Attributes:
        client: the client of the served model.
    """

    client: Client
    _known: dict[tuple[str, str], Completion] = field(default_factory=dict)

    def plain(self, case: Case, fields: Fields) -> Completion:
        """The answer to a case with some fields; each is asked once.

        Raises:
            ServerError: the server refused the request, or died.
        """
        key = case.id, str(fields)
        if key not in self._known:
            self._known[key] = require_answer(case.id, self.client.ask_with(case, fields))
        return self._known[key]

    def hot(self, case: Case) -> Fields:
        """The fields of a request whose sampled answer is not the greedy one.

        Raises:
            PreconditionError: sampling gives the greedy answer every time.
            ServerError: the server refused a request, or died.
        """
        greedy = self.plain(case, {})
        for seed in _SEEDS:
            fields = {"temperature": _TEMPERATURE, "seed": seed}
            if self.plain(case, fields).text != greedy.text:
                return fields
        raise PreconditionError(
            f"{case.id}: samples at temperature {_TEMPERATURE:g} are the greedy answer "
            f"{greedy.text!r}, so a limit of sampling cannot be judged."
        )

    def tried(
        self,
        parameter: Parameter,
        plain: Mapping[str, Completion],
        cases: Sequence[Case],
        beside: Callable[[Case], Fields] = lambda _: {},
    ) -> Trials:
        """Tries a parameter on cases, unstreamed and streamed.

        Args:
            parameter: the parameter.
            plain: case id -> the answer without the parameter.
            cases: the cases.
            beside: makes the fields that are sent beside the parameter.

        Raises:
            ServerError: the server died, or refused a streamed request that it had answered.
        """
        tried, unsuited = [], {}
        for case in cases:
            try:
                fields = {**beside(case), **parameter.fields(plain[case.id])}
            except PreconditionError as error:
                unsuited[case.id] = str(error)
                continue
            tried.append(self._try(case, plain[case.id], fields))
        return Trials(tuple(tried), unsuited)

    def _try(self, case: Case, plain: Completion, fields: Fields) -> Tried:
        whole = self.client.ask_with(case, fields)
        is_answer = isinstance(whole, Completion)
        return Tried(
            fields, plain, whole, self.client.stream_with(case, fields) if is_answer else None
        )

"""Request parameters, tried on a served model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..observation.answers import Completion, Refusal, require_answer
from ..observation.parameters import Trial, Trials, UnsuitedError
from ..spec.case import Case

if TYPE_CHECKING:
    from ..criteria.parameters import Parameter, SamplingLimit
    from ..engines.client import Client

Fields = Mapping[str, Any]

_HIGHEST_TEMPERATURE = 2.0  # that vLLM accepts
_SEEDS = range(1, 9)  # a confident model repeats its answer under most seeds


@dataclass(frozen=True)
class ParameterRuns:
    """Request parameters, tried on a served model; shared by all tests of a class.

    Attributes:
        client: the client of the served model.
        may_lack: True if the server may be one that does not have every parameter. Each supported
            release of vLLM has them, but for some with speculative decoding.
    """

    client: Client
    may_lack: bool
    _known: dict[tuple[str, str], Completion] = field(default_factory=dict)

    def answer(self, case: Case, fields: Fields) -> Completion:
        """The answer to a case with some fields; each is asked once.

        Raises:
            ServerError: the server refused the request, or died.
        """
        key = case.id, str(fields)
        if key not in self._known:
            self._known[key] = require_answer(case.id, self.client.ask_with(case, fields))
        return self._known[key]

    def sampling(self, case: Case) -> Fields:
        """The fields of a request whose sampled answer is not the greedy one.

        Raises:
            PreconditionError: the server returns no token ids.
            ServerError: the server refused a request, or died.
            UnsuitedError: sampling gives the greedy answer every time.
        """
        from ..criteria.parameters import token_ids

        greedy = token_ids(self.answer(case, {}))

        def differs(answer: Completion) -> bool:
            return token_ids(answer) != greedy

        return self._sampled(case, _HIGHEST_TEMPERATURE, differs)[0]

    def trials(
        self,
        parameter: Parameter,
        plain: Mapping[Case, Completion],
        others: Callable[[Case], Fields] = lambda _: {},
    ) -> Trials:
        """Tries a parameter on cases, unstreamed and streamed.

        Args:
            parameter: the parameter.
            plain: case -> the answer without the parameter.
            others: makes the fields that are sent besides the parameter.

        Raises:
            PreconditionError: a plain answer lacks what the parameter's rule needs.
            ServerError: the server died, or refused a streamed request that it had answered.
        """
        tried: list[Trial] = []
        unsuited: dict[str, str] = {}
        for case, answer in plain.items():
            try:
                fields = {**others(case), **parameter.fields(answer)}
            except UnsuitedError as error:
                unsuited[case.id] = str(error)
                continue
            unstreamed = self.client.ask_all_with(case, fields)
            is_refused = isinstance(unstreamed, Refusal)
            streamed = () if is_refused else self.client.stream_all_with(case, fields)
            tried.append(Trial(fields, answer, unstreamed, streamed))
        return Trials(tuple(tried), unsuited, self.may_lack)

    def sampled_trials(self, limit: SamplingLimit, cases: Iterable[Case]) -> Trials:
        """Tries a limit on answers that are sampled at temperature 1; not streamed.

        Raises:
            PreconditionError: a reply has no token ids or no log-probabilities.
            ServerError: the server died, or refused a request without the limit.
        """
        tried: list[Trial] = []
        unsuited: dict[str, str] = {}
        for case in cases:
            try:
                others, plain = self._sampled(case, 1.0, limit.acts_on)
            except UnsuitedError as error:
                unsuited[case.id] = str(error)
                continue
            fields = {**others, **limit.fields}
            tried.append(Trial(fields, plain, self.client.ask_all_with(case, fields), ()))
        return Trials(tuple(tried), unsuited, self.may_lack)

    def _sampled(
        self, case: Case, temperature: float, is_suited: Callable[[Completion], bool]
    ) -> tuple[Fields, Completion]:
        for seed in _SEEDS:
            fields = {"temperature": temperature, "seed": seed}
            answer = self.answer(case, fields)
            if is_suited(answer):
                return fields, answer
        raise UnsuitedError(
            f"{case.id}: {len(_SEEDS)} samples at temperature {temperature:g} have no token that "
            f"would change, such as {answer.text!r}"
        )

"""Measures one model's numbers: each thing when it is first asked for, and once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ServerError
from ..spec.case import Case
from ..spec.model import Variant
from .answers import ForcedAnswers
from .device_slot import DeviceSlot, VariantRun
from .goldens import Goldens
from .memo import Memo

if TYPE_CHECKING:
    from ..criteria.error_statistics import ErrorStatistics
    from ..engines.vllm.offline import OfflineResult
    from ..observation.answers import Completion, Reference
    from ..observation.numerics import Forced


class NumericsSession:
    """The numbers of one model, without its server.

    Attributes:
        slot: where engines and other servers run.
        references: every reference that has numbers, by case id.
    """

    def __init__(
        self, slot: DeviceSlot, cases: tuple[Case, ...], golden: Goldens, tasks: Collection[str]
    ) -> None:
        """Nothing is measured yet.

        Args:
            slot: where engines and other servers run.
            cases: those whose reference has numbers.
            golden: the references.
            tasks: what the selected criteria will ask of the offline engines.
        """
        self.slot = slot
        self.cases = cases
        self.references: Mapping[str, Reference] = {case.id: golden(case) for case in cases}
        self._golden = golden
        self._planned = frozenset(tasks)
        self._jobs: dict[frozenset[str], Memo[OfflineResult]] = {}
        self._variants = {
            variant.name: Memo(partial(self._serve, variant))
            for variant in slot.session.model.variants
        }

    def logits(self, seen: Callable[[Case], Forced]) -> ErrorStatistics:
        """How far logits are from the reference's, over all cases."""
        from ..criteria.comparison import compare_logits
        from ..criteria.error_statistics import ErrorStatistics

        return ErrorStatistics(
            [compare_logits(seen(case), self._golden.numerics(case)) for case in self.cases]
        )

    def hidden_states(self) -> ErrorStatistics:
        """How far the pooling runner's hidden states are from the reference's.

        Raises:
            ServerError: the pooling runner failed.
        """
        return self._hidden_states(self._done("hidden_states").hidden_states)

    def operators(self) -> dict[str, ErrorStatistics]:
        """How far Transformers on the device is: its "logits" and its "hidden_states".

        Raises:
            ServerError: it failed.
        """
        seen = self._done("transformers")
        return {
            "logits": self.logits(lambda case: seen.transformers[case.id]),
            "hidden_states": self._hidden_states(seen.transformers_hidden_states),
        }

    def float32(self) -> ErrorStatistics:
        """How far the engine's logits are in float32.

        Raises:
            ServerError: it failed.
        """
        seen = self._done("float32")
        return self.logits(lambda case: seen.float32[case.id])

    def offline_answers(self) -> Mapping[str, Completion]:
        """The answers of `LLM.chat`, by case id.

        Raises:
            ServerError: it failed.
        """
        return self._done("chat").answers

    def variant(self, variant: Variant) -> VariantRun:
        """What is seen of a variant's server.

        Raises:
            ServerError: it did not start, or refused a request.
        """
        return self._variants[variant.name]()

    def _hidden_states(self, states: Mapping[str, Any]) -> ErrorStatistics:
        from ..criteria.comparison import compare_hidden_states
        from ..criteria.error_statistics import ErrorStatistics

        return ErrorStatistics(
            [
                compare_hidden_states(states[case.id], self._golden.numerics(case), case.id)
                for case in self.cases
            ]
        )

    def _done(self, task: str) -> OfflineResult:
        """What the offline engines made, if this task of theirs went well.

        One process does all that is planned. A task that is not, because no criterion that needs
        it is selected, gets a process of its own: what it says is the same as if it had been.
        """
        tasks = self._planned if task in self._planned else frozenset({task})
        result = self._jobs.setdefault(tasks, Memo(partial(self._run_offline, tasks)))()
        if task in result.errors:
            raise ServerError(f"the offline task {task!r} failed: {result.errors[task]}")
        return result

    def _run_offline(self, tasks: frozenset[str]) -> OfflineResult:
        log = "-".join(["offline", *(tasks - self._planned)])
        requests = [(case, self.references[case.id].text) for case in self.cases]
        return self.slot.offline(log, tasks, requests)

    def _serve(self, variant: Variant) -> VariantRun:
        with self.slot.variant(variant) as client:
            forced = ForcedAnswers(client, self._golden)
            return VariantRun(
                {case.id: client.complete(case) for case in self.cases},
                {case.id: forced(case) for case in self.cases},
            )

"""Numerical measurements of one model by offline engines and variants, each made once."""

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
    from ..engines.client import Client
    from ..engines.vllm.offline import OfflineResult
    from ..observation.answers import Completion, Reference
    from ..observation.numerics import Forced


class NumericsSession:
    """Numerical measurements of one model; its own server is stopped while they run.

    Attributes:
        slot: the devices of the engines and servers.
        cases: the cases whose reference has logits and hidden states.
        references: the references of these cases, by case id.
    """

    def __init__(
        self, slot: DeviceSlot, cases: tuple[Case, ...], golden: Goldens, tasks: Collection[str]
    ) -> None:
        """Sets up; measures nothing yet.

        Args:
            slot: the devices of the engines and servers.
            cases: the cases whose reference has logits and hidden states.
            golden: the references.
            tasks: the offline tasks that the selected criteria need.
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

    def logits(self, forced: Callable[[Case], Forced]) -> ErrorStatistics:
        """The error of forced logits against the reference's, over all cases.

        Args:
            forced: returns the logits of a case.
        """
        from ..criteria.comparison import compare_logits
        from ..criteria.error_statistics import ErrorStatistics

        return ErrorStatistics(
            [compare_logits(forced(case), self._golden.numerics(case)) for case in self.cases]
        )

    def hidden_states(self) -> ErrorStatistics:
        """The error of the pooling runner's hidden states against the reference's.

        Raises:
            ServerError: the pooling runner failed.
        """
        return self._hidden_states(self._result("hidden_states").hidden_states)

    def operators(self) -> dict[str, ErrorStatistics]:
        """The errors of Transformers on the device: of its "logits" and its "hidden_states".

        Raises:
            ServerError: Transformers failed.
        """
        result = self._result("transformers")
        return {
            "logits": self.logits(lambda case: result.transformers[case.id]),
            "hidden_states": self._hidden_states(result.transformers_hidden_states),
        }

    def float32(self) -> ErrorStatistics:
        """The error of vLLM's logits in float32 against the reference's.

        Raises:
            ServerError: the float32 engine failed.
        """
        result = self._result("float32")
        return self.logits(lambda case: result.float32[case.id])

    def offline_answers(self) -> Mapping[str, Completion]:
        """The answers of `LLM.chat`, by case id.

        Raises:
            ServerError: the offline engine failed.
        """
        return self._result("chat").answers

    def variant(self, variant: Variant) -> VariantRun:
        """The answers and forced logits of a variant's server.

        Raises:
            ServerError: the server did not start, or refused a request.
        """
        return self._variants[variant.name]()

    def variant_arguments(self, variant: Variant) -> Mapping[str, Any]:
        """The serve arguments that make a variant, as this platform adapts them."""
        served = self.slot.session.variant(variant).arguments.deployment
        return {name: served[name] for name in variant.serve if name in served}

    def _hidden_states(self, states: Mapping[str, Any]) -> ErrorStatistics:
        from ..criteria.comparison import compare_hidden_states
        from ..criteria.error_statistics import ErrorStatistics

        return ErrorStatistics(
            [
                compare_hidden_states(states[case.id], self._golden.numerics(case), case.id)
                for case in self.cases
            ]
        )

    def _result(self, task: str) -> OfflineResult:
        """The result of the offline engines that contains a task.

        One process runs all planned tasks, those of the selected criteria. Any other task runs in a
        process of its own, with the same result.

        Raises:
            ServerError: the task failed.
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
        from ..engines.vllm.metrics import measure

        is_cached = bool(self.variant_arguments(variant).get("enable_prefix_caching"))
        with self.slot.variant(variant) as (client, server):
            forced = ForcedAnswers(client, self._golden)
            answers, counted = measure(
                client.endpoint, partial(self._answers, client, again=is_cached)
            )
            logits = {case.id: forced(case) for case in self.cases}
            return VariantRun(answers, logits, server.mode, counted.draft_tokens)

    def _answers(self, client: Client, *, again: bool) -> dict[str, Completion]:
        """The answer to each case; `again` for the second one, to a prompt that is in the cache."""
        if again:
            self._answers(client, again=False)
        return {case.id: client.complete(case) for case in self.cases}

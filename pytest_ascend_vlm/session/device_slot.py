"""Ensures that only one server or offline engine of a model occupies its devices at any time."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..progress import Step
from ..spec.case import Case
from ..spec.model import Variant
from .endpoints import judged_server
from .model import ModelSession
from .server_facts import ServerFacts, in_registry, model_facts, server_facts, variant_facts

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..engines.endpoint import Server
    from ..engines.vllm.log import Phase
    from ..engines.vllm.offline import OfflineResult
    from ..observation.answers import Completion
    from ..observation.numerics import Forced
    from ..observation.serving_mode import ServingMode
    from ..platforms.base import Allocation


@contextlib.contextmanager
def allocate(session: ModelSession) -> Iterator[Allocation]:
    """Allocates devices for the servers of a model and of its variants; leases cards.

    The number of devices is that of the largest variant that this host has enough cards for.

    Raises:
        ConfigurationError: the host is configured wrongly, or has too few cards.
    """
    platform = session.run.platform
    if reason := platform.misconfigured_reason():
        raise ConfigurationError(reason)
    variants = [session.variant(variant) for variant in session.model.variants]
    fitting = [variant for variant in variants if variant.lacks_cards_reason is None]
    largest = max((one.model for one in (session, *fitting)), key=lambda model: model.devices)
    with platform.allocate(largest, session.run.progress("cards")) as allocation:
        yield allocation


@dataclasses.dataclass(frozen=True)
class VariantRun:
    """The results of a variant's server.

    Attributes:
        answers: the answer to each case.
        forced: the logits of each case's golden answer.
        mode: what the server tells about the way it serves.
        draft_tokens: the draft tokens of the answers; None if the server counts none.
    """

    answers: Mapping[str, Completion]
    forced: Mapping[str, Forced]
    mode: ServingMode
    draft_tokens: float | None


@dataclasses.dataclass
class DeviceSlot:
    """The devices of one model; its servers and offline engines run there one at a time.

    Attributes:
        session: the model.
        suite_class: name of the test class that uses the devices.
        allocation: the devices.
        server: the model's own server; None before `own_server` was called.
        requests: number of requests that the server got from clients that are closed.
    """

    session: ModelSession
    suite_class: str
    allocation: Allocation
    server: Server | None = None
    requests: int = 0

    @property
    def starts_engines(self) -> bool:
        """True if the suite starts the servers and engines, instead of judging an endpoint."""
        return self.session.run.options.server_url is None

    @property
    def label(self) -> str:
        """Prefix of the names of its log files."""
        return f"{self.session.model.slug}-{self.suite_class}"

    def own_server(self) -> Server:
        """The model's own server, created on the first call; the caller starts it."""
        if self.server is None:
            self.server = self._server(self.session)
        return self.server

    def release_server(self) -> None:
        """Stops the model's own server; the next request of a test starts it again."""
        if self.server is not None:
            self.server.stop()

    def record_facts(self) -> None:
        """Records the model's facts, and those of its own server if there is one."""
        run, model = self.session.run, self.session.model
        checkpoint = self.session.checkpoint if self.starts_engines else None
        of_model = model_facts(model, run.options.checkpoint, checkpoint, self.allocation.cards)
        self._record({**of_model, "cases": self.session.case_facts()})
        if self.server is not None:
            known = in_registry(self.server, of_model["card"])
            self._record({**server_facts(self.server, self.requests), "in_registry": known})

    @contextlib.contextmanager
    def variant(self, variant: Variant) -> Iterator[tuple[Client, Server]]:
        """Serves a variant instead of the model for the duration of the context.

        Raises:
            ServerError: the variant's server does not start.
        """
        from ..engines.client import Client

        self.release_server()
        server = self._server(self.session.variant(variant), variant.name)
        try:
            server.start()
            with contextlib.closing(Client(server.endpoint, server.explain_loss)) as client:
                try:
                    yield client, server
                finally:
                    facts = variant_facts(server, client.requests)
                    self._record({"variants": {variant.name: facts}})
        finally:
            server.stop()

    def offline(
        self, log: str, tasks: Collection[str], requests: Sequence[tuple[Case, str]]
    ) -> OfflineResult:
        """Runs tasks of the offline engines, after stopping the model's own server.

        Args:
            log: suffix of the log's name.
            tasks: names of the tasks, a subset of `TASKS`. float32 is left out on platforms that
                do not serve it.
            requests: cases, each with the answer to force.
        """
        from ..engines.vllm import offline
        from ..engines.vllm.offline_worker import TASKS, Job

        self.release_server()
        model, platform = self.session.model, self.session.run.platform
        skipped = set() if platform.serves_float32 else {"float32"}
        job = Job(
            model_path=self.session.checkpoint.path,
            trust_remote_code=model.trust_remote_code,
            platform=platform.name,
            devices=model.devices,
            tasks=tuple(task for task in TASKS if task in tasks and task not in skipped),
            serve=self.session.arguments.all,
            cases=tuple(requests),
        )
        return offline.run(
            job,
            {**platform.environment(model), **self.allocation.env},
            self.session.run.logs.directory / f"{self.label}-{log}.log",
            self.session.run.on_step,
            len(job.tasks) * model.budgets.whole_start,
        )

    def _server(self, session: ModelSession, name: str = "") -> Server:
        """Creates a server of the model or of a variant; does not start it.

        Args:
            session: the model or the variant.
            name: the variant's name; empty for the model.
        """
        from ..engines.vllm.server import Launch, VllmServer, budget_of

        run, model = session.run, session.model
        label, what = self.label, "server"
        if name:
            label, what = f"{label}-{name}", f"{what} {name}"
        if run.options.server_url is not None:
            return judged_server(run, run.options.server_url, model.model_id)

        def on_phase(phase: Phase, seconds: float) -> None:
            budget = budget_of(model.budgets, phase)
            run.on_step(Step(f"{what}: {phase.value}", "", seconds, budget))

        launch = Launch(
            model_path=session.checkpoint.path,
            served_name=model.model_id,
            serve=session.arguments.deployment,
            suite_serve=session.arguments.suite,
            env=run.platform.environment(model),
            device_env=self.allocation.env,
            budgets=model.budgets,
            log_path=run.logs.directory / f"{label}.log",
        )
        used = self.allocation.memory_used_mib
        return VllmServer(launch, session.first_request, on_phase, used)

    def _record(self, facts: dict[str, object]) -> None:
        model_id = self.session.model.model_id
        self.session.run.record_server(ServerFacts(model_id, self.suite_class, facts))

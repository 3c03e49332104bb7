"""One test run: its options, platform and cases, and how a model of it is served."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from .. import gate
from ..errors import CheckpointError, ConfigurationError
from ..integration.options import Options
from ..platforms import Platform, select_platform
from ..platforms.base import installed_versions
from ..platforms.endpoint import Remote
from ..spec.case_files import load_cases, untaught
from ..spec.model import Case, ModelSpec, Variant
from ..writing import unwritable
from .launch import LaunchArguments, launch_arguments
from .run_logs import RunLogs, new_name

if TYPE_CHECKING:
    from ..checkpoints.find import Checkpoint
    from ..engines.endpoint import Server
    from ..engines.transformers.reference import TransformersReference
    from ..engines.vllm.offline import OfflineResult
    from ..golden.store import GoldenKey, GoldenStore
    from ..platforms.base import Place

RUN = pytest.StashKey["Run"]()


class Run:
    """What all models of a run share.

    Attributes:
        options: what was asked for.
        platform: where models are served.
        say: shows a line of progress; replaced by the next one where the terminal can.
        logs: where its servers log.
        model_records: facts of servers that ended, for the report.
    """

    def __init__(
        self, options: Options, say: Callable[[str], None], name: str | None = None
    ) -> None:
        """Args: name: the run's, where a worker is part of one that has it already."""
        self.options = options
        self.say = say
        self.logs = RunLogs(options.log_dir, name or new_name())
        self.platform: Platform = (
            Remote(options.server_url)
            if options.server_url is not None
            else select_platform(options.platform)
        )
        self.model_records: list[dict[str, Any]] = []
        self._checkpoints: dict[str, Checkpoint] = {}
        self._untaught: dict[str, Mapping[str, str]] = {}
        self._since = time.monotonic()

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """Every case of the project and of the package."""
        return load_cases(self.options.fixture_roots)

    @cached_property
    def unavailable(self) -> str | None:
        """Why no server can run here, or None."""
        return self.platform.unavailable()

    @cached_property
    def _visible_cards(self) -> int | None:
        return self.platform.visible_cards()

    def lacks_cards(self, model: ModelSpec) -> str | None:
        """Why this host is too small for a model, or None."""
        if self._visible_cards is None or model.npus <= self._visible_cards:
            return None
        return f"{model.model_id} needs {model.npus} cards, {self._visible_cards} are visible here"

    def same_here(self, model: ModelSpec, variant: Variant) -> str | None:
        """Why serving a variant would say nothing here, or None."""
        if self.options.server_url is not None:
            return None  # nothing is served here; that is no property of the model
        if variant.checkpoint:
            tiny = self.options.checkpoint == "tiny"
            return "there is no tiny checkpoint of its own weights" if tiny else None
        if self.arguments(model.as_variant(variant)) != self.arguments(model):
            return None
        return f"on the platform {self.platform.name} it is served as the model is"

    def arguments(self, model: ModelSpec) -> LaunchArguments:
        """The arguments that a model is launched with in this run."""
        return launch_arguments(model, self.platform)

    @property
    def starts_servers(self) -> bool:
        """Whether models are served here, and not by someone else or not at all."""
        options = self.options
        return options.server_url is None and not options.record and self.unavailable is None

    def require_setup(self, wanted: Container[str]) -> None:
        """What tests need that is not the model's: an endpoint that answers, a place for logs.

        Args:
            wanted: names of the fixtures that tests will take.

        Raises:
            ConfigurationError: it is not there; the message says what to type.
        """
        from ..engines.first_contact import Contact, require_answer

        options = self.options
        endpoints = {"server": ("--vlm-server-url", options.server_url)}
        endpoints["measuring"] = ("--vlm-compare-url", options.compare_url)
        for fixture, (option, url) in endpoints.items():
            if url is not None and fixture in wanted:
                require_answer(Contact(option, url, options.api_key))
        writes = self.starts_servers if "server" in wanted else options.record
        if writes and (why := unwritable(options.log_dir)):
            raise ConfigurationError(
                f"nothing can be written to {options.log_dir} ({why}); name another directory with "
                "--vlm-log-dir=DIR"
            )

    def cases_for(self, model: ModelSpec, group: str) -> tuple[Case, ...]:
        """The cases of a group ("text", "image", "all", ...) that this checkpoint can be asked."""
        declared = self.declared_cases(model, group)
        return tuple(case for case in declared if self.untaught(model, case) is None)

    def declared_cases(self, model: ModelSpec, group: str) -> tuple[Case, ...]:
        """The cases of a group that the model's capabilities cover, whatever the checkpoint."""
        if self.lacks_checkpoint(model):
            return ()
        asked = (model.request(case) for case in self.cases if case.needs in model.supports)
        return tuple(case for case in asked if _belongs(case, group))

    def lacks_checkpoint(self, model: ModelSpec) -> bool:
        """Whether another model of the family stands for this one's architecture."""
        return self.options.checkpoint == "tiny" and model.tiny is None

    def untaught(self, model: ModelSpec, case: Case) -> str | None:
        """Why a tiny checkpoint cannot answer a case, or None where it can."""
        if self.options.checkpoint != "tiny":
            return None
        if model.model_id not in self._untaught:
            try:
                self._untaught[model.model_id] = untaught(self.checkpoint(model).path)
            except CheckpointError:  # told when the checkpoint is needed
                self._untaught[model.model_id] = {}
        reasons = self._untaught[model.model_id]
        return reasons.get(case.id, reasons.get(case.group))

    def checkpoint(self, model: ModelSpec) -> Checkpoint:
        """The checkpoint a model runs with."""
        from ..checkpoints.find import find_checkpoint

        options = self.options
        if model.model_id not in self._checkpoints:
            self._checkpoints[model.model_id] = find_checkpoint(
                model, options.checkpoint, options.fixture_roots, options.weights_root
            )
        return self._checkpoints[model.model_id]

    def golden_key(self, model: ModelSpec) -> GoldenKey:
        """Which goldens a model is judged by."""
        from ..golden.store import GoldenKey

        known = self.options.server_url is None
        digest = self.checkpoint(model).weights_sha256 if known else None
        return GoldenKey(model, self.options.checkpoint, digest)

    def golden_store(self, test_path: str) -> GoldenStore:
        """The goldens, with the command that records those of a test file."""
        from ..golden.store import GoldenStore

        weights = self.options.weights_root
        words = ["pytest", test_path, "-m", "cpu_baseline", "--vlm-record"]
        words.append(f"--vlm-checkpoint={self.options.checkpoint}")
        if weights is not None:
            words.append(f"--vlm-weights-root={weights}")
        return GoldenStore(self.options.golden_roots, shlex.join(words))

    def offline(
        self,
        model: ModelSpec,
        label: str,
        place: Place,
        tasks: Collection[str],
        requests: Sequence[tuple[Case, str]],
    ) -> OfflineResult:
        """What the offline engines of a model make of requests and their forced answers."""
        from ..engines.vllm import offline
        from ..engines.vllm.offline_worker import TASKS, Job

        job = Job(
            model_path=self.checkpoint(model).path,
            trust_remote_code=model.trust_remote_code,
            device=self.platform.torch_device or "cpu",
            tasks=tuple(task for task in TASKS if task in tasks and self._does(task)),
            serve=self.arguments(model).all,
            cases=tuple(requests),
        )
        budgets = dataclasses.astuple(model.budgets)
        return offline.run(
            job,
            {**self.platform.environment(model), **place.env},
            self.logs.directory / f"{label}.log",
            lambda doing: self.say(f"{model.model_id}: {doing}"),
            len(job.tasks) * sum(budgets),
        )

    def _does(self, task: str) -> bool:
        return task != "float32" or self.platform.serves_float32

    def place(self, model: ModelSpec) -> AbstractContextManager[Place]:
        """Where servers of a model run; on cards, they are nobody else's meanwhile.

        There are as many as its largest variant needs that this host has cards for.

        Raises:
            ConfigurationError: something about this host is wrong, and says what.
        """
        if problem := self.platform.misconfigured():
            raise ConfigurationError(problem)
        variants = (model.as_variant(variant) for variant in model.variants)
        fitting = [variant for variant in variants if not self.lacks_cards(variant)]
        largest = max([model, *fitting], key=lambda one: one.npus)
        return self.platform.place(largest, self.say)

    def server(self, model: ModelSpec, log_name: str, place: Place) -> Server:
        """A server of a model, not started yet."""
        from ..engines.endpoint import Endpoint, RunningServer
        from ..engines.vllm.server import Launch, Phase, VllmServer

        if self.options.server_url is not None:
            endpoint = Endpoint(self.options.server_url, model.model_id, self.options.bearer)
            return RunningServer(endpoint)

        def progress(phase: Phase, seconds: float) -> None:
            self.say(f"{model.model_id}: {phase.value} {seconds:.0f} s")

        arguments = self.arguments(model)
        launch = Launch(
            model_path=self.checkpoint(model).path,
            served_name=model.model_id,
            serve=arguments.deployment,
            suite_serve=arguments.suite,
            env=self.platform.environment(model),
            device_env=place.env,
            budgets=model.budgets,
            log_path=self.logs.directory / f"{log_name}.log",
        )
        first = self._first_request(model)
        return VllmServer(launch, first, progress, place.memory_used_mib)

    def note_server(self, model: ModelSpec, server: Server, place: Place) -> None:
        """Notes the facts of a server that ended, for the report."""
        checkpoint = None if self.options.server_url else self.checkpoint(model)
        self.model_records.append(
            {
                "model": model.model_id,
                "checkpoint": self.options.checkpoint,
                "revision": checkpoint.revision if checkpoint else None,
                "weights_sha256": checkpoint.weights_sha256 if checkpoint else None,
                "serve_command": server.serve_command,
                "suite_arguments": server.suite_arguments,
                "env": dict(model.env),
                "cards": list(place.cards),
                "published": _published(model),
                "phases_seconds": {k: round(v, 2) for k, v in server.phases_seconds.items()},
                "server_starts": server.starts,
            }
        )

    def note_other(self, model: ModelSpec, name: str, server: Server, requests: int) -> None:
        """Notes the facts of a variant's server that is about to end, for the report."""
        facts = {
            "serve_command": server.serve_command,
            "phases_seconds": {k: round(v, 2) for k, v in server.phases_seconds.items()},
            "requests": requests,
        }
        self.model_records.append({"model": model.model_id, "variants": {name: facts}})

    def reference_engine(self, model: ModelSpec) -> TransformersReference:
        """The reference engine of a model; its weights are loaded when it is asked."""
        from ..engines.transformers.reference import TransformersReference

        return TransformersReference(
            self.checkpoint(model).path,
            trust_remote_code=model.trust_remote_code,
            progress=lambda what: self.say(f"{model.model_id}: {what}"),
        )

    def where(self) -> str:
        """Where models were served, in words that cannot be mistaken for an NPU."""
        options = self.options
        place = {
            "npu": "a SIMULATED NPU" if self.platform.simulated else "the NPU",
            "cuda": "a CUDA GPU, not an NPU",
            "cpu": "this CPU, not an NPU",
            "endpoint": f"{options.server_url}, on a device that cannot be seen from here",
        }[options.platform]
        return f"{place} ({options.checkpoint} checkpoint)"

    def gate_shortfalls(
        self, rows: Sequence[Mapping[str, Any]], deselected: Collection[gate.Pair]
    ) -> list[str]:
        """What a gate misses, in words; empty where it is green or the run is none."""
        required = self.options.required
        if required is None:
            return []
        tiny = self.options.checkpoint == "tiny"
        missing = gate.shortfalls(required, rows, deselected, may_lack_checkpoints=tiny)
        if self.platform.simulated:
            missing.append("the cards are simulated, and a simulation opens no gate")
        return missing

    def receipt(self, argv: list[str]) -> dict[str, Any]:
        """What was run where, for the report."""
        return {
            "platform": self.options.platform,
            "checkpoint": self.options.checkpoint,
            "simulated": self.platform.simulated,
            "device": self.platform.device(),
            "versions": {
                **installed_versions("pytest-ascend-vlm", "pytest"),
                **self.platform.versions(),
            },
            "seconds": round(time.monotonic() - self._since, 1),
            "argv": argv,
        }

    def _first_request(self, model: ModelSpec) -> Case:
        """An image request where the model takes images: a server that answers it is ready."""
        images = self.cases_for(model, "image")
        return images[0] if images else self.cases_for(model, "text")[0]


def _published(model: ModelSpec) -> dict[str, Any] | None:
    if model.published is None:
        return None
    figures = [dataclasses.asdict(figure) for figure in model.published.figures]
    return {"source": model.published.source, "figures": figures}


def _belongs(case: Case, group: str) -> bool:
    if group == "image":
        return bool(case.images)
    if group == "all":
        return not case.videos
    return group == case.group

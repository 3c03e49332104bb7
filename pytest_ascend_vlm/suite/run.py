"""One test run: its options, platform and cases, and how a model of it is served."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from ..cases import load_cases
from ..options import Options
from ..platforms import Platform, select_platform
from ..platforms.base import installed_versions
from ..platforms.remote import Remote
from ..spec import Case, ModelSpec

if TYPE_CHECKING:
    from ..checkpoints import Checkpoint
    from ..engines.endpoint import Server
    from ..engines.transformers_local import TransformersReference
    from ..golden.store import GoldenKey, GoldenStore

RUN = pytest.StashKey["Run"]()

# Greedy means greedy: a checkpoint's own generation settings must not reach the sampler. The cache
# criterion needs to see how many tokens were cached.
_OURS = {"generation_config": "vllm", "enable_prompt_tokens_details": True}


class Run:
    """What all models of a run share.

    Attributes:
        options: what was asked for.
        platform: where models are served.
        say: shows a line of progress; replaced by the next one where the terminal can.
        model_records: facts of servers that ended, for the report.
    """

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self.say = say
        self.platform: Platform = (
            Remote(options.server_url)
            if options.server_url is not None
            else select_platform(options.platform)
        )
        self.model_records: list[dict[str, Any]] = []
        self._checkpoints: dict[str, Checkpoint] = {}
        self._since = time.monotonic()

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """Every case of the project and of the package."""
        return load_cases(self.options.fixture_roots)

    @cached_property
    def unavailable(self) -> str | None:
        """Why no server can run here, or None."""
        return self.platform.unavailable()

    def cases_for(self, model: ModelSpec, group: str) -> tuple[Case, ...]:
        """The cases of a group ("text", "image", "document", "all") that a model can be asked."""
        asked = (model.request(case) for case in self.cases if case.needs in model.supports)
        return tuple(case for case in asked if _belongs(case, group))

    def checkpoint(self, model: ModelSpec) -> Checkpoint:
        """The checkpoint a model runs with."""
        from ..checkpoints import find_checkpoint

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

    def server(self, model: ModelSpec, log_name: str) -> Server:
        """A server of a model, not started yet."""
        from ..engines.endpoint import Endpoint, RunningServer
        from ..engines.vllm_server import Launch, Phase, VllmServer

        if self.options.server_url is not None:
            endpoint = Endpoint(self.options.server_url, model.model_id, self.options.api_key)
            return RunningServer(endpoint)

        def progress(phase: Phase, seconds: float) -> None:
            self.say(f"{model.model_id}: {phase.value} {seconds:.0f} s")

        launch = Launch(
            model_path=self.checkpoint(model).path,
            served_name=model.model_id,
            serve={**_OURS, **self.platform.serve_arguments(model)},
            env=self.platform.environment(model),
            trust_remote_code=model.trust_remote_code,
            budgets=model.budgets,
            log_path=self.options.log_dir / f"{log_name}.log",
        )
        return VllmServer(launch, self._first_request(model), progress)

    def reference_engine(self, model: ModelSpec) -> TransformersReference:
        """The reference engine of a model; loading it takes seconds to minutes."""
        from ..engines.transformers_local import TransformersReference

        return TransformersReference(
            self.checkpoint(model).path,
            trust_remote_code=model.trust_remote_code,
            progress=lambda what: self.say(f"{model.model_id}: {what}"),
        )

    def where(self) -> str:
        """Where models were served, in words that cannot be mistaken for an NPU."""
        options = self.options
        place = {
            "npu": "the NPU",
            "cpu": "this CPU, not an NPU",
            "endpoint": f"{options.server_url}, on a device that cannot be seen from here",
        }[options.platform]
        return f"{place} ({options.checkpoint} checkpoint)"

    def receipt(self, argv: list[str]) -> dict[str, Any]:
        """What was run where, for the report."""
        return {
            "platform": self.options.platform,
            "checkpoint": self.options.checkpoint,
            "simulated": False,
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


def _belongs(case: Case, group: str) -> bool:
    if group == "image":
        return bool(case.images)
    return group in {"all", case.group}

"""The data sets of one model, asked by harnesses of its served endpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..criteria import dataset as rules
from ..errors import ConfigurationError, GoldenError, PreconditionError
from ..observation.evaluation import Evaluation, Protocol
from ..spec.dataset import DatasetTask, PublishedScore
from .commands import record_command
from .model import ModelSession

if TYPE_CHECKING:
    from ..engines.endpoint import Server
    from ..golden.store import GoldenKey
    from ..harnesses.harness import Harness


class Datasets:
    """The data sets of one model, asked by harnesses of its served endpoint."""

    def __init__(self, session: ModelSession, server: Server, test_path: str) -> None:
        """Prepares to ask.

        Args:
            session: the model.
            server: its server.
            test_path: the model file, as the command that records names it.
        """
        self._session = session
        self._model = session.model
        self._options = session.run.options
        self._server = server
        self._test_path = test_path
        self._protocols: dict[DatasetTask, Protocol] = {}

    @property
    def records(self) -> bool:
        """Whether scores are recorded instead of judged."""
        return self._options.record

    def reference(self, task: DatasetTask) -> Evaluation | PublishedScore:
        """What a task is judged by: recorded scores, else the full checkpoint's published one.

        Raises:
            GoldenError: there is none that holds.
            PreconditionError: it is of another harness or of other data, or a gate would see a
                subset; told before hours of asking.
        """
        options = self._options
        if options.required is not None and options.datasets_limit is not None:
            raise PreconditionError(
                "--vlm-datasets-limit asks a subset, and a subset satisfies no gate; leave it out."
            )
        recorded = self._recorded(task)
        if recorded is not None:
            rules.require_same_protocol(recorded.protocol, self._protocol(task))
            return recorded
        if task.published is not None and options.checkpoint == "full":
            rules.require_published_protocol(task.published, self._protocol(task))
            return task.published
        raise GoldenError(
            f"there is no reference of dataset.{task.name} for this checkpoint of "
            f"{self._model.model_id}. Serve it with an engine that is trusted and record its "
            f"scores with\n    {self._record_command}"
        )

    def evaluate(self, task: DatasetTask) -> Evaluation:
        """Lets the harness of a task ask the served model.

        Raises:
            ConfigurationError: the harness is not installed, or does not have the task.
            PreconditionError: the data is not there.
            ServerError: the harness died.
        """
        from ..harnesses import harness

        options = self._options
        request = harness.EvaluationRequest(
            task=task.name,
            root=self._root,
            python=options.harness_python,
            endpoint=self._server.endpoint,
            work_dir=self._work_dir(task),
            limit=options.datasets_limit,
        )
        return harness.evaluate(
            harness_of(task),
            request,
            self._protocol(task),
            self._session.on_progress,
        )

    def record(self, task: DatasetTask) -> Path:
        """Records the served model's scores as the reference; returns their path.

        Raises:
            GoldenError: only a subset was asked.
        """
        from ..golden import scores

        found = self.evaluate(task)
        return scores.record(self._options.golden_dir, self._key, task.name, found, self._engine)

    @property
    def _root(self) -> Path:
        root = self._options.datasets_root
        if root is None:
            raise PreconditionError(
                "dataset.* needs data: name its directory with --vlm-datasets-root=DIR, with data "
                "sets in DIR/<organisation>/<name> as on the hub (docs/datasets.md)."
            )
        return root

    @property
    def _key(self) -> GoldenKey:
        return self._session.golden_key

    @property
    def _engine(self) -> Mapping[str, Any]:
        """Who answers, for the stamp of recorded scores."""
        platform = self._session.run.platform
        return {
            "platform": platform.name,
            "device": platform.device(),
            "versions": dict(platform.versions()),
            "serve_command": self._server.serve_command,
        }

    @property
    def _record_command(self) -> str:
        return record_command(self._options, self._test_path, "dataset")

    def _recorded(self, task: DatasetTask) -> Evaluation | None:
        from ..golden import scores

        roots = self._options.golden_roots
        return scores.load(roots, self._key, task.name, self._record_command)

    def _protocol(self, task: DatasetTask) -> Protocol:
        """Looked up once: it takes the digest of gigabytes, and starts an interpreter."""
        from ..harnesses import harness

        if task not in self._protocols:
            python = self._options.harness_python
            found = harness.protocol(harness_of(task), task.name, self._root, python)
            self._protocols[task] = found
        return self._protocols[task]

    def _work_dir(self, task: DatasetTask) -> Path:
        """A directory whose name tells apart all that changes an answer, as far as can be seen."""
        facts = {
            "protocol": repr(self._protocol(task)),
            "limit": self._options.datasets_limit,
            "weights": self._key.weights_sha256,
            "url": self._options.server_url,
            "env": dict(self._model.env),
            **self._engine,
        }
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        home = self._options.log_dir / "datasets" / self._model.slug
        return home / f"{task.name}-{task.harness}-{name}"


def harness_of(task: DatasetTask) -> Harness:
    """The harness that a task names.

    Raises:
        ConfigurationError: there is none of that name.
    """
    from ..harnesses.evalscope import EVALSCOPE
    from ..harnesses.lm_eval import LM_EVAL

    known = {one.name: one for one in (EVALSCOPE, LM_EVAL)}
    if task.harness not in known:
        raise ConfigurationError(
            f"DatasetTask({task.name!r}, harness={task.harness!r}): there is {', '.join(known)}."
        )
    return known[task.harness]

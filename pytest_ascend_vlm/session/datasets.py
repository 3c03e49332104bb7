"""Evaluates a served model on data sets with evaluation harnesses, and records scores."""

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
    """The data sets of one model, evaluated by harnesses at the model's endpoint."""

    def __init__(self, session: ModelSession, server: Server, test_path: str) -> None:
        """Sets up; evaluates nothing yet.

        Args:
            session: the model.
            server: the model's server.
            test_path: path of the model file, for the recording command in messages.
        """
        self._session = session
        self._model = session.model
        self._options = session.run.options
        self._server = server
        self._test_path = test_path
        self._protocols: dict[DatasetTask, Protocol] = {}

    @property
    def records(self) -> bool:
        """True if scores are recorded instead of judged."""
        return self._options.record

    def reference(self, task: DatasetTask) -> Evaluation | PublishedScore:
        """The scores that a task is compared with.

        These are the recorded scores; without them, the published score of the full checkpoint.

        Raises:
            GoldenError: there is neither, or the recorded scores are invalid.
            PreconditionError: the scores come from another harness or other data. This is checked
                before the evaluation, which takes hours.
        """
        options = self._options
        recorded = self._recorded(task)
        if recorded is not None:
            rules.require_same_protocol(recorded.protocol, self._protocol(task))
            return recorded
        if task.published is not None and options.checkpoint == "full":
            rules.require_published_protocol(task.published, self._protocol(task))
            return task.published
        raise GoldenError(
            f"there are no reference scores of dataset.{task.name} for this checkpoint of "
            f"{self._model.model_id}. Serve it with an engine that you trust, and record the "
            f"scores with\n    {self._record_command}"
        )

    def evaluate(self, task: DatasetTask) -> Evaluation:
        """Runs the harness of a task against the served model.

        Raises:
            ConfigurationError: the harness is not installed, or does not have the task.
            PreconditionError: the data is missing.
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
            self._session.run.progress("data set"),
        )

    def record(self, task: DatasetTask) -> Path:
        """Records the served model's scores as the reference; returns their path.

        Raises:
            GoldenError: only a subset was evaluated.
        """
        from ..golden import scores

        found = self.evaluate(task)
        return scores.record(self._options.golden_dir, self._key, task.name, found, self._engine)

    @property
    def _root(self) -> Path:
        root = self._options.datasets_root
        if root is None:
            raise PreconditionError(
                "dataset.* needs data; name its directory with --vlm-datasets-root=DIR. DIR "
                "contains the data sets as DIR/<organisation>/<name>, as on the hub "
                "(docs/datasets.md)."
            )
        return root

    @property
    def _key(self) -> GoldenKey:
        return self._session.golden_key

    @property
    def _engine(self) -> Mapping[str, Any]:
        """The engine that answers: provenance of recorded scores."""
        platform = self._session.run.platform
        return {
            "platform": platform.name,
            "device": platform.device(),
            "versions": dict(platform.versions()),
            "serve_command": self._server.serve_command,
        }

    @property
    def _record_command(self) -> str:
        return record_command(self._options, self._test_path, "dataset", self._model.model_id)

    def _recorded(self, task: DatasetTask) -> Evaluation | None:
        from ..golden import scores

        roots = self._options.golden_roots
        return scores.load(roots, self._key, task.name, self._record_command)

    def _protocol(self, task: DatasetTask) -> Protocol:
        """The protocol of a task, determined once.

        It digests gigabytes of data and starts an interpreter.
        """
        from ..harnesses import harness

        if task not in self._protocols:
            python = self._options.harness_python
            found = harness.protocol(harness_of(task), task.name, self._root, python)
            self._protocols[task] = found
        return self._protocols[task]

    def _work_dir(self, task: DatasetTask) -> Path:
        """A directory whose name is a digest of everything known to change an answer.

        So a harness continues an interrupted evaluation only under the same conditions.
        """
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
    """The harness of a task.

    Raises:
        ConfigurationError: there is no harness of that name.
    """
    from ..harnesses.evalscope import EVALSCOPE
    from ..harnesses.lm_eval import LM_EVAL

    known = {one.name: one for one in (EVALSCOPE, LM_EVAL)}
    if task.harness not in known:
        raise ConfigurationError(
            f"DatasetTask({task.name!r}, harness={task.harness!r}): unknown harness; use one of "
            f"{', '.join(known)}."
        )
    return known[task.harness]

"""The reference engine of one model, which replays or records goldens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import ProgressCallback
from ..spec.case import Case

if TYPE_CHECKING:
    from ..engines.transformers.reference import TransformersReference
    from ..observation.answers import Completion
    from .recording import Countdown, Recording, RecordingPlan


@dataclass
class ReferenceSession:
    """The reference engine of one model.

    Attributes:
        load: creates the engine; called on first use.
        recording: True if goldens are recorded instead of replayed.
        plan: the cases to ask and the directories to write to.
        on_progress: shows a line of progress.
        untaught_reason: returns why the checkpoint cannot answer a case, or None.
    """

    load: Callable[[], TransformersReference]
    recording: bool
    plan: RecordingPlan
    on_progress: ProgressCallback
    untaught_reason: Callable[[Case], str | None] = lambda _case: None

    def answer(self, case: Case) -> Completion:
        """The reference's answer to a case in bf16, with the candidates of each token."""
        self._engine.load("bfloat16")
        self.on_progress(self._countdown.next(case))
        return self._engine.answer(case)

    def record(self, case: Case) -> Path:
        """Records the golden of a case, unless it is up to date; returns its path."""
        return self._recording.record(case)

    def doubts(self, case: Case) -> tuple[str, ...]:
        """Reasons why the golden that `record` has written may be unfit.

        There are none for a case that a tiny checkpoint was not taught: only its logits are used.

        Raises:
            GoldenError: the golden is invalid.
        """
        from ..criteria.recorded import doubts
        from ..golden.store import GoldenStore

        store = GoldenStore([self.plan.golden_dir], "the same command")
        golden = store.load(self.plan.key, case)
        return () if self.untaught_reason(case) else doubts(golden, case.max_tokens)

    def close(self) -> None:
        """Frees the engine's memory."""
        if "_engine" in vars(self):
            self._engine.close()

    @cached_property
    def _engine(self) -> TransformersReference:
        return self.load()

    @cached_property
    def _countdown(self) -> Countdown:
        from .recording import answering

        return answering(self.plan.cases)

    @cached_property
    def _recording(self) -> Recording:
        from .recording import Recording

        return Recording(self._engine, self.plan, self.on_progress)

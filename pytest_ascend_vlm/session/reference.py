"""The reference engine of one model: it replays goldens, or records them."""

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
    from ..observation.answers import Reference
    from .recording import Countdown, Recording, RecordingPlan


@dataclass
class ReferenceSession:
    """The reference engine of one model.

    Attributes:
        load: makes the engine; called on first use.
        recording: whether goldens are written instead of replayed.
        plan: what it is to do.
        on_progress: shows a line of progress.
    """

    load: Callable[[], TransformersReference]
    recording: bool
    plan: RecordingPlan
    on_progress: ProgressCallback

    def answer(self, case: Case) -> Reference:
        """The reference's answer to a case, without numerics: in bf16 alone."""
        self._engine.load("bfloat16")
        self.on_progress(self._countdown.next(case))
        return self._engine.answer(case)

    def record(self, case: Case) -> Path:
        """Records the reference's answer to a case, unless its golden holds; returns its path."""
        return self._recording.record(case)

    def recorded(self, case: Case) -> Reference:
        """A case's golden as it is on disk, once it was recorded.

        Raises:
            GoldenError: it does not hold.
        """
        from ..golden.store import GoldenStore

        return GoldenStore([self.plan.golden_dir], "the same command").load(self.plan.key, case)

    def close(self) -> None:
        """Gives the engine's memory back."""
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

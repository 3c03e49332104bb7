"""Records the goldens of one model: first a bf16 pass over all missing cases, then an fp32 pass."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..duration import duration_text
from ..engines.transformers.cpu_threads import bf16_speed, bf16_speed_text
from ..engines.transformers.reference import HIDDEN_POSITIONS, Bf16Pass
from ..golden.recorder import header, record, recorded
from ..golden.store import relative_path
from ..progress import ProgressCallback
from ..spec.case import Case
from ..writing import write_atomically

if TYPE_CHECKING:
    from ..engines.transformers.reference import TransformersReference
    from ..golden.store import GoldenKey


@dataclass
class Countdown:
    """Progress lines of a pass over cases, with an estimate of the remaining time.

    Each case is weighted by its `max_tokens`, because a page takes longer than a line. There is no
    estimate before the first case has ended.

    Attributes:
        doing: the verb of the progress lines, such as "answering".
        cases: the cases of the pass.
        before: number of cases that were done before the pass.
        at_first: text of the first line, in place of an estimate.
        clock: returns the time in seconds.
    """

    doing: str
    cases: Sequence[Case]
    before: int = 0
    at_first: str = ""
    clock: Callable[[], float] = time.monotonic
    _asked: dict[str, int] = field(default_factory=dict)
    _since: float = 0.0

    def next(self, case: Case) -> str:
        """The progress line for the start of a case."""
        done, left = sum(self._asked.values()), self._left()
        self._since = self._since if done else self.clock()
        self._asked[case.id] = case.max_tokens
        number = self.before + len(self._asked)
        position = f"{self.doing} {number} of {max(number, self.before + len(self.cases))}"
        if not done:
            return ", ".join(filter(None, (position, self.at_first)))
        seconds = (self.clock() - self._since) * max(left, case.max_tokens) / done
        return f"{position}, about {duration_text(seconds)} left"

    def _left(self) -> int:
        return sum(case.max_tokens for case in self.cases if case.id not in self._asked)


def answering(cases: Sequence[Case], before: int = 0) -> Countdown:
    """The countdown of a bf16 pass; its first line contains this CPU's speed in bf16."""
    return Countdown("answering", cases, before, bf16_speed_text(bf16_speed()))


@dataclass(frozen=True)
class HalfGoldens:
    """Files with the results of the bf16 pass ("halves"), for the fp32 pass to complete.

    They are on disk, because logits over a whole vocabulary take 0.6 MB per token. A recording that
    was killed continues with them.

    Attributes:
        directory: directory of the files.
        key: the model and checkpoint.
        engine: the engine's part of the provenance; halves of another engine are ignored.
    """

    directory: Path
    key: GoldenKey
    engine: dict[str, Any]

    def has(self, case: Case) -> bool:
        """True if a case has a valid half with the same provenance as this run."""
        try:
            with safe_open(self._path(case), "numpy") as file:
                return file.metadata() == self._metadata(case) and _fits(file)
        except (OSError, SafetensorError):
            return False

    def load(self, case: Case) -> Bf16Pass:
        """Reads the half of a case."""
        with safe_open(self._path(case), "numpy") as file:
            tokens, *numbers = map(file.get_tensor, ("token_ids", "rows", "logits", "hidden"))
        return Bf16Pass(tuple(tokens.tolist()), *numbers)

    def keep(self, case: Case, half: Bf16Pass) -> None:
        """Writes the half of a case."""
        path = self._path(case)
        for part in path.parent.glob(f".{path.name}.*"):  # left by a recording that was killed
            part.unlink()
        tokens = np.array(half.token_ids, dtype=np.int64)
        tensors: dict[str, npt.NDArray[Any]] = {
            "token_ids": tokens,
            "rows": half.positions,
            "logits": half.logits,
            "hidden": half.hidden,
        }
        write_atomically(path, save(tensors, self._metadata(case)))

    def discard(self, case: Case) -> None:
        """Deletes the half of a case, if there is one."""
        self._path(case).unlink(missing_ok=True)

    def _path(self, case: Case) -> Path:
        return self.directory / relative_path(self.key, case).with_suffix(".safetensors")

    def _metadata(self, case: Case) -> dict[str, str]:
        return {"circumstances": json.dumps(header(self.key, case, self.engine))}


def _fits(half: Any) -> bool:
    """True if a half has logits for all its positions, and the right number of hidden states."""
    positions, logits, hidden = (
        half.get_slice(name).get_shape() for name in ("rows", "logits", "hidden")
    )
    return bool(logits[:1] == positions and hidden[:1] == [min(*positions, HIDDEN_POSITIONS)])


class Recording:
    """Records the goldens of one model without ever holding two dtypes in memory.

    A golden that recording would reproduce is kept. For all other cases, the bf16 pass first makes
    halves; then the fp32 pass completes each half when its test runs.
    """

    def __init__(
        self, engine: TransformersReference, plan: RecordingPlan, on_progress: ProgressCallback
    ) -> None:
        """Determines which cases have a golden or a half already.

        Args:
            engine: the reference engine.
            plan: the cases and directories.
            on_progress: shows a line of progress.
        """
        self._engine = engine
        self._key = plan.key
        self._golden_dir = plan.golden_dir
        self._halves = HalfGoldens(plan.bf16_dir, plan.key, engine.provenance)
        self._on_progress = on_progress
        self._total = len(plan.cases)
        self._pending = {case.id: case for case in plan.cases if not self._holds(case)}
        self._without_half = [c for c in self._pending.values() if not self._halves.has(c)]
        self._problems: dict[str, Exception] = {}
        on_progress(f"{self._total - len(self._pending)} of {self._total} already recorded")

    def record(self, case: Case) -> Path:
        """Records the golden of a case, unless it is up to date; returns its path.

        Raises:
            PreconditionError: the chat template changes the prompt when the answer is appended.
        """
        if case.id not in self._pending:
            if self._holds(case):
                self._halves.discard(case)
                return self._golden_dir / relative_path(self._key, case)
            self._pending[case.id] = case
            self._without_half.append(case)
        self._make_halves()
        if problem := self._problems.get(case.id):
            raise problem
        path = self._finish(case)
        del self._pending[case.id]
        return path

    def _holds(self, case: Case) -> bool:
        """True if recording a case again would reproduce its golden.

        The golden's digests do not cover the chat template and the image preprocessor. Most changes
        of those change the prompt's tokens, so they are compared as well.
        """
        golden = recorded(self._golden_dir, self._key, case, self._engine.provenance)
        if golden is None:
            return False
        return golden.prompt_token_ids == self._engine.prompt_token_ids(case)

    def _make_halves(self) -> None:
        """Makes the missing halves; the error of a case is raised when its own test runs."""
        if not self._without_half:
            return
        countdown = answering(self._without_half, self._total - len(self._without_half))
        for case in self._without_half:
            self._engine.load("bfloat16")
            self._on_progress(countdown.next(case))
            try:
                self._halves.keep(case, self._engine.bf16_pass(case))
            except Exception as error:  # a model's remote code can raise anything
                traceback.clear_frames(error.__traceback__)  # frees the model's activations
                self._problems[case.id] = error
        self._without_half = []

    def _finish(self, case: Case) -> Path:
        """Completes the half of a case in fp32 and writes the golden."""
        attention = self._engine.load("float32").attention
        self._on_progress(self._forcing.next(case))
        reference = self._engine.finish(case, self._halves.load(case))
        other = {} if attention == "sdpa" else {"attention": attention}
        provenance = {**self._engine.provenance, **other}
        path = record(self._golden_dir, self._key, case, reference, provenance)
        self._halves.discard(case)
        return path

    @cached_property
    def _forcing(self) -> Countdown:
        pending = tuple(self._pending.values())
        return Countdown("float32 of answer", pending, self._total - len(pending))


@dataclass(frozen=True)
class RecordingPlan:
    """The work of the reference engine in a run.

    Attributes:
        key: the model and checkpoint.
        cases: the cases that the engine will be asked.
        golden_dir: directory that goldens are written to.
        bf16_dir: directory of the results of the bf16 pass.
    """

    key: GoldenKey
    cases: tuple[Case, ...]
    golden_dir: Path
    bf16_dir: Path

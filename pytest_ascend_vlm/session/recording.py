"""Recording the goldens of one model: what is there already, bf16 for all cases, then fp32."""

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
    """Says how far a pass over cases is and how long the rest will take.

    A case counts as much as the longest answer that it allows, because a page takes longer than
    a line. Before the first case has ended there is nothing to go by.

    Attributes:
        doing: what is done to each case: "answering".
        cases: those that are to come.
        before: how many others are done already.
        at_first: said with the first case, in the place of an estimate.
        clock: seconds.
    """

    doing: str
    cases: Sequence[Case]
    before: int = 0
    at_first: str = ""
    clock: Callable[[], float] = time.monotonic
    _asked: dict[str, int] = field(default_factory=dict)
    _since: float = 0.0

    def next(self, case: Case) -> str:
        """What to say when a case begins."""
        asked, left = sum(self._asked.values()), self._left()
        self._since = self._since if asked else self.clock()
        self._asked[case.id] = case.max_tokens
        number = self.before + len(self._asked)
        said = f"{self.doing} {number} of {max(number, self.before + len(self.cases))}"
        if not asked:
            return ", ".join(filter(None, (said, self.at_first)))
        seconds = (self.clock() - self._since) * max(left, case.max_tokens) / asked
        return f"{said}, about {duration_text(seconds)} left"

    def _left(self) -> int:
        return sum(case.max_tokens for case in self.cases if case.id not in self._asked)


def answering(cases: Sequence[Case], before: int = 0) -> Countdown:
    """The countdown of a pass in bf16, which begins with how fast this CPU is in it."""
    return Countdown("answering", cases, before, bf16_speed_text(bf16_speed()))


@dataclass(frozen=True)
class HalfGoldens:
    """Results of bf16 that wait for fp32, one file each; a killed recording continues with them.

    Logits over a whole vocabulary take 0.6 MB a token, so they wait on disk and not in memory.

    Attributes:
        directory: where they are.
        key: the model and checkpoint that answered.
        engine: the engine's part of the provenance; halves of another one are none.
    """

    directory: Path
    key: GoldenKey
    engine: dict[str, Any]

    def has(self, case: Case) -> bool:
        """Whether there is a half, made under the circumstances of today, that fits together."""
        try:
            with safe_open(self._path(case), "numpy") as file:
                return file.metadata() == self._metadata(case) and _fits(file)
        except (OSError, SafetensorError):
            return False

    def load(self, case: Case) -> Bf16Pass:
        """A half that is there."""
        with safe_open(self._path(case), "numpy") as file:
            tokens, *numbers = map(file.get_tensor, ("token_ids", "rows", "logits", "hidden"))
        return Bf16Pass(tuple(tokens.tolist()), *numbers)

    def keep(self, case: Case, half: Bf16Pass) -> None:
        """Writes a half."""
        path = self._path(case)
        for part in path.parent.glob(f".{path.name}.*"):  # written when a recording was killed
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
        """Deletes the half, if any, of a case that has its golden."""
        self._path(case).unlink(missing_ok=True)

    def _path(self, case: Case) -> Path:
        return self.directory / relative_path(self.key, case).with_suffix(".safetensors")

    def _metadata(self, case: Case) -> dict[str, str]:
        return {"circumstances": json.dumps(header(self.key, case, self.engine))}


def _fits(half: Any) -> bool:
    """Whether a half has logits for each of its positions, and hidden states as it should."""
    positions, logits, hidden = (
        half.get_slice(name).get_shape() for name in ("rows", "logits", "hidden")
    )
    return bool(logits[:1] == positions and hidden[:1] == [min(*positions, HIDDEN_POSITIONS)])


class Recording:
    """The goldens of one model, recorded in an order that never needs both data types in memory.

    A golden stays as it is where recording it again would give the same. Of all other cases bf16
    makes halves first; then fp32 makes each a golden when its turn comes.
    """

    def __init__(
        self, engine: TransformersReference, plan: RecordingPlan, on_progress: ProgressCallback
    ) -> None:
        """Finds out what is recorded already.

        Args:
            engine: the reference engine.
            plan: what is to be recorded, and where.
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
        """The path of a case's golden, recorded unless it holds.

        Raises:
            PreconditionError: the answer, put back into the chat, does not follow the prompt.
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
        """Whether recording a case again would give the golden that is there.

        Its digests do not know the chat template and the image preprocessor; the prompt's length
        shows most changes of them.
        """
        golden = recorded(self._golden_dir, self._key, case, self._engine.provenance)
        return golden is not None and golden.prompt_tokens == self._engine.prompt_tokens(case)

    def _make_halves(self) -> None:
        """Makes the halves that are missing; what goes wrong with one is told at its own turn."""
        if not self._without_half:
            return
        countdown = answering(self._without_half, self._total - len(self._without_half))
        for case in self._without_half:
            self._engine.load("bfloat16")
            self._on_progress(countdown.next(case))
            try:
                self._halves.keep(case, self._engine.bf16_pass(case))
            except Exception as error:  # of a model's own code: anything
                traceback.clear_frames(error.__traceback__)  # they hold the model's activations
                self._problems[case.id] = error
        self._without_half = []

    def _finish(self, case: Case) -> Path:
        """Makes a half a golden."""
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
    """What the reference engine is to do in a run.

    Attributes:
        key: the model and checkpoint that answer.
        cases: those that they will be asked.
        golden_dir: where goldens are written.
        bf16_dir: where the halves of goldens wait that bf16 has made.
    """

    key: GoldenKey
    cases: tuple[Case, ...]
    golden_dir: Path
    bf16_dir: Path

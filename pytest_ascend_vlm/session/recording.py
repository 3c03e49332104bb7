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

from ..engines.transformers.cpu_threads import bf16_in_words, bf16_speed
from ..engines.transformers.reference import HIDDEN_ROWS, Bf16Pass
from ..golden.recorder import circumstances, record, recorded
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
        return f"{said}, about {in_words(seconds)} left"

    def _left(self) -> int:
        return sum(case.max_tokens for case in self.cases if case.id not in self._asked)


def in_words(seconds: float) -> str:
    """A duration as an estimate deserves it: "40 s", "4 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(round(seconds, -1), 10):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def answering(cases: Sequence[Case], before: int = 0) -> Countdown:
    """The countdown of a pass in bf16, which begins with how fast this CPU is in it."""
    return Countdown("answering", cases, before, bf16_in_words(bf16_speed()))


@dataclass(frozen=True)
class Bf16Passes:
    """Results of bf16 that wait for fp32, one file each; a killed recording continues with them.

    Logits over a whole vocabulary take 0.6 MB a token, so they wait on disk and not in memory.

    Attributes:
        directory: where they are.
        key: the model and checkpoint that answered.
        engine: the engine's part of the provenance; drafts of another one are none.
    """

    directory: Path
    key: GoldenKey
    engine: dict[str, Any]

    def has(self, case: Case) -> bool:
        """Whether there is a draft, made under the circumstances of today, that fits together."""
        try:
            with safe_open(self._path(case), "numpy") as file:
                return file.metadata() == self._metadata(case) and _fits(file)
        except (OSError, SafetensorError):
            return False

    def load(self, case: Case) -> Bf16Pass:
        """A draft that is there."""
        with safe_open(self._path(case), "numpy") as file:
            tokens, *numbers = map(file.get_tensor, ("token_ids", "rows", "logits", "hidden"))
        return Bf16Pass(tuple(tokens.tolist()), *numbers)

    def keep(self, case: Case, draft: Bf16Pass) -> None:
        """Writes a draft."""
        path = self._path(case)
        for half in path.parent.glob(f".{path.name}.*"):  # written when a recording was killed
            half.unlink()
        tokens = np.array(draft.token_ids, dtype=np.int64)
        tensors: dict[str, npt.NDArray[Any]] = {
            "token_ids": tokens,
            "rows": draft.rows,
            "logits": draft.logits,
            "hidden": draft.hidden,
        }
        write_atomically(path, save(tensors, self._metadata(case)))

    def discard(self, case: Case) -> None:
        """Deletes the draft, if any, of a case that has its golden."""
        self._path(case).unlink(missing_ok=True)

    def _path(self, case: Case) -> Path:
        return self.directory / relative_path(self.key, case).with_suffix(".safetensors")

    def _metadata(self, case: Case) -> dict[str, str]:
        return {"circumstances": json.dumps(circumstances(self.key, case, self.engine))}


def _fits(draft: Any) -> bool:
    """Whether a draft's file has logits for each of its rows, and hidden states as it should."""
    rows, logits, hidden = (
        draft.get_slice(name).get_shape() for name in ("rows", "logits", "hidden")
    )
    return bool(logits[:1] == rows and hidden[:1] == [min(*rows, HIDDEN_ROWS)])


class Recording:
    """The goldens of one model, recorded in an order that never needs both data types in memory.

    A golden stays as it is where recording it again would give the same. Of all other cases bf16
    makes drafts first; then fp32 makes each a golden when its turn comes.
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
        self._drafts = Bf16Passes(plan.bf16_dir, plan.key, engine.provenance)
        self._on_progress = on_progress
        self._total = len(plan.cases)
        self._pending = {case.id: case for case in plan.cases if not self._holds(case)}
        self._without_draft = [c for c in self._pending.values() if not self._drafts.has(c)]
        self._problems: dict[str, Exception] = {}
        on_progress(f"{self._total - len(self._pending)} of {self._total} already recorded")

    def record(self, case: Case) -> Path:
        """The path of a case's golden, recorded unless it holds.

        Raises:
            PreconditionError: the answer, put back into the chat, does not follow the prompt.
        """
        if case.id not in self._pending:
            if self._holds(case):
                self._drafts.discard(case)
                return self._golden_dir / relative_path(self._key, case)
            self._pending[case.id] = case
            self._without_draft.append(case)
        self._make_drafts()
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

    def _make_drafts(self) -> None:
        """Makes the drafts that are missing; what goes wrong with one is told at its own turn."""
        if not self._without_draft:
            return
        countdown = answering(self._without_draft, self._total - len(self._without_draft))
        for case in self._without_draft:
            self._engine.load("bfloat16")
            self._on_progress(countdown.next(case))
            try:
                self._drafts.keep(case, self._engine.draft(case))
            except Exception as error:  # of a model's own code: anything
                traceback.clear_frames(error.__traceback__)  # they hold the model's activations
                self._problems[case.id] = error
        self._without_draft = []

    def _finish(self, case: Case) -> Path:
        """Makes a draft a golden."""
        attention = self._engine.load("float32").attention
        self._on_progress(self._forcing.next(case))
        reference = self._engine.finish(case, self._drafts.load(case))
        other = {} if attention == "sdpa" else {"attention": attention}
        provenance = {**self._engine.provenance, **other}
        path = record(self._golden_dir, self._key, case, reference, provenance)
        self._drafts.discard(case)
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

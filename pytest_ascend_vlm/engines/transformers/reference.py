"""The reference engine: Transformers on CPU, greedy, the model's own template and processor.

It never talks to the engine under test. Generation is bf16, as the checkpoint's authors and the
field's adaptation documents run it; the answer is then forced through the model in bf16 and in
float32, and the difference between the two is the yardstick of what rounding costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import PreconditionError
from ...observation.answers import Reference
from ...observation.numerics import LISTED_TOKENS, ReferenceHidden, ReferenceNumerics
from ...progress import ProgressCallback
from ...spec.case import Case
from .cpu_threads import use_cores
from .kept_logits import at_tokens, most_likely, rmse
from .model import Dtype, Encoder, ForwardPass, Sequence, TransformersModel, evenly, versions

HIDDEN_POSITIONS = 64
"""Positions whose hidden states are kept, evenly spaced over the kept positions."""


@dataclass(frozen=True, eq=False)
class Bf16Pass:
    """The half of a reference that bf16 gives; which logits are kept of it, float32 decides.

    Attributes:
        token_ids: the greedy answer.
        positions: shape (m,), int64; the positions of the request with the answer that are kept.
        logits: shape (m, vocabulary), float32, computed in bfloat16.
        hidden: shape (h, width), float32, computed in bfloat16; h is at most HIDDEN_POSITIONS.
    """

    token_ids: tuple[int, ...]
    positions: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.float32]


class TransformersReference:
    """One checkpoint on CPU, in bf16 or, for the yardstick, in fp32: never both in memory."""

    def __init__(
        self, model_path: Path, *, trust_remote_code: bool, on_progress: ProgressCallback
    ) -> None:
        """Loads the processor; weights are loaded when they are needed.

        Args:
            model_path: the checkpoint's directory.
            trust_remote_code: whether it may run code of its own.
            on_progress: told in words what is being loaded.

        Raises:
            ConfigurationError: torch or transformers is not installed, or cannot load it.
        """
        self._model_path = model_path
        self._trust_remote_code = trust_remote_code
        self._on_progress = on_progress
        self._model: TransformersModel | None = None
        self.versions = versions()
        self._encoder = Encoder(model_path, trust_remote_code=trust_remote_code)
        weights = (*model_path.glob("*.safetensors"), *model_path.glob("*.bin"))
        use_cores(sum(file.stat().st_size for file in weights))

    @property
    def provenance(self) -> dict[str, object]:
        """What of this engine a golden names, as far as it is known before weights are loaded."""
        return {"processor": self._encoder.name, "versions": self.versions}

    def prompt_tokens(self, case: Case) -> int:
        """Length of a case's prompt."""
        return int(self._encoder.prompt(case)["input_ids"].shape[1])

    def load(self, dtype: Dtype) -> TransformersModel:
        """The checkpoint in a data type; in any other it leaves the memory first.

        Raises:
            ConfigurationError: Transformers cannot load it.
        """
        if self._model is None or self._model.dtype != dtype:
            self.close()
            version = self.versions["transformers"]
            self._on_progress(f"loading {self._model_path.name} in {dtype}, Transformers {version}")
            self._model = TransformersModel(
                self._model_path, dtype, trust_remote_code=self._trust_remote_code
            )
        return self._model

    def close(self) -> None:
        """Gives the memory of the weights back."""
        if self._model is not None:
            self._model.unload()
            self._model = None

    def answer(self, case: Case) -> Reference:
        """The greedy answer to a case in bf16, without numerics."""
        prompt = self._encoder.prompt(case)
        token_ids = self.load("bfloat16").generate(prompt, case.max_tokens)
        return self._reference(case, token_ids, int(prompt["input_ids"].shape[1]), None)

    def bf16_pass(self, case: Case) -> Bf16Pass:
        """The greedy answer to a case in bf16, and the numbers of bf16.

        Raises:
            PreconditionError: the answer, put back into the chat, does not follow the prompt.
        """
        model = self.load("bfloat16")
        token_ids = model.generate(self._encoder.prompt(case), case.max_tokens)
        sequence = self._encoder.with_answer(case, self._encoder.text(token_ids))
        numbers = model.force(sequence, sequence.positions)
        kept = numbers.hidden[_some(sequence)]
        return Bf16Pass(token_ids, sequence.positions, numbers.logits, kept)

    def finish(self, case: Case, bf16: Bf16Pass) -> Reference:
        """The reference to a case, made of the pass in bf16 and one in fp32.

        Raises:
            PreconditionError: the answer, put back into the chat, does not follow the prompt, or
                is at other positions than it was in bf16.
        """
        sequence = self._encoder.with_answer(case, self._encoder.text(bf16.token_ids))
        if not np.array_equal(bf16.positions, sequence.positions):
            raise PreconditionError(
                f"{case.id}: the request with its answer has become other tokens since bf16 "
                "answered it. Delete its half (`recording` under --vlm-log-dir) and record again."
            )
        exact = self.load("float32").force(sequence, sequence.positions)
        numerics = _numerics(sequence, exact, bf16)
        return self._reference(case, bf16.token_ids, sequence.prompt_tokens, numerics)

    def _reference(
        self,
        case: Case,
        token_ids: tuple[int, ...],
        prompt_tokens: int,
        numerics: ReferenceNumerics | None,
    ) -> Reference:
        return Reference(
            case_id=case.id,
            source=f"by Transformers {self.versions['transformers']} on CPU",
            text=self._encoder.text(token_ids),
            prompt_tokens=prompt_tokens,
            token_ids=token_ids,
            numerics=numerics,
        )


def _numerics(sequence: Sequence, exact: ForwardPass, bf16: Bf16Pass) -> ReferenceNumerics:
    """A sequence's numbers in fp32 and bf16, as far as the budget goes."""
    answer = slice(-len(sequence.answer) - 1, None)
    fp32 = most_likely(exact.logits, LISTED_TOKENS)
    rounded = at_tokens(bf16.logits, fp32.token_ids)
    positions, some = sequence.positions, _some(sequence)
    return ReferenceNumerics(
        token_ids=sequence.answer,
        positions=positions,
        is_image=sequence.is_image[positions],
        top_tokens=fp32.token_ids,
        fp32=fp32.logits,
        bf16=rounded.logits,
        fp32_logsumexp=fp32.logsumexp,
        bf16_logsumexp=rounded.logsumexp,
        logit_rmse=rmse(bf16.logits[answer], exact.logits[answer]),
        hidden=ReferenceHidden(
            positions[some], sequence.is_image[positions[some]], exact.hidden[some], bf16.hidden
        ),
    )


def _some(sequence: Sequence) -> npt.NDArray[np.int64]:
    """Which of a sequence's kept positions keep their hidden states."""
    return evenly(np.arange(len(sequence.positions), dtype=np.int64), HIDDEN_POSITIONS)

"""The reference engine: Transformers on CPU, greedy, with the model's chat template and processor.

It is independent of the engine under test. It generates the answer in bf16, like the checkpoint's
authors and the adaptation documents. Then it forces the answer through the model in bf16 and in
float32: the difference between the two shows the size of normal rounding errors.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import PreconditionError
from ...observation.answers import Completion, Reference
from ...observation.numerics import LISTED_TOKENS, ReferenceHidden, ReferenceNumerics
from ...progress import ProgressCallback
from ...spec.case import Case
from .cpu_threads import use_cores
from .kept_logits import at_tokens, most_likely, rmse
from .model import Dtype, Encoder, ForwardPass, Sequence, TransformersModel, evenly, versions

HIDDEN_POSITIONS = 64
"""Number of positions whose hidden states are stored, evenly spaced over the stored positions."""


@dataclass(frozen=True, eq=False)
class Bf16Pass:
    """The bf16 half of a reference. The float32 half decides which of its logits are stored.

    Attributes:
        token_ids: the greedy answer.
        positions: shape (m,), int64; the stored positions of the request with its answer.
        logits: shape (m, vocabulary), float32, computed in bfloat16.
        hidden: shape (h, width), float32, computed in bfloat16; h is at most HIDDEN_POSITIONS.
    """

    token_ids: tuple[int, ...]
    positions: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.float32]


class TransformersReference:
    """One checkpoint on CPU, in bf16 or in fp32. Only one of them is in memory at a time."""

    def __init__(
        self, model_path: Path, *, trust_remote_code: bool, on_progress: ProgressCallback
    ) -> None:
        """Loads the processor. The weights are loaded on first use.

        Args:
            model_path: the checkpoint's directory.
            trust_remote_code: True if the checkpoint's own code may run.
            on_progress: called with a description of what is being loaded.

        Raises:
            ConfigurationError: if torch or transformers is not installed, or cannot load the
                processor.
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
        """The provenance fields of a golden that are known before the weights are loaded."""
        return {"processor": self._encoder.name, "versions": self.versions}

    def prompt_token_ids(self, case: Case) -> tuple[int, ...]:
        """The tokens of a case's prompt, image tokens included."""
        return self._encoder.prompt_token_ids(case)

    def load(self, dtype: Dtype) -> TransformersModel:
        """Loads the checkpoint in a dtype; unloads it first if it is loaded in another one.

        Raises:
            ConfigurationError: if Transformers cannot load the weights.
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
        """Frees the weights."""
        if self._model is not None:
            self._model.unload()
            self._model = None

    def answer(self, case: Case) -> Completion:
        """The greedy answer to a case in bf16, with the candidates of each token."""
        model, begin = self.load("bfloat16"), time.monotonic()
        generated = model.generate(self._encoder.prompt(case), case.max_tokens)
        return Completion(
            case.id,
            self._encoder.text(generated.token_ids),
            generated.token_ids,
            finish_reason=None,
            usage=None,
            top=generated.top,
            seconds=time.monotonic() - begin,
        )

    def bf16_pass(self, case: Case) -> Bf16Pass:
        """The greedy answer to a case in bf16, with its logits and hidden states in bf16.

        Raises:
            PreconditionError: if the chat template does not put the answer right after the prompt.
        """
        model = self.load("bfloat16")
        token_ids = model.generate(self._encoder.prompt(case), case.max_tokens).token_ids
        sequence = self._encoder.with_answer(case, self._encoder.text(token_ids))
        numbers = model.force(sequence, sequence.positions)
        hidden = numbers.hidden[_hidden_rows(sequence)]
        return Bf16Pass(token_ids, sequence.positions, numbers.logits, hidden)

    def finish(self, case: Case, bf16: Bf16Pass) -> Reference:
        """Completes the reference of a case: runs the pass in fp32.

        Args:
            case: the case.
            bf16: the result of `bf16_pass` for this case.

        Raises:
            PreconditionError: if the chat template does not put the answer right after the prompt,
                or the answer is at other positions than in the bf16 pass.
        """
        sequence = self._encoder.with_answer(case, self._encoder.text(bf16.token_ids))
        if not np.array_equal(bf16.positions, sequence.positions):
            raise PreconditionError(
                f"{case.id}: the tokens of the request with its answer have changed since the "
                "bf16 pass. Delete its half (`recording` under --vlm-log-dir) and record again."
            )
        fp32 = self.load("float32").force(sequence, sequence.positions)
        numerics = _numerics(sequence, fp32, bf16)
        return Reference(
            case_id=case.id,
            source=f"by Transformers {self.versions['transformers']} on CPU",
            text=self._encoder.text(bf16.token_ids),
            prompt_token_ids=sequence.token_ids[: sequence.prompt_tokens],
            token_ids=bf16.token_ids,
            numerics=numerics,
            placeholders=self._encoder.placeholders(case),
        )


def _numerics(sequence: Sequence, fp32: ForwardPass, bf16: Bf16Pass) -> ReferenceNumerics:
    """The stored part of a sequence's numbers in fp32 and bf16."""
    answer = slice(-len(sequence.answer) - 1, None)
    top_fp32 = most_likely(fp32.logits, LISTED_TOKENS)
    top_bf16 = at_tokens(bf16.logits, top_fp32.token_ids)
    positions, rows = sequence.positions, _hidden_rows(sequence)
    return ReferenceNumerics(
        token_ids=sequence.answer,
        positions=positions,
        is_image=sequence.is_image[positions],
        top_tokens=top_fp32.token_ids,
        fp32=top_fp32.logits,
        bf16=top_bf16.logits,
        fp32_logsumexp=top_fp32.logsumexp,
        bf16_logsumexp=top_bf16.logsumexp,
        logit_rmse=rmse(bf16.logits[answer], fp32.logits[answer]),
        hidden=ReferenceHidden(
            positions[rows], sequence.is_image[positions[rows]], fp32.hidden[rows], bf16.hidden
        ),
    )


def _hidden_rows(sequence: Sequence) -> npt.NDArray[np.int64]:
    """Indices, among a sequence's stored positions, of those whose hidden states are stored."""
    return evenly(np.arange(len(sequence.positions), dtype=np.int64), HIDDEN_POSITIONS)

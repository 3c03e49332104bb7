"""The reference engine: Transformers on CPU, greedy, the model's own template and processor.

It never talks to the engine under test. Generation is bf16, as the checkpoint's authors and the
field's adaptation documents run it; the answer is then forced through the model in bf16 and in
float32, and the difference between the two is the yardstick of what rounding costs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigurationError, PreconditionError
from ..observation import TOP_LOGPROBS, Reference, ReferenceNumerics, TopLogprobs
from ..spec import Case
from . import torch_extras


@dataclass(frozen=True)
class _ForcedLogits:
    """Logits of a forced answer and of what follows it, shape (n + 1, vocabulary), float32."""

    token_ids: tuple[int, ...]
    logits: npt.NDArray[np.float32]


class TransformersReference:
    """One checkpoint, loaded in bf16 and, for the yardstick, in fp32."""

    def __init__(
        self, model_path: Path, *, trust_remote_code: bool, progress: Callable[[str], None]
    ) -> None:
        """Loads the checkpoint.

        Args:
            model_path: the checkpoint's directory.
            trust_remote_code: whether it may run code of its own.
            progress: told in words what is being done.

        Raises:
            ConfigurationError: torch or transformers is not installed, or cannot load it.
        """
        torch_extras.install()
        try:
            import torch
            import transformers
        except ImportError as error:
            raise ConfigurationError(
                f"the reference engine needs torch and transformers ({error}); install them with "
                "pip install 'pytest-ascend-vlm[reference]'."
            ) from error
        self._torch = torch
        self._options = {"trust_remote_code": trust_remote_code}
        self._path = model_path
        self._progress = progress
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        progress(f"loading {model_path.name} with Transformers {transformers.__version__}")
        with _explained(model_path):
            self._processor = transformers.AutoProcessor.from_pretrained(
                model_path, **self._options
            )
            self._bf16 = self._load(torch.bfloat16)
            self._fp32 = self._load(torch.float32)

    def answer(self, case: Case) -> Reference:
        """The greedy answer to a case and its numerics.

        Raises:
            PreconditionError: the answer, put back into the chat, does not follow the prompt.
        """
        self._progress(f"answering {case.id}")
        inputs = self._encode(_chat(case), case)
        prompt_ids = inputs["input_ids"][0].tolist()
        with self._torch.inference_mode():
            generated = self._bf16.generate(
                **inputs,
                max_new_tokens=case.max_tokens,
                do_sample=False,
                # Both sides are greedy, whatever the checkpoint's own settings say.
                repetition_penalty=1.0,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        token_ids = tuple(generated[0, len(prompt_ids) :].tolist())
        text = self._processor.tokenizer.decode(token_ids, skip_special_tokens=True)
        return Reference(
            case_id=case.id,
            source=f"by Transformers {self.versions['transformers']} on CPU",
            text=text,
            prompt_tokens=len(prompt_ids),
            token_ids=token_ids,
            numerics=self._numerics(case, text, prompt_ids),
        )

    @property
    def processor_name(self) -> str:
        """Class of the processor, as provenance names it."""
        return type(self._processor).__name__

    def _load(self, dtype: Any) -> Any:
        import transformers

        model = transformers.AutoModelForImageTextToText.from_pretrained(
            self._path, dtype=dtype, **self._options
        )
        return model.eval()

    def _encode(self, chat: list[dict[str, Any]], case: Case, **template: Any) -> Mapping[str, Any]:
        from PIL import Image

        options = template or {"add_generation_prompt": True}
        text = self._processor.apply_chat_template(chat, tokenize=False, **options)
        images = [Image.open(path).convert("RGB") for path in case.images]
        encoded: Mapping[str, Any] = self._processor(
            text=[text], images=images or None, return_tensors="pt", add_special_tokens=False
        )
        return encoded

    def _numerics(self, case: Case, text: str, prompt_ids: list[int]) -> ReferenceNumerics:
        fp32 = self._force(self._fp32, case, text, prompt_ids)
        bf16 = self._force(self._bf16, case, text, prompt_ids)
        return ReferenceNumerics(
            token_ids=fp32.token_ids,
            fp32=_top_logprobs(fp32.logits),
            bf16=_top_logprobs(bf16.logits),
            peak_logit=fp32.logits.max(axis=1).astype(np.float64),
            logit_rmse=float(np.sqrt(np.mean((bf16.logits - fp32.logits) ** 2))),
        )

    def _force(self, model: Any, case: Case, text: str, prompt_ids: list[int]) -> _ForcedLogits:
        chat = [*_chat(case), {"role": "assistant", "content": [{"type": "text", "text": text}]}]
        inputs = self._encode(chat, case, continue_final_message=True)
        ids = inputs["input_ids"][0].tolist()
        start = len(prompt_ids)
        if ids[:start] != prompt_ids or len(ids) == start:
            raise PreconditionError(
                f"{case.id}: the chat template does not put the assistant's answer right behind "
                "the generation prompt, so the answer cannot be forced."
            )
        with self._torch.inference_mode():
            logits = model(**inputs).logits[0, start - 1 :].float().numpy()
        return _ForcedLogits(tuple(ids[start:]), logits)


def _chat(case: Case) -> list[dict[str, Any]]:
    """A case as the processor's template takes it: image parts, then the text."""
    images = [{"type": "image"} for _ in case.images]
    return [{"role": "user", "content": [*images, {"type": "text", "text": case.prompt}]}]


def _top_logprobs(logits: npt.NDArray[np.float32]) -> TopLogprobs:
    wide = logits.astype(np.float64)
    peak = wide.max(axis=1, keepdims=True)
    logprobs = wide - peak - np.log(np.exp(wide - peak).sum(axis=1, keepdims=True))
    best = np.argsort(-logprobs, axis=1, kind="stable")[:, :TOP_LOGPROBS]
    return TopLogprobs(best.astype(np.int64), np.take_along_axis(logprobs, best, axis=1))


@contextlib.contextmanager
def _explained(model_path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigurationError(
            f"Transformers cannot load {model_path}: {error}. Check that the directory is a "
            "complete checkpoint and that this version of Transformers knows its architecture; a "
            "model with code of its own needs trust_remote_code=True in its ModelSpec."
        ) from error

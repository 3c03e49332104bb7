"""A checkpoint in Transformers: its processor, and its weights in one data type on one device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...errors import ConfigurationError, PreconditionError
from ...spec.case import Case
from .. import torch_companions

Dtype = Literal["bfloat16", "float32"]

PROMPT_ROWS = 32
"""Rows of the prompt whose numbers are kept, evenly spaced; every row of the answer is."""


@dataclass(frozen=True, eq=False)
class Sequence:
    """A request with an answer put behind it, as the model takes it.

    Attributes:
        case_id: the case.
        inputs: the processor's tensors.
        token_ids: prompt and answer.
        prompt_tokens: length of the prompt.
        is_image: shape (length,), bool; where the image tokens are.
    """

    case_id: str
    inputs: Mapping[str, Any]
    token_ids: tuple[int, ...]
    prompt_tokens: int
    is_image: npt.NDArray[np.bool_]

    @property
    def answer(self) -> tuple[int, ...]:
        """The forced tokens."""
        return self.token_ids[self.prompt_tokens :]

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """The positions whose numbers are kept: some of the prompt, all of the answer."""
        first = self.prompt_tokens - 1
        answer = np.arange(first, len(self.token_ids), dtype=np.int64)
        return np.concatenate([evenly(np.arange(first, dtype=np.int64), PROMPT_ROWS), answer])


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """What a model makes of a sequence.

    Attributes:
        logits: shape (positions asked for, vocabulary), float32.
        hidden: shape (positions asked for, width), float32; the last hidden states.
    """

    logits: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.float32]


class Encoder:
    """A checkpoint's processor and chat template: from cases to what a model takes."""

    def __init__(self, model_path: Path, *, trust_remote_code: bool) -> None:
        """Loads the processor.

        Raises:
            ConfigurationError: torch or transformers is not installed, or cannot load it.
        """
        transformers = _transformers()
        # Transformers 4 takes, for some checkpoints, an older image processor unless it is told.
        # Its pixels differ in the last bit, and a model's numbers then by more than float32's.
        options = {"use_fast": True} if transformers.__version__.startswith("4.") else {}
        with _explained(model_path):
            self._processor = transformers.AutoProcessor.from_pretrained(
                model_path, trust_remote_code=trust_remote_code, **options
            )
            config = transformers.AutoConfig.from_pretrained(
                model_path, trust_remote_code=trust_remote_code
            )
        self._image_token = getattr(config, "image_token_id", None)

    @property
    def name(self) -> str:
        """Class of the processor, as provenance names it."""
        return type(self._processor).__name__

    def prompt(self, case: Case) -> Mapping[str, Any]:
        """A request alone."""
        return self._encode(_chat(case), case, add_generation_prompt=True)

    def vllm_prompt(self, case: Case, answer: str) -> dict[str, Any]:
        """A request with an answer put behind it, as vLLM's offline engine takes it."""
        text = self._rendered(_with_answer(case, answer), continue_final_message=True)
        images = _images(case)
        return {"prompt": text, **({"multi_modal_data": {"image": images}} if images else {})}

    def text(self, token_ids: tuple[int, ...]) -> str:
        """Tokens as text, without special ones."""
        return str(self._processor.tokenizer.decode(token_ids, skip_special_tokens=True))

    def with_answer(self, case: Case, answer: str) -> Sequence:
        """A request with an answer put behind it.

        Raises:
            PreconditionError: the answer, put back into the chat, does not follow the prompt.
        """
        prompt_ids = self.prompt(case)["input_ids"][0].tolist()
        inputs = self._encode(_with_answer(case, answer), case, continue_final_message=True)
        ids = inputs["input_ids"][0].tolist()
        start = len(prompt_ids)
        if ids[:start] != prompt_ids or len(ids) == start:
            raise PreconditionError(
                f"{case.id}: the chat template does not put the assistant's answer right behind "
                "the generation prompt, so the answer cannot be forced."
            )
        is_image = np.array(ids) == (-1 if self._image_token is None else self._image_token)
        return Sequence(case.id, inputs, tuple(ids), start, is_image)

    def _encode(self, chat: list[dict[str, Any]], case: Case, **template: Any) -> Mapping[str, Any]:
        encoded: Mapping[str, Any] = self._processor(
            text=[self._rendered(chat, **template)],
            images=_images(case) or None,
            return_tensors="pt",
            add_special_tokens=False,
        )
        return encoded

    def _rendered(self, chat: list[dict[str, Any]], **template: Any) -> str:
        return str(self._processor.apply_chat_template(chat, tokenize=False, **template))


class TransformersModel:
    """A checkpoint's weights, in one data type, on one device.

    Attributes:
        dtype: the data type.
    """

    def __init__(
        self, model_path: Path, dtype: Dtype, device: str = "cpu", *, trust_remote_code: bool
    ) -> None:
        """Loads the weights.

        Raises:
            ConfigurationError: Transformers or the device's torch is missing, or cannot load it.
        """
        transformers = _transformers()
        import torch

        self.dtype = dtype
        self._torch = torch
        self._device = torch.device(device)
        with _explained(model_path):
            model = _with_sdpa(
                transformers.AutoModelForImageTextToText.from_pretrained,
                model_path,
                dtype=getattr(torch, dtype),
                trust_remote_code=trust_remote_code,
            )
        self._model = model.eval().to(self._device)

    @property
    def attention(self) -> str:
        """How attention is computed: "sdpa", or what parts of the model that lack it have too."""
        configs = (getattr(module, "config", None) for module in self._model.modules())
        names = {getattr(config, "_attn_implementation", None) for config in configs}
        return "+".join(sorted(name for name in names if name))

    def unload(self) -> None:
        """Gives the memory of the weights back, whoever still holds the model.

        A traceback does, and the second data type of an 8B model must not wait for it.
        """
        self._model.to("meta")

    def generate(self, inputs: Mapping[str, Any], max_tokens: int) -> tuple[int, ...]:
        """The greedy continuation of a prompt."""
        with self._torch.inference_mode():
            generated = self._model.generate(
                **self._here(inputs),
                max_new_tokens=max_tokens,
                do_sample=False,
                # Both sides are greedy, whatever the checkpoint's own settings say.
                repetition_penalty=1.0,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        return tuple(generated[0, inputs["input_ids"].shape[1] :].tolist())

    def force(self, sequence: Sequence, positions: npt.NDArray[np.int64]) -> ForwardPass:
        """What the model makes of a sequence, at some of its positions.

        The last hidden states are what its output layer is given; it gets these positions alone,
        so that no other logits are computed. Neither is left to the model's own arguments: some
        versions of Transformers ignore `logits_to_keep`, and with `output_hidden_states` some end
        before the last norm.

        Raises:
            ConfigurationError: the model does not give its output layer every row, once.
        """
        keep = self._torch.from_numpy(positions).to(self._device)
        kept: list[Any] = []

        def keep_rows(_layer: Any, given: tuple[Any, ...]) -> Any:
            _require(sequence, "gives its output layer", given[0], len(sequence.token_ids))
            kept.append(given[0][:, keep])
            return kept[-1]

        hook = self._output_layer.register_forward_pre_hook(keep_rows)
        try:
            with self._torch.inference_mode():
                logits = self._model(**self._here(sequence.inputs), use_cache=False).logits
        finally:
            hook.remove()
        _require(sequence, "gives logits", logits, len(positions))
        if len(kept) != 1:
            raise ConfigurationError(
                f"{sequence.case_id}: the model calls its output layer {len(kept)} times in one "
                f"pass, so its last hidden states cannot be told. {_other_version()}"
            )
        return ForwardPass(logits[0].float().cpu().numpy(), kept[0][0].float().cpu().numpy())

    @property
    def _output_layer(self) -> Any:
        layer = self._model.get_output_embeddings()
        if layer is None:
            raise ConfigurationError(
                f"{type(self._model).__name__} does not name its output layer, so its last hidden "
                f"states cannot be told. {_other_version()}"
            )
        return layer

    def _here(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}


def _require(sequence: Sequence, does: str, table: Any, positions: int) -> None:
    """Refuses a table that has not one row for each of so many positions of a sequence."""
    if table.ndim != 3 or tuple(table.shape[:2]) != (1, positions):
        raise ConfigurationError(
            f"{sequence.case_id}: of {len(sequence.token_ids)} tokens the model {does} of shape "
            f"{tuple(table.shape)} where (1, {positions}, ...) is expected, so its numbers belong "
            f"to no positions. {_other_version()}"
        )


def _other_version() -> str:
    version = versions()["transformers"]
    return (
        f"Transformers {version} runs it in another way than the suite knows: try another version."
    )


def _with_sdpa(from_pretrained: Callable[..., Any], model_path: Path, **arguments: Any) -> Any:
    """A model with PyTorch's fused attention, whatever its config.json asks for.

    Where a part of it knows none, the model gets what Transformers chooses for each part.
    """
    try:
        return from_pretrained(model_path, attn_implementation="sdpa", **arguments)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
    return from_pretrained(model_path, **arguments)


def versions() -> dict[str, str]:
    """Versions of torch and transformers."""
    transformers = _transformers()
    import torch

    return {"torch": torch.__version__, "transformers": transformers.__version__}


def _transformers() -> Any:
    torch_companions.install()
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise ConfigurationError(
            f"the reference engine needs torch and transformers ({error}); install them with "
            "pip install 'pytest-ascend-vlm[reference]'."
        ) from error
    return transformers


def evenly(values: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """At most `most` of the values, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).round().astype(np.int64)]


def _chat(case: Case) -> list[dict[str, Any]]:
    """A case as the processor's template takes it: image parts, then the text."""
    images = [{"type": "image"} for _ in case.images]
    return [{"role": "user", "content": [*images, {"type": "text", "text": case.prompt}]}]


def _with_answer(case: Case, answer: str) -> list[dict[str, Any]]:
    said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    return [*_chat(case), said]


def _images(case: Case) -> list[Any]:
    from PIL import Image

    return [Image.open(path).convert("RGB") for path in case.images]


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

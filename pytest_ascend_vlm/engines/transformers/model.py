"""A checkpoint in Transformers: its processor, and its weights in one dtype on one device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...errors import ConfigurationError, PreconditionError, VlmError
from ...observation.answers import TOP_LOGPROBS, TopLogprobs
from ...spec.case import Case
from .. import torch_companions
from .clips import read_clip
from .internvl_chat import is_internvl_chat, load_model, load_processor
from .placement import load_onto

Dtype = Literal["bfloat16", "float32"]

_METADATA = "video_metadata"
_USUAL_PATCH = 14
"""Side in pixels of a patch, if the checkpoint does not say it."""

PROMPT_ROWS = 32
"""Number of prompt positions whose numbers are stored, evenly spaced. Of the answer, all are."""


@dataclass(frozen=True, eq=False)
class Sequence:
    """A request followed by a forced answer, as model inputs.

    Attributes:
        case_id: the case.
        inputs: the processor's tensors.
        token_ids: the tokens of the prompt and the answer.
        prompt_tokens: number of tokens of the prompt.
        is_image: shape (tokens,), bool; True at the tokens of images and of video frames.
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
        """The positions whose numbers are stored: some of the prompt, all of the answer."""
        first = self.prompt_tokens - 1
        answer = np.arange(first, len(self.token_ids), dtype=np.int64)
        return np.concatenate([evenly(np.arange(first, dtype=np.int64), PROMPT_ROWS), answer])


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """A model's outputs at the requested positions of a sequence.

    Attributes:
        logits: shape (positions, vocabulary), float32.
        hidden: shape (positions, width), float32; the last hidden states.
    """

    logits: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Generated:
    """A greedy answer.

    Attributes:
        token_ids: its tokens, with the end-of-sequence token unless it was cut.
        top: the most likely tokens at each position.
    """

    token_ids: tuple[int, ...]
    top: TopLogprobs


class Encoder:
    """A checkpoint's processor and chat template: converts cases to model inputs."""

    def __init__(
        self,
        model_path: Path,
        *,
        trust_remote_code: bool,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads the processor.

        Args:
            model_path: the checkpoint's directory.
            trust_remote_code: True if the checkpoint's own code may run.
            arguments: arguments of each call of the processor: `{"max_pixels": 1003520}`.

        Raises:
            ConfigurationError: if torch or transformers is not installed, or cannot load the
                processor.
        """
        _transformers()
        load = load_processor if is_internvl_chat(model_path) else _load_processor
        self._processor: Any
        with _load_errors(model_path):
            self._processor, config = load(model_path, trust_remote_code=trust_remote_code)
        self._image_token: int | None = getattr(config, "image_token_id", None)
        self._video_token: int | None = getattr(config, "video_token_id", None)
        self._arguments = dict(arguments or {})
        self._vision = getattr(config, "vision_config", None)

    @property
    def patch_sides(self) -> tuple[int, int]:
        """Sides in pixels of a patch and of what an image is divided into.

        The latter is a square of merged patches, or a tile if the processor cuts tiles.
        """
        images = self._processor.image_processor
        patch = getattr(images, "patch_size", None) or getattr(self._vision, "patch_size", None)
        side = int(patch[0] if isinstance(patch, (list, tuple)) else patch or _USUAL_PATCH)
        if merged := getattr(images, "merge_size", None):
            return side, side * int(merged)
        return side, int((images.size or {}).get("height") or side)

    @property
    def name(self) -> str:
        """Class name of the processor, for the provenance of goldens."""
        return type(self._processor).__name__

    def prompt(self, case: Case) -> Mapping[str, Any]:
        """The inputs of a request without an answer."""
        return self._encode(_chat(case), case, add_generation_prompt=True)

    def prompt_token_ids(self, case: Case) -> tuple[int, ...]:
        """The tokens of a request's prompt, image tokens included."""
        return tuple(self.prompt(case)["input_ids"][0].tolist())

    def placeholders(self, case: Case) -> tuple[int, ...]:
        """The tokens that may hold the place of a frame; empty if all engines use the same one.

        Where config.json names no token for videos (InternVL), the processor writes the image token
        for each frame. vLLM keeps the processor's token for videos there.
        """
        if not case.videos or self._video_token is not None or self._image_token is None:
            return ()
        tokenizer = self._processor.tokenizer
        video_token = tokenizer.convert_tokens_to_ids(self._processor.video_token)
        return (self._image_token, int(video_token))

    def vllm_prompt(self, case: Case, answer: str) -> dict[str, Any]:
        """A request followed by a forced answer, as a prompt of vLLM's offline engine."""
        text = self._rendered(_with_answer(case, answer), continue_final_message=True)
        images = _images(case)
        return {"prompt": text, **({"multi_modal_data": {"image": images}} if images else {})}

    def text(self, token_ids: tuple[int, ...]) -> str:
        """Decodes tokens, without special tokens."""
        return str(self._processor.tokenizer.decode(token_ids, skip_special_tokens=True))

    def with_answer(self, case: Case, answer: str) -> Sequence:
        """A request followed by a forced answer.

        Raises:
            PreconditionError: if the chat template does not put the answer right after the prompt.
        """
        prompt_ids = self.prompt(case)["input_ids"][0].tolist()
        inputs = self._encode(_with_answer(case, answer), case, continue_final_message=True)
        ids = inputs["input_ids"][0].tolist()
        start = len(prompt_ids)
        if ids[:start] != prompt_ids or len(ids) == start:
            raise PreconditionError(
                f"{case.id}: the chat template does not put the assistant's answer right after "
                "the generation prompt, so the answer cannot be forced."
            )
        of_images = [one for one in (self._image_token, self._video_token) if one is not None]
        return Sequence(case.id, inputs, tuple(ids), start, np.isin(ids, of_images))

    def _encode(self, chat: list[dict[str, Any]], case: Case, **template: Any) -> Mapping[str, Any]:
        encoded = self._processor(
            text=[self._rendered(chat, **template)],
            images=_images(case) or None,
            return_tensors="pt",
            add_special_tokens=False,
            **{**self._arguments, **_videos(case)},
        )
        return {name: value for name, value in encoded.items() if name != _METADATA}

    def _rendered(self, chat: list[dict[str, Any]], **template: Any) -> str:
        return str(self._processor.apply_chat_template(chat, tokenize=False, **template))


class TransformersModel:
    """A checkpoint's weights in one dtype, on one device or divided among several cards.

    Attributes:
        dtype: the dtype.
    """

    def __init__(
        self,
        model_path: Path,
        dtype: Dtype,
        devices: tuple[str, ...] = ("cpu",),
        *,
        trust_remote_code: bool,
    ) -> None:
        """Loads the weights.

        Args:
            model_path: the checkpoint's directory.
            dtype: the dtype.
            devices: torch's names of the devices; the first one gets the inputs.
            trust_remote_code: True if the checkpoint's own code may run.

        Raises:
            ConfigurationError: if torch or transformers is not installed, or cannot load the
                weights onto these devices.
        """
        transformers = _transformers()
        import torch

        self.dtype = dtype
        self._torch = torch
        self._device = torch.device(devices[0])
        from_pretrained = (
            load_model
            if is_internvl_chat(model_path)
            else transformers.AutoModelForImageTextToText.from_pretrained
        )
        load = partial(
            _with_sdpa,
            from_pretrained,
            model_path,
            dtype=getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
        )
        with _load_errors(model_path):
            self._model = load_onto(devices, load)

    @property
    def attention(self) -> str:
        """The attention implementation: "sdpa", or the names of all that the model's parts use."""
        configs = (getattr(module, "config", None) for module in self._model.modules())
        names = {getattr(config, "_attn_implementation", None) for config in configs}
        return "+".join(sorted(name for name in names if name))

    def unload(self) -> None:
        """Frees the weights even if something (a traceback, say) still references the model.

        So the next dtype can be loaded.
        """
        self._model.to("meta")

    def generate(self, inputs: Mapping[str, Any], max_tokens: int) -> Generated:
        """The greedy continuation of a prompt."""
        values, indices = [], []

        def keep_candidates(_ids: Any, logits: Any) -> Any:
            top = logits[0].double().log_softmax(dim=-1).topk(TOP_LOGPROBS)
            values.append(top.values.cpu().numpy())
            indices.append(top.indices.cpu().numpy())
            return logits

        with self._torch.inference_mode():
            generated = self._model.generate(
                **self._on_device(inputs),
                max_new_tokens=max_tokens,
                do_sample=False,
                # Greedy on both sides: override the checkpoint's generation_config.json.
                repetition_penalty=1.0,
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=[keep_candidates],
            )
        token_ids = tuple(generated[0, inputs["input_ids"].shape[1] :].tolist())
        return Generated(token_ids, TopLogprobs(np.stack(indices), np.stack(values)))

    def force(self, sequence: Sequence, positions: npt.NDArray[np.int64]) -> ForwardPass:
        """Runs a sequence through the model; returns its outputs at some positions.

        A hook on the output layer records its input, the last hidden states. The hook passes on
        only the requested positions, so that no other logits are computed. We do not use the
        model's own arguments for this: some versions of Transformers ignore `logits_to_keep`, and
        with `output_hidden_states` some return the states before the last norm.

        Args:
            sequence: the sequence.
            positions: shape (positions,), int64; the requested positions.

        Raises:
            ConfigurationError: if the model does not call its output layer exactly once with all
                positions.
        """
        keep = self._torch.from_numpy(positions)
        hidden: list[Any] = []

        def select_positions(_layer: Any, inputs: tuple[Any, ...]) -> Any:
            _require(sequence, "gives its output layer", inputs[0], len(sequence.token_ids))
            # The output layer of a divided model may be on another card than the inputs.
            hidden.append(inputs[0][:, keep.to(inputs[0].device)])
            return hidden[-1]

        hook = self._output_layer.register_forward_pre_hook(select_positions)
        try:
            with self._torch.inference_mode():
                logits = self._model(**self._on_device(sequence.inputs), use_cache=False).logits
        finally:
            hook.remove()
        _require(sequence, "gives logits", logits, len(positions))
        if len(hidden) != 1:
            raise ConfigurationError(
                f"{sequence.case_id}: the model calls its output layer {len(hidden)} times in one "
                f"pass, so its last hidden states are unknown. {_other_version()}"
            )
        return ForwardPass(logits[0].float().cpu().numpy(), hidden[0][0].float().cpu().numpy())

    @property
    def _output_layer(self) -> Any:
        layer = self._model.get_output_embeddings()
        if layer is None:
            raise ConfigurationError(
                f"{type(self._model).__name__} does not name its output layer, so its last hidden "
                f"states are unknown. {_other_version()}"
            )
        return layer

    def _on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}


def _require(sequence: Sequence, action: str, table: Any, positions: int) -> None:
    """Raises ConfigurationError unless a table has the shape (1, positions, ...)."""
    if table.ndim != 3 or tuple(table.shape[:2]) != (1, positions):
        raise ConfigurationError(
            f"{sequence.case_id}: for {len(sequence.token_ids)} tokens the model {action} of shape "
            f"{tuple(table.shape)} instead of (1, {positions}, ...), so its numbers cannot be "
            f"assigned to positions. {_other_version()}"
        )


def _other_version() -> str:
    version = versions()["transformers"]
    return f"Transformers {version} runs it in an unexpected way: try another version."


def _load_processor(model_path: Path, *, trust_remote_code: bool) -> tuple[Any, Any]:
    """A checkpoint's processor and configuration."""
    transformers = _transformers()
    # By default Transformers 4 loads a slow image processor for some checkpoints. Its pixels
    # differ in the last bit, which changes logits by more than the rounding of float32 does.
    options = {"use_fast": True} if transformers.__version__.startswith("4.") else {}
    processor = transformers.AutoProcessor.from_pretrained(
        model_path, trust_remote_code=trust_remote_code, **options
    )
    config = transformers.AutoConfig.from_pretrained(
        model_path, trust_remote_code=trust_remote_code
    )
    return processor, config


def _with_sdpa(from_pretrained: Callable[..., Any], model_path: Path, **arguments: Any) -> Any:
    """Loads a model with PyTorch's fused attention (SDPA), whatever its config.json says.

    If a part of the model does not support SDPA, Transformers chooses for each part.
    """
    try:
        return from_pretrained(model_path, attn_implementation="sdpa", **arguments)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
    return from_pretrained(model_path, **arguments)


def versions() -> dict[str, str]:
    """The versions of torch and transformers."""
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
    except RuntimeError as error:
        if "backend extension" not in str(error):
            raise
        # torch loads torch_npu when it is imported, and torch_npu needs the driver even for a CPU.
        raise ConfigurationError(
            f"torch cannot be imported ({' '.join(str(error).split())}). In a container of "
            "vllm-ascend mount the driver (see `ascend-vlm doctor`); on a host without an NPU use "
            "an environment without torch_npu: pip install 'pytest-ascend-vlm[reference]'."
        ) from error
    return transformers


def evenly(values: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """At most `count` of the values, evenly spaced, including the first and the last."""
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).round().astype(np.int64)]


def _chat(case: Case) -> list[dict[str, Any]]:
    """A case as messages for the processor's chat template."""
    *earlier, last = (
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
                for part in message.content
            ],
        }
        for message in case.conversation
    )
    videos = [{"type": "video"} for _ in case.videos]
    return [*earlier, {**last, "content": [*videos, *last["content"]]}]


def _with_answer(case: Case, answer: str) -> list[dict[str, Any]]:
    reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    return [*_chat(case), reply]


def _images(case: Case) -> list[Any]:
    from PIL import Image

    return [Image.open(path).convert("RGB") for path in case.every_image]


def _videos(case: Case) -> dict[str, Any]:
    """Arguments of a processor: all frames of a case's videos, with their times."""
    if not case.videos:
        return {}
    clips = [read_clip(path) for path in case.videos]
    return {
        "videos": [clip.frames for clip in clips],
        _METADATA: [clip.metadata for clip in clips],
        "do_sample_frames": False,
        # Transformers 4 takes the time between the frames of Qwen2.5-VL from `fps`.
        "fps": clips[0].frames_a_second,
    }


@contextlib.contextmanager
def _load_errors(model_path: Path) -> Iterator[None]:
    try:
        yield
    except VlmError:
        raise
    except Exception as error:  # a damaged checkpoint can raise anything
        what = error if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            f"Transformers cannot load {model_path}: {what}. Check that the directory is a "
            "complete checkpoint and that this version of Transformers knows its architecture; a "
            "model with code of its own needs trust_remote_code=True in its ModelSpec."
        ) from error

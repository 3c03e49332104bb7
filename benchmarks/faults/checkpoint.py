"""Faults of the checkpoint: weights, configuration, processor and chat template of a copy."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .fault import ANY, GLM, INTERNVL, MINERU, QWEN2_5, QWEN3, Fault, Kind, Place

Harm = Callable[[Path], None]
"""Damages the checkpoint in a directory."""

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
_BILINEAR = 2
_FREQUENT = "e"


class NotApplicableError(Exception):
    """A fault cannot be put into the checkpoint; the message contains the reason."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFault(Fault):
    """A fault in the files of a checkpoint.

    Attributes:
        harm: damages a copy of the checkpoint.
    """

    place: ClassVar[Place] = Place.CHECKPOINT

    harm: Harm


def harmed_copy(checkpoint: Path, harm: Harm, root: Path) -> Path:
    """Copies a tiny checkpoint into another fixture root, damages the copy and returns that root.

    Raises:
        NotApplicableError: if nothing was damaged.
    """
    copy = root / "tiny" / checkpoint.name
    shutil.copytree(checkpoint, copy)
    harm(copy)
    if _files(copy) == _files(checkpoint):
        raise NotApplicableError(f"the fault changes nothing in {checkpoint.name}")
    return root


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@contextlib.contextmanager
def edited(path: Path) -> Iterator[dict[str, Any]]:
    """A JSON file's content, written back afterwards."""
    content = json.loads(path.read_text("utf-8"))
    yield content
    path.write_text(json.dumps(content), "utf-8")


def settings(key: str, change: Callable[[Any], Any], otherwise: str = "") -> Harm:
    """Changes a setting wherever config.json has it; `otherwise` is the reason if it has none."""

    def change_in(part: dict[str, Any]) -> dict[str, Any]:
        return {**part, key: change(part[key])} if key in part else part

    def harm(checkpoint: Path) -> None:
        path = checkpoint / "config.json"
        before = path.read_text("utf-8")
        after = json.loads(before, object_hook=change_in)
        if after == json.loads(before):
            raise NotApplicableError(otherwise)
        path.write_text(json.dumps(after), "utf-8")

    return harm


def weights(pattern: str, change: Callable[[Any], Any], otherwise: str = "") -> Harm:
    """Changes the weights whose names match, and drops those that become None."""

    def harm(checkpoint: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = checkpoint / "model.safetensors"
        tensors = load_file(path)
        chosen = [name for name in tensors if re.search(pattern, name)]
        if not chosen:
            raise NotApplicableError(otherwise)
        changed = {name: change(tensors.pop(name)) for name in chosen}
        tensors |= {name: t.bfloat16() for name, t in changed.items() if t is not None}
        save_file(tensors, path, metadata={"format": "pt"})

    return harm


# --- what is wrong -------------------------------------------------------------------------------


def noise(share: float) -> Callable[[Any], Any]:
    """Adds Gaussian noise with a standard deviation of `share` x the tensor's RMS."""

    def change(tensor: Any) -> Any:
        import torch

        generator = torch.Generator().manual_seed(tensor.numel())
        wide = tensor.float()
        scale = share * wide.square().mean().sqrt()
        return wide + scale * torch.randn(wide.shape, generator=generator)

    return change


def rounded(levels: int) -> Callable[[Any], Any]:
    """Rounds every row of a matrix to 2 x `levels` + 1 values, like a symmetric quantization."""

    def change(tensor: Any) -> Any:
        if tensor.ndim < 2:
            return tensor
        rows = tensor.float().flatten(1)
        step = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / levels
        return ((rows / step).round() * step).view(tensor.shape)

    return change


INT4, INT8 = 7, 127


def zero_first_row(matrix: Any) -> Any:
    """The matrix with its first row set to zero."""
    changed = matrix.clone()
    changed[0] = 0
    return changed


def skip_last_layer(checkpoint: Path) -> None:
    """Removes the last layer of the language model."""
    with edited(checkpoint / "config.json") as config:
        text = config.get("text_config", config)
        text["num_hidden_layers"] -= 1
    weights(rf"\.layers\.{text['num_hidden_layers']}\.", lambda _: None)(checkpoint)


def another_split(section: list[int]) -> list[int]:
    """Moves two rotary frequencies from height and width to time; also works with interleaving."""
    time, height, width = section
    return [time + 2, height - 1, width - 1]


def wrong_image_mean(checkpoint: Path) -> None:
    """Normalises images with the mean of another family."""
    with edited(checkpoint / "preprocessor_config.json") as config:
        config["image_mean"] = CLIP_MEAN if config["image_mean"] == [0.5] * 3 else [0.5] * 3


def larger_output_row(checkpoint: Path) -> None:
    """Scales one token's row of the output layer by 1.03, and not its row of the input layer."""
    from safetensors.torch import load_file, save_file

    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    embeddings = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    tensors["lm_head.weight"] = tensors[embeddings].clone()
    settings("tie_word_embeddings", lambda _: False)(checkpoint)
    token = json.loads((checkpoint / "vocab.json").read_text("utf-8"))[_FREQUENT]
    tensors["lm_head.weight"][token] *= 1.03
    save_file(tensors, path, metadata={"format": "pt"})


def _processor(change: Callable[[dict[str, Any]], None]) -> Harm:
    """Changes the settings of the processors of pictures and clips."""

    def harm(checkpoint: Path) -> None:
        for name in _PROCESSORS:
            if (path := checkpoint / name).is_file():
                with edited(path) as config:
                    change(config)

    return harm


def _channels_exchanged(config: dict[str, Any]) -> None:
    for key in config.keys() & {"image_mean", "image_std"}:
        config[key] = config[key][::-1]


def _bilinear(config: dict[str, Any]) -> None:
    config["resample"] = _BILINEAR


def _pixels(smallest: float = 1, largest: float = 1) -> Callable[[dict[str, Any]], None]:
    """Multiplies the limits of a picture's number of pixels."""

    def change(config: dict[str, Any]) -> None:
        limits = config.get("size", config)
        low, high = (
            ("min_pixels", "max_pixels")
            if "max_pixels" in limits
            else ("shortest_edge", "longest_edge")
        )
        limits[low] = int(limits[low] * smallest)
        limits[high] = int(limits[high] * largest)

    return change


def _fewer_tiles(config: dict[str, Any]) -> None:
    config["max_patches"] = 40


def _template(change: Callable[[str], str]) -> Harm:
    def harm(checkpoint: Path) -> None:
        path = checkpoint / "chat_template.jinja"
        path.write_text(change(path.read_text("utf-8")), "utf-8")

    return harm


_PARTS = "{% for part in message['content'] %}"


def _pictures_first(template: str) -> str:
    ordered = (
        "{% for part in message['content'] | selectattr('type', 'ne', 'text') | list"
        " + message['content'] | selectattr('type', 'equalto', 'text') | list %}"
    )
    return template.replace(_PARTS, ordered)


def _without_system(template: str) -> str:
    kept = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}"
    return kept + template


def _another_role(template: str) -> str:
    """The user's turns are printed as the system's, which takes as many tokens."""
    return template.replace(
        "{{ message['role'] }}", "{{ message['role'] | replace('user', 'system') }}"
    )


_NUMERIC = ("baseline.logprobs", "numerics.logits")
_READING = ("baseline.image", "document.characters")
_PROMPT = ("baseline.prompt",)
_LIMITED = (MINERU, QWEN2_5, QWEN3, GLM)


def _weights(name: str, what: str, harm: Harm, *more: str) -> CheckpointFault:
    caught_by = (*_NUMERIC, *more)
    return CheckpointFault(
        name=name,
        kind=Kind.WEIGHTS,
        what=what,
        harm=harm,
        caught_by=caught_by,
        suspect="weights",
        models=ANY,
    )


FAULTS = (
    _weights("weights-noise-1", "all weights have noise of 1 %", weights("", noise(0.01))),
    _weights("weights-noise-5", "all weights have noise of 5 %", weights("", noise(0.05))),
    _weights(
        "weights-noise-40", "all weights have noise of 40 %", weights("", noise(0.40)), *_READING
    ),
    CheckpointFault(
        name="weights-int4",
        kind=Kind.WEIGHTS,
        what="all matrices are rounded to int4",
        harm=weights("", rounded(INT4)),
        caught_by=(*_NUMERIC, *_READING),
        suspect="quantisation",
    ),
    CheckpointFault(
        name="weights-int8",
        kind=Kind.WEIGHTS,
        what="all matrices are rounded to int8",
        harm=weights("weight$", rounded(INT8)),
        caught_by=("numerics.logits",),
        suspect="quantisation",
    ),
    CheckpointFault(
        name="tower-weights-noise-5",
        kind=Kind.WEIGHTS,
        what="the weights of the vision tower have noise of 5 %",
        harm=weights("visual|vision_tower", noise(0.05)),
        caught_by=("numerics.images", "numerics.logits"),
        suspect="vision tower",
    ),
    _weights(
        "zeroed-row",
        "one row of one matrix of the language model is zero",
        weights(r"\.layers\.1\.mlp\.down_proj\.weight$", zero_first_row),
    ),
    _weights("last-layer-skipped", "the language model lacks its last layer", skip_last_layer),
    CheckpointFault(
        name="rope-base-1",
        kind=Kind.WEIGHTS,
        what="the base of the rotary positions is 1 % too large",
        harm=settings("rope_theta", lambda base: base * 1.01),
        caught_by=("numerics.logits",),
        suspect="weights",
    ),
    _weights(
        "rms-norm-epsilon",
        "the epsilon of RMSNorm is 10,000 times too large",
        settings("rms_norm_eps", lambda epsilon: epsilon * 1e4),
    ),
    CheckpointFault(
        name="mrope-section",
        kind=Kind.WEIGHTS,
        what="two rotary frequencies of height and width belong to time",
        harm=settings("mrope_section", another_split, "it has no mRoPE"),
        caught_by=_NUMERIC,
        suspect="places of images",
        models=_LIMITED,
    ),
    CheckpointFault(
        name="image-mean-of-another-family",
        kind=Kind.WEIGHTS,
        what="pictures are normalised with the mean of another family of models",
        harm=wrong_image_mean,
        caught_by=("numerics.images",),
        suspect="preprocessing",
    ),
    CheckpointFault(
        name="output-row-3",
        kind=Kind.NUMBERS,
        what="one token's row of the output layer is 3 % too large",
        harm=larger_output_row,
        caught_by=("numerics.tokens",),
        suspect="output layer",
        models=_LIMITED,
    ),
    CheckpointFault(
        name="mean-of-other-channels",
        kind=Kind.FORMATS,
        what="mean and deviation of red and blue are exchanged in the processor",
        harm=_processor(_channels_exchanged),
        caught_by=("numerics.images",),
        suspect="preprocessing",
        models=(MINERU, QWEN2_5, GLM, INTERNVL),
    ),
    CheckpointFault(
        name="resized-bilinear",
        kind=Kind.SIZE,
        what="pictures are resized by bilinear instead of bicubic interpolation",
        harm=_processor(_bilinear),
        caught_by=("numerics.images",),
        suspect="preprocessing",
    ),
    CheckpointFault(
        name="max-pixels-fifth",
        kind=Kind.SIZE,
        what="the largest number of pixels is a fifth of the declared one",
        harm=_processor(_pixels(largest=0.2)),
        caught_by=("baseline.prompt", "serving.image_sizes"),
        suspect="preprocessing",
        models=_LIMITED,
    ),
    CheckpointFault(
        name="min-pixels-sixteenfold",
        kind=Kind.SIZE,
        what="the smallest number of pixels is sixteen times the declared one",
        harm=_processor(_pixels(smallest=16)),
        caught_by=("serving.image_sizes",),
        suspect="preprocessing",
        models=_LIMITED,
    ),
    CheckpointFault(
        name="fewer-tiles",
        kind=Kind.SIZE,
        what="a picture is cut into at most 40 tiles, not 160",
        harm=_processor(_fewer_tiles),
        caught_by=("baseline.prompt", "serving.image_sizes"),
        suspect="preprocessing",
        models=(INTERNVL,),
    ),
    CheckpointFault(
        name="template-pictures-first",
        kind=Kind.WHICH,
        what="the chat template puts the pictures of a message before its text",
        harm=_template(_pictures_first),
        caught_by=_PROMPT,
        suspect="messages",
    ),
    CheckpointFault(
        name="template-without-system",
        kind=Kind.WHICH,
        what="the chat template leaves out the system message",
        harm=_template(_without_system),
        caught_by=_PROMPT,
        suspect="messages",
    ),
    CheckpointFault(
        name="template-of-equal-length",
        kind=Kind.WHICH,
        what="the chat template prints the user's turns as the system's, in as many tokens",
        harm=_template(_another_role),
        caught_by=_PROMPT,
        suspect="messages",
    ),
)

"""The card of a checkpoint: its architecture and size, from config.json and safetensors headers.

No tensor is loaded. The layouts of Qwen2-VL, Qwen2.5-VL, Qwen3-VL, GLM-OCR and both formats of
InternVL are read; a value that a layout does not have is left out.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]

_DECODERS = ("text_config", "llm_config")
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_EMBEDDINGS = ("embed_tokens.weight", "tok_embeddings.weight", "word_embeddings.weight")
# InternLM2 calls its head `output`, a name that its attention has as well.
_HEADS = ("lm_head.weight", "language_model.output.weight")
_UNREADABLE = (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Tensor:
    """A tensor in the header of a safetensors file.

    Attributes:
        dtype: the data type, as safetensors names it: "BF16".
        shape: the shape.
        bytes: the size of its data.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class ModelCard:
    """The architecture and the size of a checkpoint; None where the checkpoint does not tell.

    Attributes:
        architecture: the class that config.json names.
        model_type: config.json's type.
        parameters: number of elements of all tensors; weights that are tied count once.
        bytes: size of these tensors.
        dtype: data type of the weights, as torch names it.
        max_position_embeddings: the longest sequence that the decoder was made for, in tokens.
        vision: "layers", "hidden_size", "heads", "patch_size" and "image_size" (pixels) of the
            vision tower, as far as they are known.
        decoder: "model_type", "layers", "hidden_size", "heads", "kv_heads", "head_dim" and
            "vocabulary" of the language model, as far as they are known.
        rope: "theta", "type", "mrope_section" and "factor" of the rotary positions, as far as they
            are known.
    """

    architecture: str | None
    model_type: str | None
    parameters: int | None
    bytes: int | None
    dtype: str | None
    max_position_embeddings: int | None
    vision: Mapping[str, Any]
    decoder: Mapping[str, Any]
    rope: Mapping[str, Any]


def read_card(checkpoint: Path) -> ModelCard | None:
    """The card of a checkpoint directory; None if its config.json or a header is damaged."""
    try:
        config = json.loads((checkpoint / "config.json").read_text("utf-8"))
        return model_card(config, read_tensors(checkpoint))
    except _UNREADABLE:
        return None


def read_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Name -> tensor, from the headers of a checkpoint's safetensors files.

    A header is 8 bytes, the length of a JSON text, and this text. If there is an index, only the
    files that it names are read.

    Raises:
        OSError, ValueError, LookupError: a file is missing or damaged.
    """
    files = {*checkpoint.glob("*.safetensors")}
    for index in checkpoint.glob("*.safetensors.index.json"):
        shards = json.loads(index.read_text("utf-8"))["weight_map"].values()
        files = {checkpoint / name for name in shards}
    return {name: tensor for file in sorted(files) for name, tensor in _header(file).items()}


def model_card(config: Config, tensors: Mapping[str, Tensor]) -> ModelCard:
    """The card of a checkpoint.

    Args:
        config: the content of config.json.
        tensors: name -> tensor; empty if the weights are not safetensors.
    """
    decoder = _decoder_config(config)
    counted = list(_untied(tensors, is_tied=bool(decoder.get("tie_word_embeddings"))))
    return ModelCard(
        architecture=next(iter(config.get("architectures") or ()), None),
        model_type=config.get("model_type"),
        parameters=sum(math.prod(one.shape) for one in counted) if counted else None,
        bytes=sum(one.bytes for one in counted) if counted else None,
        dtype=_dtype(config, decoder, counted),
        max_position_embeddings=decoder.get("max_position_embeddings"),
        vision=_vision(config.get("vision_config") or {}),
        decoder=_decoder(decoder),
        rope=_rope(decoder),
    )


def _header(file: Path) -> dict[str, Tensor]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file.name} does not begin with the length of its header")
        header = json.loads(stream.read(length))
    return {
        name: Tensor(
            entry["dtype"],
            tuple(entry["shape"]),
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _untied(tensors: Mapping[str, Tensor], *, is_tied: bool) -> Iterable[Tensor]:
    """The tensors without an output head that is a stored copy of the embeddings."""
    has_embeddings = any(name.endswith(_EMBEDDINGS) for name in tensors)
    for name, tensor in tensors.items():
        if not (is_tied and has_embeddings and name.endswith(_HEADS)):
            yield tensor


def _decoder_config(config: Config) -> Config:
    """The language model's part of a config; older layouts have it at the top level."""
    own: Config = next((config[name] for name in _DECODERS if config.get(name)), {})
    return {**config, **own}


def _dtype(config: Config, decoder: Config, tensors: Iterable[Tensor]) -> str | None:
    """The data type that the config states; otherwise that of most of the weights."""
    for stated in (config, decoder):
        if name := stated.get("dtype") or stated.get("torch_dtype"):
            return str(name)
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.bytes
    commonest = next(iter(sizes.most_common(1)), None)
    return None if commonest is None else _DTYPES.get(commonest[0], commonest[0])


def _vision(config: Config) -> dict[str, Any]:
    # In Qwen2-VL hidden_size is the decoder's, and embed_dim that of the vision tower.
    return _known(
        layers=_first(config, "depth", "num_hidden_layers"),
        hidden_size=_first(config, "embed_dim", "hidden_size"),
        heads=_first(config, "num_heads", "num_attention_heads"),
        patch_size=_side(config.get("patch_size")),
        image_size=_side(config.get("image_size")),
    )


def _decoder(config: Config) -> dict[str, Any]:
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    return _known(
        model_type=config.get("model_type"),
        layers=config.get("num_hidden_layers"),
        hidden_size=hidden,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or (hidden // heads if hidden and heads else None),
        vocabulary=config.get("vocab_size"),
    )


def _rope(config: Config) -> dict[str, Any]:
    """The rotary positions; Transformers 5 writes them as `rope_parameters`."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    sections = scaling.get("mrope_section")
    # A config with sections names its type "mrope" or, rewritten by Transformers, "default".
    return _known(
        theta=scaling.get("rope_theta") or config.get("rope_theta"),
        type="mrope" if sections else _first(scaling, "rope_type", "type"),
        mrope_section=sections,
        factor=scaling.get("factor"),
    )


def _first(config: Config, *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _side(size: Any) -> Any:
    """The side of a square, which some layouts write as [height, width]."""
    return size[0] if isinstance(size, (list, tuple)) and len(set(size)) == 1 else size


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}

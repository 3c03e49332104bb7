"""The tensors of OpenGVLab's format under the names that Transformers' checkpoints have on disk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Layers:
    """The modules of a stack of layers in both formats.

    Attributes:
        original: start of their names in OpenGVLab's format, up to the layer's number.
        start: the same in Transformers'.
        modules: the name of a module behind the number, in both formats.
        fused: the module in OpenGVLab's format that holds the projections to q, k and v.
        parts: these three in Transformers' format.
    """

    original: str
    start: str
    modules: Mapping[str, str]
    fused: str
    parts: tuple[str, str, str]

    def names(self, layer: str, module: str) -> tuple[str, ...]:
        """The module's name, or the three names of what a fused module is split into."""
        modules = self.parts if module == self.fused else (self.modules[module],)
        return tuple(f"{self.start}{layer}.{one}" for one in modules)


_OLD, _NEW = "vision_model.embeddings.", "vision_tower.embeddings."
SINGLE = {
    "mlp1.0": "multi_modal_projector.layer_norm",
    "mlp1.1": "multi_modal_projector.linear_1",
    "mlp1.3": "multi_modal_projector.linear_2",
    f"{_OLD}class_embedding": f"{_NEW}cls_token",
    f"{_OLD}position_embedding": f"{_NEW}position_embeddings",
    f"{_OLD}patch_embedding": f"{_NEW}patch_embeddings.projection",
}
INTERNLM2_SINGLE = {
    "language_model.model.tok_embeddings": "language_model.model.embed_tokens",
    "language_model.model.norm": "language_model.model.norm",
    "language_model.output": "language_model.lm_head",
}
VISION_LAYERS = Layers(
    "vision_model.encoder.layers.",
    "vision_tower.encoder.layer.",
    {
        "attn.proj": "attention.projection_layer",
        "attn.q_norm": "attention.q_norm",
        "attn.k_norm": "attention.k_norm",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "ls1": "lambda_1",
        "ls2": "lambda_2",
    },
    "attn.qkv",
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
)
INTERNLM2_LAYERS = Layers(
    "language_model.model.layers.",
    "language_model.model.layers.",
    {
        "attention.wo": "self_attn.o_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w3": "mlp.up_proj",
        "feed_forward.w2": "mlp.down_proj",
    },
    "attention.wqkv",
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
)


def is_internlm2(llm: Mapping[str, Any]) -> bool:
    """True if a `llm_config` is that of InternLM2, whose tensors have names of their own."""
    return list(llm["architectures"]) == ["InternLM2ForCausalLM"]


def to_transformers(
    tensors: Iterable[tuple[str, torch.Tensor]], llm: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Renames the tensors of a checkpoint, and splits the fused ones.

    Args:
        tensors: names and tensors in OpenGVLab's format.
        llm: `llm_config` of its config.json.

    Raises:
        KeyError: a tensor has an unknown name.
    """
    result: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        names = transformers_names(name, internlm2=is_internlm2(llm))
        pieces = [tensor] if len(names) == 1 else split(name, tensor, llm)
        result |= zip(names, pieces, strict=True)
    return result


def transformers_names(name: str, *, internlm2: bool) -> tuple[str, ...]:
    """The name in Transformers' format, or the names of the three parts of a fused tensor.

    Raises:
        KeyError: the name is unknown.
    """
    if name.startswith("language_model.") and not internlm2:
        return (name,)
    stem, ending = _parted(name)
    for layers in (VISION_LAYERS, INTERNLM2_LAYERS):
        if found := re.fullmatch(re.escape(layers.original) + r"(\d+)\.(.+)", stem):
            return tuple(f"{one}{ending}" for one in layers.names(found[1], found[2]))
    return (f"{(SINGLE | INTERNLM2_SINGLE)[stem]}{ending}",)


def _parted(name: str) -> tuple[str, str]:
    """A name without `.weight` or `.bias`, and that ending."""
    stem, dot, last = name.rpartition(".")
    return (stem, f".{last}") if dot and last in {"weight", "bias"} else (name, "")


def split(name: str, fused: torch.Tensor, llm: Mapping[str, Any]) -> list[torch.Tensor]:
    """The projections to q, k and v of a fused tensor.

    InternViT's are three blocks of rows. InternLM2's are interleaved: for each key head its query
    heads, then the key head, then the value head.
    """
    if name.startswith(VISION_LAYERS.original):
        return [piece.contiguous() for piece in fused.chunk(3)]
    group, keys, width = heads(llm)
    parts = fused.unflatten(0, (keys, group + 2, width))
    pieces = (parts[:, :group], parts[:, group], parts[:, group + 1])
    return [piece.reshape(-1, *fused.shape[1:]).contiguous() for piece in pieces]


def heads(llm: Mapping[str, Any]) -> tuple[int, int, int]:
    """Query heads per key head, key heads, and width of a head."""
    queries, keys = llm["num_attention_heads"], llm["num_key_value_heads"]
    return queries // keys, keys, llm.get("head_dim") or llm["hidden_size"] // queries

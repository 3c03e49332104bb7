"""config.json of OpenGVLab's format, as the configuration of Transformers' InternVL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....errors import ConfigurationError
from .names import is_internlm2

Config = Mapping[str, Any]

_DECODERS = ("InternLM2ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_NORMS = ("layer_norm", "rms_norm")
_NOT_OF_THE_MODEL = (
    "_name_or_path",
    "attn_implementation",
    "auto_map",
    "dtype",
    "torch_dtype",
    "transformers_version",
)
"""Keys of `llm_config` that describe where it comes from or how it is run."""


def is_internvl_chat(model_path: Path) -> bool:
    """True if a checkpoint is in OpenGVLab's own format."""
    try:
        config = json.loads((model_path / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False  # Transformers says what is wrong with it
    return isinstance(config, dict) and config.get("model_type") == "internvl_chat"


def read_config(model_path: Path) -> Config:
    """Reads config.json.

    Raises:
        ConfigurationError: Transformers' InternVL does not compute what this config.json says.
    """
    config: Config = json.loads((model_path / "config.json").read_text("utf-8"))
    if unknown := _unknown(config):
        raise ConfigurationError(
            f"the reference engine cannot compute {model_path}, a checkpoint in OpenGVLab's format "
            f"(internvl_chat): {'; '.join(unknown)}. It loads such a checkpoint into Transformers' "
            "InternVL, which does not support this. Use a checkpoint in Transformers' format if "
            "there is one."
        )
    return config


def _unknown(config: Config) -> list[str]:
    """What a config.json says and Transformers' InternVL does not compute."""
    vision, decoder = config["vision_config"], config["llm_config"]["architectures"][0]
    side, forced = vision["image_size"], config.get("force_image_size")
    problems = {
        f"ps_version is {config['ps_version']}, not v2": config["ps_version"] != "v2",
        f"select_layer is {config['select_layer']}, not -1": config["select_layer"] != -1,
        f"the decoder is {decoder}, not one of {', '.join(_DECODERS)}": decoder not in _DECODERS,
        f"norm_type of vision_config is {vision['norm_type']}, not one of {', '.join(_NORMS)}": (
            vision["norm_type"] not in _NORMS
        ),
        f"force_image_size is {forced}, but image_size of vision_config is {side}": (
            forced not in {None, side}
        ),
    }
    return [problem for problem, is_there in problems.items() if is_there]


def tokens_per_tile(config: Config) -> int:
    """Number of image tokens of one tile."""
    vision = config["vision_config"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    return int(patches * config["downsample_ratio"] ** 2)


def transformers_config(config: Config, image_token_id: int) -> Any:
    """The `InternVLConfig` of the same model.

    Args:
        config: config.json in OpenGVLab's format.
        image_token_id: id of the token that holds the place of an image's embeddings.
    """
    from transformers import CONFIG_MAPPING, InternVLConfig

    llm = _decoder(config["llm_config"])
    return InternVLConfig(
        text_config=CONFIG_MAPPING[llm["model_type"]](**llm),
        vision_config=_vision(config["vision_config"]),
        downsample_ratio=config["downsample_ratio"],
        image_token_id=image_token_id,
        image_seq_length=tokens_per_tile(config),
        tie_word_embeddings=llm["tie_word_embeddings"],
    )


def _decoder(llm: Config) -> dict[str, Any]:
    """`llm_config` for Transformers. InternLM2 computes what Llama does, under other names."""
    kept = {name: value for name, value in llm.items() if name not in _NOT_OF_THE_MODEL}
    kept = {"tie_word_embeddings": False, **kept}
    if not is_internlm2(llm):
        return kept
    biased = bool(kept.pop("bias", False))
    return {
        **kept,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": biased,
        "mlp_bias": False,
    }


def _vision(vision: Config) -> dict[str, Any]:
    """`vision_config` for Transformers."""
    same = (
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "norm_type",
        "num_attention_heads",
        "num_hidden_layers",
    )
    return {
        **{name: vision[name] for name in same},
        "attention_bias": vision["qkv_bias"],
        "image_size": [vision["image_size"]] * 2,
        "patch_size": [vision["patch_size"]] * 2,
        "use_absolute_position_embeddings": True,
        "use_mean_pooling": True,  # no norm behind the last layer
        "use_qk_norm": vision["qk_normalization"],
    }

"""Loads the processor and the weights of a checkpoint in OpenGVLab's format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....errors import ConfigurationError
from .config import read_config, transformers_config
from .names import to_transformers
from .processor import IMAGE_TOKEN, InternVLChatProcessor

if TYPE_CHECKING:
    import torch


def load_processor(
    model_path: Path, *, trust_remote_code: bool
) -> tuple[InternVLChatProcessor, Any]:
    """The processor of a checkpoint, and its configuration in Transformers.

    Raises:
        ConfigurationError: Transformers' InternVL does not compute what config.json says, or the
            tokenizer has no image token.
    """
    config = read_config(model_path)
    tokenizer = _tokenizer(model_path, trust_remote_code=trust_remote_code)
    image_token = tokenizer.get_vocab()[IMAGE_TOKEN]
    return InternVLChatProcessor(tokenizer, config), transformers_config(config, image_token)


def load_model(model_path: Path, *, trust_remote_code: bool, **arguments: Any) -> Any:
    """Loads the weights, like `from_pretrained` of Transformers' models.

    Args:
        model_path: the checkpoint's directory.
        trust_remote_code: True if the checkpoint's tokenizer may have code of its own.
        arguments: further arguments of `from_pretrained`.

    Raises:
        ConfigurationError: Transformers' InternVL does not compute what config.json says, or the
            tensors are not those of this configuration.
    """
    from transformers import InternVLForConditionalGeneration

    config = read_config(model_path)
    tokenizer = _tokenizer(model_path, trust_remote_code=trust_remote_code)
    model, loaded = InternVLForConditionalGeneration.from_pretrained(
        None,
        config=transformers_config(config, tokenizer.get_vocab()[IMAGE_TOKEN]),
        state_dict=to_transformers(_tensors(model_path), config["llm_config"]),
        output_loading_info=True,
        **arguments,
    )
    wrong = {kind: sorted(map(str, loaded[f"{kind}_keys"])) for kind in _KINDS}
    if any(wrong.values()):
        told = "; ".join(
            f"{kind}: {', '.join(names[:3])}" for kind, names in wrong.items() if names
        )
        raise ConfigurationError(
            f"the tensors of {model_path} are not those of its config.json ({told}). Check that "
            "all its *.safetensors files are there and belong to this config.json."
        )
    model.generation_config.eos_token_id = _ends(model_path, tokenizer)
    return model


_KINDS = ("missing", "unexpected", "mismatched")


def _tokenizer(model_path: Path, *, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=trust_remote_code)
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        raise ConfigurationError(
            f"the tokenizer of {model_path} has no token {IMAGE_TOKEN}, which holds the place of "
            "an image in OpenGVLab's format. Check that all its files are there."
        )
    return tokenizer


def _tensors(model_path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a checkpoint, one at a time."""
    from safetensors import safe_open

    files = sorted(model_path.glob("*.safetensors"))
    if not files:
        raise ConfigurationError(f"{model_path} has no *.safetensors files.")
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (it is no mapping)
                yield name, opened.get_tensor(name)


def _ends(model_path: Path, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: as in vLLM, the tokenizer's and generation_config.json's.

    `llm_config` names another one, which never ends a turn.
    """
    from transformers import GenerationConfig

    ends = {tokenizer.eos_token_id}
    if (model_path / "generation_config.json").is_file():
        named = GenerationConfig.from_pretrained(model_path).eos_token_id
        ends |= set(named if isinstance(named, list) else [named])
    return sorted(end for end in ends if end is not None)

"""The prompts of the Qwen-VL family, made without Transformers: token ids and image tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import jinja2
from tokenizers import Tokenizer

IMAGE = "<|image_pad|>"
UNIT = 28  # side of the square of pixels that becomes one token
FEWEST_PIXELS, MOST_PIXELS = 784, 1003520  # preprocessor_config.json of the tiny checkpoints
THINNEST = 200  # times as long as wide


class Prompts:
    """Makes the prompts of one checkpoint, from its chat template and tokenizer."""

    def __init__(self, checkpoint: Path) -> None:
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
        template = (checkpoint / "chat_template.jinja").read_text("utf-8")
        self._template = environment.from_string(template)
        self._tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))

    def ids(self, prompt: str, image_tokens: Sequence[int]) -> list[int]:
        """The tokens of a user's text that follows its images.

        Args:
            prompt: the text.
            image_tokens: number of tokens of each image.
        """
        content = [*({"type": "image"} for _ in image_tokens), {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]
        return self._ids(messages, image_tokens)

    def ids_of(
        self, turns: Sequence[tuple[str, Sequence[str | None]]], image_tokens: Sequence[int]
    ) -> list[int]:
        """The tokens of a conversation.

        Args:
            turns: the role and the parts of each message; None in place of an image.
            image_tokens: number of tokens of each image.
        """
        messages = [
            {
                "role": role,
                "content": [
                    {"type": "image"} if part is None else {"type": "text", "text": part}
                    for part in parts
                ],
            }
            for role, parts in turns
        ]
        return self._ids(messages, image_tokens)

    def _ids(self, messages: Sequence[object], image_tokens: Sequence[int]) -> list[int]:
        text = self._template.render(messages=messages, add_generation_prompt=True)
        first, *rest = text.split(IMAGE)
        parts = (IMAGE * count + part for count, part in zip(image_tokens, rest, strict=True))
        return list(self._tokenizer.encode("".join((first, *parts)), add_special_tokens=False).ids)


def image_tokens(width: int, height: int) -> int | None:
    """Number of tokens of an image; None if it is too thin."""
    if max(width, height) > THINNEST * min(width, height):
        return None
    columns, rows = (round(side / UNIT) for side in (width, height))
    pixels = columns * rows * UNIT**2
    if pixels > MOST_PIXELS:
        shrink = math.sqrt(width * height / MOST_PIXELS)
        columns, rows = (max(int(side / shrink / UNIT), 1) for side in (width, height))
    elif pixels < FEWEST_PIXELS:
        grow = math.sqrt(FEWEST_PIXELS / (width * height))
        columns, rows = (math.ceil(side * grow / UNIT) for side in (width, height))
    return columns * rows

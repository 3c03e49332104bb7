"""Prompts and tiles of a checkpoint in OpenGVLab's format, which has no processor of its own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ....errors import ConfigurationError
from .config import Config, tokens_per_tile
from .tiles import Tiler

if TYPE_CHECKING:
    import torch
    from PIL import Image

IMAGE_TOKEN = "<IMG_CONTEXT>"  # noqa: S105
_WITH_CLIPS = ("qwen2", "qwen3")
"""Decoders with which vLLM serves clips, if the tokenizer has the token of a frame."""

_PLACES = {"image": "<image>", "video": "<video>"}
"""Texts that hold the place of an image or a clip in a prompt."""


class InternVLChatProcessor:
    """Makes the inputs of Transformers' InternVL from those that vLLM's InternVLChatModel takes.

    Attributes:
        tokenizer: the checkpoint's tokenizer.
        image_processor: cuts images into tiles.
        video_token: the token that vLLM puts in the place of a frame.
    """

    video_token = "<|video_pad|>"  # noqa: S105

    def __init__(self, tokenizer: Any, config: Config) -> None:
        """Args: tokenizer: the checkpoint's tokenizer; config: its config.json."""
        self.tokenizer = tokenizer
        self.image_processor = Tiler.of(config)
        self._tile = IMAGE_TOKEN * tokens_per_tile(config)
        self._decoder = config["llm_config"]["model_type"]

    def apply_chat_template(self, chat: Sequence[Mapping[str, Any]], **template: Any) -> str:
        """Renders messages as text, with `<image>` and `<video>` where images and clips belong.

        Most templates of this format take texts. As in vLLM, the places of a message's images and
        clips are then in front of its texts, each on a line of its own.
        """
        if not self._takes_parts:
            chat = [{**message, "content": _as_text(message["content"])} for message in chat]
        return str(self.tokenizer.apply_chat_template(list(chat), **template))

    def __call__(
        self,
        text: list[str],
        images: Sequence[Image.Image] | None = None,
        videos: Sequence[npt.NDArray[np.uint8]] | None = None,
        **options: Any,
    ) -> dict[str, torch.Tensor]:
        """Tokens and tiles of one request.

        Args:
            text: the rendered messages, as the only item.
            images: the images in the order of their places.
            videos: the frames of each clip, shape (frames, height, width, 3).
            options: fields of `image_processor` that are to be others. The rest is ignored; some
                are options of Transformers' processors.

        Raises:
            ConfigurationError: vLLM serves no clips with this decoder and tokenizer.
        """
        import torch

        if videos and not self._serves_clips:
            raise ConfigurationError(
                f"vLLM serves clips of OpenGVLab's format only with a decoder of "
                f"{' or '.join(_WITH_CLIPS)} and the token {self.video_token}. This checkpoint has "
                f"{self._decoder}: declare Capability.VIDEO unsupported."
            )
        fields = {field.name for field in dataclasses.fields(Tiler)}
        changes = {name: value for name, value in options.items() if name in fields}
        tiler = dataclasses.replace(self.image_processor, **changes)
        seen = {
            "<image>": (self._image(tiler(image)) for image in images or ()),
            "<video>": (self._clip(tiler, frames) for frames in videos or ()),
        }
        filled, tiles = _fill(text[0], seen)
        tokens = self.tokenizer(filled, add_special_tokens=False, return_tensors="pt")
        inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        return {**inputs, "pixel_values": torch.cat(tiles)} if tiles else inputs

    def _image(self, tiles: torch.Tensor) -> tuple[str, torch.Tensor]:
        """The text and the tiles of an image."""
        return f"<img>{self._tile * len(tiles)}</img>", tiles

    def _clip(self, tiler: Tiler, frames: npt.NDArray[np.uint8]) -> tuple[str, torch.Tensor]:
        """The text and the tiles of a clip: one tile a frame."""
        import torch

        shown = [self._image(tiler.frame(frame)) for frame in frames]
        texts = [f"Frame{number}: {text}" for number, (text, _) in enumerate(shown, 1)]
        return "".join(texts), torch.cat([tiles for _, tiles in shown])

    @property
    def _serves_clips(self) -> bool:
        has_token = self.video_token in self.tokenizer.get_vocab()
        return self._decoder in _WITH_CLIPS and has_token

    @cached_property
    def _takes_parts(self) -> bool:
        """True if the chat template writes the parts of a message itself."""
        probe = [{"role": "user", "content": [{"type": "text", "text": "probe"}]}]
        try:
            text = self.tokenizer.apply_chat_template(probe, tokenize=False)
        except Exception:  # the template joins a list to a text, or refuses it
            return False
        return "'type'" not in text


def _as_text(content: str | Sequence[Mapping[str, Any]]) -> str:
    """A message's content: the places of its images and clips, then its texts, a line each."""
    if isinstance(content, str):
        return content
    places = [_PLACES[part["type"]] for part in content if part["type"] in _PLACES]
    return "\n".join([*places, *(part["text"] for part in content if part["type"] == "text")])


def _fill(
    text: str, seen: Mapping[str, Iterator[tuple[str, torch.Tensor]]]
) -> tuple[str, list[torch.Tensor]]:
    """A text whose places are replaced, and the tiles in the order of the places.

    A text of the user may have more places than there are images; the rest stays text.
    """
    pieces, tiles = [], []
    for piece in re.split(f"({'|'.join(seen)})", text):
        found = next(seen[piece], None) if piece in seen else None
        pieces.append(piece if found is None else found[0])
        tiles += [] if found is None else [found[1]]
    return "".join(pieces), tiles

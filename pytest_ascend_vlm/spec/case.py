"""A case, its ground truth, and the sampling parameters of its answer."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ConfigurationError

IMAGE_MARK = "<image>"
"""In a case's prompt: the place of the next image."""

Content = tuple[str | Path, ...]
"""The parts of a message in order: texts, and image files as paths."""


class Capability(enum.Enum):
    """The capabilities of a model: three kinds of input, and three kinds of task on images.

    Attributes:
        TEXT: prompts without an image.
        IMAGE: prompts with images.
        VIDEO: prompts with a video.
        DOCUMENT: reading the whole text of a page.
        VQA: answering a question about an image: text in a scene, a chart, a count.
        GROUNDING: locating an object, as a box.
    """

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    DOCUMENT = "document"
    VQA = "vqa"
    GROUNDING = "grounding"


@dataclass(frozen=True)
class Sampling:
    """The sampling parameters of a request; the default is greedy.

    Attributes:
        max_tokens: maximum number of generated tokens.
        temperature: 0 for greedy sampling.
        seed: seed of the sampler, used if temperature > 0.
        stop: a string that ends the answer and is not part of it.
        n: number of answers.
        cache_salt: isolates the prefix cache: requests share cached blocks only if their salts are
            equal.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None
    stop: str | None = None
    n: int = 1
    cache_salt: str | None = None


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks.
        content: the parts of the message, in order.
    """

    role: Literal["system", "user", "assistant"]
    content: Content


@dataclass(frozen=True)
class Case:
    """One request and its ground truth, if there is one.

    Attributes:
        id: `<group>/<name>`; the group selects the criteria that use the case.
        needs: the capability that the case requires.
        prompt: the user's last text. Each `<image>` in it is the place of one image; without
            `<image>` the text follows the images.
        images: the image files of the last message, in order.
        videos: video files that are sent before the text, in order.
        earlier: the messages before the last one: a system prompt, earlier turns.
        truth: the exact text of the image; None if only the reference gives an expected answer.
        accepted: accepted answers; one of them has to occur in the model's answer as a whole word.
        box: the true box of the requested object, (left, top, right, bottom) in pixels of the
            first image.
        max_tokens: maximum number of generated tokens.
        full_only: reason why tiny checkpoints are not asked; None if they are.

    Raises:
        ConfigurationError: the prompt has places for another number of images.
    """

    id: str
    needs: Capability
    prompt: str
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()
    earlier: tuple[Message, ...] = ()
    truth: str | None = None
    accepted: tuple[str, ...] = ()
    box: tuple[float, float, float, float] | None = None
    max_tokens: int = 64
    full_only: str | None = None

    def __post_init__(self) -> None:
        places = self.prompt.count(IMAGE_MARK)
        if places not in {0, len(self.images)}:
            raise ConfigurationError(
                f"the case {self.id} has {len(self.images)} images, but its prompt has {places} "
                f"places for an image ({IMAGE_MARK})."
            )

    @property
    def group(self) -> str:
        """The part of the id before the slash: `text`, `image`, `document`."""
        return self.id.partition("/")[0]

    @property
    def conversation(self) -> tuple[Message, ...]:
        """All messages; the last one is the user's. Videos are not in them."""
        return (*self.earlier, Message("user", self._last_content()))

    @property
    def every_image(self) -> tuple[Path, ...]:
        """The image files of all messages, in order."""
        return tuple(
            part
            for message in self.conversation
            for part in message.content
            if isinstance(part, Path)
        )

    @property
    def text(self) -> str:
        """The texts of all messages, one a line."""
        return "\n".join(text for one in self.conversation for text in _texts(one.content))

    def without_media(self) -> Case:
        """The same texts without any image or video."""
        earlier = tuple(
            dataclasses.replace(message, content=_texts(message.content))
            for message in self.earlier
        )
        prompt = self.prompt.replace(IMAGE_MARK, "")
        return dataclasses.replace(self, prompt=prompt, images=(), videos=(), earlier=earlier)

    def _last_content(self) -> Content:
        texts = self.prompt.split(IMAGE_MARK)
        if len(texts) == 1:
            return (*self.images, self.prompt)
        between = [part for pair in zip(texts, self.images, strict=False) for part in pair]
        return tuple(part for part in (*between, texts[-1]) if part)


def _texts(content: Content) -> tuple[str, ...]:
    return tuple(part for part in content if isinstance(part, str))

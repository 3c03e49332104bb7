"""A case, its ground truth, and the sampling parameters of its answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path


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
class Case:
    """One request and its ground truth, if there is one.

    Attributes:
        id: `<group>/<name>`; the group selects the criteria that use the case.
        needs: the capability that the case requires.
        prompt: the user's text; it follows the images.
        images: image files that are sent before the text, in order.
        videos: video files that are sent before the text, in order.
        truth: the exact text of the image; None if only the reference gives an expected answer.
        accepted: accepted answers; one of them has to occur in the model's answer as a whole word.
        box: the true box of the requested object, (left, top, right, bottom) in pixels of the
            first image.
        max_tokens: maximum number of generated tokens.
    """

    id: str
    needs: Capability
    prompt: str
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()
    truth: str | None = None
    accepted: tuple[str, ...] = ()
    box: tuple[float, float, float, float] | None = None
    max_tokens: int = 64

    @property
    def group(self) -> str:
        """The part of the id before the slash: `text`, `image`, `document`."""
        return self.id.partition("/")[0]

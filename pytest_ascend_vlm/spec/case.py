"""What a request is: a case, its ground truth, and how its answer is generated."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path


class Capability(enum.Enum):
    """What a model can be asked for: three kinds of input, three kinds of question about images."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    DOCUMENT = "document"
    """The whole text of a page."""
    VQA = "vqa"
    """A question about a picture: text in a scene, a chart, a count."""
    GROUNDING = "grounding"
    """Where something is, as a box."""


@dataclass(frozen=True)
class Sampling:
    """How a completion is generated; greedy unless told otherwise.

    Attributes:
        max_tokens: most tokens to generate.
        temperature: 0 is greedy.
        seed: seed of the sampler, used when temperature > 0.
        stop: a string that ends the answer and is not part of it.
        n: number of answers.
        cache_salt: isolates the prefix cache; requests share cached blocks only if it is equal.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None
    stop: str | None = None
    n: int = 1
    cache_salt: str | None = None


@dataclass(frozen=True)
class Case:
    """One request and, where there is one, its ground truth.

    Attributes:
        id: `<group>/<name>`; the group selects which criteria use the case.
        needs: the capability without which the case cannot be asked.
        prompt: the user's text; it follows the images.
        images: files sent before the text, in order.
        videos: clips sent before the text, in order.
        truth: what the image says, exactly; None where only the reference can tell.
        accepted: answers of which one has to occur in the model's, as a whole word.
        box: (left, top, right, bottom) in pixels of the first image, of what is asked for.
        max_tokens: most tokens to generate.
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

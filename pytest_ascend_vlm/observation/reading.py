"""An image file as a server reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .answers import Refusal
from .caches import CacheUse
from .numerics import Forced


@dataclass(frozen=True, eq=False)
class Reading:
    """The scores of one forced answer for an image file and for the picture that the file shows.

    Attributes:
        file: the scores for the file, or the HTTP error.
        picture: the scores for the picture as an RGB PNG file.
        own_error: the root mean square of the reference's own bf16 error.
        caches: the server's counters for the request with the file; None if it has none.
        mistakes: a way to misread the file -> the scores for the picture that results. They are
            asked for only if the file's scores differ from the picture's.
        is_cold: True if the request with the file had a uuid and a file of its own.
    """

    file: Forced | Refusal
    picture: Forced
    own_error: float
    caches: CacheUse | None = None
    mistakes: Mapping[str, Forced] = field(default_factory=dict)
    is_cold: bool = True

"""What every mixin of the suite has."""

from __future__ import annotations

from typing import ClassVar

from ..spec.model import ModelSpec


class Criteria:
    """Criteria of one concern; the docstring of each test is its documentation.

    Attributes:
        model: the model that is judged.
    """

    model: ClassVar[ModelSpec]

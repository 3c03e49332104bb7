"""The base class of every mixin of the suite."""

from __future__ import annotations

from typing import ClassVar

from ..spec.model import ModelSpec


class Criteria:
    """The criteria of one group. The docstring of each test documents its criterion.

    Attributes:
        model: the model under test.
    """

    model: ClassVar[ModelSpec]

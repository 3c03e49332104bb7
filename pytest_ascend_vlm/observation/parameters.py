"""What a served model answers with and without a request parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .answers import Completion, Refusal


class UnsuitedError(Exception):
    """An answer cannot show what a parameter does."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A request parameter, tried on one case.

    Attributes:
        fields: the fields of the request that set the parameter.
        plain: the answer without the parameter.
        unstreamed: the answers with it, or the HTTP error. A request asks for one answer, unless
            the parameter is `n`.
        streamed: the same answers, streamed; empty if the server refused the request.
    """

    fields: Mapping[str, Any]
    plain: Completion
    unstreamed: tuple[Completion, ...] | Refusal
    streamed: tuple[Completion, ...]


@dataclass(frozen=True, eq=False)
class Trials:
    """A request parameter, tried on some cases.

    Attributes:
        tried: the answers to each case.
        unsuited: case id, or kind of case -> why it cannot show what the parameter does.
        may_lack: True if the server may be one that does not have the parameter.
    """

    tried: tuple[Trial, ...]
    unsuited: Mapping[str, str]
    may_lack: bool

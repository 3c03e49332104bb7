"""Observations of how a server treats pictures of many sizes."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec.picture import Picture
from .answers import Completion, Refusal


@dataclass(frozen=True)
class Expected:
    """What the reference's processor makes of a request.

    Attributes:
        prompt: the prompt's tokens; empty if the processor refuses the picture.
        refusal: reason why the server has to refuse the request; None if it has to answer.
    """

    prompt: tuple[int, ...]
    refusal: str | None = None


@dataclass(frozen=True, eq=False)
class PictureReply:
    """The reply to a request with one picture, and the expected one."""

    picture: Picture
    expected: Expected
    got: Completion | Refusal


@dataclass(frozen=True, eq=False)
class PictureSearch:
    """The search for a picture that gets a wrong reply.

    Attributes:
        replies: the replies to the generated pictures, in order; the search ends at a wrong one.
        smallest: the wrong reply to the smallest picture that was found; None if all are right.
        shrinking: number of requests that were sent to find a smaller picture.
        afterwards: the reply to a good request after all of them.
    """

    replies: tuple[PictureReply, ...]
    smallest: PictureReply | None
    shrinking: int
    afterwards: Completion | Refusal


@dataclass(frozen=True)
class LargestPage:
    """The size of the largest page that a model can be sent.

    Attributes:
        width: in pixels.
        height: in pixels.
        limited_by: the limit that a larger page would exceed, as a phrase for the finding.
    """

    width: int
    height: int
    limited_by: str


@dataclass(frozen=True, eq=False)
class LargestPageReplies:
    """The replies to two cold requests with the largest page.

    Attributes:
        page: the page.
        expected: what the reference's processor makes of it.
        first: the reply to the first request.
        second: the reply to the same request; None if the first was not answered.
    """

    page: LargestPage
    expected: Expected
    first: Completion | Refusal
    second: Completion | Refusal | None

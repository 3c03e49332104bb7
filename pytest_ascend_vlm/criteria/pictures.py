"""Rules about pictures of all sizes: serving.image_sizes and serving.largest_image."""

from __future__ import annotations

import dataclasses

from ..errors import PreconditionError
from ..observation.answers import Completion, Refusal
from ..observation.pictures import LargestPageReplies, PictureReply, PictureSearch
from .baseline import UNKNOWN_PROMPT
from .divergence import first_difference
from .serving import client_error
from .text import side_by_side
from .verdict import Verdict, at_most, checklist


def judge_image_sizes(search: PictureSearch, send_again: str) -> Verdict:
    """Every picture got the reply that the reference's processor expects.

    Args:
        search: the replies.
        send_again: the command that sends the smallest picture with a wrong reply again.

    Raises:
        PreconditionError: the processor refuses every picture.
    """
    expected = [reply.expected for reply in search.replies]
    answered = [len(one.prompt) for one in expected if one.refusal is None]
    if not answered and search.smallest is None:
        raise PreconditionError(
            f"the reference's processor refuses all of {len(expected)} pictures, so no size can be "
            "judged. Check mm_processor_kwargs and max_model_len of the model file. The last "
            f"reason: {expected[-1].refusal}"
        )
    evidence = {
        "pictures": len(expected),
        "to_answer": len(answered),
        "to_refuse": len(expected) - len(answered),
        "most_prompt_tokens": max(answered, default=0),
    }
    if search.smallest is not None:
        return _wrong_picture(search, search.smallest, send_again, evidence)
    if isinstance(search.afterwards, Refusal):
        return at_most(
            1,
            0,
            "wrong replies",
            "the next good request is not answered",
            (f"after {len(expected)} pictures it got {search.afterwards}",),
            evidence,
        )
    reason = (
        f"{len(answered)} pictures are answered with the right prompt, of up to {max(answered)} "
        f"tokens, and {len(expected) - len(answered)} are refused"
    )
    return at_most(0, 0, "wrong replies", reason, evidence=evidence)


def judge_largest_page(seen: LargestPageReplies, budget_seconds: float) -> Verdict:
    """The largest page is answered in time, with the right prompt, and twice in the same way.

    Args:
        seen: the replies.
        budget_seconds: maximum time of the first answer.

    Raises:
        PreconditionError: the page does not fit, because no page does.
    """
    page, tokens = seen.page, len(seen.expected.prompt)
    asked = f"{page.width} x {page.height} pixels, {tokens} prompt tokens, limited by"
    if seen.expected.refusal is not None:
        raise PreconditionError(f"no page can be asked: {seen.expected.refusal}.")
    verdict = checklist(
        _largest_page_checks(seen, budget_seconds),
        {
            "width": page.width,
            "height": page.height,
            "prompt_tokens": tokens,
            "limited_by": page.limited_by,
            "seconds": [
                round(reply.seconds, 2)
                for reply in (seen.first, seen.second)
                if isinstance(reply, Completion)
            ],
        },
    )
    return dataclasses.replace(verdict, reason=f"{asked} {page.limited_by}: {verdict.reason}")


def _largest_page_checks(seen: LargestPageReplies, budget_seconds: float) -> dict[str, str | None]:
    first = seen.first
    if isinstance(first, Refusal):
        return {"answered": str(first)}
    late = f"it took {first.seconds:.3g} s, at most {budget_seconds:g} s are allowed"
    return {
        "answered": None,
        "within its budget": late if first.seconds > budget_seconds else None,
        "prompt": _prompt_problem(seen.expected.prompt, first),
        "second answer": _repeat_problem(first, seen.second),
    }


def reply_problem(reply: PictureReply) -> str | None:
    """The problem with the reply to a picture, or None."""
    expected, got = reply.expected, reply.got
    if expected.refusal is not None:
        problem = client_error(got)
        return problem and f"it must be refused, because {expected.refusal}; {problem}"
    if isinstance(got, Refusal):
        return f"expected an answer to a prompt of {len(expected.prompt)} tokens; got {got}"
    return _prompt_problem(expected.prompt, got)


def _wrong_picture(
    search: PictureSearch, smallest: PictureReply, send_again: str, evidence: dict[str, int]
) -> Verdict:
    first = search.replies[-1].picture
    details = (
        str(reply_problem(smallest)),
        f"found with {first}, as picture {len(search.replies)}; {search.shrinking} more requests "
        "were sent to find a smaller one",
        f"to send it again while the server runs: {send_again}",
    )
    reason = f"the reply to a picture of {smallest.picture} is wrong"
    return at_most(
        1, 0, "wrong replies", reason, details, {**evidence, "picture": str(smallest.picture)}
    )


def _prompt_problem(expected: tuple[int, ...], got: Completion) -> str | None:
    """The problem with the prompt that was answered, or None; its length if it has no ids."""
    if got.prompt_tokens is None:
        return UNKNOWN_PROMPT
    if got.prompt_tokens != len(expected):
        return f"expected a prompt of {len(expected)} tokens; got one of {got.prompt_tokens}"
    prompt = expected if got.prompt_token_ids is None else got.prompt_token_ids
    position = first_difference(expected, prompt)
    if position is None:
        return None
    return (
        f"expected token {expected[position]} at position {position} of the prompt; got "
        f"{prompt[position]}"
    )


def _repeat_problem(first: Completion, second: Completion | Refusal | None) -> str | None:
    if second is None:
        return "the same page was not sent again"
    if isinstance(second, Refusal):
        return f"the same page, sent again, got {second}"
    if (first.text, first.token_ids) == (second.text, second.token_ids):
        return None
    return "\n".join(("", *side_by_side(first.text, second.text, "first")))

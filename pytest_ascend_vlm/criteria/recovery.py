"""Rules of recovery.*: a server answers rightly after a bad request, and tells of a dead engine."""

from __future__ import annotations

import math
from http import HTTPStatus

from ..observation.answers import Completion, Reference, Refusal
from ..observation.recovery import EngineLoss, Incident, Recovery, Stall, StreamEnd
from ..spec.thresholds import HELD_SECONDS, LOSS_SECONDS, URL_SECONDS
from .determinism import part_at_near_tie
from .lifecycle import shutdown_checks
from .recomputed import begins
from .text import side_by_side
from .verdict import Verdict, checklist

_SHARE = 0.5
"""Part of a bad request's time that another request may take at most."""

_AGAIN = ("the same image is answered", "the same image is read as before")
_COLD = ("an image in no cache is answered", "an image in no cache is read as before")
_WAITED = ("the image that waited is answered", "the image that waited is read as before")


def judge_recovery(seen: Recovery, reference: Reference) -> Verdict:
    """The bad request ends with an error in time, and nothing of it is left.

    Args:
        seen: the bad request, and the requests before and after it.
        reference: the reference of the requests before and after it.
    """
    checks = {
        **_incident_checks(seen.incident),
        **_image_checks(_AGAIN, seen.before, seen.again, reference),
        **_image_checks(_COLD, seen.before, seen.cold, reference),
    }
    if seen.held is not None:
        checks["no request is left"] = _held_problem(seen.held)
    left = None if seen.held is None or math.isinf(seen.held) else seen.held
    return checklist(checks, {"seconds": round(seen.incident.seconds, 2), "requests_left": left})


def judge_stall(seen: Stall, reference: Reference) -> Verdict:
    """`/health` tells of an engine that does nothing, and the engine goes on where it stopped.

    A server that has told of it may refuse the request that waited.

    Args:
        seen: a server whose engine was stopped.
        reference: the reference of the request that waited.
    """
    healthy = f"it returned 200 for {seen.seconds:.0f} s, although the engine did nothing"
    told = seen.health != HTTPStatus.OK
    checks = {"/health tells it": None if told else healthy}
    if not (told and isinstance(seen.waited, Refusal)):
        checks |= _image_checks(_WAITED, seen.before, seen.waited, reference)
    return checklist(checks, {"health": seen.health, "seconds": round(seen.seconds, 2)})


def judge_loss(seen: EngineLoss) -> Verdict:
    """Clients and supervisors of a server learn that its engine died.

    Args:
        seen: a server whose engine was killed.
    """
    healthy = f"it still returned 200 after {LOSS_SECONDS:g} s"
    checks = {
        "the answer that was computed": _stream_problem(seen.stream),
        "/health tells it": healthy if seen.health == HTTPStatus.OK else None,
    }
    if seen.report is not None:
        success = "it is 0, as after a normal end" if seen.report.exit_code == 0 else None
        checks |= {"exit code": success, **shutdown_checks(seen.report)}
    return checklist(
        checks,
        {
            "stream": seen.stream.error if seen.stream else None,
            "health": seen.health,
            "exit_code": seen.report.exit_code if seen.report else None,
        },
    )


def _held_problem(held: float) -> str | None:
    if math.isinf(held):
        return "before the bad request the server told how many requests it has; now it does not"
    if not held:
        return None
    return f"the server still has {held:g} requests {HELD_SECONDS:g} s after the last"


def _stream_problem(end: StreamEnd | None) -> str | None:
    if end is None:
        return f"its stream was still open {LOSS_SECONDS:g} s later, without an error"
    if end.error is None:
        return "its stream ended like that of a whole answer, so nobody sees that a part is missing"
    return None


def _incident_checks(incident: Incident) -> dict[str, str | None]:
    checks: dict[str, str | None] = {}
    if incident.reply is not None:
        checks["the bad request is refused"] = _refusal_problem(incident.reply)
    if incident.meanwhile is not None:
        checks["others are answered meanwhile"] = _delay_problem(incident)
    return checks


def _refusal_problem(reply: Completion | Refusal) -> str | None:
    if isinstance(reply, Completion):
        return f"it was answered: {reply.text[:60]!r}"
    return None if reply.status else f"it got no reply within {URL_SECONDS:g} s: {reply.message}"


def _delay_problem(incident: Incident) -> str | None:
    if isinstance(incident.meanwhile, Refusal):
        return str(incident.meanwhile)
    seconds, whole = incident.meanwhile_seconds, incident.seconds
    if seconds <= _SHARE * whole:
        return None
    return f"a text request took {seconds:.1f} s, of the {whole:.1f} s that the bad one took"


def _image_checks(
    names: tuple[str, str], before: Completion, after: Completion | Refusal, reference: Reference
) -> dict[str, str | None]:
    """The checks of an answer about the same image as before; the second needs an answer."""
    is_answered, is_same = names
    if isinstance(after, Refusal):
        return {is_answered: f"it got {after.reply}: {after.message}"}
    return {is_answered: None, is_same: _change(before, after, reference)}


def _change(before: Completion, after: Completion, reference: Reference) -> str | None:
    """The difference between an answer and its beginning when it is asked later, or None."""
    is_same = begins(before, after) and bool(after.text)
    if is_same or part_at_near_tie(before, after, reference):
        return None
    lines = side_by_side(before.text[: len(after.text)], after.text, "before")
    return "\n".join(("another answer than before:", *lines))

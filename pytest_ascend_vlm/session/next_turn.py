"""Conversations whose second turn hits the blocks of the answer before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..engines.cold import new_salt
from ..observation.answers import Completion, Refusal, require_answer
from ..observation.parameters import UnsuitedError
from ..observation.turns import Turns, hits_answer
from ..spec.case import Case, Message

if TYPE_CHECKING:
    from ..engines.client import Client

# More than the 128 tokens of a block of vllm-ascend, wherever the answer begins in a block.
_LONG: Mapping[str, Any] = {"min_tokens": 160, "max_tokens": 160}
# The fields of the first turn, and how often it is asked before the second one. Of as many replicas
# behind one address, each has then generated the answer.
_TRIES: tuple[tuple[Mapping[str, Any], int], ...] = (({}, 1), ({}, 2), (_LONG, 1), (_LONG, 2))
_REPEAT = "Repeat your last answer word for word."
_TOKENS = 32


def ask(client: Client, case: Case) -> Turns:
    """The turns of the first try whose second turn hits the first answer, or those of the last try.

    Raises:
        ServerError: the server died or failed.
        UnsuitedError: it refuses a turn: not every server takes every field or conversation.
    """
    for fields, times in _TRIES:
        salt = {"cache_salt": new_salt()}
        first = [_reply(client, case, {**fields, **salt}) for _ in range(times)][-1]
        second = _second(case, first)
        warm = _reply(client, second, salt)
        if hits_answer(first, warm):
            break
    return Turns(first, cold=_reply(client, second, {}), warm=warm)


def _second(case: Case, first: Completion) -> Case:
    earlier = (*case.conversation, Message("assistant", (first.text,)))
    return Case(f"{case.id}, then", case.needs, _REPEAT, earlier=earlier, max_tokens=_TOKENS)


def _reply(client: Client, case: Case, fields: Mapping[str, Any]) -> Completion:
    """An answer of which the degeneration guard knows nothing: it may be any text."""
    reply = client.ask_with(case, fields)
    if isinstance(reply, Refusal) and reply.is_client_error:
        raise UnsuitedError(f"{case.id}: {reply}")
    return require_answer(case.id, reply)

"""A model served in small steps, and with a small KV cache.

Borders between steps then fall into and around images, and requests lose their blocks to others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet

from ..engines.vllm import metrics
from ..errors import ConfigurationError, ServerError
from ..spec.case import IMAGE_MARK, Case, Sampling
from ..spec.model import Variant
from ..spec.thresholds import CROWD, STEP_TOKENS
from ..versions import vllm_in
from .answers import ForcedAnswers
from .case_sizes import pixels
from .device_slot import DeviceSlot
from .goldens import Goldens
from .launch import launch_arguments
from .memo import Memo

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..observation.answers import Completion
    from ..observation.numerics import Forced

_BLOCK = 128
"""Tokens of a block of the KV cache, unless the platform needs another size.

vllm-ascend has no other.
"""
_SEQUENCES = 8

_NO_ROOM = "encoder cache size"
"""vLLM's words to an image that is larger than its encoder cache.

The cache holds as many tokens as a step, or as the image that vLLM takes for the model's largest.
For some processors (GLM-4V's) that is a square, and a page of the same area has a few tokens more.
"""

_NEVER_ANSWERS = SpecifierSet("<0.16")
"""The releases of vLLM that never answer if an image is larger than their encoder cache.

The engine schedules nothing, for ever, and the memory of the API server grows.
"""
_NOT_ASKED = (
    "not asked, because vLLM before 0.16 never answers if an image is larger than its encoder "
    "cache (https://github.com/vllm-project/vllm/pull/33110)"
)


@dataclass(frozen=True)
class BorderRun:
    """The results of a server with small steps.

    Attributes:
        forced: the logits of the golden's answer, for each case that the server has room for.
        too_large: what the server replied to the others, or why they were not asked.
        hit_case: a case that was asked right after another question about its image.
        hit: the answer to it.
        cold: the answer to the same case, computed without the cache.
        crowd: the cases that were asked at one moment; none where the engine would end, or where
            they all fit into the KV cache.
        crowded: the answers to them.
        preemptions: how often one of them lost its blocks; None if the server does not count it.
    """

    forced: tuple[tuple[Case, Forced], ...]
    too_large: tuple[str, ...]
    hit_case: Case
    hit: Completion
    cold: Completion
    crowd: tuple[Case, ...]
    crowded: tuple[Completion, ...]
    preemptions: float | None


class Borders:
    """A model that is served in steps of `STEP_TOKENS` tokens; its own server is stopped then."""

    def __init__(self, slot: DeviceSlot, golden: Goldens, cases: Sequence[Case]) -> None:
        """Sets up; measures nothing yet.

        Args:
            slot: the devices of the server.
            golden: the references.
            cases: the cases with an image.
        """
        self.slot = slot
        self._golden = golden
        self._cases = cases
        self.run = Memo(self._serve)

    def _serve(self) -> BorderRun:
        asked, not_asked = self._askable()
        first, second = _two_about_one_image(self._cases)
        with self.slot.variant(self._small()) as (client, _):
            forced, refused = self._forced(ForcedAnswers(client, self._golden), asked)
            cold = client.complete(second, cold=True)
            hit = _after_another_question(client, first, second)
            crowd = self._crowd([*not_asked, *refused])
            crowded, preemptions = _preempted(client, crowd)
        not_judged = (*(f"{case.id}: {_NOT_ASKED}" for case in not_asked), *refused.values())
        return BorderRun(forced, not_judged, second, hit, cold, crowd, crowded, preemptions)

    def _crowd(self, too_large: Collection[Case]) -> tuple[Case, ...]:
        """The cases with the longest answers, whose blocks do not all fit into the KV cache.

        A longer answer needs more blocks while it is generated, and takes them from others. A case
        that a tiny checkpoint was not taught has no answer of the model's own server yet, which
        would have to start once more.

        Args:
            too_large: cases that the server has no room for.
        """
        session = self.slot.session
        if session.run.platform.preemption_problem:
            return ()
        taught = [case for case in self._cases if session.untaught_reason(case) is None]
        cases = smaller(taught, too_large)
        crowd = sorted(cases, key=self._answer_tokens, reverse=True)[:CROWD]
        block, room = self._room()
        blocks = [
            math.ceil((self._prompt_tokens(case) + self._answer_tokens(case)) / block)
            for case in crowd
        ]
        return tuple(crowd) if overflow(blocks, room) else ()

    def _askable(self) -> tuple[list[Case], list[Case]]:
        """The cases that are asked, and those that the installed vLLM may never answer."""
        cases = _bordered(self._cases)
        hopeless = unanswered(cases)
        return [case for case in cases if case not in hopeless], hopeless

    def _small(self) -> Variant:
        """The variant that has room for one of the longest requests at a time."""
        block, blocks = self._room()
        return Variant(
            "small_steps",
            {
                "max_num_batched_tokens": STEP_TOKENS,
                # vLLM requires at least one token for each sequence of a step.
                "max_num_seqs": _SEQUENCES,
                "enable_chunked_prefill": True,
                "enable_prefix_caching": True,
                "block_size": block,
                "max_model_len": blocks * block,
                # vLLM keeps one block for itself.
                "num_gpu_blocks_override": blocks + 1,
            },
        )

    def _room(self) -> tuple[int, int]:
        """Tokens of a block of the KV cache, and the blocks that the longest request needs."""
        session = self.slot.session
        serve = launch_arguments(session.model, session.run.platform).all
        _, not_asked = self._askable()
        asked = [case for case in self._cases if case not in not_asked]
        block = int(serve.get("block_size", _BLOCK))
        longest = max(self._prompt_tokens(case) + case.max_tokens for case in asked)
        # A block more, because vLLM counts some tokens of a request in advance.
        return block, math.ceil(longest / block) + 1

    def _prompt_tokens(self, case: Case) -> int:
        return self._golden(case).prompt_tokens or 0

    def _answer_tokens(self, case: Case) -> int:
        return len(self._golden(case).token_ids or ())

    def _forced(
        self, answers: ForcedAnswers, cases: Iterable[Case]
    ) -> tuple[tuple[tuple[Case, Forced], ...], dict[Case, str]]:
        """The logits of the cases that the server has room for; its replies to the others."""
        forced, too_large = [], {}
        for case in cases:
            try:
                forced.append((case, answers(case)))
            except ServerError as error:
                if _NO_ROOM not in str(error):
                    raise
                too_large[case] = str(error)
        return tuple(forced), too_large


def overflow(requests: Iterable[int], cache: int) -> bool:
    """True if the longest requests that run at a time do not fit into a KV cache together.

    Args:
        requests: blocks of each request.
        cache: blocks of the KV cache.
    """
    return sum(sorted(requests, reverse=True)[:_SEQUENCES]) > cache


def _preempted(
    client: Client, crowd: tuple[Case, ...]
) -> tuple[tuple[Completion, ...], float | None]:
    """The answers to cases that are asked at one moment, and the number of preemptions."""
    if not crowd:
        return (), None
    answers, counted = metrics.measure(client.endpoint, lambda: client.ask_together(crowd))
    return answers, counted.preemptions


def smaller(cases: Iterable[Case], too_large: Collection[Case]) -> list[Case]:
    """The cases with smaller images than the cases that a server has no room for."""
    least = min(map(pixels, too_large), default=math.inf)
    return [case for case in cases if pixels(case) < least]


def _bordered(cases: Sequence[Case]) -> list[Case]:
    """The first case, and those whose images and texts have many lengths."""
    return [case for case in cases if case is cases[0] or case.group in {"size", "order"}]


def unanswered(cases: Sequence[Case]) -> list[Case]:
    """The cases with the largest images, if the installed vLLM may never answer them."""
    if not vllm_in(_NEVER_ANSWERS):
        return []
    largest = max(map(pixels, cases))
    return [case for case in cases if pixels(case) == largest]


def _two_about_one_image(cases: Sequence[Case]) -> tuple[Case, Case]:
    """Two questions behind one image, so that their prompts are equal up to its end."""
    image_first = [case for case in cases if not case.earlier and IMAGE_MARK not in case.prompt]
    for index, one in enumerate(image_first):
        for other in image_first[index + 1 :]:
            if one.every_image == other.every_image and one.prompt != other.prompt:
                return one, other
    raise ConfigurationError(
        "numerics.borders needs two cases with different questions behind one image, and "
        "fixtures/cases.json has none for this model. Add one."
    )


def _after_another_question(client: Client, first: Case, second: Case) -> Completion:
    """The answer to a case, right after another question about its image, in one cache."""
    from ..engines.cold import new_salt

    salt = new_salt()
    client.complete(first, Sampling(max_tokens=1, cache_salt=salt))
    return client.complete(second, Sampling(second.max_tokens, cache_salt=salt))

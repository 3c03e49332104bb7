"""Sends many different images to a server, and looks at its memory after each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.cold import new_salt
from ..errors import PreconditionError
from ..load.uncached import UncachedRequests
from ..observation.answers import Refusal
from ..observation.soak import Soak
from ..processes.host_memory import memory_by_process
from ..spec.case import Case, Sampling
from ..spec.model import Variant
from ..spec.thresholds import BATCH, SOAK_CACHE_GIB
from ..versions import unmet
from .bad_requests import BAD_REQUESTS, ImageRequests
from .device_slot import DeviceSlot
from .memo import Memo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..engines.client import Client
    from ..engines.endpoint import Server
    from ..observation.answers import Completion

_CACHE = "mm_processor_cache_gb"
_SKIPS_LARGE_IMAGES = "vllm>=0.32"
"""Earlier releases do not start if the largest image is larger than the cache (vllm#52835)."""

_TOKENS = 8
"""Length of the answer to each image. The first and last questions have the usual length."""

_LEFT_TOKENS = 256
"""Length of the answer that a client leaves; a server that goes on with it soon ends it."""


class SoakRun:
    """A server that answers more images than its caches hold; the model's own is stopped then.

    Attributes:
        slot: the devices of the server.
        run: sends the images; returns what was seen.
    """

    def __init__(
        self, slot: DeviceSlot, text_case: Case, cases: Sequence[Case], directory: Path
    ) -> None:
        """Sets up; sends nothing yet.

        Args:
            slot: the devices of the server.
            text_case: a case without an image.
            cases: the cases with one image; the first with different images are the questions.
            directory: an existing directory for changed images.
        """
        self.slot = slot
        self.run = Memo(self._soak)
        self._text_case, self._cases = text_case, cases
        different = {case.images: case for case in reversed(cases)}
        self._questions = tuple(reversed(different.values()))[:BATCH]
        self._uncached = UncachedRequests(directory)

    def _soak(self) -> Soak:
        from ..engines.vllm.metrics import measure

        with self._served() as (client, server):
            first = self._answers(client)
            host, device = self._send_images(client, server)
            again, counted = measure(client.endpoint, lambda: self._answers(client))
            cold, counted_cold = measure(client.endpoint, lambda: self._answers(client, cold=True))
        known = [used for used in device if used is not None]
        return Soak(
            len(host),
            tuple(host),
            tuple(known) if len(known) == len(device) else (),
            first,
            again,
            cold,
            counted.caches,
            counted_cold.caches,
        )

    @contextlib.contextmanager
    def _served(self) -> Iterator[tuple[Client, Server]]:
        """The model, with an image cache that is full soon, or none; an endpoint as it is."""
        from ..engines.client import Client

        if self.slot.starts_engines:
            largest = 0.0 if unmet([_SKIPS_LARGE_IMAGES]) else SOAK_CACHE_GIB
            size = min(self.slot.session.model.serve.get(_CACHE, largest), largest)
            with self.slot.variant(Variant("small_image_cache", {_CACHE: size})) as served:
                yield served
            return
        server = self.slot.own_server()
        with contextlib.closing(Client(server.endpoint, server.explain_loss)) as client:
            yield client, server
            self.slot.requests += client.requests

    def _answers(self, client: Client, *, cold: bool = False) -> Mapping[str, Completion]:
        """The answers to the questions; the prompt is computed each time, the images if cold."""
        return {
            case.id: client.complete(
                case, Sampling(case.max_tokens, cache_salt=new_salt()), cold=cold
            )
            for case in self._questions
        }

    def _send_images(
        self, client: Client, server: Server
    ) -> tuple[list[dict[str, float]], list[float | None]]:
        """Host and device memory after each image, while the server is idle."""
        session, host, device = self.slot.session, [], []
        count, on_progress = session.run.options.soak, session.run.progress("soak")
        of_cases = [
            ImageRequests(session.model, server, client, self._text_case, case, None)
            for case in self._cases
        ]
        for number in range(count):
            requests = of_cases[number % len(of_cases)]
            case = self._uncached.case(requests.image_case)
            if self.slot.starts_engines:  # the memory of another server is not visible
                # vLLM up to 0.32 loses the image of a refused request, so it has its own.
                _send_too_long(requests, self._uncached.case(requests.image_case))
                with requests.open(requests.about(case), _LEFT_TOKENS) as chunks:
                    next(chunks)
            client.complete(case, self._uncached.sampling(_TOKENS))
            host.append(memory_by_process(server.processes()))
            device.append(self.slot.allocation.memory_used_mib())
            on_progress(f"image {number + 1} of {count}")
        return host, device


def _send_too_long(requests: ImageRequests, case: Case) -> None:
    """Sends an image in a request that the server has to refuse.

    Raises:
        PreconditionError: no request can be made that is too long, or it is not refused.
    """
    reply = BAD_REQUESTS["too_long"](requests, requests.about(case)).reply
    if not isinstance(reply, Refusal) or not reply.is_client_error:
        raise PreconditionError(
            f"{case.id}: the server did not refuse a request that is longer than max_model_len="
            f"{requests.max_model_len}, so refused requests are not among the load. See "
            "recovery.request."
        )

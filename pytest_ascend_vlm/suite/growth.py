"""Criteria growth.*: memory and answers over many images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..criteria import growth as rules
from ..session.judge import Judge
from ..spec.case import Capability
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..session.soak import SoakRun


class GrowthCriteria(Criteria):
    """Criteria of a server that answers more images than its caches hold."""

    @criterion("growth.memory", needs=Capability.IMAGE, ends_server=True)
    @pytest.mark.parametrize("memory", ["host", "device"])
    def test_memory_levels_off(self, memory: str, soak: SoakRun, judge: Judge) -> None:
        """Memory grows by at most {growth_mib} MiB per image once the caches are full.

        --vlm-soak different images ({soak_images} by default) are sent one after another. Before
        each answer, another image is in a request that is refused because its text is too long, and
        the same image is in one whose client leaves after the first token: few requests take these
        paths, so a leak there is noticed late. `host` is the memory of all processes of the
        server, and `device` the memory in use on its cards; both are read after each image.

        Judged is the slope over the second half, with its 95 % interval. If the interval contains
        the threshold, the result is an error: more images are needed. A cache that fills looks like
        a leak, so the suite serves the model with a small cache for images
        (mm_processor_cache_gb={soak_cache_gib}; 0 with vLLM before 0.32). A server that leaks works
        for hours or days, until no memory is left.

        If this fails: the message names the process that grew most. If it is the API server, look
        at what the image processor and its threads keep. If it is the engine, look at the caches
        for images and embeddings, and at what a request leaves behind that has finished, was
        aborted or was refused. Serve with mm_processor_cache_gb=0, then with
        enable_prefix_caching=False, to find the cache. Device memory: look for tensors that are
        kept for each image, and for a fragmented pool
        (PYTORCH_NPU_ALLOC_CONF=expandable_segments:True).
        """
        if not soak.slot.starts_engines:
            judge.cannot_run("the memory of a server that the suite did not start is not visible")
        if memory == "device" and not soak.slot.allocation.cards:
            judge.not_applicable("the model is served without a card")
        seen, maximum = soak.run(), self.model.thresholds.growth_mib
        if memory == "host":
            judge(rules.judge_host(seen, maximum))
        elif seen.device_mib:
            judge(rules.judge_device(seen, maximum))
        else:
            judge.cannot_run("the memory in use on the card cannot be read")

    @criterion("growth.answers", needs=Capability.IMAGE, ends_server=True)
    def test_first_answers_come_again(self, soak: SoakRun, judge: Judge) -> None:
        """After many different images, the first questions get the same answers as before.

        The images are those of growth.memory. At the end the questions are asked twice: `again`
        sends the same images, which were evicted from the caches meanwhile; `cold` sends them so
        that no cache can contain them. All tokens are equal. A cache that confuses its entries
        after an eviction answers about another image. No other criterion sends enough images to
        evict any.

        If this fails: if only answers marked `again` differ, look at the eviction from the caches
        for images and embeddings (mm_processor_cache_gb=0 to confirm). If those marked `cold`
        differ as well, look at what requests leave behind: slots, block tables, reused buffers.
        """
        judge(rules.judge_answers(soak.run(), self.model.thresholds.agreement))

import os
from concurrent.futures import ThreadPoolExecutor

from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import (
    Completion,
    Figure,
    ModelSpec,
    Published,
    Variant,
    VLMConformance,
    Workload,
    checklist,
)

_CORES = min(4, os.cpu_count() or 1)
_QUEUED = "a queue of 3 requests, 5 requests a minute from one address, cores 0-3"


class TestMinerU25CpuTuned(VLMConformance):
    """MinerU2.5-2509-1.2B on CPU, images of at most 768 x 768 pixels, four bound threads.

    The pages of the suite are smaller than that, so this model is judged by the goldens of the
    untuned one: both have to read the same. docs/cpu-tuned.md describes the rest of the deployment.
    Its bounded queue is a test of its own, because it would refuse some of the suite's simultaneous
    requests.
    """

    model = ModelSpec(
        "OpenDataLab/MinerU2.5-2509-1.2B",
        tiny="qwen2_vl",
        platforms=("cpu",),
        serve={
            "dtype": "bfloat16",
            "max_model_len": 16384,
            "max_num_seqs": 4,
            "limit_mm_per_prompt": {"image": 1, "video": 0},
            "mm_processor_kwargs": {"max_pixels": 768 * 768},
        },
        env={"VLLM_CPU_OMP_THREADS_BIND": f"0-{_CORES - 1}"},
        trust_remote_code=True,
        supports={C.TEXT, C.IMAGE, C.DOCUMENT},
        unsupported={
            C.VIDEO: "documents only",
            C.VQA: "parses pages, does not converse about pictures",
            C.GROUNDING: "its layout boxes come from its own two-step prompts",
        },
        prompts={"document": "Extract all text from this document image."},
        workloads=(
            # A page of 768 x 768 pixels, and as many requests as p95 needs.
            Workload("page-768", requests=60, image_tokens=750, concurrency=3),
        ),
        published=Published(
            source="the document on tuning MinerU2.5-1.2B for CPU",
            figures=(
                Figure(
                    85,
                    "%",
                    name="CPU use, mean, before the tuning",
                    unmeasured="this model is the tuned one; docs/cpu-tuned.md measures both",
                ),
                Figure(50, "%", metric="cpu.mean", conditions=_QUEUED),
                Figure(
                    65, "%", metric="cpu.peak", conditions="images of at most 768 px; 98 % before"
                ),
                Figure(
                    1.2,
                    "s",
                    workload="page-768",
                    statistic="latency.p95",
                    conditions=f"{_QUEUED}; the length of the answers is not stated",
                ),
            ),
        ),
    )

    def test_full_queue_refuses_the_rest(self, device_slot, image_cases, answers, judge):
        """Of eight pages at once a queue of three refuses some, and answers the others right.

        One page is computed and three wait; vLLM refuses further ones with 503.

        If this fails: no refusal means that the release ignores max_num_queued_reqs. A wrong answer
        means that waiting requests are confused: see determinism.concurrent.
        """
        pages = [case for case in image_cases if case.group == "document"][:8]
        right = {page.id: answers(page).text for page in pages}
        with (
            device_slot.variant(Variant("queue", {"max_num_queued_reqs": 4})) as (client, _),
            ThreadPoolExecutor(len(pages)) as pool,
        ):
            replies = list(pool.map(client.ask, pages))
        answered = [reply for reply in replies if isinstance(reply, Completion)]
        refused = {reply.status for reply in replies if not isinstance(reply, Completion)}
        wrong = [reply.case_id for reply in answered if reply.text != right[reply.case_id]]
        judge(
            checklist(
                {
                    "at least four are answered": None if len(answered) >= 4 else str(refused),
                    "the rest gets 503": None if refused == {503} else f"they got {refused}",
                    "the answers are right": ", ".join(wrong) or None,
                },
                {"answered": len(answered), "refused": len(replies) - len(answered)},
            )
        )

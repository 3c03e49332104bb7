from functools import partial

import pytest

from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import (
    Figure,
    ModelSpec,
    Published,
    Variant,
    VLMConformance,
    Workload,
    judge_characters,
)

_SAMPLED = "temperature 0.01"
_TEXT = partial(
    Figure, workload="text", conditions=f"{_SAMPLED}; the length of the prompt is not stated"
)
_PAGE = partial(Figure, workload="page", conditions=_SAMPLED)


class TestMinerU25(VLMConformance):
    """MinerU2.5-2509-1.2B (qwen2_vl), bf16, one card."""

    model = ModelSpec(
        "OpenDataLab/MinerU2.5-2509-1.2B",
        tiny="qwen2_vl",
        serve={
            "dtype": "bfloat16",
            "max_model_len": 16384,
            "gpu_memory_utilization": 0.9,
            "enforce_eager": True,
            "limit_mm_per_prompt": {"image": 1, "video": 0},
        },
        trust_remote_code=True,
        supports={C.TEXT, C.IMAGE, C.DOCUMENT},
        unsupported={
            C.VIDEO: "documents only",
            C.VQA: "parses pages, does not converse about pictures",
            C.GROUNDING: "its layout boxes come from its own two-step prompts",
        },
        prompts={"document": "Extract all text from this document image."},
        variants=(
            Variant("graphs", {"enforce_eager": False}),
            Variant(
                "full_decode_only",
                {
                    "enforce_eager": False,
                    "compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"},
                },
            ),
            Variant("no_prefix_cache", {"enable_prefix_caching": False}),
        ),
        workloads=(
            Workload("text", requests=3, input_tokens=32, output_tokens=6, concurrency=1),
            Workload("page", requests=3, image_tokens=2560, output_tokens=124, concurrency=1),
        ),
        published=Published(
            source="the MinerU2.5-2509-1.2B adaptation document (vLLM-Ascend 0.11.0rc3)",
            device="Ascend 910 (64 GB)",
            versions={"vllm-ascend": "0.11.0rc3"},
            dtype="bfloat16",
            answers={
                "text/name": "I'm your son.",
                "text/capital": "What is the capital of France?" + 6 * "|Paris",
            },
            figures=(
                Figure(60, "s", metric="start"),
                _TEXT(0.22, "s", statistic="latency.mean"),
                _TEXT(27.47, "tok/s", statistic="user_throughput.mean"),
                _PAGE(4.06, "s", statistic="latency.mean"),
                _PAGE(3.84, "s", statistic="ttft.mean"),
                _PAGE(30.60, "tok/s", statistic="user_throughput.mean"),
                _PAGE(564, "tok/s", statistic="decode_throughput.mean"),
            ),
        ),
    )

    def test_two_step_parsing(self, server, image_cases, vlm_run, judge):
        """MinerU's own client finds a page's layout, then reads each block of it.

        If this fails: read the blocks with `Text Recognition:` one by one. If they are correct, the
        difference is in the layout step, whose image is resized to 1036 x 1036.
        """
        if vlm_run.options.checkpoint == "tiny":
            judge.not_applicable("the tiny checkpoint was not taught layouts")
        client_library = pytest.importorskip(
            "mineru_vl_utils", reason="pip install 'pytest-ascend-vlm[mineru]'"
        )
        from PIL import Image

        page = next(case for case in image_cases if case.truth)
        client = client_library.MinerUClient(
            "http-client",
            model_name=server.endpoint.served_name,
            server_url=server.endpoint.url,
            server_headers={"Authorization": f"Bearer {server.endpoint.api_key}"},
        )
        with Image.open(page.images[0]) as image:
            blocks = client.two_step_extract(image.convert("RGB"))
        read = "\n".join(block.content or "" for block in blocks)
        judge(judge_characters(page.truth, read, golden=page.truth, tolerance=0.05))

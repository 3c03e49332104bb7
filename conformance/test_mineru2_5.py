from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import ModelSpec, Published, VLMConformance


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
        unsupported={C.VIDEO: "documents only"},
        prompts={"document": "Extract all text from this document image."},
        published=Published(
            source="the MinerU2.5-2509-1.2B adaptation document (vLLM-Ascend 0.11.0rc3)",
            answers={
                "text/name": "I'm your son.",
                "text/capital": "What is the capital of France?" + 6 * "|Paris",
            },
        ),
    )

from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import (
    DatasetTask,
    ModelSpec,
    Published,
    PublishedFigure,
    PublishedScore,
    VLMConformance,
)

_ONE_CARD = {
    "dtype": "bfloat16",
    "max_model_len": 16384,
    "max_num_batched_tokens": 16384,
    "limit_mm_per_prompt": {"image": 10, "video": 1},
}
_TUTORIAL = "the Qwen-VL-Dense tutorial of vLLM-Ascend"
_ENV = {"PYTORCH_NPU_ALLOC_CONF": "max_split_size_mb:256"}
_EVERYTHING = frozenset(C)


class TestQwen25VL3B(VLMConformance):
    """Qwen2.5-VL-3B-Instruct (qwen2_5_vl), bf16, one card."""

    model = ModelSpec(
        "Qwen/Qwen2.5-VL-3B-Instruct", serve=_ONE_CARD, env=_ENV, supports=_EVERYTHING
    )


class TestQwen25VL7B(VLMConformance):
    """Qwen2.5-VL-7B-Instruct (qwen2_5_vl), bf16, one card."""

    model = ModelSpec(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        tiny="qwen2_5_vl",
        serve=_ONE_CARD,
        env=_ENV,
        supports=_EVERYTHING,
    )


class TestQwen25VL32B(VLMConformance):
    """Qwen2.5-VL-32B-Instruct (qwen2_5_vl), bf16, two cards."""

    model = ModelSpec(
        "Qwen/Qwen2.5-VL-32B-Instruct",
        devices=2,
        serve={
            "dtype": "bfloat16",
            "async_scheduling": True,
            "tensor_parallel_size": 2,
            "max_model_len": 30000,
            "max_num_batched_tokens": 50000,
            "max_num_seqs": 30,
            "enable_prefix_caching": False,
            "limit_mm_per_prompt": {"image": 10, "video": 1},
        },
        # The tutorial preloads jemalloc if it is installed: export LD_PRELOAD before pytest.
        env={**_ENV, "HCCL_OP_EXPANSION_MODE": "AIV"},
        trust_remote_code=True,
        supports=_EVERYTHING,
        datasets=(
            DatasetTask(
                "mmmu_val",
                harness="lm_eval",
                published=PublishedScore(0.5744, 900, "lm_eval", _TUTORIAL, stderr=0.0158),
            ),
        ),
        published=Published(
            source=_TUTORIAL,
            figures=(
                PublishedFigure(
                    "mmmu_val",
                    57.44,
                    "%",
                    "± 1.58, lm-eval, vLLM-Ascend 0.11.0rc3, 2 cards",
                    "dataset.mmmu_val",
                ),
            ),
        ),
    )

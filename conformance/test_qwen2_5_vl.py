from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import (
    DatasetTask,
    ExpectedFailure,
    Figure,
    ModelSpec,
    Published,
    PublishedScore,
    Variant,
    VLMConformance,
    Workload,
)

_ONE_CARD = {
    "dtype": "bfloat16",
    "max_model_len": 16384,
    "max_num_batched_tokens": 16384,
    "limit_mm_per_prompt": {"image": 10, "video": 1},
    # Calls of functions have the form of Hermes.
    "enable_auto_tool_choice": True,
    "tool_call_parser": "hermes",
}
# The tutorial of vLLM-Ascend 0.23 serves in this mode.
_FULL_DECODE_ONLY = Variant(
    "full_decode_only", {"compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"}}
)
_EAGER = Variant("eager", {"enforce_eager": True})
_TUTORIAL = "the Qwen-VL-Dense tutorial of vLLM-Ascend"
# vllm bench serve --dataset-name random --random-input 200 --num-prompt 200 --request-rate 1
_RANDOM = Workload("random-200", requests=200, input_tokens=200, request_rate=1.0)
_ENV = {"PYTORCH_NPU_ALLOC_CONF": "max_split_size_mb:256"}
_EVERYTHING = frozenset(C)
_FRAME_RATE = tuple(
    ExpectedFailure(
        criterion=criterion,
        reason="vLLM up to 0.23 does not tell Transformers the frame rate of a clip of Qwen2.5-VL, "
        "which takes it for two frames a second, or for 24 with Transformers 5",
        issue="https://github.com/vllm-project/vllm/pull/47736",
        seen_in=seen_in,
        fixed_in="0.32",
    )
    for criterion, seen_in in {
        "baseline.frames": ">=0.11,<0.24",
        "numerics.clips[clip/numbers-slow]": ">=0.11,<0.24",
        "numerics.clips[clip/time]": ">=0.11,<0.24",
        # The other clips have two frames a second. vLLM 0.23 is the first with Transformers 5.
        "numerics.clips[clip/numbers]": ">=0.23,<0.24",
        "numerics.clips[clip/numbers-reversed]": ">=0.23,<0.24",
        "numerics.clips[clip/eight-numbers]": ">=0.23,<0.24",
    }.items()
)


class TestQwen25VL3B(VLMConformance):
    """Qwen2.5-VL-3B-Instruct (qwen2_5_vl), bf16, one card."""

    model = ModelSpec(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        serve=_ONE_CARD,
        env=_ENV,
        supports=_EVERYTHING,
        expected_failures=_FRAME_RATE,
    )


class TestQwen25VL7B(VLMConformance):
    """Qwen2.5-VL-7B-Instruct (qwen2_5_vl), bf16, one card."""

    model = ModelSpec(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        tiny="qwen2_5_vl",
        serve=_ONE_CARD,
        env=_ENV,
        supports=_EVERYTHING,
        variants=(_EAGER, _FULL_DECODE_ONLY),
        expected_failures=_FRAME_RATE,
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
        variants=(
            _EAGER,
            _FULL_DECODE_ONLY,
            Variant("prefix_cache", {"enable_prefix_caching": True}),
            Variant("encoder_data_parallel", {"mm_encoder_tp_mode": "data"}),
        ),
        expected_failures=_FRAME_RATE,
        datasets=(
            DatasetTask(
                "mmmu_val",
                harness="lm_eval",
                published=PublishedScore(0.5744, 900, "lm_eval", _TUTORIAL, stderr=0.0158),
            ),
        ),
        workloads=(_RANDOM,),
        published=Published(
            source=_TUTORIAL,
            versions={"vllm-ascend": "0.11.0rc3"},
            figures=(
                Figure(
                    57.44, "%", metric="dataset.mmmu_val", conditions="± 1.58, lm-eval, 2 cards"
                ),
            ),
        ),
    )

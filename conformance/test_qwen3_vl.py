from functools import partial

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
_TUTORIAL = "the Qwen-VL-Dense tutorial of vLLM-Ascend"
# vllm bench serve --dataset-name random --random-input 200 --num-prompt 200 --request-rate 1
_RANDOM = Workload("random-200", requests=200, input_tokens=200, request_rate=1.0)
# The tutorial names the two other tools without conditions: these are the defaults of `latency`,
# and for `throughput` those of `serve` above.
_OFFLINE = (
    Workload("32/128", 240, tool="latency", input_tokens=32, output_tokens=128, concurrency=8),
    Workload("all-200", 200, tool="throughput", input_tokens=200, output_tokens=128),
)
_ENV = {"PYTORCH_NPU_ALLOC_CONF": "max_split_size_mb:256"}
_EVERYTHING = frozenset(C)
_THOUSANDTHS = 1000
# Of the tiny checkpoint alone, because its goldens were recorded with a newer Transformers.
_CLIP_PROMPTS = partial(
    ExpectedFailure,
    reason="Transformers before 5.10 puts one pair of <|vision_start|> and <|vision_end|> less "
    "around a clip than the one that recorded the goldens",
    issue="https://github.com/vllm-project/vllm/pull/46957",
    fixed_in="0.32",
    checkpoint="tiny",
)
_CLIPS = ("numbers", "numbers-reversed", "numbers-slow", "eight-numbers", "time")
_NEED_THE_PROMPT = ("baseline.frames", "numerics.clips")


class TestQwen3VL2B(VLMConformance):
    """Qwen3-VL-2B-Instruct (qwen3_vl), bf16, one card."""

    model = ModelSpec(
        "Qwen/Qwen3-VL-2B-Instruct",
        serve=_ONE_CARD,
        env=_ENV,
        supports=_EVERYTHING,
        box_scale=_THOUSANDTHS,
    )


class TestQwen3VL4B(VLMConformance):
    """Qwen3-VL-4B-Instruct (qwen3_vl), bf16, one card."""

    model = ModelSpec(
        "Qwen/Qwen3-VL-4B-Instruct",
        serve=_ONE_CARD,
        env=_ENV,
        supports=_EVERYTHING,
        box_scale=_THOUSANDTHS,
    )


class TestQwen3VL8B(VLMConformance):
    """Qwen3-VL-8B-Instruct (qwen3_vl), bf16, one card."""

    model = ModelSpec(
        "Qwen/Qwen3-VL-8B-Instruct",
        tiny="qwen3_vl",
        serve=_ONE_CARD,
        env=_ENV,
        supports=_EVERYTHING,
        box_scale=_THOUSANDTHS,
        variants=(
            Variant("eager", {"enforce_eager": True}),
            _FULL_DECODE_ONLY,
            Variant("piecewise", {"compilation_config": {"cudagraph_mode": "PIECEWISE"}}),
            # vllm-ascend 0.11 to 0.18 reduce this mode to PIECEWISE without a word.
            Variant(
                "full_and_piecewise",
                {"compilation_config": {"cudagraph_mode": "FULL_AND_PIECEWISE"}},
                requires=("vllm-ascend>=0.23",),
            ),
            Variant("tp2", {"tensor_parallel_size": 2}, devices=2),
            Variant(
                "encoder_data_parallel",
                {"tensor_parallel_size": 2, "mm_encoder_tp_mode": "data"},
                devices=2,
            ),
            # A page of A4 has 1,260 image tokens, so that its prompt takes five steps.
            Variant(
                "chunked_prefill",
                {
                    "enable_chunked_prefill": True,
                    "max_num_batched_tokens": 128,
                    # vLLM requires at least one token for each sequence of a step.
                    "max_num_seqs": 32,
                },
            ),
        ),
        expected_failures=(
            *(_CLIP_PROMPTS(f"baseline.prompt[clip/{one}]", shows="token 3 on") for one in _CLIPS),
            *(_CLIP_PROMPTS(one, shows="did not see the same input") for one in _NEED_THE_PROMPT),
        ),
        datasets=(
            DatasetTask(
                "mmmu_val",
                harness="lm_eval",
                published=PublishedScore(0.5389, 900, "lm_eval", _TUTORIAL, stderr=0.0159),
            ),
        ),
        workloads=(_RANDOM, *_OFFLINE),
        published=Published(
            source=_TUTORIAL,
            versions={"vllm-ascend": "0.11.0rc3"},
            figures=(
                Figure(53.89, "%", metric="dataset.mmmu_val", conditions="± 1.59, lm-eval, 1 card"),
            ),
        ),
    )


class TestQwen3VL32B(VLMConformance):
    """Qwen3-VL-32B-Instruct (qwen3_vl), bf16, two cards."""

    model = ModelSpec(
        "Qwen/Qwen3-VL-32B-Instruct",
        devices=2,
        serve={**_ONE_CARD, "tensor_parallel_size": 2},
        env={**_ENV, "HCCL_OP_EXPANSION_MODE": "AIV"},
        supports=_EVERYTHING,
        box_scale=_THOUSANDTHS,
        variants=(
            _FULL_DECODE_ONLY,
            Variant("encoder_data_parallel", {"mm_encoder_tp_mode": "data"}),
            # The weights that vLLM-Ascend's own tests serve; msModelSlim made them.
            Variant(
                "w8a8",
                {"quantization": "ascend"},
                checkpoint="Eco-Tech/Qwen3-VL-32B-Instruct-w8a8-QuaRot",
                is_lossy=True,
                requires=("vllm-ascend>=0.13",),
            ),
        ),
    )

from functools import partial

from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import (
    Figure,
    ModelSpec,
    Published,
    Thresholds,
    Variant,
    VLMConformance,
    Workload,
)

_SPEED = partial(
    Figure,
    workload="128/128",
    # 326.81 tok/s divided by 25.14 req/s.
    conditions="the throughputs of the document are those of 13 output tokens an answer, not 128",
)
_NUMBERS = partial(Figure, conditions="Transformers on the NPU against Transformers on CPU")
_UNITS = {
    "max_abs_error": "",
    "mean_abs_error": "",
    "relative_error": "%",
    "cosine_similarity": "",
}
_ERRORS = {
    "logits": (0.171875, 0.028762, 2.8886, 0.999978),
    "hidden_states": (0.25, 0.018531, 7.4675, 0.999889),
}


class TestGlmOcr(VLMConformance):
    """GLM-OCR 0.9B (glm_ocr), bf16, one card."""

    model = ModelSpec(
        "zai-org/GLM-OCR",
        tiny="glm_ocr",
        # Transformers 4.57, which the images of vllm-ascend 0.11 to 0.18 have, does not know it.
        requires=("transformers>=5",),
        serve={
            "dtype": "bfloat16",
            "max_model_len": 8192,
            "max_num_seqs": 32,
            "max_num_batched_tokens": 4096,
            "seed": 1024,
            "gpu_memory_utilization": 0.85,
            "enable_prefix_caching": False,
            "compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"},
        },
        env={
            "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
            "HCCL_BUFFSIZE": "512",
            "OMP_PROC_BIND": "false",
            "OMP_NUM_THREADS": "1",
            "TASK_QUEUE_ENABLE": "1",
        },
        trust_remote_code=True,
        supports={C.TEXT, C.IMAGE, C.DOCUMENT},
        unsupported={
            C.VIDEO: "documents only",
            C.VQA: "reads pages, does not converse about pictures",
            C.GROUNDING: "reads pages, gives no boxes",
        },
        prompts={"document": "Text Recognition:"},
        variants=(
            Variant("eager", {"enforce_eager": True}),
            Variant("prefix_cache", {"enable_prefix_caching": True}),
            Variant("piecewise", {"compilation_config": {"cudagraph_mode": "PIECEWISE"}}),
            # vllm-ascend 0.11 to 0.18 reduce this mode to PIECEWISE without a word.
            Variant(
                "full_and_piecewise",
                {"compilation_config": {"cudagraph_mode": "FULL_AND_PIECEWISE"}},
                requires=("vllm-ascend>=0.23",),
            ),
            # vLLM's guide to GLM-OCR. The tiny checkpoint has no layer that predicts tokens ahead.
            Variant(
                "mtp",
                {"speculative_config": {"method": "mtp", "num_speculative_tokens": 1}},
                checkpoint="zai-org/GLM-OCR",
                requires=("vllm-ascend",),
            ),
        ),
        thresholds=Thresholds(logits_max_abs=1.0, logits_cosine=0.999),
        workloads=(
            Workload("128/128", requests=10, input_tokens=128, output_tokens=128, concurrency=2),
        ),
        published=Published(
            source="the GLM-OCR adaptation document (vLLM-Ascend 0.18.0rc1)",
            device="Ascend 910",
            versions={"vllm-ascend": "0.18.0rc1"},
            dtype="bfloat16",
            figures=(
                Figure(
                    94.62,
                    "",
                    name="OmniDocBench V1.5",
                    device="a device that is not named",
                    unmeasured="no harness scores release 1.5 (docs/datasets.md)",
                ),
                _SPEED(71.5, "ms", statistic="latency.mean"),
                _SPEED(101.2, "ms", statistic="latency.p99"),
                _SPEED(25.14, "req/s", statistic="request_throughput"),
                _SPEED(326.81, "tok/s", statistic="output_throughput"),
                *(
                    _NUMBERS(value, unit, metric=f"transformers.{numbers}.{name}")
                    for numbers, values in _ERRORS.items()
                    for (name, unit), value in zip(_UNITS.items(), values, strict=True)
                ),
            ),
        ),
    )

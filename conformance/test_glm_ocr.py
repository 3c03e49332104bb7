from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import (
    ModelSpec,
    Published,
    PublishedFigure,
    Thresholds,
    Variant,
    VLMConformance,
    Workload,
)

_LOAD = "128 input and 128 output tokens, concurrency 2, 10 requests, Ascend 910"
_LOGITS = "Transformers on the NPU against Transformers on CPU, bf16"


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
            figures=(
                PublishedFigure("latency, mean", 71.5, "ms", _LOAD, "load.c2.latency.mean"),
                PublishedFigure("latency, p99", 101.2, "ms", _LOAD, "load.c2.latency.p99"),
                PublishedFigure("throughput", 25.14, "req/s", _LOAD, "load.c2.request_throughput"),
                PublishedFigure("throughput", 326.81, "tok/s", _LOAD, "load.c2.output_throughput"),
                PublishedFigure(
                    "logits: max_abs_error",
                    0.171875,
                    "logits",
                    _LOGITS,
                    "transformers.logits.max_abs_error",
                ),
                PublishedFigure(
                    "logits: mean_abs_error",
                    0.028762,
                    "logits",
                    _LOGITS,
                    "transformers.logits.mean_abs_error",
                ),
                PublishedFigure(
                    "logits: relative_error",
                    2.8886,
                    "%",
                    _LOGITS,
                    "transformers.logits.relative_error",
                ),
                PublishedFigure(
                    "logits: cosine_similarity",
                    0.999978,
                    "cosine",
                    _LOGITS,
                    "transformers.logits.cosine_similarity",
                ),
                PublishedFigure(
                    "hidden states: max_abs_error",
                    0.25,
                    "",
                    _LOGITS,
                    "transformers.hidden_states.max_abs_error",
                ),
                PublishedFigure(
                    "hidden states: mean_abs_error",
                    0.018531,
                    "",
                    _LOGITS,
                    "transformers.hidden_states.mean_abs_error",
                ),
                PublishedFigure(
                    "hidden states: relative_error",
                    7.4675,
                    "%",
                    _LOGITS,
                    "transformers.hidden_states.relative_error",
                ),
                PublishedFigure(
                    "hidden states: cosine_similarity",
                    0.999889,
                    "cosine",
                    _LOGITS,
                    "transformers.hidden_states.cosine_similarity",
                ),
            ),
        ),
    )

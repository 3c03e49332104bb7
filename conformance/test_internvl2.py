from functools import partial

from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import (
    DatasetTask,
    ExpectedFailure,
    Figure,
    ModelSpec,
    Published,
    Variant,
    VLMConformance,
)

_GPU = partial(Figure, device="GPU")
_NO_ANSWERS = "the answers to the test split are not published"
_ROPE = partial(
    ExpectedFailure,
    reason="vLLM before 0.22 applies the dynamic RoPE scaling of InternLM2 at every length",
    issue="https://github.com/vllm-project/vllm/pull/41277",
    fixed_in="0.22",
)
_LOGITS = ("numerics.logits[error_ratio]", "numerics.logits[kl_ratio]")
_NUMBERS = (
    "numerics.logits",
    "numerics.images",
    "numerics.tokens",
    "numerics.hidden_states",
    "numerics.fp32_probe",
    "numerics.borders[steps]",
    "baseline.order",
)
# Wrong logits may change answers. Those of the full checkpoint are judged nevertheless: a document
# reports its scores with vLLM 0.18.
_ANSWERS = (
    "baseline.text",
    "baseline.image",
    "baseline.divergence",
    "baseline.logprobs",
    "document.characters",
    "document.lines",
    "document.numbers",
    "document.order",
    "tasks.scene_text",
    "tasks.document",
    "tasks.chart",
    "tasks.reasoning",
    "tasks.chinese",
)


class TestInternVL2(VLMConformance):
    """InternVL2-2B (internvl_chat: InternViT-300M, InternLM2-1.8B), bf16, one card.

    The tiny checkpoint is in OpenGVLab's own format, too, with an InternLM2 decoder. vLLM serves no
    clips with this decoder, so "video": 1, which the adaptation document has, allows none.
    """

    model = ModelSpec(
        "OpenGVLab/InternVL2-2B",
        tiny="internvl_chat",
        serve={
            "dtype": "bfloat16",
            "max_model_len": 32768,
            "enforce_eager": True,
            "limit_mm_per_prompt": {"image": 10, "video": 1},
        },
        env={"PYTORCH_NPU_ALLOC_CONF": "max_split_size_mb:256"},
        trust_remote_code=True,
        supports={C.TEXT, C.IMAGE, C.DOCUMENT, C.VQA},
        unsupported={
            C.VIDEO: "vLLM serves clips of this format only with Qwen2 and Qwen3 decoders",
            C.GROUNDING: "boxes are not part of the adaptation document",
        },
        variants=(
            Variant("graphs", {"enforce_eager": False}),
            # The mode that the adaptation document names.
            Variant(
                "piecewise",
                {"enforce_eager": False, "compilation_config": {"cudagraph_mode": "PIECEWISE"}},
            ),
        ),
        expected_failures=(
            *(_ROPE(one, seen_in=">=0.11,<0.22") for one in _LOGITS),
            *(_ROPE(one) for one in _NUMBERS),
            *(_ROPE(one, checkpoint="tiny") for one in _ANSWERS),
        ),
        # The document does not name the harness of its scores, so references have to be recorded.
        datasets=tuple(
            DatasetTask(name)
            for name in ("mmmu_val", "docvqa_val", "chartqa_test", "infovqa_val", "ocrbench_test")
        ),
        published=Published(
            source="the InternVL2-2B adaptation document (vLLM-Ascend 0.18.0rc1)",
            device="Ascend 910 (64 GB)",
            versions={"vllm-ascend": "0.18.0rc1"},
            figures=(
                Figure(1.46, "s", metric="weights_seconds"),
                Figure(4.13, "GB", metric="weights_gib"),
                *(
                    Figure(
                        seconds,
                        "s",
                        metric=f"tasks.{kind}.seconds",
                        conditions=f"another picture, {tokens} output tokens",
                    )
                    for kind, seconds, tokens in (
                        ("scene_text", 1.66, 14),
                        ("document", 1.96, 149),
                        ("chart", 2.35, 170),
                        ("reasoning", 0.69, 52),
                        ("chinese", 1.85, 129),
                    )
                ),
                Figure(36.6, "%", metric="dataset.mmmu_val", conditions="329 of 900"),
                _GPU(36.3, "%", metric="dataset.mmmu_val"),
                _GPU(86.9, "%", name="DocVQA test", unmeasured=_NO_ANSWERS),
                _GPU(76.2, "%", metric="dataset.chartqa_test"),
                _GPU(58.9, "%", name="InfoVQA test", unmeasured=_NO_ANSWERS),
                _GPU(73.4, "%", name="TextVQA val", unmeasured="no harness here has this data set"),
                _GPU(78.4, "%", metric="dataset.ocrbench_test", conditions="784 of 1000"),
            ),
        ),
    )

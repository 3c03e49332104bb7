from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import (
    DatasetTask,
    ModelSpec,
    Published,
    PublishedFigure,
    Variant,
    VLMConformance,
)

_EAGER = "max_tokens 512, Ascend 910 (64 GB), vLLM-Ascend 0.18.0rc1"
_GPU = "reference on GPU, the model card"


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
        variants=(Variant("graphs", {"enforce_eager": False}),),
        # The document does not name the harness of its scores, so references have to be recorded.
        datasets=tuple(
            DatasetTask(name)
            for name in ("mmmu_val", "docvqa_val", "chartqa_test", "infovqa_val", "ocrbench_test")
        ),
        published=Published(
            source="the InternVL2-2B adaptation document (vLLM-Ascend 0.18.0rc1)",
            figures=(
                PublishedFigure(
                    "weights loading",
                    1.46,
                    "s",
                    "Ascend 910 (64 GB), vLLM-Ascend 0.18.0rc1",
                    "weights_seconds",
                ),
                PublishedFigure("device memory of the weights", 4.13, "GB", "bf16", "weights_gib"),
                PublishedFigure(
                    "text in scene",
                    1.66,
                    "s",
                    f"14 output tokens, {_EAGER}",
                    "tasks.scene_text.seconds",
                ),
                PublishedFigure(
                    "document", 1.96, "s", f"149 output tokens, {_EAGER}", "tasks.document.seconds"
                ),
                PublishedFigure(
                    "chart", 2.35, "s", f"170 output tokens, {_EAGER}", "tasks.chart.seconds"
                ),
                PublishedFigure(
                    "visual reasoning",
                    0.69,
                    "s",
                    f"52 output tokens, {_EAGER}",
                    "tasks.reasoning.seconds",
                ),
                PublishedFigure(
                    "Chinese", 1.85, "s", f"129 output tokens, {_EAGER}", "tasks.chinese.seconds"
                ),
                PublishedFigure(
                    "MMMU_val",
                    36.6,
                    "%",
                    "329 of 900, Ascend 910, vLLM-Ascend 0.18.0rc1",
                    "dataset.mmmu_val",
                ),
                PublishedFigure("MMMU_val", 36.3, "%", _GPU, "dataset.mmmu_val"),
                PublishedFigure("DocVQA test", 86.9, "%", _GPU),
                PublishedFigure("ChartQA test", 76.2, "%", _GPU, "dataset.chartqa_test"),
                PublishedFigure("InfoVQA test", 58.9, "%", _GPU),
                PublishedFigure("TextVQA val", 73.4, "%", _GPU),
                PublishedFigure("OCRBench", 784, "of 1000", _GPU),
            ),
        ),
    )

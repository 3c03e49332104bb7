"""lm-evaluation-harness: for parity with the numbers that vLLM-Ascend publishes.

Traps of its `local-chat-completions`, each handled in `children/run_lm_eval.py`: it sends
one picture of a question unless told otherwise, puts pictures before the text and leaves `<image>`
in it, and its cache of answers does not know requests with pictures, so nothing would be resumed.
"""

from __future__ import annotations

from .evalscope import MMMU_SUBJECTS
from .harness import Benchmark, Harness

LM_EVAL = Harness(
    name="lm_eval",
    package="lm_eval[api]",
    script="run_lm_eval.py",
    answered="answers.jsonl",
    benchmarks={
        "mmmu_val": Benchmark("mmmu_val", "MMMU/MMMU", "validation", MMMU_SUBJECTS, "acc"),
        "docvqa_val": Benchmark(
            "vlm_docvqa_val", "lmms-lab/DocVQA", "validation", ("DocVQA",), "anls"
        ),
        "infovqa_val": Benchmark(
            "vlm_infovqa_val", "lmms-lab/DocVQA", "validation", ("InfographicVQA",), "anls"
        ),
        "chartqa_test": Benchmark(
            "chartqa", "HuggingFaceM4/ChartQA", "test", ("data",), "relaxed_accuracy"
        ),
    },
)

"""The data sets that the harnesses know. A new data set is one more entry of `BENCHMARKS`."""

from __future__ import annotations

from collections.abc import Mapping

from .harness import Benchmark

_MMMU_SUBJECTS = (
    "Accounting",
    "Agriculture",
    "Architecture_and_Engineering",
    "Art",
    "Art_Theory",
    "Basic_Medical_Science",
    "Biology",
    "Chemistry",
    "Clinical_Medicine",
    "Computer_Science",
    "Design",
    "Diagnostics_and_Laboratory_Medicine",
    "Economics",
    "Electronics",
    "Energy_and_Power",
    "Finance",
    "Geography",
    "History",
    "Literature",
    "Manage",
    "Marketing",
    "Materials",
    "Math",
    "Mechanical_Engineering",
    "Music",
    "Pharmacy",
    "Physics",
    "Psychology",
    "Public_Health",
    "Sociology",
)
_MMMU = ("MMMU/MMMU", "validation", _MMMU_SUBJECTS)
_DOCVQA = ("lmms-lab/DocVQA", "validation", ("DocVQA",))
_INFOVQA = ("lmms-lab/DocVQA", "validation", ("InfographicVQA",))

BENCHMARKS: Mapping[str, Mapping[str, Benchmark]] = {
    "mmmu_val": {
        "evalscope": Benchmark("mmmu", *_MMMU, "accuracy", max_tokens=2048),
        "lm_eval": Benchmark("mmmu_val", *_MMMU, "acc"),
    },
    "docvqa_val": {
        "evalscope": Benchmark("docvqa", *_DOCVQA, "anls", max_tokens=512),
        "lm_eval": Benchmark("vlm_docvqa_val", *_DOCVQA, "anls"),
    },
    "infovqa_val": {
        "evalscope": Benchmark("infovqa", *_INFOVQA, "anls", max_tokens=512),
        "lm_eval": Benchmark("vlm_infovqa_val", *_INFOVQA, "anls"),
    },
    "chartqa_test": {
        "evalscope": Benchmark(
            "chartqa", "lmms-lab/ChartQA", "test", ("data",), "relaxed_acc", max_tokens=512
        ),
        "lm_eval": Benchmark(
            "chartqa", "HuggingFaceM4/ChartQA", "test", ("data",), "relaxed_accuracy"
        ),
    },
    "ocrbench_test": {
        "evalscope": Benchmark(
            "ocr_bench", "echo840/OCRBench", "test", ("data",), "acc", max_tokens=512
        ),
    },
}
"""Task, as criteria name it -> harness -> the data set as that harness runs it."""


def benchmarks_of(harness: str) -> dict[str, Benchmark]:
    """The data sets that a harness can run, by task."""
    return {task: entry[harness] for task, entry in BENCHMARKS.items() if harness in entry}

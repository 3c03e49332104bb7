"""EvalScope, the default: breadth, and pictures where the question has them.

Its MMMU asks for the reasoning before the answer, lm-eval's for the letter alone: the two scores of
one model differ by ten points and mean different things.
"""

from __future__ import annotations

from .harness import Benchmark, Harness

MMMU_SUBJECTS = (
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

EVALSCOPE = Harness(
    name="evalscope",
    package="evalscope",
    script="run_evalscope.py",
    answered="predictions/**/*.jsonl",
    benchmarks={
        "mmmu_val": Benchmark("mmmu", "MMMU/MMMU", "validation", MMMU_SUBJECTS, "accuracy", 2048),
        "docvqa_val": Benchmark(
            "docvqa", "lmms-lab/DocVQA", "validation", ("DocVQA",), "anls", 512
        ),
        "infovqa_val": Benchmark(
            "infovqa", "lmms-lab/DocVQA", "validation", ("InfographicVQA",), "anls", 512
        ),
        "chartqa_test": Benchmark(
            "chartqa", "lmms-lab/ChartQA", "test", ("data",), "relaxed_acc", 512
        ),
        "ocrbench_test": Benchmark("ocr_bench", "echo840/OCRBench", "test", ("data",), "acc", 512),
    },
)

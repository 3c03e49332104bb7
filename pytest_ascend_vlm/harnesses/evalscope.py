"""EvalScope, the default harness: it knows most data sets, and keeps images in their places.

Its MMMU prompt asks for the reasoning before the answer, lm-eval's for the letter alone. The two
scores of one model differ by about ten points and are not comparable.
"""

from __future__ import annotations

from .benchmarks import benchmarks_of
from .harness import Harness

EVALSCOPE = Harness(
    name="evalscope",
    package="evalscope",
    script="run_evalscope.py",
    answered="predictions/**/*.jsonl",
    benchmarks=benchmarks_of("evalscope"),
)

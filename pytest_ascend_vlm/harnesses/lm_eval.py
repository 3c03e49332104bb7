"""lm-evaluation-harness, for scores comparable to those that vLLM-Ascend publishes.

Its `local-chat-completions` has three defects, which `children/run_lm_eval.py` works around:

* it sends only the first image of a question unless `max_images` says otherwise;
* it puts the images before the text and leaves the placeholder `<image>` in the text;
* its response cache ignores requests with images, so an interrupted run could not be resumed.
"""

from __future__ import annotations

from .benchmarks import benchmarks_of
from .harness import Harness

LM_EVAL = Harness(
    name="lm_eval",
    package="lm_eval[api]",
    script="run_lm_eval.py",
    answered="answers.jsonl",
    benchmarks=benchmarks_of("lm_eval"),
)

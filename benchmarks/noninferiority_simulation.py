"""Promise: the error rates of the paired rule of `dataset.*` do not exceed 1 - its confidence.

Simulates a reference and a model with a known true difference, 1,000 times per scenario, and counts
the verdicts. A false alarm is a fail although the two are equal. A miss is a pass although the
model is worse by the margin. Either may happen in 5 % of the runs, plus the statistical uncertainty
of 1,000 runs. The rule may also raise an error that asks for more samples; these are shown too.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np

from pytest_ascend_vlm.criteria.dataset import CONFIDENCE, judge_paired
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.evaluation import Evaluation, Protocol, Sample
from pytest_ascend_vlm.spec.thresholds import SCORE_TOLERANCE

LEAST_RUNS = 200
PROTOCOL = Protocol("simulation", "1", "simulated", "score", "")


@dataclass(frozen=True)
class Scenario:
    """A model compared with a reference.

    Attributes:
        name: its name in the table.
        samples: number of samples.
        lost: share of samples that only the reference answers correctly.
        won: share of samples that only the model answers correctly.
        step: difference in score of a lost or won sample; 1 for correct against wrong.
    """

    name: str
    samples: int
    lost: float
    won: float
    step: float = 1.0

    @property
    def difference(self) -> float:
        """The true difference of the scores."""
        return round((self.won - self.lost) * self.step, 9)


SCENARIOS = (
    Scenario("equal, one in twenty differs", 900, 0.025, 0.025),
    Scenario("equal, one in seven differs", 900, 0.07, 0.07),
    Scenario("equal, hardly any differs", 900, 0.002, 0.002),
    Scenario("equal, graded scores", 900, 0.08, 0.08, 0.5),
    Scenario("worse by the margin, one in twenty differs", 900, 0.035, 0.015),
    Scenario("worse by the margin, one in seven differs", 900, 0.08, 0.06),
    Scenario("worse by the margin, only losses", 900, 0.02, 0.0),
    Scenario("worse by the margin, only losses, few samples", 160, 0.02, 0.0),
    Scenario("worse by the margin, few samples", 60, 0.06, 0.04),
    Scenario("worse by the margin, graded scores", 900, 0.10, 0.06, 0.5),
    Scenario("worse by six points", 900, 0.08, 0.02),
)


def verdicts(scenario: Scenario, runs: int, rng: np.random.Generator) -> Counter[str]:
    """Counts of the verdicts "pass", "fail" and "error"."""
    found: Counter[str] = Counter()
    for _ in range(runs):
        draws = rng.random(scenario.samples)
        lost, won = draws < scenario.lost, draws > 1 - scenario.won
        before = evaluation(np.where(won, 1 - scenario.step, 1.0))
        after = evaluation(np.where(lost, 1 - scenario.step, 1.0))
        try:
            found["pass" if judge_paired(before, after).passed else "fail"] += 1
        except PreconditionError:
            found["error"] += 1
    return found


def evaluation(scores: np.ndarray) -> Evaluation:
    """An evaluation with these scores, shape (samples,)."""
    samples = {str(number): Sample(float(score), "", "") for number, score in enumerate(scores)}
    return Evaluation(PROTOCOL, samples, len(samples))


def wrong(scenario: Scenario) -> str | None:
    """The wrong verdict of a scenario; None if neither verdict is wrong."""
    if scenario.difference == 0:
        return "fail"
    return "pass" if scenario.difference <= -SCORE_TOLERANCE else None


def main() -> int:
    """Simulates and prints; the exit code is 0 if the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000, help=f"at least {LEAST_RUNS}")
    runs = parser.parse_args().runs
    if runs < LEAST_RUNS:
        parser.error(f"--runs must be at least {LEAST_RUNS}")
    rng = np.random.default_rng(6)
    stated = 1 - CONFIDENCE
    most = stated + 3 * math.sqrt(stated * (1 - stated) / runs)
    tolerance = f"{100 * SCORE_TOLERANCE:g} points"
    print(f"paired non-inferiority, tolerance {tolerance}, {runs} runs each, in percent")
    print(f"{'':50} samples  difference   pass   fail  error  wrong")
    rates, holds = {}, True
    for scenario in SCENARIOS:
        found = verdicts(scenario, runs, rng)
        errs = wrong(scenario)
        rate = found[errs] / runs if errs else 0.0
        holds &= rate <= most
        rates[scenario.name] = {"difference": scenario.difference, "wrong": rate, **found}
        shown = "".join(f"{100 * found[name] / runs:7.1f}" for name in ("pass", "fail", "error"))
        print(
            f"{scenario.name:50} {scenario.samples:7} {100 * scenario.difference:11.1f}{shown}"
            f"{100 * rate:7.1f}{'' if rate <= most else '  BROKEN'}"
        )
    # A rule without any pass or fail would make no errors, so require both verdicts too.
    seen = rates["worse by six points"].get("fail", 0) / runs >= CONFIDENCE
    granted = rates["equal, hardly any differs"].get("pass", 0) / runs >= CONFIDENCE
    holds = holds and seen and granted
    print(f"wrong at most {100 * most:.1f} (stated {100 * stated:g}); ", end="")
    print(f"six points are seen: {seen}; equal ones pass: {granted}")
    print(f"promise: {'holds' if holds else 'BROKEN'}")
    result = {
        "benchmark": "noninferiority_simulation",
        "runs": runs,
        "stated": round(stated, 3),
        "most": round(most, 4),
        "scenarios": rates,
        "holds": holds,
    }
    print(json.dumps(result))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

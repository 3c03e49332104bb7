"""Rules of dataset.*: a score is non-inferior to the reference's, at 95 % confidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PreconditionError
from ..observation.evaluation import Evaluation, Protocol
from ..spec.dataset import PublishedScore
from ..spec.thresholds import PUBLISHED_BLIND_SPOT, SCORE_TOLERANCE
from .verdict import Verdict, at_least

CONFIDENCE = 0.95
_Z = 1.645  # one-sided 95 %
_DRAWS = 20_000  # of Dirichlet weights
_SHOWN_FLIPS = 5
_KEPT_CHARACTERS = 300  # of an answer and of its target


def require_same_protocol(recorded: Protocol, current: Protocol) -> None:
    """Checks that a recorded score was measured in the same way.

    Raises:
        PreconditionError: a field of the two protocols differs.
    """
    there, here = dataclasses.asdict(recorded), dataclasses.asdict(current)
    differing = [name for name in here if here[name] != there[name]]
    if differing:
        fields = ", ".join(
            f"{name} {there[name][:16]}, here {here[name][:16]}" for name in differing
        )
        raise PreconditionError(
            f"the reference of {current.benchmark} was measured differently: {fields}. Scores of "
            "different harnesses, versions or data do not compare. Install the reference's "
            "versions, or record a new reference with --vlm-record on the reference's engine."
        )


def require_published_protocol(published: PublishedScore, current: Protocol) -> None:
    """Checks that a published score was measured with the same harness and version.

    Raises:
        PreconditionError: the harness or the version differs.
    """
    versions = {published.version or current.version, current.version}
    if published.harness != current.harness or len(versions) > 1:
        published_with = f"{published.harness} {published.version or ''}".strip()
        raise PreconditionError(
            f"{published.source} measured with {published_with}, this run with {current.harness} "
            f"{current.version}: scores of different harnesses or versions do not compare. Declare "
            "the harness of the published score, or record samples of a reference with "
            "--vlm-record."
        )


def judge_paired(
    reference: Evaluation, evaluation: Evaluation, tolerance: float = SCORE_TOLERANCE
) -> Verdict:
    """Judges non-inferiority, sample by sample.

    Passes if a drop of `tolerance` can be excluded at 95 % confidence. Fails if it cannot be
    excluded, and a drop of any size is shown at 95 % confidence.

    Args:
        reference: the recorded evaluation.
        evaluation: the evaluation of the served model.
        tolerance: the largest drop that does not matter, 0..1.

    Raises:
        PreconditionError: the two protocols or the prompts differ, or the samples show neither a
            drop nor non-inferiority.
    """
    require_same_protocol(reference.protocol, evaluation.protocol)
    _require_same_prompts(reference, evaluation)
    differences = np.array(
        [sample.score - reference.samples[id_].score for id_, sample in evaluation.samples.items()]
    )
    difference = float(differences.mean())
    lower, upper = lower_bound(differences), -lower_bound(-differences)
    lost, won = int((differences < 0).sum()), int((differences > 0).sum())
    finding = (
        f"{_points(difference)} points against {reference.engine or 'the reference'} (at "
        f"{100 * CONFIDENCE:g} % confidence between {_points(lower)} and {_points(upper)}; {lost} "
        f"samples lost, {won} won), {_measurement(evaluation)}"
    )
    if lower <= -tolerance and upper >= 0:
        raise PreconditionError(
            f"{finding}: neither a drop of {100 * tolerance:g} points nor equality can be "
            f"excluded. {_needed(differences, tolerance)}"
        )
    evidence = {
        "finding": finding,
        **_evidence(evaluation),
        "reference": {
            "score": round(_mean_of(reference, evaluation), 5),
            "engine": reference.engine,
        },
        "difference": round(difference, 5),
        "bounds_95": [round(lower, 5), round(upper, 5)],
        "standard_error": round(_standard_error(differences), 5),
        "margin": tolerance,
        "lost": lost,
        "won": won,
        "categories": _categories(evaluation, reference),
        "flips": _flips(reference, evaluation),
    }
    return at_least(lower, -tolerance, "rate", finding, _lost(reference, evaluation), evidence)


def judge_published(published: PublishedScore, evaluation: Evaluation) -> Verdict:
    """Passes if a score is not significantly worse than a published score.

    Both standard errors count. Without the reference's samples, 900 samples cannot exclude a drop
    of two points. So this rule is weaker than `judge_paired`, and its verdict states the largest
    drop that it cannot detect.

    Raises:
        PreconditionError: another harness measured the published score, or the samples are too few
            to detect a drop of `PUBLISHED_BLIND_SPOT`.
    """
    require_published_protocol(published, evaluation.protocol)
    own_error = _own_standard_error([sample.score for sample in evaluation.samples.values()])
    error = math.hypot(published.standard_error, own_error)
    difference, blind = evaluation.score - published.value, _Z * error
    finding = (
        f"{_points(difference)} points against {100 * published.value:.1f} of {published.source} "
        f"(standard error of the difference {100 * error:.1f}; a difference under "
        f"{100 * blind:.1f} points cannot be detected), {_measurement(evaluation)}"
    )
    upper = difference + blind
    if upper >= 0 and blind > PUBLISHED_BLIND_SPOT:
        raise PreconditionError(
            f"{finding}: too few samples for a verdict. Evaluate all samples, or record the "
            "reference's own samples with --vlm-record: a comparison sample by sample detects far "
            "smaller differences."
        )
    verdict = "worse" if upper < 0 else "not significantly worse"
    evidence = {
        "finding": f"{verdict}: {finding}",
        **_evidence(evaluation),
        "reference": {"score": published.value, "source": published.source},
        "difference": round(difference, 5),
        "standard_error": round(error, 5),
        "blind_spot": round(blind, 5),
        "categories": _categories(evaluation, None),
    }
    return at_least(upper, 0.0, "rate", f"{verdict}: {finding}", (), evidence)


def lower_bound(values: npt.NDArray[np.float64]) -> float:
    """A lower bound, with `CONFIDENCE`, of the mean of a variable that is never below -1.

    This is Gaffke's bound: one value of -1 is added to the sample, and the bound is a
    quantile of its means under Dirichlet weights. For losses alone it equals Clopper and Pearson's
    exact bound; for many values it approaches the normal bound. So a small number of differing
    samples needs no second rule.

    Args:
        values: shape (samples,).
    """
    distinct, counts = np.unique(np.append(values, -1.0), return_counts=True)
    weights = np.random.default_rng(0).standard_gamma(counts, size=(_DRAWS, len(counts)))
    means = weights @ distinct / weights.sum(axis=1)
    return float(np.quantile(means, 1 - CONFIDENCE))


def _require_same_prompts(reference: Evaluation, evaluation: Evaluation) -> None:
    absent = [id_ for id_ in evaluation.samples if id_ not in reference.samples]
    if absent:
        raise PreconditionError(
            f"the reference of {evaluation.protocol.benchmark} has no sample {absent[0]} "
            f"({len(absent)} of {len(evaluation.samples)} samples are not in it; it has "
            f"{reference.extent}). Record it again with --vlm-record."
        )
    other = [i for i, s in evaluation.samples.items() if s.prompt != reference.samples[i].prompt]
    if other:
        raise PreconditionError(
            f"{len(other)} of {len(evaluation.samples)} samples of "
            f"{evaluation.protocol.benchmark} have another prompt than in the reference "
            f"({other[0]} is the first). Such scores do not compare."
        )


def _standard_error(values: npt.NDArray[np.float64]) -> float:
    """The standard error of a mean.

    Of n scores of 0 and 1 with the mean p, it is the binomial sqrt(p (1 - p) / n). Of their
    differences, b samples lost and c won, it is sqrt(b + c - (b - c)^2 / n) / n.
    """
    return float(values.std() / math.sqrt(len(values)))


def _own_standard_error(scores: Sequence[float]) -> float:
    """The standard error of a mean score.

    Two right and two wrong answers are added, so that four right answers of four do not give 0.
    """
    added = np.array([*scores, 0.0, 0.0, 1.0, 1.0])
    return float(added.std() / math.sqrt(len(added)))


def _needed(differences: npt.NDArray[np.float64], tolerance: float) -> str:
    room = float(differences.mean()) + tolerance
    if room <= 0:
        return "No number of samples shows equality if the difference stays the same."
    # Samples that hardly differ underestimate the spread; a drop of `tolerance` has at least this.
    spread = max(float(differences.std()), math.sqrt(tolerance * (1 - tolerance)))
    needed = math.ceil((_Z * spread / room) ** 2)
    return (
        f"About {max(needed, len(differences) + 1)} samples are needed if the difference stays "
        "the same. Evaluate all samples, or declare a wider tolerance with its reason."
    )


def _evidence(evaluation: Evaluation) -> dict[str, Any]:
    scores = np.array([sample.score for sample in evaluation.samples.values()])
    return {
        "score": round(evaluation.score, 5),
        "score_standard_error": round(_standard_error(scores), 5),
        "samples": len(evaluation.samples),
        "total": evaluation.total,
        "subset": not evaluation.is_complete,
        "resumed": evaluation.resumed,
        "protocol": dataclasses.asdict(evaluation.protocol),
    }


def _mean_of(reference: Evaluation, evaluation: Evaluation) -> float:
    """The reference's score on the samples of the evaluation."""
    scores = [reference.samples[id_].score for id_ in evaluation.samples]
    return math.fsum(scores) / len(scores)


def _categories(
    evaluation: Evaluation, reference: Evaluation | None
) -> dict[str, dict[str, float]]:
    ids: dict[str, list[str]] = {}
    for id_, sample in evaluation.samples.items():
        ids.setdefault(sample.category, []).append(id_)

    def mean(scored: Evaluation, of: list[str]) -> float:
        return round(math.fsum(scored.samples[id_].score for id_ in of) / len(of), 5)

    return {
        category: {
            "samples": len(of),
            "score": mean(evaluation, of),
            **({} if reference is None else {"reference": mean(reference, of)}),
        }
        for category, of in sorted(ids.items())
    }


def _flips(reference: Evaluation, evaluation: Evaluation) -> list[dict[str, Any]]:
    """The samples whose scores differ, the largest losses first."""
    differing = [
        (sample.score - reference.samples[id_].score, id_)
        for id_, sample in evaluation.samples.items()
    ]
    return [
        {
            "id": id_,
            "reference": reference.samples[id_].score,
            "score": evaluation.samples[id_].score,
            "answer": evaluation.samples[id_].answer[-_KEPT_CHARACTERS:],
            "target": evaluation.samples[id_].target[:_KEPT_CHARACTERS],
        }
        for difference, id_ in sorted(differing)
        if difference
    ]


def _lost(reference: Evaluation, evaluation: Evaluation) -> tuple[str, ...]:
    lost = [flip for flip in _flips(reference, evaluation) if flip["score"] < flip["reference"]]
    return tuple(
        f"{flip['id']}: the target is {flip['target']!r}, the answer ends {flip['answer'][-80:]!r}"
        for flip in lost[:_SHOWN_FLIPS]
    )


def _measurement(evaluation: Evaluation) -> str:
    protocol = evaluation.protocol
    return (
        f"{100 * evaluation.score:.1f} {protocol.metric} on {evaluation.extent} of "
        f"{protocol.benchmark} by {protocol.harness} {protocol.version}"
    )


def _points(rate: float) -> str:
    return f"{100 * rate:+.1f}"

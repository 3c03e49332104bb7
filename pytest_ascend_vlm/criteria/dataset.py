"""Is the score on a data set as good as the reference's, as far as so many samples can tell?"""

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
_DRAWS = 20_000
_SHOWN_FLIPS = 5
_KEPT_CHARACTERS = 300


def require_same_protocol(recorded: Protocol, asked: Protocol) -> None:
    """Raises PreconditionError where a score would be compared with one of another kind."""
    there, here = dataclasses.asdict(recorded), dataclasses.asdict(asked)
    differing = [name for name in here if here[name] != there[name]]
    if differing:
        what = ", ".join(f"{name} {there[name][:16]}, here {here[name][:16]}" for name in differing)
        raise PreconditionError(
            f"the reference of {asked.benchmark} is of another kind: {what}. Scores of different "
            "harnesses, versions or data do not compare; install what the reference names, or "
            "record a new one with --vlm-record on the reference's engine."
        )


def require_published_protocol(published: PublishedScore, asked: Protocol) -> None:
    """Raises PreconditionError where a published score was measured with something else."""
    versions = {published.version or asked.version, asked.version}
    if published.harness != asked.harness or len(versions) > 1:
        theirs = f"{published.harness} {published.version or ''}".strip()
        raise PreconditionError(
            f"{published.source} measured with {theirs}, this is {asked.harness} {asked.version}: "
            "scores of different harnesses do not compare. Declare the harness of the published "
            "score, or record samples of a reference with --vlm-record."
        )


def judge_paired(
    reference: Evaluation, found: Evaluation, tolerance: float = SCORE_TOLERANCE
) -> Verdict:
    """Non-inferiority, sample by sample: a drop of `tolerance` is excluded with 95 % confidence.

    It fails where a drop is shown with 95 % confidence and one of `tolerance` cannot be excluded.

    Args:
        reference: the recorded scores.
        found: those of the model under test.
        tolerance: the largest drop that does not matter, 0..1.

    Raises:
        PreconditionError: the two are of different kinds, or the samples show neither.
    """
    require_same_protocol(reference.protocol, found.protocol)
    _require_same_prompts(reference, found)
    differences = np.array(
        [sample.score - reference.samples[id_].score for id_, sample in found.samples.items()]
    )
    difference = float(differences.mean())
    lower, upper = lower_bound(differences), -lower_bound(-differences)
    lost, won = int((differences < 0).sum()), int((differences > 0).sum())
    said = (
        f"{_points(difference)} points against {reference.engine or 'the reference'} (at 95 % "
        f"confidence between {_points(lower)} and {_points(upper)}; {lost} samples lost, {won} "
        f"won), {_how(found)}"
    )
    if lower <= -tolerance and upper >= 0:
        raise PreconditionError(
            f"{said}: neither a drop of {100 * tolerance:g} points nor equality can be excluded. "
            f"{_needed(differences, tolerance)}"
        )
    evidence = {
        "finding": said,
        **_evidence(found),
        "reference": {"score": round(_mean_of(reference, found), 5), "engine": reference.engine},
        "difference": round(difference, 5),
        "bounds_95": [round(lower, 5), round(upper, 5)],
        "standard_error": round(_standard_error(differences), 5),
        "margin": tolerance,
        "lost": lost,
        "won": won,
        "categories": _categories(found, reference),
        "flips": _flips(reference, found),
    }
    return at_least(lower, -tolerance, "rate", said, _lost(reference, found), evidence)


def judge_published(published: PublishedScore, found: Evaluation) -> Verdict:
    """Not significantly worse than a published score, given the standard errors of both.

    Without the reference's samples a tolerance of two points cannot be shown with 900 samples, so
    this asks less than `judge_paired`, and says what it cannot see.

    Raises:
        PreconditionError: it is another harness's score, or the samples are too few to see a drop
            of `PUBLISHED_BLIND_SPOT`.
    """
    require_published_protocol(published, found.protocol)
    ours = _own_standard_error([sample.score for sample in found.samples.values()])
    error = math.hypot(published.standard_error, ours)
    difference, blind = found.score - published.value, _Z * error
    said = (
        f"{_points(difference)} points against {100 * published.value:.1f} of {published.source} "
        f"(standard error of the difference {100 * error:.1f}; a difference under "
        f"{100 * blind:.1f} points cannot be seen), {_how(found)}"
    )
    upper = difference + blind
    if upper >= 0 and blind > PUBLISHED_BLIND_SPOT:
        raise PreconditionError(
            f"{said}: too little to tell. Ask all samples, or record the reference's own "
            "with --vlm-record: samples that are compared one by one show far more."
        )
    verdict = "worse" if upper < 0 else "not significantly worse"
    evidence = {
        "finding": f"{verdict}: {said}",
        **_evidence(found),
        "reference": {"score": published.value, "source": published.source},
        "difference": round(difference, 5),
        "standard_error": round(error, 5),
        "blind_spot": round(blind, 5),
        "categories": _categories(found, None),
    }
    return at_least(upper, 0.0, "rate", f"{verdict}: {said}", (), evidence)


def lower_bound(
    values: npt.NDArray[np.float64], confidence: float = CONFIDENCE, least: float = -1.0
) -> float:
    """A lower confidence bound of the mean of a variable that is never below `least`.

    Gaffke's: the quantile of means under Dirichlet weights, with one value more that is the worst
    there can be. Of losses alone it is Clopper and Pearson's exact bound; of many values it is the
    normal one. So it needs no second rule for few differing samples.

    Args:
        values: shape (samples,).
        confidence: 0..1, one-sided.
        least: the smallest value there can be.
    """
    distinct, counts = np.unique(np.append(values, least), return_counts=True)
    weights = np.random.default_rng(0).standard_gamma(counts, size=(_DRAWS, len(counts)))
    means = weights @ distinct / weights.sum(axis=1)
    return float(np.quantile(means, 1 - confidence))


def _require_same_prompts(reference: Evaluation, found: Evaluation) -> None:
    absent = [id_ for id_ in found.samples if id_ not in reference.samples]
    if absent:
        raise PreconditionError(
            f"the reference of {found.protocol.benchmark} has no {absent[0]} ({len(absent)} of "
            f"{len(found.samples)} samples are not in it; it is of {reference.extent}); record it "
            "again with --vlm-record."
        )
    other = [i for i, s in found.samples.items() if s.prompt != reference.samples[i].prompt]
    if other:
        raise PreconditionError(
            f"{len(other)} of {len(found.samples)} samples of {found.protocol.benchmark} were "
            f"asked with another prompt than the reference's ({other[0]} is the first); such "
            "scores do not compare."
        )


def _standard_error(differences: npt.NDArray[np.float64]) -> float:
    """Of the mean; for right and wrong it is sqrt(b + c - (b - c)^2 / n) / n."""
    return float(differences.std() / math.sqrt(len(differences)))


def _own_standard_error(scores: Sequence[float]) -> float:
    """Of a mean score, with two right and two wrong answers added: four of four is not certain."""
    added = np.array([*scores, 0.0, 0.0, 1.0, 1.0])
    return float(added.std() / math.sqrt(len(added)))


def _needed(differences: npt.NDArray[np.float64], tolerance: float) -> str:
    room = float(differences.mean()) + tolerance
    if room <= 0:
        return "No number of samples shows equality while the difference stays as it is."
    # The spread cannot be told from samples that hardly differ: a drop of `tolerance` has this one.
    spread = max(float(differences.std()), math.sqrt(tolerance * (1 - tolerance)))
    needed = math.ceil((_Z * spread / room) ** 2)
    return (
        f"About {max(needed, len(differences) + 1)} samples would be needed if the difference "
        "stays as it is; ask all, or declare a wider tolerance with its reason."
    )


def _evidence(found: Evaluation) -> dict[str, Any]:
    return {
        "score": round(found.score, 5),
        "samples": len(found.samples),
        "total": found.total,
        "subset": not found.is_complete,
        "resumed": found.resumed,
        "protocol": dataclasses.asdict(found.protocol),
    }


def _mean_of(reference: Evaluation, found: Evaluation) -> float:
    """The reference's score on the samples that were found."""
    scores = [reference.samples[id_].score for id_ in found.samples]
    return math.fsum(scores) / len(scores)


def _categories(found: Evaluation, reference: Evaluation | None) -> dict[str, dict[str, float]]:
    ids: dict[str, list[str]] = {}
    for id_, sample in found.samples.items():
        ids.setdefault(sample.category, []).append(id_)

    def mean(evaluation: Evaluation, of: list[str]) -> float:
        return round(math.fsum(evaluation.samples[id_].score for id_ in of) / len(of), 5)

    return {
        category: {
            "samples": len(of),
            "score": mean(found, of),
            **({} if reference is None else {"reference": mean(reference, of)}),
        }
        for category, of in sorted(ids.items())
    }


def _flips(reference: Evaluation, found: Evaluation) -> list[dict[str, Any]]:
    """The samples whose score differs, what was lost first."""
    differing = [
        (sample.score - reference.samples[id_].score, id_) for id_, sample in found.samples.items()
    ]
    return [
        {
            "id": id_,
            "reference": reference.samples[id_].score,
            "score": found.samples[id_].score,
            "answer": found.samples[id_].answer[-_KEPT_CHARACTERS:],
            "target": found.samples[id_].target[:_KEPT_CHARACTERS],
        }
        for difference, id_ in sorted(differing)
        if difference
    ]


def _lost(reference: Evaluation, found: Evaluation) -> tuple[str, ...]:
    lost = [flip for flip in _flips(reference, found) if flip["score"] < flip["reference"]]
    return tuple(
        f"{flip['id']}: right was {flip['target']!r}, the answer ends {flip['answer'][-80:]!r}"
        for flip in lost[:_SHOWN_FLIPS]
    )


def _how(found: Evaluation) -> str:
    protocol = found.protocol
    return (
        f"{100 * found.score:.1f} {protocol.metric} on {found.extent} of {protocol.benchmark} by "
        f"{protocol.harness} {protocol.version}"
    )


def _points(rate: float) -> str:
    return f"{100 * rate:+.1f}"

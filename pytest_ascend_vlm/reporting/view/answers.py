"""The answers of the served model: equal runs, and the comparison with the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..phrase import Text
from ..sentences import sentence
from .missing import Commands, Missing, missing
from .rows import Json, Rows, evidence, mean, number, of, with_verdict

Cases = Mapping[str, Json]
"""Case id -> the case, as in report.json; empty in a report that does not have them."""


@dataclass(frozen=True)
class Cost:
    """Tokens and time of one answer; None where the report does not have it.

    Attributes:
        prompt_tokens: tokens of the prompt, images included.
        output_tokens: tokens of the answer.
        seconds: duration of the request.
        finish_reason: "stop", "length".
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    finish_reason: str | None = None


@dataclass(frozen=True)
class Question:
    """The request of a row.

    Attributes:
        case: the case's id.
        prompt: the user's last text; empty if the report does not have it.
        pictures: paths of its images, relative to the project.
    """

    case: str
    prompt: str
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Repeat:
    """The answers to one request that was sent several times.

    Attributes:
        question: the request.
        texts: one text per run; empty if the report has only their number.
        runs: number of runs.
        status: the row's status; "pass" means that all runs gave the same tokens.
    """

    question: Question
    texts: tuple[str, ...]
    runs: int
    status: str


@dataclass(frozen=True)
class Repeats:
    """The same requests, sent several times.

    Attributes:
        rows: one per request.
        equal: number of requests whose answers are equal.
        runs: the largest number of runs.
    """

    rows: tuple[Repeat, ...]
    equal: int
    runs: int


@dataclass(frozen=True)
class Candidate:
    """A token at the position where two answers part.

    Attributes:
        text: the token's text.
        logprob: its log-probability; None if it is not finite.
    """

    text: str
    logprob: float | None


@dataclass(frozen=True)
class Parting:
    """The first position at which the served answer differs from the reference's.

    Attributes:
        position: index of the token.
        served: candidates of the served model, the likeliest first.
        reference: candidates of the reference, the likeliest first.
        margin: log-probability by which the reference prefers its token, nats.
    """

    position: int
    served: tuple[Candidate, ...]
    reference: tuple[Candidate, ...]
    margin: float | None


@dataclass(frozen=True)
class Comparison:
    """A served answer beside the reference's.

    Attributes:
        question: the request.
        served: the answer of the served model.
        reference: the answer of the reference.
        source: where the reference's answer comes from.
        exact: True if both are equal.
        similarity: similarity of the characters, 0..1.
        overlap: overlap of the words, 0..1.
        cost: tokens and seconds of the served answer.
        status: the row's status.
        parting: where the two part; None if they are equal or the report does not have it.
    """

    question: Question
    served: str
    reference: str
    source: str
    exact: bool
    similarity: float | None
    overlap: float | None
    cost: Cost
    status: str
    parting: Parting | None


@dataclass(frozen=True)
class Comparisons:
    """The answers of one kind (text or image) beside the reference's.

    Attributes:
        rows: one per request.
        exact: number of equal answers.
        lowest_similarity: the smallest similarity.
        mean_similarity: the mean of the similarities.
        sources: where the reference's answers come from.
    """

    rows: tuple[Comparison, ...]
    exact: int
    lowest_similarity: float | None
    mean_similarity: float | None
    sources: tuple[Text, ...]


def cases_of(model: Json) -> Cases:
    """The cases of a model's report."""
    return model.get("cases") or {}


def question(row: Json, cases: Cases) -> Question:
    """The request of a row."""
    case = cases.get(str(row["case"])) or {}
    messages = case.get("messages") or ()
    prompt = str(messages[-1]["text"]) if messages else ""
    pictures = tuple(str(image["file"]) for image in case.get("images") or ())
    return Question(str(row["case"] or ""), prompt, pictures)


def cost(row: Json) -> Cost:
    """Tokens and time of the answer of a row."""
    told = evidence(row).get("answer") or {}
    return Cost(
        told.get("prompt_tokens"),
        told.get("output_tokens"),
        number(told.get("seconds")),
        told.get("finish_reason"),
    )


def repeats(rows: Rows, cases: Cases, run: Commands) -> Repeats | Missing:
    """The requests that were sent several times."""
    own = of(rows, "determinism.repeat")
    found = tuple(_repeat(row, cases) for row in with_verdict(own))
    if not found:
        return missing(own, run.run("determinism"))
    equal = sum(row.status == "pass" for row in found)
    return Repeats(found, equal, max(row.runs for row in found))


def _repeat(row: Json, cases: Cases) -> Repeat:
    told = evidence(row)
    texts = tuple(str(text) for text in told.get("texts") or ())
    # The shared answer, with which the others are compared, is a run as well.
    runs = len(texts) or int(told.get("answers") or 0) + 1
    return Repeat(question(row, cases), texts, runs, row["status"])


def comparisons(criterion: str, rows: Rows, cases: Cases, run: Commands) -> Comparisons | Missing:
    """The answers beside the reference's.

    Args:
        criterion: "baseline.text" or "baseline.image".
        rows: the rows of the model.
        cases: the cases of the model.
        run: the commands of the model.
    """
    own = of(rows, criterion)
    found = tuple(_comparison(row, cases) for row in own if "got" in evidence(row))
    if not found:
        return missing(own, run.run("accuracy"))
    known = [row.similarity for row in found if row.similarity is not None]
    return Comparisons(
        found,
        sum(row.exact for row in found),
        min(known, default=None),
        mean(known),
        tuple(sentence(source) for source in dict.fromkeys(row.source for row in found)),
    )


def _comparison(row: Json, cases: Cases) -> Comparison:
    told = evidence(row)
    return Comparison(
        question(row, cases),
        str(told["got"]),
        str(told.get("expected", "")),
        str(told.get("reference", "")),
        bool(told.get("exact_match")),
        number(row["measured"]),
        number(told.get("word_overlap")),
        cost(row),
        row["status"],
        parting(told.get("parting")),
    )


def parting(told: Any) -> Parting | None:
    """The parting of two answers, from its evidence."""
    if not told:
        return None
    return Parting(
        int(told["position"]),
        _candidates(told.get("served")),
        _candidates(told.get("reference")),
        number(told.get("margin")),
    )


def _candidates(told: Any) -> tuple[Candidate, ...]:
    return tuple(Candidate(str(text), number(value)) for text, value in told or ())

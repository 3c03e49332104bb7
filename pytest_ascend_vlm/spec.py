"""What a contributor declares about a model, and what a request is: frozen and validated.

Everything here is plain data. A mistake raises `ConfigurationError` when the model file is
imported, naming the model and the field.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .errors import ConfigurationError


class Capability(enum.Enum):
    """What a model can be asked for: three kinds of input, three kinds of question about images."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    DOCUMENT = "document"
    """The whole text of a page."""
    VQA = "vqa"
    """A question about a picture: text in a scene, a chart, a count."""
    GROUNDING = "grounding"
    """Where something is, as a box."""


@dataclass(frozen=True)
class Thresholds:
    """The bars of the criteria; the defaults are the project's, a model may tighten them.

    Loosening any of them needs `because="..."`, which every report repeats.

    Attributes:
        similarity: least character similarity (0..1) to the golden text.
        similarity_after_tie: the same where the first differing token was a near-tie in the
            reference, so that rounding alone may have chosen the other branch.
        logprobs_ratio: largest mean difference of the visible log-probabilities, as a multiple of
            the reference's own bf16-fp32 difference.
        agreement: least rate (0..1) of repeated answers that are identical.
        document_cer: how much larger than the golden's the character error rate may be.
        document_lines: how much lower than the golden's the rate of exact lines may be.
        document_numbers: how much lower than the golden's the recall of numbers may be.
        document_order: how much lower than the golden's the rate of ordered line pairs may be.
        box_iou: least intersection over union (0..1) of an answered box with the true one.
        logits_max_abs: largest absolute difference of a logit.
        logits_cosine: least cosine similarity of the logits at a position.
        because: why a bar is lower than the project's default.
    """

    similarity: float = 1.0
    similarity_after_tie: float = 0.9
    logprobs_ratio: float = 3.0
    agreement: float = 1.0
    document_cer: float = 0.005
    document_lines: float = 0.02
    document_numbers: float = 0.02
    document_order: float = 0.02
    box_iou: float = 0.5
    logits_max_abs: float = 1.0
    logits_cosine: float = 0.999
    because: str | None = None

    def __post_init__(self) -> None:
        loosened = [bar for bar in _bars() if self._is_loosened(bar)]
        if loosened and not self.because:
            names = ", ".join(bar.name for bar in loosened)
            raise ConfigurationError(
                f"Thresholds({names}=...) is looser than the project's default; "
                'say why with because="..." so that the report can show it.'
            )

    def _is_loosened(self, bar: dataclasses.Field[float]) -> bool:
        value, default = getattr(self, bar.name), bar.default
        return bool(value < default if bar.name in _AT_LEAST else value > default)


_PARALLEL_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_AT_LEAST = frozenset(
    {"similarity", "similarity_after_tie", "agreement", "box_iou", "logits_cosine"}
)


def _bars() -> Iterable[dataclasses.Field[Any]]:
    return (bar for bar in dataclasses.fields(Thresholds) if bar.name != "because")


@dataclass(frozen=True)
class ExpectedFailure:
    """A criterion that this model is known to miss; it must fail, and only by its own verdict.

    Attributes:
        criterion: the criterion's id, `determinism.concurrent`.
        reason: what is wrong, in a sentence.
        issue: where it is tracked.
    """

    criterion: str
    reason: str
    issue: str


@dataclass(frozen=True)
class Figure:
    """A number that a published document reports; shown beside what was measured, never judged.

    Attributes:
        name: what was measured, "latency, mean".
        value: the number.
        unit: "ms", "tok/s", "%".
        conditions: under which it was measured; two figures compare only under equal ones.
    """

    name: str
    value: float
    unit: str
    conditions: str


@dataclass(frozen=True)
class Published:
    """What a published document reports of the full checkpoint.

    Attributes:
        source: the document.
        answers: case id -> the answer as printed there; the reference where nothing was recorded.
            A document may quote only the beginning of an answer, so only that much is compared.
        figures: the numbers of its tables.
    """

    source: str
    answers: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Budgets:
    """Seconds that each phase of a server's start may take."""

    start: float = 300.0
    weights: float = 1800.0
    graphs: float = 1800.0
    first_image: float = 300.0


@dataclass(frozen=True)
class Sampling:
    """How a completion is generated; greedy unless told otherwise.

    Attributes:
        max_tokens: most tokens to generate.
        temperature: 0 is greedy.
        seed: seed of the sampler, used when temperature > 0.
        stop: a string that ends the answer and is not part of it.
        n: number of answers.
        cache_salt: isolates the prefix cache; requests share cached blocks only if it is equal.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None
    stop: str | None = None
    n: int = 1
    cache_salt: str | None = None


@dataclass(frozen=True)
class Case:
    """One request and, where there is one, its ground truth.

    Attributes:
        id: `<group>/<name>`; the group selects which criteria use the case.
        needs: the capability without which the case cannot be asked.
        prompt: the user's text; it follows the images.
        images: files sent before the text, in order.
        videos: clips sent before the text, in order.
        truth: what the image says, exactly; None where only the reference can tell.
        accepted: answers of which one has to occur in the model's, as a whole word.
        box: (left, top, right, bottom) in pixels of the first image, of what is asked for.
        max_tokens: most tokens to generate.
    """

    id: str
    needs: Capability
    prompt: str
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()
    truth: str | None = None
    accepted: tuple[str, ...] = ()
    box: tuple[float, float, float, float] | None = None
    max_tokens: int = 64

    @property
    def group(self) -> str:
        """The part of the id before the slash: `text`, `image`, `document`."""
        return self.id.partition("/")[0]


@dataclass(frozen=True)
class ModelSpec:
    """One model: its checkpoint, how it is served, what it can do and how well.

    Attributes:
        model_id: the hub's name, `OpenDataLab/MinerU2.5-2509-1.2B`; also the served name.
        revision: commit of the checkpoint; None is reported as "not pinned".
        tiny: name of a checkpoint under `fixtures/tiny/`, or a path to one; None where another
            model of the family stands for the architecture.
        npus: number of cards the model needs.
        serve: arguments of the vLLM server, as Python values: `{"max_model_len": 8192}`.
        env: environment of the server, for values that are not arguments.
        trust_remote_code: whether the checkpoint may run code of its own.
        supports: the capabilities every criterion may use.
        unsupported: the others, each with its reason; asking for one must be a 4xx.
        prompts: prompt by case group or case id, where the model has its own.
        box_range: what the model counts a box's coordinates in: None for pixels, 1000 for
            thousandths of the image's width and height.
        thresholds: bars that differ from the project's.
        published: answers a document reports for the full checkpoint.
        expected_failures: criteria known to fail.
        budgets: seconds per start phase.

    Raises:
        ConfigurationError: a field contradicts another or is not of its form.
    """

    model_id: str
    revision: str | None = None
    tiny: str | None = None
    npus: int = 1
    serve: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    supports: Iterable[Capability] = frozenset({Capability.TEXT, Capability.IMAGE})
    unsupported: Mapping[Capability, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    box_range: int | None = None
    thresholds: Thresholds = Thresholds()
    published: Published | None = None
    expected_failures: tuple[ExpectedFailure, ...] = ()
    budgets: Budgets = Budgets()

    def __post_init__(self) -> None:
        if isinstance(self.supports, Capability):
            raise ConfigurationError(f"ModelSpec({self.model_id!r}): supports is a set of them.")
        object.__setattr__(self, "supports", frozenset(self.supports))
        for name in ("serve", "env", "unsupported", "prompts"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for problem in self._problems():
            raise ConfigurationError(f"ModelSpec({self.model_id!r}): {problem}")

    @property
    def slug(self) -> str:
        """The model id as a directory name."""
        return self.model_id.replace("/", "--")

    @property
    def image_limit(self) -> int | None:
        """Images per prompt that `serve` declares, or None where it declares no limit."""
        limit = self.serve.get("limit_mm_per_prompt", {}).get("image")
        return None if limit is None else int(limit)

    def request(self, case: Case) -> Case:
        """The case as this model is asked it: with the model's own prompt where it has one."""
        prompt = self.prompts.get(case.id, self.prompts.get(case.group, case.prompt))
        return dataclasses.replace(case, prompt=prompt)

    def _problems(self) -> Iterable[str]:
        supports = frozenset(self.supports)
        if not self.model_id.strip("/ "):
            yield "model_id is empty."
        undeclared = frozenset(Capability) - supports - frozenset(self.unsupported)
        if undeclared:
            yield (
                f"say of {_names(undeclared)} whether the model supports it: put it in supports, "
                "or in unsupported with the reason."
            )
        both = supports & frozenset(self.unsupported)
        if both:
            yield f"{_names(both)} is in supports and in unsupported."
        if Capability.TEXT not in supports:
            yield "every criterion needs Capability.TEXT in supports."
        if self.npus < 1:
            yield f"npus={self.npus}, but a model needs at least one card."
        in_parallel = math.prod(int(self.serve.get(name, 1)) for name in _PARALLEL_SIZES)
        if in_parallel > self.npus:
            yield f"serve asks for {in_parallel} cards in parallel, but npus={self.npus}."
        if {"host", "port", "api_key", "model", "served_model_name"} & self.serve.keys():
            yield "host, port, api_key, model and served_model_name are the plugin's, not serve's."
        if "trust_remote_code" in self.serve:
            yield "declare trust_remote_code=True on the model, not in serve."
        dashed = [name for name in self.serve if "-" in name]
        if dashed:
            yield f"serve names are written with underscores: {', '.join(dashed)}."


def _names(capabilities: Iterable[Capability]) -> str:
    return ", ".join(sorted(f"Capability.{capability.name}" for capability in capabilities))

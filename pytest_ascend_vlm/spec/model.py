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

from ..errors import ConfigurationError
from .dataset import DatasetTask


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
        logits_max_abs: largest absolute error of a logit; where the reference's own bf16 is off by
            more than half of that, twice its error.
        logits_cosine: least cosine similarity of all logits as one vector.
        hidden_max_abs: the same as logits_max_abs for the last hidden states.
        hidden_cosine: the same as logits_cosine for the last hidden states.
        error_ratio: R, the largest root mean square error from fp32, in the reference's own bf16
            errors.
        divergence_ratio: K, the same for the mean Kullback-Leibler divergence.
        top1_flips: largest rate (0..1) of positions with another most likely token where the
            reference was not near a tie.
        prefill_ratio: largest TTFT of an image prompt, in TTFTs of a text of as many tokens.
        load_scaling: least throughput of 8 requests at a time, in that of one at a time.
        slowdown: largest latency, in the latency that it is compared with.
        idle_cpu: largest CPU use of a server that waits, as a share (0..1) of a busy one's.
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
    hidden_max_abs: float = 1.0
    hidden_cosine: float = 0.999
    error_ratio: float = 1.5
    divergence_ratio: float = 2.0
    top1_flips: float = 0.001
    prefill_ratio: float = 20.0
    load_scaling: float = 1.5
    slowdown: float = 1.1
    idle_cpu: float = 0.2
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
    {
        "similarity",
        "similarity_after_tie",
        "agreement",
        "box_iou",
        "logits_cosine",
        "hidden_cosine",
        "load_scaling",
    }
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
        shows: text that the failure's message has; another failure of the criterion is not excused.
    """

    criterion: str
    reason: str
    issue: str
    shows: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.issue})"


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
class Limit:
    """A bar for a measured figure of the full checkpoint, on one kind of device and nowhere else.

    Attributes:
        figure: its name, "image.ttft.median"; docs/performance.md lists them with their units.
        value: the most it may be; for a throughput and goodput, the least.
        device: part of the device's name, as the report's receipt has it: "910B4".

    Raises:
        ConfigurationError: the value is a placeholder, or the device is not named.
    """

    figure: str
    value: float
    device: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0) or self.value == 1:
            raise ConfigurationError(
                f"Limit({self.figure!r}, {self.value!r}) is a placeholder, which passes or "
                "fails whatever is measured; declare what the device has to reach."
            )
        if not self.device.strip():
            raise ConfigurationError(f"Limit({self.figure!r}) has to name its device.")


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
    """Seconds that each phase of a server's start may take.

    A first start that takes longer in one of them fails serving.ready. Any start is given up, as an
    error, at twice the budget of the phase that it is in.
    """

    start: float = 900.0
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
class Variant:
    """The same model served another way; it has to give the same answers.

    Attributes:
        name: names the criterion, `equivalence.<name>`: "eager", "tp2", "w8a8".
        serve: the serve arguments that differ.
        npus: number of cards it needs; None for as many as the model.
        checkpoint: the hub's name of other weights, as quantised ones are; None for the model's.
        is_lossy: whether it rounds on purpose: then numbers are shown but not judged, and answers
            have to be alike instead of equal.
    """

    name: str
    serve: Mapping[str, Any] = field(default_factory=dict)
    npus: int | None = None
    checkpoint: str | None = None
    is_lossy: bool = False


RESERVED_SERVE_ARGUMENTS = frozenset(
    {
        # The suite sets them: where the server listens and under which name and key, what it
        # samples with, and what it tells of tokens and logits.
        "api_key",
        "enable_prompt_tokens_details",
        "generation_config",
        "host",
        "logprobs_mode",
        "max_logprobs",
        "model",
        "port",
        "served_model_name",
        "uds",
        # Either would set any of those behind the suite's back.
        "config",
        "override_generation_config",
    }
)
"""Arguments of the vLLM server that a model file cannot set."""


@dataclass(frozen=True)
class ModelSpec:
    """One model: its checkpoint, how it is served, what it can do and how well.

    Attributes:
        model_id: the hub's name, `OpenDataLab/MinerU2.5-2509-1.2B`; also the served name.
        revision: commit of the checkpoint; None is reported as "not pinned".
        tiny: name of a checkpoint under `fixtures/tiny/`, or a path to one; None where another
            model of the family stands for the architecture.
        npus: number of cards the model needs.
        only_on: the platform that it is deployed on, "cpu"; None for every one.
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
        limits: what its speed has to reach on named devices.
        variants: other ways to serve it, each judged against this one.
        datasets: data sets it is judged by.
        expected_failures: criteria known to fail.
        budgets: seconds per start phase.

    Raises:
        ConfigurationError: a field contradicts another or is not of its form.
    """

    model_id: str
    revision: str | None = None
    tiny: str | None = None
    npus: int = 1
    only_on: str | None = None
    serve: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    supports: Iterable[Capability] = frozenset({Capability.TEXT, Capability.IMAGE})
    unsupported: Mapping[Capability, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    box_range: int | None = None
    thresholds: Thresholds = Thresholds()
    published: Published | None = None
    limits: tuple[Limit, ...] = ()
    variants: tuple[Variant, ...] = ()
    datasets: tuple[DatasetTask, ...] = ()
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

    def as_variant(self, variant: Variant) -> ModelSpec:
        """The model as a variant serves it."""
        return dataclasses.replace(
            self,
            model_id=variant.checkpoint or self.model_id,
            tiny=None if variant.checkpoint else self.tiny,
            revision=None if variant.checkpoint else self.revision,
            serve={**self.serve, **variant.serve},
            npus=variant.npus or self.npus,
            variants=(),
        )

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
        if self.only_on not in {None, "npu", "cpu", "cuda"}:
            yield f"only_on={self.only_on!r} is no platform; there are npu, cpu and cuda."
        if self.npus < 1:
            yield f"npus={self.npus}, but a model needs at least one card."
        in_parallel = math.prod(int(self.serve.get(name, 1)) for name in _PARALLEL_SIZES)
        if in_parallel > self.npus:
            yield f"serve asks for {in_parallel} cards in parallel, but npus={self.npus}."
        yield from self._variant_problems()
        if reserved := sorted(filter(_is_reserved, self.serve)):
            yield (
                f"serve sets {', '.join(reserved)}, which the suite sets itself to see what it "
                "judges; leave it out."
            )
        if "trust_remote_code" in self.serve:
            yield "declare trust_remote_code=True on the model, not in serve."
        dashed = [name for name in self.serve if "-" in name]
        if dashed:
            yield f"serve names are written with underscores: {', '.join(dashed)}."

    def _variant_problems(self) -> Iterable[str]:
        names = [variant.name for variant in self.variants]
        for name in names:
            if not name.isidentifier() or names.count(name) > 1:
                yield f"variant {name!r}: a name is one word, and no other variant's."
        for variant in self.variants:
            if not variant.serve and not variant.checkpoint:
                yield f"variant {variant.name!r} is served as the model is."
            self.as_variant(variant)


def _is_reserved(name: str) -> bool:
    """Whether vLLM's parser takes a name for a reserved argument: abbreviated, or a part of it."""
    return any(one.startswith(name.partition(".")[0]) for one in RESERVED_SERVE_ARGUMENTS)


def _names(capabilities: Iterable[Capability]) -> str:
    return ", ".join(sorted(f"Capability.{capability.name}" for capability in capabilities))

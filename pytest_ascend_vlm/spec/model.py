"""What a contributor declares about a model, and what a request is: frozen and validated.

Everything here is plain data. A mistake raises `ConfigurationError` when the model file is
imported, naming the model and the field.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..errors import ConfigurationError
from .case import Capability, Case
from .dataset import DatasetTask
from .published import Limit, Published
from .thresholds import Thresholds

_PARALLEL_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


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
class Variant:
    """The same model served another way; it has to give the same answers.

    Attributes:
        name: names the criterion, `equivalence.<name>`: "eager", "tp2", "w8a8".
        serve: the serve arguments that differ.
        devices: number of cards it needs; None for as many as the model.
        checkpoint: the hub's name of other weights, as quantised ones are; None for the model's.
        is_lossy: whether it rounds on purpose: then numbers are shown but not judged, and answers
            have to be alike instead of equal.
    """

    name: str
    serve: Mapping[str, Any] = field(default_factory=dict)
    devices: int | None = None
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
        devices: number of cards the model needs.
        platforms: the platforms that it is deployed on, ("cpu",); empty for every one.
        serve: arguments of the vLLM server, as Python values: `{"max_model_len": 8192}`.
        env: environment of the server, for values that are not arguments.
        trust_remote_code: whether the checkpoint may run code of its own.
        supports: the capabilities every criterion may use.
        unsupported: the others, each with its reason; asking for one must be a 4xx.
        prompts: prompt by case group or case id, where the model has its own.
        box_scale: what the model counts a box's coordinates in: None for pixels, 1000 for
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
    devices: int = 1
    platforms: Iterable[str] = ()
    serve: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    supports: Iterable[Capability] = frozenset({Capability.TEXT, Capability.IMAGE})
    unsupported: Mapping[Capability, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    box_scale: int | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    published: Published | None = None
    limits: tuple[Limit, ...] = ()
    variants: tuple[Variant, ...] = ()
    datasets: tuple[DatasetTask, ...] = ()
    expected_failures: tuple[ExpectedFailure, ...] = ()
    budgets: Budgets = Budgets()

    def __post_init__(self) -> None:
        if isinstance(self.supports, Capability):
            raise ConfigurationError(f"ModelSpec({self.model_id!r}): supports is a set of them.")
        if isinstance(self.platforms, str):
            raise ConfigurationError(
                f"ModelSpec({self.model_id!r}): platforms is a tuple, "
                f"platforms=({self.platforms!r},)."
            )
        object.__setattr__(self, "supports", frozenset(self.supports))
        object.__setattr__(self, "platforms", tuple(self.platforms))
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
            devices=variant.devices or self.devices,
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
        if self.devices < 1:
            yield f"devices={self.devices}, but a model needs at least one card."
        in_parallel = math.prod(int(self.serve.get(name, 1)) for name in _PARALLEL_SIZES)
        if in_parallel > self.devices:
            yield f"serve asks for {in_parallel} cards in parallel, but devices={self.devices}."
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

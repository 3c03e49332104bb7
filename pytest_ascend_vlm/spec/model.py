"""A contributor's declaration of a model: frozen and validated plain data.

A mistake raises `ConfigurationError` when the model file is imported. The message names the model
and the field.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from ..errors import ConfigurationError
from .case import Capability, Case
from .dataset import DatasetTask
from .field_types import require_types
from .number import is_finite, is_whole
from .published import Limit, Published
from .thresholds import Thresholds
from .workload import Workload

_LONGEST_NAME = 200
"""Maximum bytes of a model's name, which is a part of the names of its files."""

_MEDIA = frozenset({"image", "video", "audio"})
_PARALLEL_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


@dataclass(frozen=True)
class ExpectedFailure:
    """A criterion that is known to fail for this model.

    It must fail, and the failure must be its verdict. An error is not excused, except that of a
    prompt that differs from the reference's, if `shows` names it.

    Attributes:
        criterion: the criterion's id, `determinism.concurrent`.
        reason: the defect, in one sentence.
        issue: where the defect is tracked.
        shows: text that the failure's message must contain; any other failure is not excused.
        seen_in: the releases of vLLM in which the criterion must fail, ">=0.11,<0.20". In other
            releases it may fail. Empty for all releases, or for none if `fixed_in` is set.
        fixed_in: the release of vLLM from which on a failure is not excused; empty if none has a
            fix.
        checkpoint: "tiny" or "full", if only failures of that checkpoint are excused; empty for
            both.

    Raises:
        ConfigurationError: there is no reason or issue, `seen_in` or `fixed_in` is not a version,
            or `checkpoint` is no kind of checkpoint.
    """

    criterion: str
    reason: str
    issue: str
    shows: str = ""
    seen_in: str = ""
    fixed_in: str = ""
    checkpoint: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        if not (self.reason.strip() and self.issue.strip()):
            raise ConfigurationError(
                f"ExpectedFailure({self.criterion!r}) needs the reason, in one sentence, and the "
                "issue that tracks it: an address, or 'not tracked upstream yet'."
            )
        if self.checkpoint not in {"", "tiny", "full"}:
            raise ConfigurationError(
                f"ExpectedFailure({self.criterion!r}): checkpoint={self.checkpoint!r} is neither "
                "'tiny' nor 'full'."
            )
        try:
            SpecifierSet(self.seen_in)
            Version(self.fixed_in or "0")
        except (InvalidSpecifier, InvalidVersion) as error:
            raise ConfigurationError(
                f"ExpectedFailure({self.criterion!r}): {error}. Write seen_in='>=0.11,<0.20' and "
                "fixed_in='0.20'."
            ) from error

    def __str__(self) -> str:
        return f"{self.reason} ({self.issue})"

    @property
    def case(self) -> str:
        """The case or other parameter of the criterion that fails; empty for all."""
        return self.criterion.partition("[")[2].removesuffix("]")

    def may_occur(self, vllm: str | None) -> bool:
        """True unless a version of vLLM has the fix, or is unknown and may have it."""
        if not self.fixed_in:
            return True
        return vllm is not None and Version(vllm) < Version(self.fixed_in)

    def was_seen(self, vllm: str | None) -> bool:
        """True if a version of vLLM is one of `seen_in` and does not have the fix."""
        if vllm is None or not self.may_occur(vllm):
            return False
        return SpecifierSet(self.seen_in).contains(vllm, prereleases=True)


@dataclass(frozen=True)
class Budgets:
    """Maximum seconds of each phase of a server's start, and of the largest request.

    If a phase of the first start exceeds its budget, serving.ready fails. If a phase of any start
    reaches twice its budget, the suite ends the server and reports an error.

    Attributes:
        start: from the start of the process until the weights begin to load.
        weights: loading the weights.
        graphs: from the weights until `/health` returns 200; compiles or captures graphs.
        first_image: the answer to the first image request; also the time after which a request
            of serving.image_sizes or serving.any_request counts as a hang.
        largest_image: the answer to the largest page (serving.largest_image).

    Raises:
        ConfigurationError: a budget is no number of seconds above 0.
    """

    start: float = 900.0
    weights: float = 1800.0
    graphs: float = 1800.0
    first_image: float = 300.0
    largest_image: float = 300.0

    def __post_init__(self) -> None:
        for name, seconds in vars(self).items():
            if not is_finite(seconds) or seconds <= 0:
                raise ConfigurationError(
                    f"Budgets({name}={seconds!r}): a budget is a number of seconds above 0."
                )

    @property
    def whole_start(self) -> float:
        """Maximum seconds of all phases of a start."""
        return self.start + self.weights + self.graphs + self.first_image


@dataclass(frozen=True)
class Variant:
    """Another way to serve the same model, which has to give the same answers.

    Attributes:
        name: the name in the criterion's id, `equivalence.<name>`: "eager", "tp2", "w8a8".
        serve: the serve arguments that differ from the model's.
        devices: number of cards that the variant needs; None for the model's number.
        checkpoint: the hub name of other weights, quantised ones for example; None for the model's.
            The model's own name declares that the tiny checkpoint cannot serve the variant.
        is_lossy: True if the variant changes the numbers on purpose. Then R is reported but not
            judged, and the answers have to be similar instead of equal.
        env: the environment variables that differ from the model's, for what vllm-ascend switches
            by environment: `{"VLLM_ASCEND_ENABLE_NZ": "0"}`.
        requires: packages without which nothing can serve the variant, ("vllm-ascend>=0.23",).
            Where one is missing, the variant is not applicable.

    Raises:
        ConfigurationError: a field has the wrong type.
    """

    name: str
    serve: Mapping[str, Any] = field(default_factory=dict)
    devices: int | None = None
    checkpoint: str | None = None
    is_lossy: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_types(self)


RESERVED_SERVE_ARGUMENTS = frozenset(
    {
        # The suite sets these: the server's address, model name and API key, its sampling
        # defaults, and what it reports about tokens and logits.
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
        # These could change any of the above.
        "config",
        "override_generation_config",
    }
)
"""Arguments of the vLLM server that a model file must not set."""


@dataclass(frozen=True)
class ModelSpec:
    """A model: its checkpoint, serve arguments, capabilities and required quality.

    Attributes:
        model_id: the hub name, `OpenDataLab/MinerU2.5-2509-1.2B`; also the served model name.
        revision: commit of the checkpoint; None accepts any.
        tiny: name of a checkpoint under `fixtures/tiny/`, or a path to one; None if the tiny
            checkpoint of another model covers the architecture.
        devices: number of cards that the model needs.
        platforms: the platforms that the model is deployed on, ("cpu",); empty for all platforms.
        requires: packages without which nothing can load the model, ("transformers>=5",). Where
            one is missing, the model is not applicable.
        serve: arguments of the vLLM server, as Python values: `{"max_model_len": 8192}`.
        env: environment variables of the server, for settings that are not arguments.
        trust_remote_code: True if code in the checkpoint may run.
        supports: the capabilities that the model supports.
        unsupported: every other capability -> the reason; a request for one must get a 4xx.
        prompts: case group or case id -> the model's own prompt.
        box_scale: the coordinate that stands for the full width or height of the image: 1000 if
            the model's box coordinates are thousandths; None if they are pixels.
        thresholds: thresholds that differ from the project's.
        published: what a document reports for the full checkpoint.
        workloads: loads that the model's speed is measured under.
        limits: required speed on named devices.
        variants: other ways to serve the model; each is compared with this one.
        datasets: data sets that the model is judged by.
        expected_failures: criteria that are known to fail.
        budgets: maximum seconds of each start phase, and of the largest request.

    Raises:
        ConfigurationError: a field contradicts another field or has the wrong form.
    """

    model_id: str
    revision: str | None = None
    tiny: str | None = None
    devices: int = 1
    platforms: Iterable[str] = ()
    requires: Iterable[str] = ()
    serve: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    supports: Iterable[Capability] = frozenset({Capability.TEXT, Capability.IMAGE})
    unsupported: Mapping[Capability, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    box_scale: int | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    published: Published | None = None
    workloads: tuple[Workload, ...] = ()
    limits: tuple[Limit, ...] = ()
    variants: tuple[Variant, ...] = ()
    datasets: tuple[DatasetTask, ...] = ()
    expected_failures: tuple[ExpectedFailure, ...] = ()
    budgets: Budgets = Budgets()

    def __post_init__(self) -> None:
        if isinstance(self.supports, Capability):
            raise ConfigurationError(
                f"ModelSpec({self.model_id!r}): supports is a set, "
                f"supports={{Capability.{self.supports.name}}}."
            )
        for name in ("platforms", "requires"):
            if isinstance(value := getattr(self, name), str) or value is None:
                raise ConfigurationError(
                    f"ModelSpec({self.model_id!r}): {name} is a tuple, {name}=({value!r},)."
                )
        for name in ("platforms", "requires", "supports"):
            if isinstance(value := getattr(self, name), Iterable):
                object.__setattr__(self, name, tuple(value))  # an iterator can be read only once
        require_types(self)
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
        """Maximum number of images in a prompt as `serve` declares it, or None."""
        count = _count(self.serve.get("limit_mm_per_prompt", {}).get("image"))
        return None if count is None else int(count)

    @property
    def pixel_limit(self) -> int | None:
        """Maximum number of pixels of an image before it is shrunk, if `serve` declares one."""
        limit = self.serve.get("mm_processor_kwargs", {}).get("max_pixels")
        return None if limit is None else int(limit)

    def as_variant(self, variant: Variant) -> ModelSpec:
        """The model with the serve arguments, the environment and the checkpoint of a variant."""
        return dataclasses.replace(
            self,
            model_id=variant.checkpoint or self.model_id,
            tiny=None if variant.checkpoint else self.tiny,
            revision=None if variant.checkpoint else self.revision,
            serve={**self.serve, **variant.serve},
            env={**self.env, **variant.env},
            devices=variant.devices or self.devices,
            requires=(*self.requires, *variant.requires),
            variants=(),
        )

    def request(self, case: Case) -> Case:
        """The case with the model's own prompt, if it declares one."""
        prompt = self.prompts.get(case.id, self.prompts.get(case.group, case.prompt))
        return dataclasses.replace(case, prompt=prompt)

    def _problems(self) -> Iterable[str]:
        supports = frozenset(self.supports)
        if not self.model_id.strip("/ "):
            yield "model_id is empty."
        if "://" in self.model_id or len(self.slug.encode()) > _LONGEST_NAME:
            yield "model_id is the name on the hub: ORGANISATION/MODEL."
        yield from self._text_problems()
        undeclared = frozenset(Capability) - supports - frozenset(self.unsupported)
        if undeclared:
            yield (
                f"declare whether the model supports {_names(undeclared)}: put each in supports, "
                "or in unsupported with the reason."
            )
        both = supports & frozenset(self.unsupported)
        if both:
            yield f"{_names(both)} is in supports and in unsupported. Remove it from one of them."
        if Capability.TEXT not in supports:
            yield "every criterion needs Capability.TEXT in supports."
        if self.devices < 1:
            yield f"devices={self.devices}, but a model needs at least one card."
        if self.box_scale is not None and self.box_scale < 1:
            yield f"box_scale={self.box_scale}; it is the coordinate of the full width: 1000."
        yield from self._serve_problems()
        in_parallel = math.prod(int(self.serve.get(name, 1)) for name in _PARALLEL_SIZES)
        if in_parallel > self.devices:
            yield f"serve uses {in_parallel} cards in parallel, but devices={self.devices}."
        yield from self._variant_problems()
        yield from self._requirement_problems()
        yield from self._workload_problems()
        if reserved := sorted(filter(_is_reserved, self.serve)):
            yield (
                f"serve sets {', '.join(reserved)}, which the suite sets itself for its "
                "measurements. Remove it."
            )
        if "trust_remote_code" in self.serve:
            yield "declare trust_remote_code=True on the model, not in serve."
        dashed = [name for name in self.serve if "-" in name]
        if dashed:
            yield f"write the names in serve with underscores: {', '.join(dashed)}."

    def _text_problems(self) -> Iterable[str]:
        """Reasons and prompts that are empty."""
        if silent := [one for one, reason in self.unsupported.items() if not reason.strip()]:
            yield f"unsupported has no reason for {_names(silent)}. A report prints the reason."
        for name, prompt in self.prompts.items():
            if not prompt.strip():
                yield f"prompts[{name!r}] is empty."

    def _serve_problems(self) -> Iterable[str]:
        """Wrong values of what this package reads itself; vLLM checks the others."""
        limits = self.serve.get("limit_mm_per_prompt", {})
        if not _are_limits(limits):
            yield f"serve has limit_mm_per_prompt={limits!r}; write {{'image': 2, 'video': 0}}."
        for medium in (Capability.IMAGE, Capability.VIDEO):
            if medium in self.supports and _count(limits.get(medium.value)) == 0:
                yield (
                    f"limit_mm_per_prompt in serve allows no {medium.value}, but "
                    f"{_names([medium])} is in supports."
                )
        arguments = self.serve.get("mm_processor_kwargs", {})
        if not isinstance(arguments, Mapping) or not is_whole(arguments.get("max_pixels", 0)):
            yield f"serve has mm_processor_kwargs={arguments!r}; write {{'max_pixels': 1003520}}."
        for name in _PARALLEL_SIZES:
            if not is_whole(size := self.serve.get(name, 1)) or size < 1:
                yield f"serve has {name}={size!r}, which is no number of cards."

    def _requirement_problems(self) -> Iterable[str]:
        for text in self.requires:
            try:
                Requirement(text)
            except InvalidRequirement as error:
                yield f"requires={text!r} is no requirement of a package: {error}"

    def _workload_problems(self) -> Iterable[str]:
        names = [workload.name for workload in self.workloads]
        yield from (
            f"two workloads have the name {name!r}; a name is unique."
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        )
        if Capability.IMAGE not in self.supports:
            yield from (
                f"the workload {workload.name!r} has pages, but Capability.IMAGE is unsupported."
                for workload in self.workloads
                if workload.image_tokens is not None
            )

    def _variant_problems(self) -> Iterable[str]:
        names = [variant.name for variant in self.variants]
        for name in names:
            if not name.isidentifier() or names.count(name) > 1:
                yield (
                    f"variant {name!r}: a name is one word of letters, digits and _, and unique."
                )
        for variant in self.variants:
            if variant.devices is not None and variant.devices < 1:
                yield f"variant {variant.name!r} has devices={variant.devices}; it needs a card."
            served = self.as_variant(variant)
            if (served.serve, served.env, variant.checkpoint) == (self.serve, self.env, None):
                yield (
                    f"variant {variant.name!r} changes nothing. Declare the serve arguments, the "
                    "environment variables or the checkpoint that differ."
                )


def _are_limits(value: object) -> bool:
    """True for numbers of images and other media, alone or with the sizes that vLLM profiles."""
    if not isinstance(value, Mapping):
        return False
    counts = [one.get("count", 1) if isinstance(one, Mapping) else one for one in value.values()]
    return value.keys() <= _MEDIA and all(is_whole(one) and one >= 0 for one in counts)


def _count(limit: Any) -> Any:
    return limit.get("count") if isinstance(limit, Mapping) else limit


def _is_reserved(name: str) -> bool:
    """True if vLLM's parser accepts a name as a reserved argument.

    The parser accepts abbreviations, and `argument.key` for one key of an argument.
    """
    return any(one.startswith(name.partition(".")[0]) for one in RESERVED_SERVE_ARGUMENTS)


def _names(capabilities: Iterable[Capability]) -> str:
    return ", ".join(sorted(f"Capability.{capability.name}" for capability in capabilities))

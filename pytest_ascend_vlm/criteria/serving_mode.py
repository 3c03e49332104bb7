"""The rule that a variant is served in the way that it declares.

An argument may be ignored: graphs that the engine cannot capture, a step that cuts no prompt. The
results of such a variant are those of the model, so they prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import PreconditionError
from ..observation.answers import Completion
from ..observation.serving_mode import ServingMode, Told


@dataclass(frozen=True)
class Expectation:
    """What a server must tell if it serves with an argument.

    Attributes:
        fact: name of the fact, as in `ServingMode.facts`.
        wanted: the expected value, for messages.
        holds: returns True for a value of the fact that does not contradict the argument.
    """

    fact: str
    wanted: str
    holds: Callable[[str], bool]


def _is(fact: str, wanted: object) -> Expectation:
    return Expectation(fact, str(wanted), lambda value: value == str(wanted))


def _is_not(fact: str, unwanted: str) -> Expectation:
    return Expectation(fact, f"not {unwanted}", lambda value: value != unwanted)


def _at_least(fact: str, least: int) -> Expectation:
    return Expectation(fact, f"{least} or more", lambda value: float(value) >= least)


def _eager(on: Any) -> Iterable[Expectation]:
    if on:
        return _is("cudagraph_mode", "NONE"), _is("graphs", "none")
    # Graphs are expected only if no mode is declared, which may be NONE.
    return (_is("enforce_eager", False),)


def _compilation(config: Any) -> Iterable[Expectation]:
    mode = _key(config, "cudagraph_mode")
    if mode is None:
        return ()
    graphs = "none" if str(mode).upper() == "NONE" else "captured"
    return _is("cudagraph_mode", str(mode).upper()), _is("graphs", graphs)


def _prefix_cache(on: Any) -> Iterable[Expectation]:
    hits = _at_least("cached tokens", 1) if on else _is("cached tokens", 0)
    return _is("enable_prefix_caching", on), hits


def _chunked_prefill(on: Any) -> Iterable[Expectation]:
    switched = _is("enable_chunked_prefill", on)
    return (switched, _at_least("cut prompts", 1)) if on else (switched,)


def _tensor_parallel(size: Any) -> Iterable[Expectation]:
    return _is("tensor_parallel_size", size), _at_least("world size", int(size))


def _speculation(config: Any) -> Iterable[Expectation]:
    if not config:
        return (_is("speculative method", None),)
    # vLLM renames methods, glm_ocr_mtp to mtp for example, so the name is not compared.
    started = _is_not("speculative method", "None")
    count = _key(config, "num_speculative_tokens")
    tokens = () if count is None else (_is("speculative tokens", count),)
    return started, *tokens, _at_least("draft tokens", 1)


def _same(fact: str) -> Callable[[Any], Iterable[Expectation]]:
    return lambda value: (_is(fact, value),)


EXPECTATIONS: Mapping[str, Callable[[Any], Iterable[Expectation]]] = MappingProxyType(
    {
        "enforce_eager": _eager,
        "compilation_config": _compilation,
        "enable_prefix_caching": _prefix_cache,
        "enable_chunked_prefill": _chunked_prefill,
        "max_num_batched_tokens": _same("max_num_batched_tokens"),
        "tensor_parallel_size": _tensor_parallel,
        "mm_encoder_tp_mode": _same("mm_encoder_tp_mode"),
        "quantization": _same("quantization"),
        "speculative_config": _speculation,
    }
)
"""Serve argument -> what a server must tell if it serves with a value of this argument."""


def require_mode(
    serve: Mapping[str, Any],
    mode: ServingMode,
    answers: Iterable[Completion],
    draft_tokens: float | None,
) -> dict[str, str]:
    """Checks that a server serves in the way that its arguments say.

    Args:
        serve: the serve arguments that make the variant.
        mode: what the server's log tells.
        answers: its answers.
        draft_tokens: the draft tokens that it counted meanwhile; None if it counts none.

    Returns:
        Name of each expected fact -> what tells it, or that this engine does not tell it.

    Raises:
        PreconditionError: the server tells something else.
    """
    told = {**mode.facts, **dict(_counted(mode, list(answers), draft_tokens))}
    evidence = {}
    for one in _expectations(serve):
        fact = told.get(one.fact)
        if fact is not None and not one.holds(fact.value):
            raise PreconditionError(_contradiction(one, fact, serve, mode))
        evidence[one.fact] = f"not told by {mode.engine}" if fact is None else str(fact)
    return evidence


def _expectations(serve: Mapping[str, Any]) -> Iterator[Expectation]:
    for name, value in serve.items():
        if name in EXPECTATIONS:
            yield from EXPECTATIONS[name](value)
    mode = _key(serve.get("compilation_config"), "cudagraph_mode")
    if mode is None and serve.get("enforce_eager") is False:
        yield from (_is_not("cudagraph_mode", "NONE"), _is("graphs", "captured"))


def _counted(
    mode: ServingMode, answers: list[Completion], draft_tokens: float | None
) -> Iterator[tuple[str, Told]]:
    """The facts that the answers and the server's counters tell."""
    cached = sum(answer.cached_tokens for answer in answers)
    yield "cached tokens", Told(str(cached), f"usage of {len(answers)} answers")
    if draft_tokens is not None:
        yield "draft tokens", Told(f"{draft_tokens:.0f}", "vllm:spec_decode_num_draft_tokens")
    if step := mode.facts.get("max_num_batched_tokens"):
        computed = [(one.prompt_tokens or 0) - one.cached_tokens for one in answers]
        cut = sum(tokens > int(step.value) for tokens in computed)
        source = f"a step has {step.value} tokens, and the longest prompt {max(computed)}"
        yield "cut prompts", Told(str(cut), source)


def _key(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else None


def _contradiction(
    one: Expectation, fact: Told, serve: Mapping[str, Any], mode: ServingMode
) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in serve.items())
    return (
        f"the variant is not served as declared ({arguments}): {one.fact} has to be {one.wanted}, "
        f"but {mode.engine} tells {fact.value}.\n"
        f"  {fact.source}\n"
        "Its results would be those of another way to serve. Change the variant's arguments; if "
        "only other releases can serve it, name them in Variant(requires=...)."
    )

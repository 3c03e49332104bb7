"""Reads a vLLM server's log: the phases of its start, the model's class, its memory, its state."""

from __future__ import annotations

import enum
import re

from ...control_characters import without_terminal_codes
from ...observation.memory import EngineMemory


class Phase(enum.Enum):
    """A phase of a server's start; the value is its name in messages."""

    START = "start"
    WEIGHTS = "weights"
    GRAPHS = "graphs"
    FIRST_IMAGE = "first image"


_PHASES = {
    Phase.WEIGHTS: re.compile(r"Starting to load model|Loading (?:safetensors|model weights)"),
    # vllm-ascend warns of "capturing too many batch sizes" before the weights are loaded.
    Phase.GRAPHS: re.compile(r"Loading weights took|Model loading took|Capturing [^.]*graphs"),
}
_ARCHITECTURE = re.compile(r"Resolved architecture: (\w+)")
_NUMBER = r"([\d.]+)"
# vllm-ascend writes GB, and divides by 2**30. vLLM's CPU worker reports no memory of the weights.
_WEIGHTS = re.compile(rf"(?:Model loading|Loading model weights) took {_NUMBER} Gi?B")
_WEIGHTS_SECONDS = re.compile(rf"Loading weights took {_NUMBER} seconds")
_KV_CACHE = re.compile(
    rf"Available KV cache memory: {_NUMBER} GiB"
    rf"|reserved {_NUMBER} ?GiB (?:memory )?for KV Cache"
    rf"|(?:Explicitly|Auto) set \({_NUMBER}/[\d.]+\) GiB for KV cache"  # vLLM's CPU worker
)
# vllm-ascend before 0.18.
_KV_CACHE_BYTES = re.compile(r"Available memory: (\d+), total memory: \d+")
_MILESTONES = (
    re.compile(r"Graph capturing finished in "),
    re.compile(r"\bApplication startup complete\b"),
    re.compile(r"\bReplaying aclgraph\b"),  # vllm-ascend, once, at the first replay
)
_KV_CACHE_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")


def phase_of(log: str) -> Phase:
    """The phase that a server has reached before it is healthy, from its log."""
    for phase in (Phase.GRAPHS, Phase.WEIGHTS):
        if _PHASES[phase].search(log):
            return phase
    return Phase.START


def architecture_of(log: str) -> str | None:
    """The class in vLLM's registry that serves the model; None if the log does not name one.

    For an architecture that is not in the registry, it is one of the classes that run
    Transformers' own model.
    """
    return _first(_ARCHITECTURE, log)


def memory_of(log: str) -> EngineMemory:
    """The figures of a server's log; of several cards, those of the first that logs one."""
    in_bytes, tokens = _first(_KV_CACHE_BYTES, log), _first(_KV_CACHE_TOKENS, log)
    kv_cache = _gib(in_bytes) if in_bytes else _number(_first(_KV_CACHE, log))
    return EngineMemory(
        weights_gib=_number(_first(_WEIGHTS, log)),
        weights_seconds=_number(_first(_WEIGHTS_SECONDS, log)),
        kv_cache_gib=kv_cache,
        kv_cache_tokens=int(tokens.replace(",", "")) if tokens else None,
    )


def milestones_of(log: str) -> tuple[str, ...]:
    """The lines that show that graphs were captured, the server is ready, and graphs are used.

    They are in the order of the log. A line that repeats, or that each worker writes, is the first.
    """
    lines = lines_of(log)
    found = (next(filter(one.search, lines), None) for one in _MILESTONES)
    return tuple(sorted({line for line in found if line is not None}, key=lines.index))


def lines_of(log: str) -> list[str]:
    """The lines of a log without the codes of their colours."""
    return without_terminal_codes(log).splitlines()


def _first(pattern: re.Pattern[str], log: str) -> str | None:
    found = pattern.search(log)
    return next(filter(None, found.groups()), None) if found else None


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _gib(text: str) -> float:
    return round(int(text) / 2**30, 2)

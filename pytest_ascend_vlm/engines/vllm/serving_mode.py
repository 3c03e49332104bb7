"""Reads from a vLLM server's log the way in which it serves.

The engine logs its configuration once, after vLLM's platform has adapted it:
"Initializing a V1 LLM engine (v0.18.0) with config: ... enforce_eager=True, ...". Seen in vLLM
0.11, 0.13, 0.18, 0.23 and 0.32; vLLM-Ascend changes the same configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...observation.serving_mode import ServingMode, Told
from .log import lines_of

_CONFIG = re.compile(r"Initializing a .*LLM engine \(v?(?P<release>[^)]+)\) with config: .*")

_FIELDS = {
    "enforce_eager": re.compile(r"\benforce_eager=(\w+)"),
    "enable_prefix_caching": re.compile(r"\benable_prefix_caching=(\w+)"),
    # The second name is that of 0.11.
    "enable_chunked_prefill": re.compile(
        r"\benable_chunked_prefill=(\w+)|\bchunked_prefill_enabled=(\w+)"
    ),
    "tensor_parallel_size": re.compile(r"\btensor_parallel_size=(\d+)"),
    "quantization": re.compile(r"\bquantization=([\w-]+)"),
    "speculative method": re.compile(
        r"\bspeculative_config=(?:SpeculativeConfig\(method='([\w-]+)'|(None)\b)"
    ),
    "speculative tokens": re.compile(r"\bnum_spec_tokens=(\d+)"),
    "cudagraph_mode": re.compile(
        r"['\"]cudagraph_mode['\"]: ?(?:<CUDAGraphMode\.(\w+): [^>]*>|(\d\b|\[\d,\d\]))"
    ),
}

# 0.11 logs the values of CUDAGraphMode instead of the names.
_NAMES = {
    "0": "NONE",
    "1": "PIECEWISE",
    "2": "FULL",
    "[2,0]": "FULL_DECODE_ONLY",
    "[2,1]": "FULL_AND_PIECEWISE",
}

# The model runner may change the mode after the configuration was logged.
_CHANGED_MODE = re.compile(
    r"setting cudagraph_mode=(\w+)|Overriding to (?:CUDAGraphMode\.)?(\w+)\."
)
# The reason of vLLM or vLLM-Ascend for another mode than the one that was asked for.
_REASON = re.compile(
    r"\bis not support(?:ed)? on NPU\. falling back to NONE|\bACLGraph (?:is|has been) disabled\b"
    r"|[Ss]etting CUDAGraphMode to NONE|Encoder-decoder models don't support"
)
_CAPTURED = re.compile(r"Graph capturing finished in \d+ secs")

_WORLD = re.compile(r"\bworld_size=(\d+) rank=|\bin world size (\d+)\b")
_STEP = re.compile(r"Chunked prefill is enabled with max_num_batched_tokens=(\d+)")
_ENCODER = re.compile(r"Falling back to `--mm-encoder-tp-mode (\w+)`")


def read(log: str) -> ServingMode:
    """The facts that the log of a server that is ready tells.

    Args:
        log: the whole log, with the lines of all processes.
    """
    lines = lines_of(log)
    own = dict(_lines(lines))
    config = _last(_CONFIG, lines)
    if config is None:
        return ServingMode(facts=own)
    started = lines[lines.index(config.string) :]
    facts = {**dict(_config_facts(config[0])), **own, "graphs": _graphs(started)}
    mode = _mode(facts.get("cudagraph_mode"), lines, started)
    changed = {} if mode is None else {"cudagraph_mode": mode}
    return ServingMode(f"vLLM {config['release']}", {**facts, **changed})


def _config_facts(config: str) -> Iterator[tuple[str, Told]]:
    """The facts in the line of the configuration, each with the words that tell it."""
    for name, pattern in _FIELDS.items():
        if found := pattern.search(config):
            yield name, Told(_value(found), found[0])


def _lines(lines: list[str]) -> Iterator[tuple[str, Told]]:
    """The facts that have a line of their own."""
    patterns = {
        "max_num_batched_tokens": _STEP,
        "mm_encoder_tp_mode": _ENCODER,
    }
    for name, pattern in patterns.items():
        if found := _last(pattern, lines):
            yield name, Told(_value(found), found.string.strip())
    if worlds := [found for line in lines if (found := _WORLD.search(line))]:
        largest = max(worlds, key=lambda found: int(_value(found)))
        yield "world size", Told(_value(largest), largest[0].strip())


def _graphs(started: list[str]) -> Told:
    if found := _last(_CAPTURED, started):
        return Told("captured", found[0])
    return Told("none", "the log does not contain 'Graph capturing finished'")


def _mode(configured: Told | None, lines: list[str], started: list[str]) -> Told | None:
    """The mode of the graphs, with the engine's reason if it is not the one that was asked for.

    Args:
        configured: the mode in the engine's configuration.
        lines: all lines.
        started: the lines from the configuration on.
    """
    if changed := _last(_CHANGED_MODE, started):
        return Told(_value(changed), changed.string.strip())
    reason = _last(_REASON, lines)
    if configured is None:
        return None
    source = f"{configured.source}; {reason.string.strip()}" if reason else configured.source
    return Told(_NAMES.get(configured.value, configured.value), source)


def _last(pattern: re.Pattern[str], lines: list[str]) -> re.Match[str] | None:
    return next(filter(None, map(pattern.search, reversed(lines))), None)


def _value(found: re.Match[str]) -> str:
    """The group that matched; the groups of a pattern are alternatives."""
    return next(group for group in found.groups() if group is not None)

"""The error message for an engine that died: its root cause, then the end of its log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from .root_cause import ENDED_FROM_OUTSIDE, RootCause, root_cause
from .tracebacks import plain

_TAIL_LINES = 30
_TAIL_LINES_BESIDE_A_CAUSE = 10

# Output that surrounds the error and only distracts: leak reports, usage texts.
_NOISE = re.compile(
    r"\s*$|nanobind:|See https://nanobind| - leaked | - \.\.\. skipped"
    r"|.*resource_tracker|  warnings\.warn|\s+\[-"
)

# Pattern of a root cause (case-insensitive) -> what to try. The first match is shown.
_ADVICE = (
    (
        r"is not found in LD_PRELOAD",
        "install libtcmalloc (Debian: libtcmalloc-minimal4) and libiomp5 (pip install "
        "intel-openmp), and name both files in LD_PRELOAD; vLLM 0.18 on a CPU does not start "
        "without them",
    ),
    (
        r"cannot open shared object file|Failed to load the backend extension",
        "install the package that has this library, or add its directory to LD_LIBRARY_PATH; "
        "CANN's libraries are found after `source /usr/local/Ascend/ascend-toolkit/set_env.sh`; "
        "the driver's libraries if the container was started with the cards",
    ),
    (
        r"does not recognize this architecture",
        "the installed Transformers is older than the model. vLLM up to 0.18 allows only "
        "Transformers 4; vLLM 0.23 comes with 5.5. Take the vLLM release that supports the model",
    ),
    (
        r"model architectures .* are not supported",
        "this vLLM does not have the architecture that config.json names: take the vLLM release "
        "that supports the model, or trust_remote_code if the checkpoint contains its own code",
    ),
    (
        r"max_model_len .* is greater than|max_num_batched_tokens .* smaller than max_model_len",
        "lower max_model_len in ModelSpec.serve",
    ),
    (
        r"out of memory|allocate memory|available memory|free memory|KV cache|EL0004"
        r"|gpu.memory.utilization",
        "lower max_model_len or max_num_seqs in ModelSpec.serve; on a card also "
        "gpu_memory_utilization, and see with `npu-smi info` which processes use its memory",
    ),
    (
        r"(?:api_server|vllm).*: error: ",
        "this vLLM does not know an argument of ModelSpec.serve, or rejects its value",
    ),
    (
        r"SafetensorError|Cannot find any model weights|exceeds dimension size|size mismatch"
        r"|Attempted to load weight|were not initialized from",
        "the checkpoint is damaged, incomplete, or does not belong to its config.json: compare its "
        "files with the hub's",
    ),
    (
        r"Repo id must be|No such file or directory|is not a local folder|couldn't find them in",
        "a file of the checkpoint is missing: look at the directory that --vlm-weights or "
        "--vlm-weights-root names",
    ),
    (
        r"HCCL|ERR02200|\bE[IJ]\d{4}: ",
        "the cards cannot reach each other, or an earlier process still uses them: see "
        "`npu-smi info`, wait for that process to end, then check links with hccn_tool",
    ),
    (
        rf"SIGKILL|{re.escape(ENDED_FROM_OUTSIDE)}",
        "look for the kernel's message with `dmesg | grep -i oom`; give the host or container more "
        "memory, or start fewer servers at once",
    ),
)


def post_mortem(problem: str, log: str, log_path: Path) -> str:
    """Appends the root cause, if the log contains one, and the end of the log to a problem.

    Args:
        problem: what died and when, as a full sentence.
        log: the whole output of the engine.
        log_path: the file that contains it.
    """
    cause = root_cause(log)
    lines = [problem]
    if cause is not None:
        lines += _cause_lines(cause)
    tail_lines = _TAIL_LINES if cause is None else _TAIL_LINES_BESIDE_A_CAUSE
    return "\n".join(
        [*lines, "The end of its log:", tail(log, tail_lines), f"(whole log: {log_path})"]
    )


def tail(log: str, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log, indented and without noise."""
    useful: Sequence[str] = [line for line in map(plain, log.split("\n")) if not _NOISE.match(line)]
    return "\n".join(f"  | {line}" for line in useful[-lines:]) or "  | (the log is empty)"


def _cause_lines(cause: RootCause) -> list[str]:
    process = f" ({cause.process})" if cause.process else ""
    first, *more = cause.lines
    whole = "\n".join(cause.lines)
    advice = (text for kind, text in _ADVICE if re.search(kind, whole, re.IGNORECASE))
    return [
        f"Root cause{process}: {first}",
        *(f"  {line}" for line in more),
        *(f"What to try: {text}." for text in islice(advice, 1)),
    ]

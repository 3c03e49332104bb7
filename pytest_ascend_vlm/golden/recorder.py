"""Writes goldens: the only code that does."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_atomically
from ..observation import Reference
from ..spec import Case
from .store import SCHEMA, GoldenKey, digest, inputs, relative_path


def record(
    root: Path, key: GoldenKey, case: Case, answer: Reference, engine: Mapping[str, Any]
) -> Path:
    """Writes a golden under a root and returns its path.

    Args:
        root: the `golden/` directory to write to.
        key: the model and checkpoint that answered.
        case: what was asked.
        answer: what the reference answered.
        engine: the reference engine's own part of the provenance.
    """
    from safetensors.numpy import save

    path = root / relative_path(key, case)
    tensors = save(_tensors(answer))
    document = _document(key, case, answer, engine)
    document["tensors_sha256"] = hashlib.sha256(tensors).hexdigest()
    document["sha256"] = digest(document)
    write_atomically(path.with_suffix(".safetensors"), tensors)
    write_atomically(path, readable_json(document).encode("utf-8"))
    return path


def readable_json(document: Mapping[str, Any]) -> str:
    """JSON for people and diffs: indented, but a list of numbers stays on one line."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    return re.sub(r"\[[\s\d,.-]+\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _document(
    key: GoldenKey, case: Case, answer: Reference, engine: Mapping[str, Any]
) -> dict[str, Any]:
    assert answer.numerics is not None  # noqa: S101  (the reference engine always has them)
    assert answer.token_ids is not None  # noqa: S101
    chosen = [
        round(top - second, 3) for top, second in np.sort(answer.numerics.fp32.logprobs)[:, :-3:-1]
    ]
    return {
        "schema": SCHEMA,
        "model": key.model.model_id,
        "checkpoint": key.checkpoint,
        "case": case.id,
        "inputs": inputs(case),
        "completion": {
            "text": answer.text,
            "token_ids": list(answer.token_ids),
            "prompt_tokens": answer.prompt_tokens,
            "smallest_margin_nats": min(chosen),
            "rounding": {"logit_rmse": round(answer.numerics.logit_rmse, 6)},
        },
        "provenance": {
            "engine": "transformers",
            **engine,
            "dtype": "bfloat16, yardstick float32",
            "generation": {"do_sample": False, "repetition_penalty": 1.0},
            "revision": key.model.revision,
            "weights_sha256": key.weights_sha256,
            "machine": platform.machine(),
        },
    }


def _tensors(answer: Reference) -> dict[str, np.ndarray]:
    numerics = answer.numerics
    assert numerics is not None  # noqa: S101
    return {
        "forced_token_ids": np.array(numerics.token_ids, dtype=np.int32),
        "fp32_token_ids": numerics.fp32.token_ids.astype(np.int32),
        "fp32_logprobs": numerics.fp32.logprobs.astype(np.float32),
        "bf16_token_ids": numerics.bf16.token_ids.astype(np.int32),
        "bf16_logprobs": numerics.bf16.logprobs.astype(np.float32),
        "peak_logit": numerics.peak_logit.astype(np.float32),
    }

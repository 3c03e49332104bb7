"""Writes goldens. No other module does."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GoldenError
from ..observation.answers import Reference
from ..spec.case import Case
from ..writing import write_atomically
from .codec import encode
from .fit import require_fit
from .store import SCHEMA, GoldenKey, GoldenStore, digest, inputs, relative_path
from .token_runs import to_text


def record(
    root: Path, key: GoldenKey, case: Case, answer: Reference, engine: Mapping[str, Any]
) -> Path:
    """Writes a golden and returns its path.

    Args:
        root: the `golden/` directory to write to.
        key: the model and checkpoint that answered.
        case: the request.
        answer: the reference's answer with its numbers.
        engine: the provenance fields of the reference engine.

    Raises:
        GoldenError: if the answer's numbers do not match its positions; nothing is written then.
    """
    from safetensors.numpy import save

    require_fit(answer)
    path = root / relative_path(key, case)
    assert answer.numerics is not None  # noqa: S101  (the reference engine always has them)
    tensors = save(dict(encode(answer.numerics)))
    document = _document(key, case, answer, engine)
    document["tensors_bytes"] = len(tensors)
    document["tensors_sha256"] = hashlib.sha256(tensors).hexdigest()
    document["sha256"] = digest(document)
    write_atomically(path.with_suffix(".safetensors"), tensors)
    write_atomically(path, readable_json(document).encode("utf-8"))
    return path


def recorded(root: Path, key: GoldenKey, case: Case, engine: Mapping[str, Any]) -> Reference | None:
    """The golden of the same request, weights and engine; None if it is missing or damaged.

    Args:
        root: the `golden/` directory to read.
        key: the model and checkpoint that answer.
        case: the request.
        engine: provenance fields that must match (processor class, torch and transformers
            versions).
    """
    try:
        golden = GoldenStore([root], "").load(key, case)
    except GoldenError:
        return None
    required = header(key, case, engine)["provenance"]
    return golden if required.items() <= golden.provenance.items() else None


def header(key: GoldenKey, case: Case, engine: Mapping[str, Any]) -> dict[str, Any]:
    """A golden's JSON without the answer: the request, the weights and the engine."""
    return {
        "schema": SCHEMA,
        "model": key.model.model_id,
        "checkpoint": key.checkpoint,
        "case": case.id,
        "inputs": inputs(case),
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


def readable_json(document: Mapping[str, Any]) -> str:
    """Readable JSON: indented, with each list of numbers on one line."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    return re.sub(r"\[[\s\d,.-]+\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _document(
    key: GoldenKey, case: Case, answer: Reference, engine: Mapping[str, Any]
) -> dict[str, Any]:
    assert answer.numerics is not None  # noqa: S101  (the reference engine always has them)
    assert answer.token_ids is not None  # noqa: S101
    best = np.sort(answer.numerics.fp32[answer.numerics.first_answer_row :])
    margins = best[:, -1] - best[:, -2]
    fields = header(key, case, engine)
    provenance = fields.pop("provenance")
    completion = {
        "text": answer.text,
        "token_ids": list(answer.token_ids),
        "prompt_token_ids": to_text(answer.prompt_token_ids or ()),
        **({"placeholders": list(answer.placeholders)} if answer.placeholders else {}),
        "smallest_margin_nats": round(float(margins.min()), 3),
        "rounding": {"logit_rmse": round(answer.numerics.logit_rmse, 6)},
    }
    return {**fields, "completion": completion, "provenance": provenance}

"""Recorded scores of a reference engine on a data set, sample by sample.

`golden/<model>/<checkpoint>/dataset/<task>.json` contains each sample's score and prompt digest,
the harness and its version, the digest of the data, and the engine that answered.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import GoldenError
from ..observation.evaluation import Evaluation, Protocol, Sample
from ..writing import write_atomically
from .store import GoldenKey, digest

SCHEMA = 1


def relative_path(key: GoldenKey, task: str) -> Path:
    """Path of the scores of a task, relative to a root."""
    return Path(key.model.slug, key.checkpoint, "dataset", f"{task}.json")


def record(
    root: Path, key: GoldenKey, task: str, found: Evaluation, engine: Mapping[str, Any]
) -> Path:
    """Writes the scores of an engine and returns the path.

    Args:
        root: the `golden/` directory to write to.
        key: the model and checkpoint that answered.
        task: the task, which names the data set.
        found: the harness's result.
        engine: the engine that answered: "platform", "device", "versions", "serve_command".

    Raises:
        GoldenError: if only a subset of the data set was run.
    """
    if not found.is_complete:
        raise GoldenError(
            f"{task}: {found.extent} were run, but a reference needs all; leave out "
            "--vlm-datasets-limit."
        )
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "model": key.model.model_id,
        "checkpoint": key.checkpoint,
        "task": task,
        "protocol": dataclasses.asdict(found.protocol),
        "score": round(found.score, 6),
        "provenance": {
            "revision": key.model.revision,
            "weights_sha256": key.weights_sha256,
            **engine,
        },
        "samples": {
            id_: [sample.score, sample.category, sample.prompt]
            for id_, sample in sorted(found.samples.items())
        },
    }
    document["sha256"] = digest(document)
    path = root / relative_path(key, task)
    write_atomically(path, _one_sample_a_line(document).encode("utf-8"))
    return path


def load(
    roots: Sequence[Path], key: GoldenKey, task: str, record_command: str
) -> Evaluation | None:
    """The recorded scores of a task, from the first root that contains some; None if none does.

    Args:
        roots: `golden/` directories.
        key: the model and checkpoint under test.
        task: the task, which names the data set.
        record_command: the command that records scores, for error messages.

    Raises:
        GoldenError: if the scores are damaged or were recorded with other weights.
    """
    relative = relative_path(key, task)
    path = next((root / relative for root in roots if (root / relative).is_file()), None)
    return None if path is None else _load(path, key, record_command)


def _load(path: Path, key: GoldenKey, record_command: str) -> Evaluation:
    again = f"Record them again with\n    {record_command}"
    try:
        document = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise GoldenError(f"the scores {path} cannot be read ({error}). {again}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise GoldenError(f"the scores {path} do not have schema {SCHEMA}. {again}")
    if document.get("sha256") != digest(document):
        raise GoldenError(f"the scores {path} were changed after they were recorded. {again}")
    provenance = document["provenance"]
    if None not in {key.weights_sha256, provenance["weights_sha256"]} and (
        key.weights_sha256 != provenance["weights_sha256"]
    ):
        raise GoldenError(
            f"the scores {path} were recorded with other weights of {key.model.model_id}. {again}"
        )
    samples = {
        id_: Sample(score, category, prompt)
        for id_, (score, category, prompt) in document["samples"].items()
    }
    protocol = Protocol(**document["protocol"])
    return Evaluation(protocol, samples, total=len(samples), engine=_engine_text(provenance))


def _engine_text(provenance: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    return f"{provenance['platform']} ({provenance['device']}; {versions})"


def _one_sample_a_line(document: Mapping[str, Any]) -> str:
    """Readable JSON, with one line per sample."""
    head = {name: value for name, value in document.items() if name != "samples"}
    text = json.dumps(head, ensure_ascii=False, indent=2).removesuffix("\n}")
    lines = (
        f"    {json.dumps(id_, ensure_ascii=False)}: {json.dumps(row, ensure_ascii=False)}"
        for id_, row in document["samples"].items()
    )
    return f'{text},\n  "samples": {{\n' + ",\n".join(lines) + "\n  }\n}\n"

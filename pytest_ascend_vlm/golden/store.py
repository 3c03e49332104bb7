"""Finds, reads and checks golden files.

`golden/<model>/<checkpoint>/<case>.json` is human-readable: the request, the answer and its
provenance. `<case>.safetensors` beside it contains the numbers in fp32 and bf16:

* the logits of the 32 most likely tokens, at each position of the forced answer and at 32 positions
  of the prompt; 0.3 KB per position;
* the last hidden states at 64 of these positions; 6 bytes per number.

Both files contain digests, so a damaged file is an error and never a verdict.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GoldenError
from ..observation.answers import Reference
from ..spec.case import Case, Message
from ..spec.model import ModelSpec
from .codec import decode
from .digests import file_digest, json_digest
from .fit import require_fit
from .token_runs import from_text

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 3


@dataclass(frozen=True)
class GoldenKey:
    """Identifies the goldens of one model with one checkpoint.

    Attributes:
        model: the model.
        checkpoint: "full" or "tiny".
        weights_sha256: digest of the weights under test; None if unknown, because the suite did
            not start the server.
    """

    model: ModelSpec
    checkpoint: str
    weights_sha256: str | None


class GoldenStore:
    """Reads each golden from the first root that contains it."""

    def __init__(self, roots: Sequence[Path], record_command: str) -> None:
        """Args: roots: `golden/` directories, in order; record_command: for error messages."""
        self._roots = roots
        self._record_command = record_command

    def load(self, key: GoldenKey, case: Case) -> Reference:
        """The golden of a case, with its provenance.

        Raises:
            GoldenError: if the golden is missing or damaged, was recorded for other inputs or
                weights, or contradicts itself.
        """
        path = self._find(key, case)
        document = self._read(path)
        try:
            self._check(document, key, case, path)
            reference = _reference(document, self._tensors(document, path))
        except KeyError as error:
            raise self._error(f"the golden {path} has no {error}") from error
        try:
            require_fit(reference)
        except GoldenError as error:
            raise self._error(f"the golden {path} contradicts itself: {error}") from error
        return reference

    def has(self, key: GoldenKey, case: Case) -> bool:
        """True if a golden is stored, even a damaged one."""
        return any((root / relative_path(key, case)).is_file() for root in self._roots)

    def _find(self, key: GoldenKey, case: Case) -> Path:
        relative = relative_path(key, case)
        for root in self._roots:
            if (root / relative).is_file():
                return root / relative
        searched = " or ".join(str(root) for root in self._roots)
        raise self._error(f"there is no golden {relative} in {searched}")

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            document = json.loads(path.read_text("utf-8"))
        except (ValueError, OSError) as error:
            raise self._error(f"the golden {path} cannot be read ({error})") from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise self._error(f"the golden {path} does not have schema {SCHEMA}")
        if document.get("sha256") != digest(document):
            raise self._error(f"the golden {path} was changed after it was recorded")
        return document

    def _check(self, document: Mapping[str, Any], key: GoldenKey, case: Case, path: Path) -> None:
        expected = {"model": key.model.model_id, "checkpoint": key.checkpoint, "case": case.id}
        for name, value in expected.items():
            if document.get(name) != value:
                raise self._error(
                    f"the golden {path} is for the {name} {document.get(name)!r}, not {value!r}"
                )
        if document["inputs"]["sha256"] != inputs(case)["sha256"]:
            raise self._error(
                f"the golden {path} was recorded for another request: "
                + _what_differs(document["inputs"], inputs(case))
            )
        if key.weights_sha256 not in {None, document["provenance"]["weights_sha256"]}:
            raise self._error(
                f"the golden {path} was recorded with other weights of {key.model.model_id}"
            )

    def _tensors(self, document: Mapping[str, Any], path: Path) -> Mapping[str, np.ndarray]:
        from safetensors.numpy import load

        tensor_path = path.with_suffix(".safetensors")
        try:
            data = tensor_path.read_bytes()
        except OSError as error:
            raise self._error(f"the golden {tensor_path} cannot be read ({error})") from error
        if hashlib.sha256(data).hexdigest() != document["tensors_sha256"]:
            raise self._error(
                f"the golden {tensor_path} does not belong to {path.name}, or is damaged"
            )
        return load(data)

    def _error(self, problem: str) -> GoldenError:
        return GoldenError(
            f"{problem}. Only the reference writes goldens. Record it again with\n"
            f"    {self._record_command}\nand read the diff before you commit it."
        )


def relative_path(key: GoldenKey, case: Case) -> Path:
    """Path of a golden's JSON, relative to a root."""
    return Path(key.model.slug, key.checkpoint, f"{case.id}.json")


def inputs(case: Case) -> dict[str, Any]:
    """The request, with its digest."""
    described: dict[str, Any] = {
        "prompt": case.prompt,
        "images": [_file(path) for path in case.images],
        "max_tokens": case.max_tokens,
    }
    if case.videos:
        described["videos"] = [_file(path) for path in case.videos]
    if case.earlier:
        described["earlier"] = [_message(message) for message in case.earlier]
    return {**described, "sha256": json_digest(_without_names(described))}


def _without_names(described: Any) -> Any:
    """The content without the names of files, which are only for the reader."""
    if isinstance(described, list):
        return [_without_names(one) for one in described]
    if not isinstance(described, dict):
        return described
    if described.keys() == {"name", "sha256"}:
        return described["sha256"]
    return {name: _without_names(value) for name, value in described.items()}


def _message(message: Message) -> dict[str, Any]:
    parts = [part if isinstance(part, str) else _file(part) for part in message.content]
    return {"role": message.role, "content": parts}


def _file(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": file_digest(path)}


def digest(document: Mapping[str, Any]) -> str:
    """Digest of a golden's JSON, without its field `sha256`."""
    return json_digest({name: value for name, value in document.items() if name != "sha256"})


def _what_differs(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    if recorded["prompt"] != asked["prompt"]:
        return f"its prompt was {recorded['prompt']!r}, now it is {asked['prompt']!r}"
    if recorded["max_tokens"] != asked["max_tokens"]:
        return f"max_tokens was {recorded['max_tokens']}, now it is {asked['max_tokens']}"
    for name, what in (("earlier", "the earlier messages"), ("videos", "the videos")):
        if _without_names(recorded.get(name)) != _without_names(asked.get(name)):
            return f"{what} have changed"
    return "the images have changed"


def _reference(document: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Reference:
    completion, provenance = document["completion"], document["provenance"]
    versions = provenance["versions"]
    return Reference(
        case_id=document["case"],
        source=f"recorded with Transformers {versions['transformers']} on CPU",
        text=completion["text"],
        prompt_token_ids=from_text(completion["prompt_token_ids"]),
        token_ids=tuple(completion["token_ids"]),
        numerics=decode(tensors, completion["rounding"]["logit_rmse"]),
        provenance=provenance,
        placeholders=tuple(completion.get("placeholders", ())),
    )

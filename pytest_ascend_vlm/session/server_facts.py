"""The facts of a server that has ended, for the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..checkpoints.card import read_card
from ..spec.case import Capability

if TYPE_CHECKING:
    from ..checkpoints.find import Checkpoint
    from ..engines.endpoint import Server
    from ..spec.model import ModelSpec
    from ..spec.workload import Workload


@dataclass(frozen=True)
class ServerFacts:
    """The facts of one server.

    Attributes:
        model: the model's id.
        suite_class: the test class that used the server; two classes may serve the same model.
        facts: JSON-able facts. Those of a variant's server are under "variants", by the variant's
            name.
    """

    model: str
    suite_class: str
    facts: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The facts in the form of the report's "models"."""
        return {"model": self.model, "suite_class": self.suite_class, **self.facts}


def model_facts(
    model: ModelSpec, kind: str, checkpoint: Checkpoint | None, cards: tuple[int, ...]
) -> dict[str, Any]:
    """The facts of a model that do not depend on its server.

    Args:
        model: the model.
        kind: "full" or "tiny".
        checkpoint: the model's checkpoint; None if an endpoint is judged.
        cards: ids of the cards that the model was served on.
    """
    card = read_card(checkpoint.path) if checkpoint else None
    return {
        "checkpoint": kind,
        "revision": checkpoint.revision if checkpoint else None,
        "weights_sha256": checkpoint.weights_sha256 if checkpoint else None,
        "env": dict(model.env),
        "cards": list(cards),
        "published": _published(model),
        "workloads": [_workload(workload) for workload in model.workloads],
        "card": dataclasses.asdict(card) if card else None,
        "supports": [one.value for one in Capability if one in model.supports],
        "unsupported": {one.value: reason for one, reason in model.unsupported.items()},
    }


def server_facts(server: Server, requests: int) -> dict[str, Any]:
    """The facts of a model's own server.

    Args:
        server: the server.
        requests: number of requests that the suite sent to the server.
    """
    return {
        **variant_facts(server, requests),
        "served_name": server.endpoint.served_name,
        "suite_arguments": server.suite_arguments,
        "server_starts": server.starts,
        "memory": dataclasses.asdict(server.logged_memory),
        "log_lines": list(server.logged_milestones),
    }


def in_registry(server: Server, card: Mapping[str, Any] | None) -> bool | None:
    """True if the engine serves the checkpoint's architecture by a class of that name.

    False if it runs Transformers' own model instead; None if the log or the card does not tell.
    """
    served, declared = server.logged_architecture, (card or {}).get("architecture")
    return None if served is None or declared is None else served == declared


def variant_facts(server: Server, requests: int) -> dict[str, Any]:
    """The facts of a variant's server."""
    return {
        "serve_command": server.serve_command,
        "phases_seconds": {k: round(v, 2) for k, v in server.phases_seconds.items()},
        "requests": requests,
    }


def _published(model: ModelSpec) -> dict[str, Any] | None:
    if model.published is None:
        return None
    told = model.published
    return {
        "source": told.source,
        "device": told.device,
        "versions": dict(told.versions),
        "dtype": told.dtype,
        "figures": [dataclasses.asdict(figure) for figure in told.figures],
    }


def _workload(workload: Workload) -> dict[str, Any]:
    # asdict cannot copy a mapping that is read-only.
    fields = dataclasses.fields(workload)
    told = {field.name: getattr(workload, field.name) for field in fields}
    return {**told, "goodput": dict(workload.goodput)}

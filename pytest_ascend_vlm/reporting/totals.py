"""Sums what the servers of several models did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def totals(models: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The number of server starts and of requests, those of variants included.

    Args:
        models: the facts of the models, as report.json has them.
    """
    known = list(models)
    variants = [facts for model in known for facts in (model.get("variants") or {}).values()]
    return {
        "server_starts": sum(model.get("server_starts", 0) for model in known) + len(variants),
        "requests": sum(facts.get("requests", 0) for facts in [*known, *variants]),
    }

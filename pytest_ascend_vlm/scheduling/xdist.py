"""pytest-xdist: one model, one worker, so that N models start N servers and never more.

A test class is the unit of distribution whatever `--dist` says, because a class-scoped server that
is needed by two workers is started twice. A project without model files keeps its own scheduling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ..integration.criterion_call import call_of
from ..model_files import model_files
from ..platforms import select_platform

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling


def make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """A scheduler by class; None, for xdist's own, where no model file is among the arguments."""
    if not any(model_files(config)):
        return None
    from xdist.scheduler import LoadScopeScheduling

    # The workers have put the models that need most cards first; keep that order.
    config.option.loadscopereorder = False
    return LoadScopeScheduling(config, log)


def auto_workers(config: pytest.Config) -> int | None:
    """What `-n auto` means: one worker for every usable card; None where that cannot be counted."""
    if not any(model_files(config)):
        return None
    cards = select_platform(config.getoption("vlm_platform")).usable_cards()
    return None if cards is None else max(cards, 1)


def largest_models_first(items: list[pytest.Item]) -> None:
    """Orders models by the cards that they need: the small ones fill the cards that are left."""
    items.sort(key=lambda item: -model.devices if (model := call_of(item).model) else 0)

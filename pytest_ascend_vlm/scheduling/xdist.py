"""Scheduling under pytest-xdist: all tests of a class run in one worker.

The server has class scope, so a class that is split between two workers would start its server
twice. Therefore `--dist` has no effect. A project without model files keeps xdist's scheduling.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import ConfigurationError
from ..integration.criterion_call import call_of
from ..integration.selection import NOT_APPLICABLE
from ..model_files import model_files
from ..platforms import select_platform

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling


def make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """A scheduler that distributes by class; None, for xdist's own, if there are no model files."""
    if not any(model_files(config)):
        return None
    from xdist.scheduler import LoadScopeScheduling

    # The workers have sorted the models that need most cards to the front; keep that order.
    config.option.loadscopereorder = False
    return LoadScopeScheduling(config, log)


def auto_workers(config: pytest.Config) -> int | None:
    """The number of workers for `-n auto`: one per usable card; None if cards cannot be counted.

    Raises:
        pytest.UsageError: there is no such platform. xdist asks before the options are read.
    """
    if not any(model_files(config)):
        return None
    try:
        cards = select_platform(config.getoption("vlm_platform")).usable_cards()
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from error
    return None if cards is None else max(cards, 1)


def largest_models_first(items: list[pytest.Item]) -> None:
    """Sorts models by the cards that they need, so that small ones use the cards that are left.

    Of models with as many cards, the one with most tests is first: a long class that starts last
    runs alone in the end.
    """
    applicable = [item for item in items if NOT_APPLICABLE not in item.stash]
    tests = Counter(call_of(item).suite_class for item in applicable)

    def sort_key(item: pytest.Item) -> tuple[int, int]:
        call = call_of(item)
        return (-call.model.devices, -tests[call.suite_class]) if call.model else (0, 0)

    items.sort(key=sort_key)

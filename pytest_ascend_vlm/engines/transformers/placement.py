"""Loads a model onto one device, or divides it among several cards."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import ConfigurationError

# The rest is for the inputs, the states between the layers, and the logits.
_SHARE_OF_WEIGHTS = 0.9


def device_names(device: str, count: int) -> tuple[str, ...]:
    """The devices of a model in torch's names: "npu:0", "npu:1".

    Args:
        device: torch's name of the platform's device; a host has one "cpu".
        count: number of cards that the model needs. A process sees its leased cards as 0 and on.
    """
    return (device,) if device == "cpu" else tuple(f"{device}:{card}" for card in range(count))


def load_onto(devices: Sequence[str], load: Callable[..., Any]) -> Any:
    """The model that `load` returns, on the devices.

    Args:
        devices: torch's names of the devices.
        load: `from_pretrained` with all arguments but those of the placement.

    Raises:
        ConfigurationError: the model has to be divided, and accelerate is not installed or does not
            keep it on these cards.
    """
    import torch

    if len(devices) == 1:
        return load().eval().to(torch.device(devices[0]))
    if importlib.util.find_spec("accelerate") is None:
        raise ConfigurationError(
            f"Transformers needs accelerate to divide a model among {', '.join(devices)}: pip "
            "install accelerate."
        )
    model = load(device_map="balanced", max_memory=_memory(torch, devices)).eval()
    cards = {torch.device(device) for device in devices}
    kind = torch.device(devices[0]).type
    places = {_device(torch, place, kind) for place in model.hf_device_map.values()}
    if elsewhere := places - cards:
        raise ConfigurationError(
            f"the weights do not fit on {', '.join(devices)}: Transformers puts a part on "
            f"{', '.join(sorted(map(str, elsewhere)))}. Declare more cards "
            "(ModelSpec(devices=...)), or stop the processes that hold memory on these cards."
        )
    return model


def _memory(torch: Any, devices: Sequence[str]) -> dict[int, int]:
    """Card -> bytes for weights. Only the named cards get any, and neither do CPU and disk."""
    cards = [torch.device(device) for device in devices]
    free = getattr(torch, cards[0].type).mem_get_info
    return {card.index: int(free(card.index)[0] * _SHARE_OF_WEIGHTS) for card in cards}


def _device(torch: Any, place: int | str, kind: str) -> Any:
    """A place of a device map, where a card may be a number, as a device; "disk" as it is."""
    if isinstance(place, int):
        return torch.device(kind, place)
    return "disk" if place == "disk" else torch.device(place)

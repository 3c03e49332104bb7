"""A model of several cards is divided among them: what is asked of Transformers, and what it did.

No card is needed. torch names the devices of a kind that is not there, and the model is a stand-in.
"""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_ascend_vlm.engines.transformers.placement import device_names, load_onto
from pytest_ascend_vlm.errors import ConfigurationError

torch = pytest.importorskip("torch")

CARDS = ("cuda:0", "cuda:1")
GIB = 1024**3


class Model:
    """Notes where it is put; `hf_device_map` is what Transformers writes into a divided model."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.device: Any = None

    def eval(self) -> Model:
        return self

    def to(self, device: Any) -> Model:
        self.device = device
        return self


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards with 60 and 50 GiB free, and accelerate."""
    free = {0: 60 * GIB, 1: 50 * GIB}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda card: (free[card], 64 * GIB))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))


def divided(*places: int | str) -> Any:
    def load(**arguments: Any) -> Model:
        model = Model(**arguments)
        model.hf_device_map = dict(enumerate(places))  # type: ignore[attr-defined]
        return model

    return load


def test_the_devices_are_the_leased_cards_as_the_process_sees_them() -> None:
    assert device_names("npu", 2) == ("npu:0", "npu:1")
    assert device_names("npu", 1) == ("npu:0",)
    assert device_names("cpu", 2) == ("cpu",)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_a_model_of_one_device_is_put_there_as_a_whole(device: str) -> None:
    model = load_onto((device,), Model)
    assert model.arguments == {}
    assert model.device == torch.device(device)


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize("places", [(0, 0, 1), ("cuda:0", "cuda:1"), (torch.device("cuda", 1), 0)])
def test_a_model_of_two_cards_gets_exactly_these(places: tuple[int | str, ...]) -> None:
    model = load_onto(CARDS, divided(*places))
    assert model.device is None
    assert model.arguments == {
        "device_map": "balanced",
        "max_memory": {0: int(54 * GIB), 1: int(45 * GIB)},
    }


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize("place", ["cpu", "disk", 2])
def test_a_part_elsewhere_is_an_error(place: int | str) -> None:
    with pytest.raises(ConfigurationError, match=r"do not fit on cuda:0, cuda:1: .*Declare more"):
        load_onto(CARDS, divided(0, 1, place))


def test_without_accelerate_nothing_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"needs accelerate .*pip install accelerate"):
        load_onto(CARDS, divided(0, 1))

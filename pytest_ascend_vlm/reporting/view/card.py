"""The model: what its checkpoint and its declaration say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..labels import CAPABILITIES, named
from ..phrase import Phrase, Text, listed, phrase
from .environment import Item
from .rows import Json, number


def card_items(model: Json) -> tuple[Item, ...]:
    """The rows of the model table: name and source, then architecture, size, tasks, weights."""
    return tuple(item for item in _items(model) if item is not None)


def _items(model: Json) -> Iterator[Item | None]:
    card = model.get("card") or {}
    name = str(model["model"])
    yield Item(phrase("model"), name.rpartition("/")[2])
    if "/" in name:
        owner = name.rpartition("/")[0]
        yield Item(phrase("source"), phrase("ModelScope or Hugging Face: {owner}", owner=owner))
    yield _item(phrase("architecture"), _architecture(card))
    yield _item(phrase("parameters"), _parameters(number(card.get("parameters"))))
    yield _item(phrase("size of the weights"), _size(number(card.get("bytes"))))
    yield _item(phrase("vision encoder"), _vision(card.get("vision") or {}))
    yield _item(phrase("language decoder"), _decoder(card.get("decoder") or {}))
    yield _item(phrase("attention heads (GQA)"), _heads(card.get("decoder") or {}))
    yield _item(phrase("position embedding (RoPE)"), _rope(card.get("rope") or {}))
    yield _item(phrase("largest context"), _tokens(card.get("max_position_embeddings")))
    yield _item(phrase("precision"), card.get("dtype"))
    yield _item(phrase("supported tasks"), _tasks(model.get("supports") or ()))
    yield _item(phrase("revision"), model.get("revision"))
    yield _item(phrase("weights (sha256)"), model.get("weights_sha256"))


def _item(name: Phrase, value: Text | None) -> Item | None:
    return Item(name, value) if value else None


def _architecture(card: Json) -> str | None:
    name, kind = card.get("architecture"), card.get("model_type")
    return f"{name} ({kind})" if name and kind else name


def _parameters(count: float | None) -> Text | None:
    if not count:
        return None
    shown = f"{count / 1e9:.2f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"
    return phrase("{shown} ({count:,.0f}, counted)", shown=shown, count=count)


def _size(size: float | None) -> Text | None:
    if not size:
        return None
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def _vision(vision: Json) -> Text | None:
    return _joined(
        vision,
        layers=phrase("{value} layers"),
        hidden_size=phrase("width {value}"),
        heads=phrase("{value} heads"),
        patch_size=phrase("patch {value}"),
        image_size=phrase("image {value}"),
    )


def _decoder(decoder: Json) -> Text | None:
    return _joined(
        decoder,
        model_type=phrase("{value}"),
        layers=phrase("{value} layers"),
        hidden_size=phrase("width {value}"),
        head_dim=phrase("head width {value}"),
        vocabulary=phrase("vocabulary {value}"),
    )


def _heads(decoder: Json) -> Text | None:
    return _joined(decoder, heads=phrase("{value} heads"), kv_heads=phrase("{value} KV heads"))


def _rope(rope: Json) -> Text | None:
    return _joined(
        {**rope, **({"theta": f"{theta:g}"} if (theta := number(rope.get("theta"))) else {})},
        type=phrase("{value}"),
        mrope_section=phrase("mRoPE {value}"),
        theta=phrase("theta {value}"),
        factor=phrase("factor {value}"),
    )


def _tokens(value: Any) -> Text | None:
    return phrase("{count} tokens", count=value) if value else None


def _tasks(supports: Iterable[str]) -> Text | None:
    return listed(*(named(CAPABILITIES, name) for name in supports))


def _joined(found: Json, **parts: Phrase) -> Text | None:
    return listed(*(part.of(value=found[name]) for name, part in parts.items() if found.get(name)))

"""Faults of the vision tower: what it computes when a picture is cold, of every size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from ..fault import ANY, GLM, INTERNVL, MINERU, QWEN2_5, QWEN3, WITH_MROPE, Kind
from .hooks import Change, EngineFault, Hook

_MODELS = "vllm.model_executor.models"
_CLASSES = {
    MINERU: "qwen2_vl:Qwen2VLForConditionalGeneration",
    QWEN2_5: "qwen2_5_vl:Qwen2_5_VLForConditionalGeneration",
    QWEN3: "qwen3_vl:Qwen3VLForConditionalGeneration",
    GLM: "glm4_1v:Glm4vForConditionalGeneration",
    INTERNVL: "interns1:InternS1ForConditionalGeneration",
}
"""Tiny checkpoint -> module and class of vLLM; its `embed_multimodal` encodes pictures."""

_TOWERS = {
    MINERU: "qwen2_vl:Qwen2VisionTransformer",
    QWEN2_5: "qwen2_5_vl:Qwen2_5_VisionTransformer",
    QWEN3: "qwen3_vl:Qwen3_VisionTransformer",
}
"""Tiny checkpoint -> module and class of its vision tower."""

MANY_TOKENS = 256
MANY_WINDOWS = 16
MANY_PATCHES = 32
_STRENGTH = 0.05

Pictures = list[Any]
"""One tensor of embeddings for each picture or clip of a call."""


def of_models(models: Iterable[str], method: str, change: Change) -> tuple[Hook, ...]:
    """The same change of a method in the classes of several models."""
    return _hooks([_CLASSES[model] for model in models], method, change)


def _hooks(classes: Iterable[str], method: str, change: Change) -> tuple[Hook, ...]:
    named = [one.split(":") for one in classes]
    return tuple(Hook(f"{_MODELS}.{module}", f"{name}.{method}", change) for module, name in named)


def embeddings(change: Callable[[Pictures], Pictures | None]) -> tuple[Hook, ...]:
    """Hooks that change the embeddings of a call; None leaves them as they are."""

    def changed(
        sound: Callable[..., Any], acts: Callable[[], None], model: Any, **inputs: Any
    ) -> Any:
        pictures = sound(model, **inputs)
        wrong = change(list(pictures)) if pictures is not None and len(pictures) else None
        if wrong is None:
            return pictures
        acts()
        return tuple(wrong)

    return of_models(ANY, "embed_multimodal", changed)


def _sequences(change: Callable[[list[int]], list[int]], key: str = "cu_seqlens") -> Change:
    """Changes where the sequences of the tower's attention begin and end."""

    def changed(
        sound: Callable[..., Any], acts: Callable[[], None], tower: Any, *grid: Any, **options: Any
    ) -> Any:
        metadata = sound(tower, *grid, **options)
        borders = metadata[key].tolist()
        wrong = change(borders)
        if wrong == borders:
            return metadata
        acts()
        return {**metadata, key: metadata[key].new_tensor(wrong)}

    return changed


def _attention(change: Callable[[list[int]], list[int]]) -> tuple[Hook, ...]:
    return _hooks(_TOWERS.values(), "prepare_encoder_metadata", _sequences(change))


# --- what is wrong -------------------------------------------------------------------------------


def noisy(picture: Any, strength: float, seed: int) -> Any:
    """Adds noise with a standard deviation of `strength` x the RMS of the embeddings."""
    import torch

    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))
    size = picture.float().square().mean().sqrt()
    return picture + (strength * size * noise.to(picture.device)).to(picture.dtype)


def _fresh(strength: float) -> Callable[[Pictures], Pictures]:
    """Noise that differs from call to call."""

    def change(pictures: Pictures) -> Pictures:
        return [noisy(one, strength, int.from_bytes(os.urandom(4), "little")) for one in pictures]

    return change


def _constant(pictures: Pictures) -> Pictures:
    """Noise that depends on the number of tokens alone."""
    return [noisy(one, _STRENGTH, len(one)) for one in pictures]


def _of_one_shape(pictures: Pictures) -> bool:
    return len(pictures) > 1 and len({tuple(one.shape) for one in pictures}) == 1


def _exchange(pictures: Pictures) -> Pictures | None:
    return [*pictures[1:], pictures[0]] if _of_one_shape(pictures) else None


def _repeat_first(pictures: Pictures) -> Pictures | None:
    """The first picture's embeddings for all, as many rows as each has."""
    if len(pictures) == 1:
        return None
    first = pictures[0]
    return [first[[row % len(first) for row in range(len(one))]] for one in pictures]


def _ordered_by_size(pictures: Pictures) -> Pictures | None:
    """The largest picture's rows come first, and are cut where the pictures in order are cut."""
    import torch

    largest_first = sorted(pictures, key=len, reverse=True)
    if list(map(len, largest_first)) == list(map(len, pictures)):
        return None
    return list(torch.cat(largest_first).split([len(one) for one in pictures]))


def _blank_third(pictures: Pictures) -> Pictures | None:
    if len(pictures) <= 2:
        return None
    return [*pictures[:2], *(one.new_zeros(one.shape) for one in pictures[2:])]


def _if_several(pictures: Pictures) -> Pictures | None:
    return _constant(pictures) if len(pictures) > 1 else None


def _stale() -> Callable[[Pictures], Pictures | None]:
    """A lone picture gets the embeddings of the last one, if that has as many tokens."""
    last: Pictures = []

    def change(pictures: Pictures) -> Pictures | None:
        before = last[:]
        last[:] = pictures
        fits = [tuple(one.shape) for one in before] == [tuple(one.shape) for one in pictures]
        return before if len(pictures) == 1 and fits else None

    return change


def _first_of_a_size() -> Callable[[Pictures], Pictures | None]:
    """Strong noise for the first picture of each number of tokens."""
    known: set[int] = set()

    def change(pictures: Pictures) -> Pictures | None:
        new = [len(one) not in known for one in pictures]
        known.update(len(one) for one in pictures)
        if not any(new):
            return None
        pairs = zip(pictures, new, strict=True)
        return [noisy(one, 1.0, len(one)) if is_new else one for one, is_new in pairs]

    return change


def _if_large(pictures: Pictures) -> Pictures | None:
    noisy = _constant(pictures)
    large = [len(one) > MANY_TOKENS for one in pictures]
    if not any(large):
        return None
    return [noisy[i] if is_large else pictures[i] for i, is_large in enumerate(large)]


def _not_cumulative(borders: list[int]) -> list[int]:
    """Every sequence is taken to be as long as the first one."""
    length, end = borders[1], borders[-1]
    return [*range(0, end, length), end] if length else borders


def _one_sequence(borders: list[int]) -> list[int]:
    return [0, borders[-1]]


def _last_windows_joined(borders: list[int]) -> list[int]:
    """All windows behind the first `MANY_WINDOWS` are one."""
    return (
        [*borders[: MANY_WINDOWS + 1], borders[-1]] if len(borders) > MANY_WINDOWS + 2 else borders
    )


def _sides_exchanged(
    sound: Callable[..., Any], acts: Callable[[], None], model: Any, **inputs: Any
) -> Any:
    grid = inputs.get("image_grid_thw")
    if grid is None or not (grid[:, 1] != grid[:, 2]).any():
        return sound(model, **inputs)
    acts()
    return sound(model, **{**inputs, "image_grid_thw": grid[:, [0, 2, 1]]})


def _positions_end(
    sound: Callable[..., Any], acts: Callable[[], None], embedding: Any, length: int
) -> Any:
    """Rotary positions beyond `MANY_PATCHES` repeat the last one."""
    cos, sin = sound(embedding, length)
    if length <= MANY_PATCHES:
        return cos, sin
    acts()
    rows = [min(row, MANY_PATCHES - 1) for row in range(length)]
    return cos[rows], sin[rows]


def _rounded_down(
    sound: Callable[..., tuple[int, int]],
    acts: Callable[[], None],
    height: int,
    width: int,
    factor: int = 28,
    **limits: int,
) -> tuple[int, int]:
    right = sound(height, width, factor, **limits)
    down = (max(height // factor, 1) * factor, max(width // factor, 1) * factor)
    wrong = sound(*down, factor, **limits)
    if wrong != right:
        acts()
    return wrong


def _hash_of_size(
    sound: Callable[..., str], acts: Callable[[], None], hasher: Any, algorithm: Any, **items: Any
) -> str:
    """A picture's key in all caches is made of its size alone."""
    from PIL import Image

    def key(item: Any) -> Any:
        picture = getattr(item, "media", item)
        if not isinstance(picture, Image.Image):
            return item
        acts()
        return str(picture.size)

    return sound(hasher, algorithm, **{name: key(item) for name, item in items.items()})


_QWEN = tuple(_TOWERS)
_BATCH = ("determinism.batched_images",)
_IMAGES = ("numerics.images",)


FAULTS = (
    EngineFault(
        name="tower-noise-5",
        kind=Kind.COLD,
        what="each call of the vision tower adds fresh noise of 5 % to the embeddings",
        hooks=embeddings(_fresh(0.05)),
        caught_by=("determinism.cold", "numerics.images"),
        suspect="vision tower",
    ),
    EngineFault(
        name="tower-noise-1",
        kind=Kind.COLD,
        what="each call of the vision tower adds fresh noise of 1 % to the embeddings",
        hooks=embeddings(_fresh(0.01)),
        caught_by=("determinism.cold",),
        suspect="vision tower",
    ),
    EngineFault(
        name="embeddings-exchanged",
        kind=Kind.COLD,
        what="pictures of one size that are encoded in one call get each other's embeddings",
        hooks=embeddings(_exchange),
        caught_by=_BATCH,
        suspect="images encoded together",
    ),
    EngineFault(
        name="first-picture-for-all",
        kind=Kind.COLD,
        what="every picture of a call gets the embeddings of the call's first one",
        hooks=embeddings(_repeat_first),
        caught_by=_BATCH,
        suspect="images encoded together",
    ),
    EngineFault(
        name="embeddings-ordered-by-size",
        kind=Kind.COLD,
        what="a call encodes its largest picture first, and nobody restores the order",
        hooks=embeddings(_ordered_by_size),
        caught_by=_BATCH,
        suspect="images encoded together",
    ),
    EngineFault(
        name="third-picture-blank",
        kind=Kind.COLD,
        what="of the pictures of a call only the first two are encoded",
        hooks=embeddings(_blank_third),
        caught_by=_BATCH,
        suspect="images encoded together",
    ),
    EngineFault(
        name="noise-if-several",
        kind=Kind.COLD,
        what="pictures that are encoded with others in one call get noise of 5 %",
        hooks=embeddings(_if_several),
        caught_by=_BATCH,
        suspect="images encoded together",
    ),
    EngineFault(
        name="attention-across-pictures",
        kind=Kind.COLD,
        what="the tower's attention does not stop at the border between two pictures of a call",
        hooks=_attention(_one_sequence),
        caught_by=_BATCH,
        suspect="images encoded together",
        models=_QWEN,
    ),
    EngineFault(
        name="lengths-not-cumulative",
        kind=Kind.COLD,
        what="the tower's attention takes each picture of a call to be as long as the first",
        hooks=_attention(_not_cumulative),
        caught_by=_BATCH,
        suspect="images encoded together",
        models=_QWEN,
    ),
    EngineFault(
        name="stale-embedding",
        kind=Kind.COLD,
        what="a picture gets the embeddings of the last one that has as many tokens",
        hooks=embeddings(_stale()),
        caught_by=("baseline.image", "determinism.batched_images"),
        suspect="caches",
    ),
    EngineFault(
        name="cache-key-without-pixels",
        kind=Kind.COLD,
        what="pictures of one size share their key in the caches of processor, tower and prompt",
        hooks=(Hook("vllm.multimodal.hasher", "MultiModalHasher.hash_kwargs", _hash_of_size),),
        # A cold request names each picture, so its key in the caches is not the hash.
        caught_by=("determinism.prefix_cache",),
        suspect="caches",
    ),
    EngineFault(
        name="noise-above-256-tokens",
        kind=Kind.SIZE,
        what="pictures of more than 256 tokens get noise of 5 %",
        hooks=embeddings(_if_large),
        caught_by=_IMAGES,
        suspect="vision tower",
    ),
    EngineFault(
        name="first-of-a-size-garbled",
        kind=Kind.SIZE,
        what="the first picture of each number of tokens is garbled (noise of 100 %)",
        hooks=embeddings(_first_of_a_size()),
        caught_by=("serving.largest_image",),
        suspect="vision tower",
    ),
    EngineFault(
        name="window-mask-above-16",
        kind=Kind.SIZE,
        what="the window attention joins all windows of a call behind its 16th",
        hooks=_hooks(
            [_TOWERS[QWEN2_5]],
            "prepare_encoder_metadata",
            _sequences(_last_windows_joined, "cu_window_seqlens"),
        ),
        caught_by=_IMAGES,
        suspect="vision tower",
        models=(QWEN2_5,),
    ),
    EngineFault(
        name="grid-sides-exchanged",
        kind=Kind.SIZE,
        what="the tower takes the height of a picture's grid for its width",
        hooks=of_models(WITH_MROPE, "embed_multimodal", _sides_exchanged),
        caught_by=_IMAGES,
        suspect="places of images",
        models=WITH_MROPE,
    ),
    EngineFault(
        name="positions-end-at-32-patches",
        kind=Kind.SIZE,
        what="the tower's positions stop growing at 32 patches (448 pixels) of a side",
        hooks=(
            Hook(
                "vllm.model_executor.layers.rotary_embedding.base",
                "RotaryEmbeddingBase.get_cos_sin",
                _positions_end,
            ),
        ),
        caught_by=_IMAGES,
        suspect="vision tower",
        models=WITH_MROPE,
    ),
    EngineFault(
        name="sides-rounded-down",
        kind=Kind.SIZE,
        what="the processor rounds the sides of a picture down to whole patches",
        hooks=(
            Hook(
                "transformers.models.qwen2_vl.image_processing_qwen2_vl",
                "smart_resize",
                _rounded_down,
            ),
        ),
        caught_by=("baseline.prompt", "serving.image_sizes"),
        suspect="preprocessing",
        models=_QWEN,
    ),
)

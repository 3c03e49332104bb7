"""Faults of reading files: pictures of several formats, and the frames of clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from ..fault import INTERNVL, QWEN2_5, QWEN3, Kind
from .hooks import EngineFault, Hook
from .tower import of_models

_IMAGE = "vllm.multimodal.image"
_ORIENTATION = 0x0112
_PATCH = 28

Picture = Any
"""A picture of Pillow."""

Frames = Any
"""An array of frames x height x width x channels."""


def _pictures(change: Callable[[Picture, bytes], Picture]) -> tuple[Hook, ...]:
    """Changes pictures after they were decoded and converted to RGB; the file's bytes help."""

    def changed(
        sound: Callable[..., Any], acts: Callable[[], None], reader: Any, data: bytes
    ) -> Any:
        loaded = sound(reader, data)
        wrong = change(loaded.media, data)
        if wrong.tobytes() == loaded.media.tobytes():
            return loaded
        acts()
        return dataclasses.replace(loaded, media=wrong)

    return (Hook("vllm.multimodal.media.image", "ImageMediaIO.load_bytes", changed),)


def _converted(mode: str, change: Callable[[Picture], Picture]) -> tuple[Hook, ...]:
    """Changes pictures of one mode before they are converted to RGB."""

    def changed(
        sound: Callable[..., Picture], acts: Callable[[], None], picture: Picture, *how: Any
    ) -> Picture:
        if picture.mode != mode:
            return sound(picture, *how)
        acts()
        return sound(change(picture), *how)

    return (Hook(_IMAGE, "convert_image_mode", changed),)


def _clips(change: Callable[[Frames], Frames]) -> tuple[Hook, ...]:
    """Changes the frames of clips, and neither their number nor what is said of them."""

    def changed(
        sound: Callable[..., Any], acts: Callable[[], None], reader: Any, data: bytes
    ) -> Any:
        loaded = sound(reader, data)
        frames, about = loaded.media
        wrong = change(frames)
        if (wrong == frames).all():
            return loaded
        acts()
        return dataclasses.replace(loaded, media=(wrong, about))

    return (Hook("vllm.multimodal.media.video", "VideoMediaIO.load_bytes", changed),)


# --- what is wrong -------------------------------------------------------------------------------


def _not_turned(
    sound: Callable[..., Picture],  # noqa: ARG001
    acts: Callable[[], None],
    picture: Picture,
) -> Picture:
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        acts()
    return picture


def _on_black(
    sound: Callable[..., Picture],
    acts: Callable[[], None],
    picture: Picture,
    background: Any = None,  # noqa: ARG001
) -> Picture:
    if picture.getextrema()[3][0] < 255:
        acts()
    return sound(picture, (0, 0, 0))


def _low_byte(picture: Picture) -> Picture:
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(picture) % 256).astype(np.uint8))


def _inverted(picture: Picture) -> Picture:
    from PIL import ImageChops

    return ImageChops.invert(picture)


def _indices_as_grey(picture: Picture) -> Picture:
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.asarray(picture).copy())


def _red_for_blue(picture: Picture, _data: bytes) -> Picture:
    from PIL import Image

    red, green, blue = picture.split()
    return Image.merge("RGB", (blue, green, red))


def _coarse(picture: Picture) -> Picture:
    """The picture at half of its resolution, at its own size."""
    width, height = picture.size
    return picture.reduce(2).resize((width, height))


def _coarse_jpeg(picture: Picture, data: bytes) -> Picture:
    return _coarse(picture) if data.startswith(b"\xff\xd8") else picture


def _cropped(picture: Picture, _data: bytes) -> Picture:
    """Cuts off what does not fill a patch."""
    width, height = (max(side // _PATCH, 1) * _PATCH for side in picture.size)
    return picture.crop((0, 0, width, height))


async def _coarse_download(
    sound: Callable[..., Awaitable[Any]],
    acts: Callable[[], None],
    connector: Any,
    url: str,
    *how: Any,
    **options: Any,
) -> Any:
    loaded = await sound(connector, url, *how, **options)
    if not url.startswith("http") or not hasattr(loaded.media, "reduce"):
        return loaded
    acts()
    return dataclasses.replace(loaded, media=_coarse(loaded.media))


def _reversed(frames: Frames) -> Frames:
    return frames[::-1].copy()


def _first_repeated(frames: Frames) -> Frames:
    return frames[[0] * len(frames)]


def _every_second_lost(frames: Frames) -> Frames:
    return frames[[index - index % 2 for index in range(len(frames))]]


def _neighbours_exchanged(frames: Frames) -> Frames:
    return frames[[min(index ^ 1, len(frames) - 1) for index in range(len(frames))]]


def _end_lost(frames: Frames) -> Frames:
    half = len(frames) // 2
    return frames[[min(index, half) for index in range(len(frames))]]


def _doubled_in_text(
    sound: Callable[..., list[float]], acts: Callable[[], None], *arguments: Any, **named: Any
) -> list[float]:
    acts()
    return [2 * second for second in sound(*arguments, **named)]


def _doubled_in_positions(
    sound: Callable[..., Any], acts: Callable[[], None], model: Any, features: Any
) -> Iterator[tuple[int, int, int, int, float]]:
    for offset, frames, height, width, per_frame in sound(model, features):
        if frames > 1:
            acts()
        yield offset, frames, height, width, per_frame * (2 if frames > 1 else 1)


_READS_CLIPS = (QWEN2_5, QWEN3, INTERNVL)
_FORMATS = ("serving.formats",)
_CLIPS = ("numerics.clips",)


def _clip(name: str, what: str, change: Callable[[Frames], Frames]) -> EngineFault:
    return EngineFault(
        name=name,
        kind=Kind.CLIPS,
        what=what,
        hooks=_clips(change),
        caught_by=_CLIPS,
        suspect="frames of clips",
        models=_READS_CLIPS,
    )


def _format(name: str, what: str, hooks: tuple[Hook, ...]) -> EngineFault:
    return EngineFault(
        name=name,
        kind=Kind.FORMATS,
        what=what,
        hooks=hooks,
        caught_by=_FORMATS,
        suspect="picture bytes",
    )


FAULTS = (
    _format(
        "exif-ignored",
        "a photo is not turned as its EXIF data says",
        (Hook(_IMAGE, "normalize_image", _not_turned),),
    ),
    _format(
        "transparent-black",
        "transparent pixels are read as black",
        (Hook(_IMAGE, "rgba_to_rgb", _on_black),),
    ),
    _format(
        "sixteen-bit-low-byte",
        "of pixels of 16 bits the low byte is read",
        _converted("I;16", _low_byte),
    ),
    _format(
        "cmyk-inverted",
        "the colours of CMYK pictures are inverted",
        _converted("CMYK", _inverted),
    ),
    _format(
        "palette-as-grey",
        "the indices of a palette are read as grey levels",
        _converted("P", _indices_as_grey),
    ),
    _format(
        "jpeg-at-half-resolution",
        "JPEG files are decoded at half of their resolution",
        _pictures(_coarse_jpeg),
    ),
    EngineFault(
        name="red-for-blue",
        kind=Kind.FORMATS,
        what="red and blue of every picture are exchanged",
        hooks=_pictures(_red_for_blue),
        caught_by=("numerics.images",),
        suspect="preprocessing",
    ),
    EngineFault(
        name="downloads-at-half-resolution",
        kind=Kind.FORMATS,
        what="pictures of http addresses are read at half of their resolution",
        hooks=(
            Hook(
                "vllm.multimodal.media.connector",
                "MediaConnector.load_from_url_async",
                _coarse_download,
            ),
        ),
        caught_by=("serving.urls",),
        suspect="picture bytes",
    ),
    EngineFault(
        name="cropped-to-patches",
        kind=Kind.SIZE,
        what="a picture is cropped to whole patches instead of resized",
        hooks=_pictures(_cropped),
        caught_by=("numerics.images",),
        suspect="preprocessing",
    ),
    _clip("clip-reversed", "the frames of a clip are in reverse order", _reversed),
    _clip("clip-first-repeated", "every frame of a clip is its first one", _first_repeated),
    _clip(
        "clip-every-second-lost",
        "every second frame of a clip is replaced by the one before",
        _every_second_lost,
    ),
    _clip(
        "clip-neighbours-exchanged",
        "the frames of a clip change places in pairs",
        _neighbours_exchanged,
    ),
    _clip("clip-end-lost", "the second half of a clip is its middle frame", _end_lost),
    EngineFault(
        name="clip-time-doubled",
        kind=Kind.CLIPS,
        what="the time between two frames of a clip is doubled",
        hooks=(
            Hook(
                "vllm.model_executor.models.qwen3_vl",
                "Qwen3VLProcessingInfo._get_video_second_idx",
                _doubled_in_text,
            ),
            *of_models([QWEN2_5], "iter_mm_grid_thw", _doubled_in_positions),
        ),
        caught_by=_CLIPS,
        suspect="frames of clips",
        models=(QWEN3, QWEN2_5),
    ),
)

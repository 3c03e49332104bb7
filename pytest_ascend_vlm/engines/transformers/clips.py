"""Reads every frame of a video file, with the time of each, for a processor of Transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class Clip:
    """The frames of a video.

    Attributes:
        frames: shape (frames, height, width, 3), RGB.
        frames_a_second: the frame rate.
    """

    frames: npt.NDArray[np.uint8]
    frames_a_second: float

    @property
    def metadata(self) -> dict[str, Any]:
        """Number and times of the frames, as processors get them with frames that were sampled."""
        count = len(self.frames)
        return {
            "total_num_frames": count,
            "fps": self.frames_a_second,
            "duration": count / self.frames_a_second,
            "frames_indices": list(range(count)),
            "video_backend": "opencv",
        }


def read_clip(path: Path) -> Clip:
    """Reads a video file with OpenCV, like vLLM.

    Raises:
        ConfigurationError: OpenCV is not installed, or cannot read the file.
    """
    try:
        import cv2
    except ImportError as error:
        raise ConfigurationError(
            f"the reference engine needs OpenCV for {path.name} ({error}); install it with "
            "pip install opencv-python-headless."
        ) from error
    capture = cv2.VideoCapture(str(path))
    try:
        frames = [cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in _frames(capture)]
        frames_a_second = capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    if not frames or frames_a_second <= 0:
        raise ConfigurationError(
            f"OpenCV reads {len(frames)} frames at {frames_a_second:g} a second from {path}. Check "
            "that the file is a video whose codec this OpenCV knows."
        )
    return Clip(np.stack(frames), frames_a_second)


def _frames(capture: Any) -> Iterator[Any]:
    while True:
        is_read, frame = capture.read()
        if not is_read:
            return
        yield frame

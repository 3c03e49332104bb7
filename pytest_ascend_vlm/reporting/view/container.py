"""The command that starts the container of an NPU run, as vllm-ascend's documentation writes it."""

from __future__ import annotations

import shlex

from .rows import Json

_DEVICES = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
_DRIVER = (
    "/usr/local/dcmi",
    "/usr/local/bin/npu-smi",
    "/usr/local/Ascend/driver/lib64/",
    "/usr/local/Ascend/driver/version.info",
    "/etc/ascend_install.info",
)
_CACHE = "/root/.cache"


def docker_run(receipt: Json, cards: int) -> str:
    """The command for bash; empty if the image is unknown, or no card was leased.

    Args:
        receipt: the receipt of the run.
        cards: number of cards that the model was served on.
    """
    image = (receipt.get("environment") or {}).get("image")
    if not image or not cards or receipt["platform"] != "npu":
        return ""
    devices = [*(f"/dev/davinci{card}" for card in range(cards)), *_DEVICES]
    lines = [
        "docker run --rm -it --shm-size=16g --net=host",
        *(f"--device {device}" for device in devices),
        *(f"-v {path}:{path}" for path in (*_DRIVER, _CACHE)),
        "$IMAGE bash",
    ]
    return f"export IMAGE={shlex.quote(str(image))}\n" + " \\\n  ".join(lines)

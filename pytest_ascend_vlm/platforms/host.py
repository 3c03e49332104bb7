"""The software of this host: Python, the operating system, and the container's image."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

# Podman writes the image into this file of a privileged container. Docker tells it nowhere.
CONTAINER_FILE = Path("/run/.containerenv")
IMAGE_VARIABLE = "IMAGE"
"""The variable of vllm-ascend's documents for the image; `docker run --env IMAGE` passes it on."""

_IMAGE = re.compile(r"[\w.-]+(?::\d+)?(?:/[\w.-]+)+(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?")


def python_version() -> str:
    """The version of this Python, which runs the servers too: "3.11.9"."""
    return platform.python_version()


def operating_system() -> str:
    """The distribution and the machine: "Ubuntu 22.04.5 LTS, aarch64"."""
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = f"{platform.system()} {platform.release()}"
    return f"{name}, {platform.machine()}"


def container_image() -> str | None:
    """The image of this container with its registry, or None if nothing tells it."""
    try:
        text = CONTAINER_FILE.read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    written = re.search(r'^image="(.+)"$', text, re.MULTILINE)
    stated = written[1] if written else os.environ.get(IMAGE_VARIABLE, "")
    return stated if _IMAGE.fullmatch(stated) else None

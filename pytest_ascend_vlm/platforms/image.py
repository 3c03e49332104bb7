"""The container image in which this process runs, as far as it can be told from inside."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
IMAGE_VARIABLE = "IMAGE"
"""The variable of vllm-ascend's documents for the image; `docker run --env IMAGE` passes it on."""

_NAME = re.compile(r"[\w.-]+(?::\d+)?(?:/[\w.-]+)+(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?")
_BUILT_FOR = re.compile(r"^__(?:device_type|soc_version)__ *= *['\"](\S+)['\"]", re.MULTILINE)


def image_name() -> str | None:
    """The image of this container with its registry, or None if nothing tells it.

    Only Podman writes it into its containers. For others, the caller may state it.
    """
    name = _written_name() or os.environ.get(IMAGE_VARIABLE, "")
    return name if _NAME.fullmatch(name) else None


def is_verified() -> bool:
    """True if the container itself tells its image; what the caller states may be another."""
    return _written_name() is not None and image_name() is not None


def _written_name() -> str | None:
    written = re.search(r'^image="(.+)"$', _text("run/.containerenv"), re.MULTILINE)
    return written[1] if written else None


def image_lines() -> list[str]:
    """The image's name or the kind of the container, and what the image was built for."""
    return [_container(), *_built()]


def _container() -> str:
    """The image's name, or the kind of the container and where its image is shown."""
    if (name := image_name()) is not None:
        return name
    if (ROOT / "run/.containerenv").exists():
        return "a container of Podman, which does not show the image's name"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "a container of Kubernetes: kubectl get pod shows the image's name"
    if (ROOT / ".dockerenv").exists():
        return "a container of Docker: docker ps on the host shows the image's name"
    return "no container was recognized"


def _built() -> Iterator[str]:
    if system := re.search(r'^PRETTY_NAME="?([^"\n]+)', _text("etc/os-release"), re.MULTILINE):
        yield f"system: {system[1]}"
    spec = importlib.util.find_spec("vllm_ascend")
    if spec is None or spec.origin is None:
        return
    text = _read(Path(spec.origin).with_name("_build_info.py"))
    if built_for := _BUILT_FOR.search(text):
        yield f"vllm-ascend is built for {built_for[1]}"


def _text(name: str) -> str:
    return _read(ROOT / name)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""

"""The container image in which this process runs, as far as it can be told from inside."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
_BUILT_FOR = re.compile(r"^__(?:device_type|soc_version)__ *= *['\"](\S+)['\"]", re.MULTILINE)


def image_lines() -> list[str]:
    """The image's name or the kind of the container, and what the image was built for."""
    return [_container(), *_built()]


def _container() -> str:
    """The image's name, which only Podman writes into its containers."""
    if named := re.search(r'^image="(.+)"$', _text("run/.containerenv"), re.MULTILINE):
        return named[1]
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

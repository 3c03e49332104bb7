"""Makes PyTorch's companion packages importable beside a CPU build of PyTorch.

For `torch==2.13.0+cpu` the package index offers only CUDA builds of torchvision, torchaudio and
torchcodec. Importing such a torchvision fails, because its native library did not register two
operators. Importing the other two fails, because their native libraries cannot be loaded. But vLLM
and Transformers import all three if they are installed. `install()` adds a finder to
`sys.meta_path`. Only if the import of one of them fails, it

* declares the two operators (the suite never calls them) and imports torchvision again;
* leaves torchaudio and torchcodec as empty modules (the suite uses no audio).

It changes nothing if the builds match, as with PyTorch's own CPU index or on an Ascend host. Server
processes run `install()` through `site/sitecustomize.py`: see `child_pythonpath`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_SITE = Path(__file__).parent / "site"
_AUDIO_PACKAGES = frozenset({"torchaudio", "torchcodec"})
_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def install() -> None:
    """Adds the finder to this process, unless it is there already."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def child_pythonpath(inherited: str | None) -> str:
    """The PYTHONPATH with which a Python process and its children run `install`."""
    return os.pathsep.join([str(_SITE), *([inherited] if inherited else [])])


class _Finder(MetaPathFinder):
    """Wraps the loaders of the three packages."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname not in {"torchvision", *_AUDIO_PACKAGES} or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _TolerantLoader(spec.loader)
        return spec


class _TolerantLoader(Loader):
    """Executes a package, and repairs the failure of a CUDA build beside a CPU build of torch."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            _forget_submodules(module.__name__)
            _declare_operators()
            self._loader.exec_module(module)
        except OSError:
            if module.__name__ not in _AUDIO_PACKAGES:
                raise
            _forget_submodules(module.__name__)
            module.__path__ = []  # importing a submodule now raises ImportError


def _declare_operators() -> None:
    import torch

    for name in _OPERATORS:
        with contextlib.suppress(RuntimeError):  # the native library may have declared one
            torch.library.define(f"torchvision::{name}", _SCHEMA)


def _forget_submodules(package: str) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        del sys.modules[name]

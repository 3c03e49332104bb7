"""Wraps functions of vLLM and Transformers while a served process imports them."""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from ..fault import Fault, Place
from ..marks import Marks

FAULTS_VARIABLE = "VLM_FAULTS"
"""Environment variable: the names of the faults of a process, separated by commas."""

MARKS_VARIABLE = "VLM_FAULT_MARKS"
"""Environment variable: the directory of their marks."""

Change = Callable[..., Any]
"""Called instead of a function, with that function, with `acts` and with the arguments.

It calls `acts()` when the fault makes a difference for the first time in a call.
"""


@dataclass(frozen=True)
class Hook:
    """A function that a fault changes.

    Attributes:
        module: the module's full name.
        function: the function's name in it, `Class.method` for a method.
        change: what is called instead.
    """

    module: str
    function: str
    change: Change


@dataclass(frozen=True, kw_only=True)
class EngineFault(Fault):
    """A fault in the code of the served process.

    Attributes:
        hooks: the functions that it changes. A served model reaches at least one of them.
    """

    place: ClassVar[Place] = Place.ENGINE

    hooks: tuple[Hook, ...]


def environment(names: Iterable[str], marks: Marks, inherited: str | None) -> dict[str, str]:
    """The environment variables with which a Python process and its children have faults.

    Args:
        names: the faults' names.
        marks: gets the marks of these faults.
        inherited: the PYTHONPATH so far.
    """
    site = str(Path(__file__).parents[1] / "site")
    return {
        FAULTS_VARIABLE: ",".join(names),
        MARKS_VARIABLE: str(marks.directory),
        "PYTHONPATH": os.pathsep.join([site, *([inherited] if inherited else [])]),
    }


def install(faults: Iterable[EngineFault]) -> None:
    """Puts the faults that the environment names into this process."""
    named = os.environ.get(FAULTS_VARIABLE, "").split(",")
    chosen = [fault for fault in faults if fault.name in named]
    if chosen:
        sys.meta_path.insert(0, _Finder(chosen, Marks(Path(os.environ[MARKS_VARIABLE]))))


class _Finder(importlib.abc.MetaPathFinder):
    """Wraps the loaders of the modules with hooks."""

    def __init__(self, faults: Sequence[EngineFault], marks: Marks) -> None:
        self._faults = faults
        self._marks = marks
        self._searched: set[str] = set()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        hooks = [
            (fault.name, hook)
            for fault in self._faults
            for hook in fault.hooks
            if hook.module == fullname
        ]
        if not hooks or fullname in self._searched:
            return None
        self._searched.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searched.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, hooks, self._marks)
        return spec


class _Loader(importlib.abc.Loader):
    """Executes a module and then wraps functions of it."""

    def __init__(
        self, loader: importlib.abc.Loader, hooks: Sequence[tuple[str, Hook]], marks: Marks
    ) -> None:
        self._loader = loader
        self._hooks = hooks
        self._marks = marks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for fault, hook in self._hooks:
            wrap(module, fault, hook, self._marks)


def wrap(module: ModuleType, fault: str, hook: Hook, marks: Marks) -> None:
    """Wraps a function of a module.

    A function that this version of the library does not have is left out. The fault is then never
    marked as reached, and the benchmark reports it.
    """
    *path, name = hook.function.split(".")
    try:
        owner = functools.reduce(getattr, path, module)
        declared = inspect.getattr_static(owner, name)
    except AttributeError:
        return
    descriptor = type(declared) if isinstance(declared, (classmethod, staticmethod)) else None
    sound = declared.__func__ if descriptor else declared

    @functools.wraps(sound)
    def changed(*arguments: Any, **named: Any) -> Any:
        marks.reached(fault)
        return hook.change(sound, functools.partial(marks.acted, fault), *arguments, **named)

    setattr(owner, name, descriptor(changed) if descriptor else changed)

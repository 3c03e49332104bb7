"""What the driver sends to a host, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ..session.options import Options
from ..spec.model import ModelSpec

_PATH = "path of this file system"
"""The key of a path, which JSON has no type for."""

Message = Mapping[str, Any]
"""One line of JSON from a host, of one kind:

  {"report": ...}  a test's report, serialized by pytest
  {"event": ...}   an event, as a worker of xdist sends it
  {"ended": text}  the last one: the exit code of the test process and the end of its output
"""


@dataclass(frozen=True)
class Question:
    """A question about a host.

    Attributes:
        options: the options of the run.
        fixtures: the project's directory of cases, relative to its root.
        models: the models whose weights are needed.
        digests: True if the files of the engines are compared with their releases.
    """

    options: Options
    fixtures: str
    models: tuple[ModelSpec, ...]
    digests: bool


@dataclass(frozen=True)
class Work:
    """Tests of one class for the test process of a host, which gets it as a text.

    Attributes:
        suite_class: the node id of the class.
        tests: the node ids of its tests.
        options: pytest's options, those that `is_plain` accepts.
        directory: the working directory, relative to the project's root.
        ini: the ini file, relative to the project's root; None without one.
        host: name of the host.
        run_name: name of the run, for its logs.
        log_dir: directory of the logs of all runs.
        earlier: the verdicts that the tests may take over, as `workers.become_worker` takes them.
    """

    suite_class: str
    tests: frozenset[str]
    options: Mapping[str, Any]
    directory: Path
    ini: Path | None
    host: str
    run_name: str
    log_dir: Path
    earlier: str | None

    def as_text(self) -> str:
        """The work as JSON."""
        return json.dumps({**vars(self), "tests": sorted(self.tests)}, default=_path)

    @classmethod
    def from_text(cls, text: str) -> Work:
        """The inverse of `as_text`, but for tuples, which become lists."""
        told = json.loads(text, object_hook=_restored)
        return cls(**{**told, "tests": frozenset(told["tests"])})


def is_plain(value: object) -> bool:
    """True for a value that another process can have; plugins may keep others in the options."""
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, PurePath))


def _path(value: Any) -> dict[str, str]:
    return {_PATH: str(value)}


def _restored(told: dict[str, Any]) -> Any:
    return Path(told[_PATH]) if _PATH in told else told

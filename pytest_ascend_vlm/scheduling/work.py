"""What the driver sends to a host, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..session.options import Options
from ..spec.model import ModelSpec

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
        fixtures: the ini key `vlm_fixtures_dir`.
        models: the models whose weights are needed.
        digests: True if the files of the engines are compared with their releases.
    """

    options: Options
    fixtures: str
    models: tuple[ModelSpec, ...]
    digests: bool


@dataclass(frozen=True)
class Work:
    """Tests of one class for the test process of a host. It is pickled for that process.

    Attributes:
        suite_class: the node id of the class.
        tests: the node ids of its tests.
        options: pytest's options, as plain values.
        directory: the working directory, relative to the project's root.
        ini: the ini file, relative to the project's root; None without one.
        host: name of the host.
        run_name: name of the run, for its logs.
        log_dir: directory of the logs of all runs.
    """

    suite_class: str
    tests: frozenset[str]
    options: Mapping[str, Any]
    directory: Path
    ini: Path | None
    host: str
    run_name: str
    log_dir: Path

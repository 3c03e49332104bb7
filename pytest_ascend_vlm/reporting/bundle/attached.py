"""Reads what a bundle has besides the report: model file, goldens, pictures, logs."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import ConfigurationError
from ...model_files import model_files_in
from ...search_path import roots
from ..sent_files import sent_file

_CONFORMANCE = "conformance"


@dataclass(frozen=True)
class Attached:
    """Files of a bundle that are copied.

    Attributes:
        model_file: the copied model file's path in the bundle.
        files: path in the bundle -> content.
        lost_logs: the log directories of runs that no longer have logs of the model.
        knows_logs: False if the report does not say where the logs are.
    """

    model_file: str
    files: Mapping[str, bytes]
    lost_logs: tuple[str, ...]
    knows_logs: bool


def attached(document: Mapping[str, Any], project: Path) -> Attached:
    """The files to copy.

    Args:
        document: the report of one test class.
        project: directory of the project with the model file.

    Raises:
        ConfigurationError: no model file of the project has the test class, or one is unreadable.
    """
    row = document["rows"][0]
    slug = str(row["model"]).replace("/", "--")
    source = _model_file(project, row["suite_class"])
    model_file = f"{_CONFORMANCE}/{source.name}"
    runs = [str(run["logs"]) for run in document["receipt"].get("runs", ()) if run.get("logs")]
    logs = {path: dict(_logs(Path(path), f"{slug}-{row['suite_class']}")) for path in runs}
    return Attached(
        model_file,
        {
            model_file: source.read_bytes(),
            **dict(_goldens(project, slug, document["receipt"]["checkpoint"])),
            **dict(_pictures(project, document["models"])),
            **{name: content for found in logs.values() for name, content in found.items()},
        },
        tuple(path for path, found in logs.items() if not found),
        bool(runs),
    )


def _model_file(project: Path, suite_class: str) -> Path:
    conformance = project / _CONFORMANCE
    unread: list[str] = []
    for path in model_files_in(conformance if conformance.is_dir() else project):
        classes = _classes_in(path)
        if classes is None:
            unread.append(f"; {path} is not valid Python, mend it if it has the class")
        elif suite_class in classes:
            return path
    raise ConfigurationError(
        f"no model file in {conformance} or {project} has the test class {suite_class}; run this "
        f"command in the root of the project that has it{''.join(unread)}"
    )


def _classes_in(path: Path) -> set[str] | None:
    """The names of the classes of a Python file; None if it is not valid Python."""
    content = path.read_bytes()
    try:
        nodes = ast.walk(ast.parse(content))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return {node.name for node in nodes if isinstance(node, ast.ClassDef)}


def _goldens(project: Path, slug: str, checkpoint: str) -> Iterator[tuple[str, bytes]]:
    """The recorded answers, which the scripts compare with."""
    for root in roots("golden", project / "golden"):
        home = root / slug / checkpoint
        paths = sorted(path for path in home.rglob("*") if path.is_file())
        for path in paths:
            yield f"golden/{path.relative_to(root).as_posix()}", path.read_bytes()
        if paths:
            return


def _pictures(project: Path, models: list[Any]) -> Iterator[tuple[str, bytes]]:
    """The pictures of all requests; a picture that has changed since the run is left out."""
    images = (i for m in models for case in (m.get("cases") or {}).values() for i in case["images"])
    for name, sha256 in {str(image["file"]): str(image.get("sha256")) for image in images}.items():
        content = sent_file(name, sha256, project)
        if content is not None and _stays_inside(name):
            yield name, content


def _stays_inside(name: str) -> bool:
    """True if a path of a report leads to a place in the bundle."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _logs(directory: Path, label: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(directory.glob(f"{label}*.log")) if directory.is_dir() else ():
        # TestA is a prefix of TestAB.
        if path.name.removeprefix(label)[:1] in {".", "-"}:
            yield f"logs/{directory.name}/{path.name}", path.read_bytes()

"""The directories searched for cases, checkpoints and goldens: the project's, then the package's.

A wheel contains `fixtures/` and `golden/` under `pytest_ascend_vlm/data/`; a source checkout, in
its root.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def roots(kind: str, project: Path) -> tuple[Path, ...]:
    """The existing directories of a kind ("fixtures" or "golden"), most specific first."""
    shipped = (_PACKAGE / "data" / kind, _PACKAGE.parent / kind)
    existing = [path.resolve() for path in (project, *shipped) if path.is_dir()]
    return tuple(dict.fromkeys(existing))

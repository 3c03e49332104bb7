"""Where cases, checkpoints and goldens are looked for: the project's own first, then the package's.

A wheel carries `fixtures/` and `golden/` under `pytest_ascend_vlm/data/`; a source checkout has
them at its top.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def roots(kind: str, project: Path) -> tuple[Path, ...]:
    """The existing directories of a kind ("fixtures" or "golden"), most specific first."""
    shipped = (_PACKAGE / "data" / kind, _PACKAGE.parent / kind)
    found = [path.resolve() for path in (project, *shipped) if path.is_dir()]
    return tuple(dict.fromkeys(found))

"""Finds the files that were sent to a model, by the name and the digest in report.json."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..search_path import roots


def sent_file(name: str, sha256: str, project: Path) -> bytes | None:
    """The content of a file that was sent; None if no file of this name is that one any more.

    A report may come from elsewhere, and a file may have changed since: the digest decides.

    Args:
        name: its path, as the report has it: "fixtures/pages/page-01.png".
        sha256: its digest.
        project: directory of the project with the model file.
    """
    places = (*(root.parent for root in roots("fixtures", project / "fixtures")), project)
    for path in (place / name for place in places):
        if path.is_file() and hashlib.sha256(content := path.read_bytes()).hexdigest() == sha256:
            return content
    return None

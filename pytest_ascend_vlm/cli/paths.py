"""The paths among the arguments of a command."""

from __future__ import annotations

import argparse
from pathlib import Path


def named_path(text: str) -> Path:
    """A path; an empty one, as of an unset variable, would be the current directory.

    Raises:
        ArgumentTypeError: the text is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; name one (. is the current directory)")
    return Path(text)

"""The host's temporary directory, for a supervised process that shares files with others.

The supervisor gives its command a temporary directory of its own (processes/supervisor.py). The
leases of cards are below the host's.
"""

from __future__ import annotations

import os
import tempfile

_VARIABLE = "TMPDIR"


def shared_tmp() -> str:
    """The host's setting, to be passed to the supervised process; empty without one."""
    return os.environ.get(_VARIABLE, "")


def use_shared_tmp(setting: str) -> None:
    """Makes this process and its children use the host's temporary directory."""
    os.environ.pop(_VARIABLE, None)
    if setting:
        os.environ[_VARIABLE] = setting
    tempfile.tempdir = None  # the module stores the first answer

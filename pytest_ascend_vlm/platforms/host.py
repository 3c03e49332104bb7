"""The software of this host: Python and the operating system."""

from __future__ import annotations

import platform


def python_version() -> str:
    """The version of this Python, which runs the servers too: "3.11.9"."""
    return platform.python_version()


def operating_system() -> str:
    """The distribution and the machine: "Ubuntu 22.04.5 LTS, aarch64"."""
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = f"{platform.system()} {platform.release()}"
    return f"{name}, {platform.machine()}"

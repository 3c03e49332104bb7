"""Runs at the start of every server process: see `pytest_ascend_vlm.engines.torch_companions`.

Python imports only the first `sitecustomize` on the path. This one then imports the next, so that
the host's own still runs.
"""

import sys
from pathlib import Path

from pytest_ascend_vlm.engines import torch_companions

torch_companions.install()

_HERE = Path(__file__).parent.resolve()
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE]
_this = sys.modules.pop("sitecustomize")
try:
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
except ModuleNotFoundError as missing:
    if missing.name != "sitecustomize":
        raise
finally:
    sys.modules.setdefault("sitecustomize", _this)

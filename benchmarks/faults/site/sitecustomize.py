"""Runs at the start of every process of a faulty server: see `faults.engine.hooks`.

Python imports only the first `sitecustomize` on the path. This one then imports the next, so that
those of the suite and of the host still run.
"""

import sys
from pathlib import Path

_HERE = Path(__file__).parent.resolve()
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE]
sys.path.append(str(_HERE.parents[1]))
try:
    from faults import engine
finally:
    sys.path.pop()

engine.install()

_this = sys.modules.pop("sitecustomize")
try:
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
except ModuleNotFoundError as missing:
    if missing.name != "sitecustomize":
        raise
finally:
    sys.modules.setdefault("sitecustomize", _this)

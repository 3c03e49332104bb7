"""Records the goldens of this repository again, with the installed Transformers.

`python tests/helpers/recorded_again.py [arguments of pytest]`, as in `tox -e transformers4`. The
answers have to equal the committed ones, and the float32 numbers have to agree to 1e-4. The bf16
numbers are not compared, because they differ from CPU to CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from packaging.version import Version
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "golden"
TOLERANCE = 1e-4
_SINCE_5 = {"zai-org--GLM-OCR": "conformance/test_glm_ocr.py"}
"""Model -> its file, of the models whose architecture Transformers has from version 5 on."""
_OTHER_PROMPTS = Path("Qwen--Qwen3-VL-8B-Instruct", "tiny", "clip")
"""The goldens whose prompts are others before Transformers 5.10.

From then on, one more pair of <|vision_start|> and <|vision_end|> is around a clip.
"""

Tables = dict[str, npt.NDArray[np.generic]]


def record(directory: Path, *arguments: str) -> Path:
    """Records the tiny checkpoints' goldens under a directory; returns their path."""
    goldens = directory / "golden"
    command = [sys.executable, "-m", "pytest", "conformance", "-q", "-p", "no:cacheprovider"]
    command += ["-m", "cpu_baseline", "--vlm-record", "--vlm-checkpoint=tiny"]
    command += ["-o", f"vlm_golden_dir={goldens}", f"--vlm-log-dir={directory / 'logs'}"]
    command += [f"--ignore={file}" for file in unknown().values()]
    subprocess.run([*command, *arguments], cwd=ROOT, check=True)
    return goldens


def unknown() -> dict[str, str]:
    """Model -> its file, of the models that the installed Transformers does not support."""
    return _SINCE_5 if int(version("transformers").partition(".")[0]) < 5 else {}


def expected() -> set[Path]:
    """The committed goldens that the installed Transformers can record."""
    return {name for name in comparable(COMMITTED) if name.parts[0] not in unknown()}


def comparable(goldens: Path) -> set[Path]:
    """The goldens under a directory that the installed Transformers records like every other."""
    if Version(version("transformers")) >= Version("5.10"):
        return names(goldens)
    return {name for name in names(goldens) if name.parent != _OTHER_PROMPTS}


def names(goldens: Path) -> set[Path]:
    """The goldens under a directory, relative to it."""
    return {path.relative_to(goldens) for path in goldens.rglob("*.json")}


def difference(recorded: Path, committed: Path) -> float:
    """The largest difference of two goldens' float32 numbers; infinite if anything else differs.

    Args:
        recorded: path of the new golden's JSON file.
        committed: path of the committed golden's JSON file.
    """
    here, there = (
        json.loads(path.read_text("utf-8"))["completion"] for path in (recorded, committed)
    )
    ours, theirs = (load_file(path.with_suffix(".safetensors")) for path in (recorded, committed))
    same = ("forced_token_ids", "rows", "is_image", "hidden_rows", "hidden_is_image")
    if any(here[name] != there[name] for name in ("text", "token_ids", "prompt_token_ids")) or any(
        not np.array_equal(ours[name], theirs[name]) for name in same
    ):
        return float("inf")
    shapes = [(ours[name].shape, theirs[name].shape) for name in ours]
    if any(one != other for one, other in shapes):
        return float("inf")
    return max(_differences(ours, theirs))


def _differences(ours: Tables, theirs: Tables) -> Iterator[float]:
    for name in ("fp32", "fp32_logsumexp", "hidden_fp32"):
        yield float(np.abs(ours[name] - theirs[name]).max())
    rows = zip(ours["listed"], ours["fp32"], theirs["listed"], theirs["fp32"], strict=True)
    for tokens, logits, known, expected in rows:
        # A token that only one side lists has at most the other side's lowest listed logit.
        other = dict(zip(known.tolist(), expected.tolist(), strict=True))
        for token, logit in zip(tokens.tolist(), logits.tolist(), strict=True):
            yield abs(logit - other.get(token, float(expected[-1])))


def main(arguments: list[str]) -> int:
    """Records and compares; returns 1 if a golden differs or is missing."""
    with tempfile.TemporaryDirectory() as directory:
        goldens = record(Path(directory), *arguments)
        recorded = comparable(goldens)
        found = {name: difference(goldens / name, COMMITTED / name) for name in recorded}
    problems = [f"{name} differs by {far:.3g}" for name, far in found.items() if far > TOLERANCE]
    if not arguments:
        problems += [f"{name} was not recorded" for name in expected() - recorded]
    for problem in sorted(problems):
        print(problem)
    print(
        f"{len(recorded)} goldens recorded with Transformers {version('transformers')}: float32 "
        f"differs by up to {max(found.values(), default=0):.3g}, {len(problems)} problems"
    )
    return 1 if problems or not recorded else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

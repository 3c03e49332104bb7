"""The goldens of this repository are what the reference records today, whatever its version.

Two cases of every architecture here; `tox -e transformers4` has all of them with Transformers 4.57.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.recorded_again import COMMITTED, TOLERANCE, difference, expected, names, record
from safetensors.numpy import load_file, save_file

CAPITAL = Path("OpenDataLab--MinerU2.5-2509-1.2B", "tiny", "text", "capital.json")


def test_two_cases_of_every_architecture_are_recorded_as_they_are_committed(
    tmp_path: Path,
) -> None:
    goldens = record(tmp_path, "-k", "capital] or recognition]")
    recorded = names(goldens)
    assert {name.parts[0] for name in recorded} == {name.parts[0] for name in expected()}
    found = {name: difference(goldens / name, COMMITTED / name) for name in recorded}
    assert {name: far for name, far in found.items() if far > TOLERANCE} == {}


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("fp32", lambda logits: logits + np.eye(*logits.shape, dtype=np.float32) * 0.001),
        ("fp32_logsumexp", lambda sums: sums[::-1].copy()),
        ("hidden_fp32", lambda states: np.roll(states, 1, axis=0)),
        ("listed", lambda tokens: np.roll(tokens, 1, axis=1)),
        ("rows", lambda rows: rows[:-8].copy()),
        ("is_image", lambda marks: 1 - marks),
        ("fp32", lambda logits: logits[1:].copy()),
    ],
)
def test_a_golden_whose_numbers_are_others_is_seen(
    table: str, change: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    copy = tmp_path / "capital.json"
    for suffix in (".json", ".safetensors"):
        shutil.copy((COMMITTED / CAPITAL).with_suffix(suffix), tmp_path)
    assert difference(copy, COMMITTED / CAPITAL) == 0
    tables = load_file(copy.with_suffix(".safetensors"))
    tables[table] = change(tables[table])
    save_file(tables, copy.with_suffix(".safetensors"))
    assert difference(copy, COMMITTED / CAPITAL) > TOLERANCE

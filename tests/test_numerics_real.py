"""Numbers of real engines: a damaged checkpoint is noticed without any server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from helpers.catching import seen
from safetensors.torch import load_file, save_file

from pytest_ascend_vlm.checkpoints.digest import weights_digest
from pytest_ascend_vlm.golden.recorder import readable_json
from pytest_ascend_vlm.golden.store import digest

ROOT = Path(__file__).parent.parent
SLUG = "OpenDataLab--MinerU2.5-2509-1.2B"
WEIGHT = "layers.1.mlp.down_proj.weight"
MODEL = """
from pytest_ascend_vlm import Capability as C, ModelSpec, VLMConformance

class TestDamaged(VLMConformance):
    model = ModelSpec(
        "OpenDataLab/MinerU2.5-2509-1.2B",
        tiny="damaged",
        serve={"dtype": "bfloat16", "max_model_len": 2048},
        supports={C.TEXT, C.IMAGE, C.DOCUMENT},
        unsupported=dict.fromkeys((C.VIDEO, C.VQA, C.GROUNDING), "documents only"),
        prompts={"document": "Extract all text from this document image."},
    )
"""

pytestmark = pytest.mark.vllm


def damaged_project(root: Path) -> Path:
    """A model of which a row of one weight was lost, and sound goldens that know its digest."""
    checkpoint = root / "fixtures" / "tiny" / "damaged"
    shutil.copytree(ROOT / "fixtures" / "tiny" / "qwen2_vl", checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    name = next(name for name in weights if name.endswith(WEIGHT))
    weights[name][7] = 0
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})

    goldens = root / "golden" / SLUG
    shutil.copytree(ROOT / "golden" / SLUG, goldens)
    for path in goldens.rglob("*.json"):
        document = json.loads(path.read_text("utf-8"))
        document["provenance"]["weights_sha256"] = weights_digest(checkpoint)
        document["sha256"] = digest(document)
        path.write_text(readable_json(document), "utf-8")
    (root / "test_damaged.py").write_text(MODEL, "utf-8")
    (root / "pytest.ini").write_text("[pytest]\n", "utf-8")
    return root


@pytest.mark.catches("numerics.hidden_states", "numerics.transformers", "numerics.fp32_probe")
def test_a_lost_row_is_noticed_by_every_engine(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "pytest", "--vlm-platform=cpu", "--vlm-checkpoint=tiny"),
        *("--vlm-report=report", "-k", "hidden or operators or float32"),
    ]
    done = subprocess.run(
        command, cwd=damaged_project(tmp_path), capture_output=True, text=True, check=False
    )
    document = seen(json.loads((tmp_path / "report" / "report.json").read_text("utf-8")))
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in document["rows"]:
        found[row["criterion"]][row["case"]] = row["status"]

    assert found["numerics.hidden_states"]["error_ratio"] == "fail", done.stdout
    assert found["numerics.transformers"]["logits-error_ratio"] == "fail"
    assert found["numerics.transformers"]["logits-kl_ratio"] == "fail"
    assert found["numerics.fp32_probe"][None] == "fail"
    assert document["receipt"]["server_starts"] == 0
    assert "R by part of the sequence: image" in done.stdout

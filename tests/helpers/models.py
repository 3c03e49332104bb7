"""Model files and model specs for tests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers.paths import FIXTURES
from pytest_ascend_vlm import ModelSpec, VLMConformance
from pytest_ascend_vlm.criteria.criterion import criteria as declared
from pytest_ascend_vlm.engines.formats import FORMATS, LOSSLESS


def criteria() -> dict[str, str]:
    """Every criterion of the suite: id -> name of its test method."""
    return {criterion.id: test.__name__ for criterion, test in declared(VLMConformance)}


def model_file(project: pytest.Pytester, body: str, **spec: str) -> None:
    """Writes a model file into a project, from the class's body and fields of its ModelSpec."""
    fields = {
        "tiny": "'qwen2_vl'",
        "serve": "{'limit_mm_per_prompt': {'image': 1, 'video': 0}}",
        "supports": "{C.TEXT, C.IMAGE, C.DOCUMENT}",
        "unsupported": "dict.fromkeys((C.VIDEO, C.VQA, C.GROUNDING), 'documents only')",
        **spec,
    }
    arguments = ", ".join(f"{name}={value}" for name, value in fields.items())
    project.makepyfile(
        test_own_model=f"""
import pytest
from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import Budgets, ExpectedFailure, ModelSpec, Published, Thresholds
from pytest_ascend_vlm import VLMConformance

class TestOwn(VLMConformance):
    model = ModelSpec("OpenDataLab/MinerU2.5-2509-1.2B", {arguments})
{body}
"""
    )


def model_spec(**fields: Any) -> ModelSpec:
    """A valid ModelSpec; `fields` replace its defaults."""
    from pytest_ascend_vlm import Capability

    inputs = {Capability.TEXT, Capability.IMAGE}
    unsupported = {capability: "not here" for capability in Capability if capability not in inputs}
    return ModelSpec(**{"model_id": "an-org/a-model", "unsupported": unsupported, **fields})


def few_cases() -> str:
    """A `-k` expression for a quick run.

    It keeps two texts (one Chinese), two pages, an image, and one file format of each kind.
    Without serving.largest_image, serving.any_request and recovery.request, which take seconds, and
    without parameters.*, which fail with each defect of plain answers; all have tests of their own.
    """
    cases = json.loads((FIXTURES / "cases.json").read_text("utf-8"))["cases"]
    names = [case["id"] for case in cases]
    texts = [name for name in names if name.startswith("text/")]
    pages = [name for name in names if name.startswith("document/")]
    images = [name for name in names if name.startswith("image/")]
    chinese = next(name for name in texts if name.endswith("-zh"))
    kept = {texts[0], chinese, *pages[:2], *images[:1], "webp", "exif-6"}
    left_out = [f"[{name}]" for name in [*names, *LOSSLESS, *FORMATS] if name not in kept]
    elsewhere = ["largest_image", "any_request", "server_recovers", "parameters"]
    return "not (" + " or ".join([*elsewhere, *left_out]) + ")"

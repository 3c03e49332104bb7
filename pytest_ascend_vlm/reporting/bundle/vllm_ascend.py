"""The files for vllm-ascend's repository: accuracy configuration, row of the models, tutorial.

Formats of vllm-project/vllm-ascend, August 2026. `tests/e2e/models/test_lm_eval_correctness.py`
reads the configuration; its score may differ by 5 % from the configured one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..markdown import template
from ..view import View
from ..view.datasets import Score
from ..view.missing import Missing
from ..view.page import ModelPage
from ..view.serve_command import parse_serve_command

Arguments = Mapping[str, Any]

_SERVE = (
    "tensor_parallel_size",
    "dtype",
    "max_model_len",
    "gpu_memory_utilization",
    "trust_remote_code",
    "enable_expert_parallel",
    "enforce_eager",
    "quantization",
)
"""The serve arguments that the configuration may have."""

_SERIES = {"910B": ("A2", "Atlas A2 Series"), "910_93": ("A3", "Atlas A3 Series")}
"""Part of a card's name -> short and full name of its series."""

_GRAPHS = {
    "Piecewise AclGraph": {"PIECEWISE", "FULL_AND_PIECEWISE"},
    "Fullgraph AclGraph": {"FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"},
}


def _several(name: str) -> Callable[[Arguments], bool]:
    return lambda served: int(served.get(name) or 1) > 1


def _captures(column: str) -> Callable[[Arguments], bool]:
    def captures(served: Arguments) -> bool:
        mode = (served.get("compilation_config") or {}).get("cudagraph_mode")
        return mode in _GRAPHS[column] and not served.get("enforce_eager")

    return captures


_FEATURES: Mapping[str, Callable[[Arguments], bool]] = {
    "BF16": lambda served: served.get("dtype") == "bfloat16" and not served.get("quantization"),
    "Supported Hardware": lambda _: False,
    "W8A8": lambda served: served.get("quantization") == "ascend",
    "Chunked Prefill": lambda served: bool(served.get("enable_chunked_prefill")),
    "Automatic Prefix Cache": lambda served: bool(served.get("enable_prefix_caching")),
    "LoRA": lambda served: bool(served.get("enable_lora")),
    "Speculative Decoding": lambda served: bool(served.get("speculative_config")),
    "Async Scheduling": lambda served: bool(served.get("async_scheduling")),
    "Tensor Parallel": _several("tensor_parallel_size"),
    "Pipeline Parallel": _several("pipeline_parallel_size"),
    "Expert Parallel": lambda served: bool(served.get("enable_expert_parallel")),
    "Data Parallel": _several("data_parallel_size"),
    "Prefill-decode Disaggregation": lambda served: bool(served.get("kv_transfer_config")),
    **{column: _captures(column) for column in _GRAPHS},
}
"""Column of the table of models -> True if served arguments ask for it."""

_VERIFIED, _UNKNOWN = "✅", "🟡"
_NEEDED = {"serving", "baseline", "numerics", "determinism"}
"""The groups of criteria without which a model is not called supported."""


def files(contents: View, page: ModelPage) -> dict[str, str]:
    """File name -> content; none unless the real checkpoint was judged on a real NPU."""
    origin = contents.origin
    if not origin.is_npu or origin.checkpoint != "full" or page.deployment.serve is None:
        return {}
    name = page.model.rpartition("/")[2]
    short, series = _series(origin.device)
    scores = _scores(page)
    tutorial = template("tutorial.md", "en", __package__).render(
        name=name, page=page, environment=contents.environment, scores=scores, series=series
    )
    found = {
        "vllm-ascend/docs/source/user_guide/support_matrix/supported_models.row.md": row(
            page, name, short
        ),
        f"vllm-ascend/docs/source/tutorials/models/{name}.md": tutorial,
    }
    if scores:
        path = f"vllm-ascend/tests/e2e/models/configs/{name}.yaml"
        found[path] = configuration(page, scores, series)
    return found


def configuration(page: ModelPage, scores: Iterable[Score], series: str) -> str:
    """The accuracy configuration in YAML; every value is JSON, which is YAML as well."""
    served = _served(page.deployment.serve_text)
    lines = [
        f"model_name: {json.dumps(page.model)}",
        'model_type: "vllm-vlm"',
        f"hardware: {json.dumps(series)}",
        "",
        "serve:",
        *(f"  {key}: {json.dumps(served[key])}" for key in _SERVE if key in served),
        *(f"  max_images: {images}" for images in _images(served)),
        "",
        "tasks:",
    ]
    for score in scores:
        lines += [
            f"  - name: {json.dumps(score.benchmark)}",
            "    metrics:",
            f"      - name: {json.dumps(score.metric + ',none')}",
            f"        value: {round(score.score or 0.0, 4)}",
        ]
    few_shot = ["num_fewshot: 0", "apply_chat_template: true", "fewshot_as_multiturn: false"]
    return "\n".join([*lines, "", *few_shot, 'batch_size: "auto"', ""])


def row(page: ModelPage, name: str, hardware: str) -> str:
    """The row of the table of models with its head: verified features alone have a tick."""
    passed = _is_verified(page)
    variants = [one.command for one in page.deployment.variants if _passed(page, one.name)]
    lines = [page.deployment.serve_text, *variants] if passed else []
    verified = [_served(line) for line in lines]
    cells = {
        "Model": name,
        "Support": _VERIFIED if passed else _UNKNOWN,
        "Note": "",
        **{
            column: _VERIFIED if any(map(asks, verified)) else _UNKNOWN
            for column, asks in _FEATURES.items()
        },
        "Supported Hardware": hardware,
        "max-model-len": str(_served(page.deployment.serve_text).get("max_model_len", "")),
        "Doc": f"[{name}](../../tutorials/models/{name}.md)",
    }
    return "".join(
        f"| {' | '.join(line)} |\n" for line in (cells, ["---"] * len(cells), cells.values())
    )


def _is_verified(page: ModelPage) -> bool:
    """True if nothing failed, and each of `_NEEDED` has a pass."""
    passed = {line.group for line in page.criteria if "pass" in line.counts}
    return page.conclusion.result == "pass" and passed >= _NEEDED


def _passed(page: ModelPage, variant: str) -> bool:
    return any(
        line.id == f"equivalence.{variant}" and {*line.counts} == {"pass"} for line in page.criteria
    )


def _scores(page: ModelPage) -> tuple[Score, ...]:
    """The scores of whole data sets by tasks that lm-eval itself has."""
    scores = () if isinstance(page.datasets, Missing) else page.datasets
    return tuple(
        score
        for score in scores
        if score.harness.startswith("lm_eval")
        # This project's own tasks, which lm-eval does not have.
        and not score.benchmark.startswith("vlm_")
        and score.score is not None
        and score.samples == score.total
    )


def _series(device: str) -> tuple[str, str]:
    """Short and full name of a device's series; the device itself if it is unknown."""
    return next((names for part, names in _SERIES.items() if part in device), (device, device))


def _served(line: str) -> Arguments:
    parsed = parse_serve_command(line)
    return parsed.python_arguments if parsed else {}


def _images(served: Arguments) -> list[int]:
    limit = served.get("limit_mm_per_prompt")
    return [int(limit["image"])] if isinstance(limit, Mapping) and "image" in limit else []

"""The adaptation document: what it shows, in which language, and that its commands can be run."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import re
import runpy
import shlex
import shutil
import socket
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from fakes.replay_server import Knowledge
from helpers.outcome import Serve
from helpers.paths import REPOSITORY, SLUG
from test_report import blocks, headings, table_shapes

from pytest_ascend_vlm import ModelSpec, VLMConformance, reporting
from pytest_ascend_vlm.engines.torch_companions import child_pythonpath
from pytest_ascend_vlm.engines.vllm.argument_check import COMMAND
from pytest_ascend_vlm.engines.vllm.arguments import command_line
from pytest_ascend_vlm.integration import serve_overrides
from pytest_ascend_vlm.reporting.labels import CONTENTS, figure_name
from pytest_ascend_vlm.reporting.language import LANGUAGES, catalogue, shown, translator
from pytest_ascend_vlm.reporting.markdown import files, render
from pytest_ascend_vlm.reporting.phrase import phrase
from pytest_ascend_vlm.reporting.sentences import sentence
from pytest_ascend_vlm.reporting.view import Missing, ModelPage, view
from pytest_ascend_vlm.reporting.view.api_server_arguments import API_SERVER_ARGUMENTS
from pytest_ascend_vlm.reporting.view.serve_arguments import PURPOSES
from pytest_ascend_vlm.reporting.view.serve_command import parse_serve_command
from pytest_ascend_vlm.rounding import rounded

Row = dict[str, Any]
SOURCES = Path(str(reporting.__file__)).parent
MODEL = SLUG.replace("--", "/")
SERVED, FILES = "http://localhost:8000", "8001"
BASH = str(shutil.which("bash"))
RECEIPT = {
    "platform": "npu",
    "origin": "npu",
    "checkpoint": "full",
    "simulated": False,
    "device": "1 x 910B4",
    "versions": {"vllm": "0.18.0", "CANN": "8.5.1"},
    "environment": {"python": "3.11.9", "driver": "25.2.0", "device_memory_mib": 65536},
    "server_starts": 1,
    "requests": 7,
    "seconds": 60.0,
    "argv": ["conformance", "-m", "npu"],
}
CARD = {
    "architecture": "Qwen2VLForConditionalGeneration",
    "model_type": "qwen2_vl",
    "parameters": 1_157_000_000,
    "bytes": 2_310_000_000,
    "dtype": "bfloat16",
    "max_position_embeddings": 16384,
    "vision": {"layers": 32, "hidden_size": 1280, "patch_size": 14},
    "decoder": {"heads": 14, "kv_heads": 2},
    "rope": {"type": "mrope", "mrope_section": [8, 12, 12]},
}
CASES = {
    "text/name": ("Hello, what is your name?", []),
    "image/metrics": ("What are the key performance metrics in this document?", ["page-01"]),
    "document/page-01": ("Extract all text from this document image.", ["page-01"]),
}

SYSTEM = {
    "messages": [
        {
            "role": "system",
            "text": "You read texts in images. Answer with the text and nothing else.",
            "images": 0,
        },
        {"role": "user", "text": "What is the text in this image?", "images": 1},
    ],
    "images": [{"file": "fixtures/pictures/cloud.png"}],
    "videos": [],
    "max_tokens": 32,
}


def case(prompt: str, pages: list[str]) -> Row:
    images = [{"file": f"fixtures/documents/{page}.png"} for page in pages]
    message = {"role": "user", "text": prompt, "images": len(pages)}
    return {"messages": [message], "images": images, "videos": [], "max_tokens": 256}


def facts(**changes: Any) -> Row:
    """The facts of a model, as report.json has them."""
    return {
        "model": MODEL,
        "suite_class": "TestIt",
        "served_name": MODEL,
        "serve_command": f"A='b c' vllm serve {MODEL} --dtype bfloat16 --enforce-eager "
        """--limit-mm-per-prompt '{"image": 1}' --no-enable-prefix-caching""",
        "suite_arguments": "--max-logprobs 64",
        "env": {"A": "b c"},
        "phases_seconds": {"start": 30.0, "weights": 1.5},
        "card": CARD,
        "supports": ["text", "image"],
        "unsupported": {"video": "documents only"},
        "memory": {"weights_gib": 2.15, "weights_seconds": 1.4, "kv_cache_tokens": 87381},
        "unmodified": {"vllm": True, "vllm-ascend": True},
        "in_registry": True,
        "cases": {
            **{name: case(*told) for name, told in CASES.items()},
            "order/system": SYSTEM,
        },
        **changes,
    }


def row(criterion: str, case_id: str | None, evidence: Row | None = None, **changes: Any) -> Row:
    """A row of report.json."""
    return {
        "model": MODEL,
        "suite_class": "TestIt",
        "criterion": criterion,
        "case": case_id,
        "status": "pass",
        "measured": 1.0,
        "threshold": 1.0,
        "sense": "at least",
        "unit": "rate",
        "margin": 0.0,
        "reason": "",
        "seconds": 0.1,
        "told_at": None,
        "evidence": evidence or {},
        **changes,
    }


def report(*rows: Row, **changes: Any) -> Row:
    return {"receipt": RECEIPT, "models": [facts(**changes)], "rows": list(rows)}


def page(*rows: Row, **changes: Any) -> ModelPage:
    """The only document of a report."""
    (found,) = view(report(*(rows or [row("serving.text", "text/name")]), **changes)).models
    return found


def fenced(text: str, language: str) -> list[str]:
    """The code blocks of a language in a document."""
    return re.findall(rf"^```{language}\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)


# --- work ----------------------------------------------------------------------------------------


def test_each_of_several_models_has_its_own_work() -> None:
    variants = {"tp2": {"requests": 2, "serve_command": "vllm serve a"}}
    document = report(
        row("serving.text", "text/name"),
        row("serving.text", "text/name", suite_class="TestOther"),
        requests=3,
        server_starts=1,
        variants=variants,
    )
    overview, one, other = render(document, "en").split(f"\n# {MODEL}")
    assert "| requests served | 7 |\n| duration of the run | 60.0 s |" in overview
    assert "| server starts | 2 |\n| requests served | 5 |" in one
    assert "| requests served | 0 |" in other
    assert "duration of the run" not in one + other
    document["rows"].pop()
    assert "| requests served | 7 |\n| duration of the run | 60.0 s |" in render(document, "en")


# --- languages -----------------------------------------------------------------------------------


def texts_of_code(path: Path) -> Iterator[str]:
    """The literal of each call of `phrase` in a module."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Call) and isinstance(called, ast.Name) and called.id == "phrase":
            assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}: no literal"
            yield node.args[0].value


def texts_of_template(path: Path) -> Iterator[str]:
    """The literal of each `_("...")` in a template."""
    tree = jinja2.Environment(autoescape=True).parse(path.read_text("utf-8"))
    for call in tree.find_all(jinja2.nodes.Call):
        if isinstance(call.node, jinja2.nodes.Name) and call.node.name == "_":
            assert isinstance(call.args[0], jinja2.nodes.Const), f"{path}:{call.lineno}: no literal"
            yield call.args[0].value


def texts() -> set[str]:
    code = (text for path in SOURCES.rglob("*.py") for text in texts_of_code(path))
    return {*code, *(text for path in SOURCES.rglob("*.j2") for text in texts_of_template(path))}


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_every_text_has_a_translation_and_no_translation_is_left_over(language: str) -> None:
    assert len(texts()) > 300
    assert set(catalogue(language)) == texts()


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_a_translation_has_the_same_values(language: str) -> None:
    def values(text: str) -> list[tuple[str | None, str | None]]:
        parsed = string.Formatter().parse(text)
        return sorted((name, form) for _, name, form, _ in parsed if name is not None)

    translated = catalogue(language)
    assert [text for text in texts() if values(text) != values(translated[text])] == []


def test_a_phrase_in_a_phrase_is_translated_and_a_value_is_not() -> None:
    nested = phrase("{first}, {next}", first=phrase("passed"), next="passed")
    assert translator("zh")(nested) == "通过、passed"
    assert translator("en")(nested) == "passed, passed"


@pytest.mark.parametrize(
    ("case_id", "text"),
    [
        ("the case", "该用例只用于完整权重：其输出长于微型检查点所学的任何输出"),
        ("text/long", "text/long 只用于完整权重：其输出长于微型检查点所学的任何输出"),
    ],
)
def test_no_space_is_between_chinese_words(case_id: str, text: str) -> None:
    reason = "its answer is longer than any that a tiny checkpoint was taught"
    assert translator("zh")(sentence(f"{case_id} is for full checkpoints: {reason}")) == text


def test_the_document_has_the_diagnosis_in_its_language() -> None:
    wrong = row("numerics.hidden_states", "error_ratio", status="fail", reason="R is 9.")
    right = report(row("numerics.hidden_states", "error_ratio"))
    english, chinese = (render(report(wrong), language) for language in ("en", "zh"))
    assert (
        "| 1 | the offline engine that returns hidden states, not the server | "
        "the server's numbers are right | " in english
    )
    assert "| 1 | 返回隐藏状态的离线引擎，而不是服务端 | 服务端的数值正确 | " in chinese
    assert "The results together point to" not in render(right, "en")


def test_the_source_of_the_reference_is_in_the_language_of_the_document() -> None:
    told = {"got": "a", "expected": "a", "reference": "recorded with Transformers 5.19.0 on CPU"}
    text = render(report(row("baseline.text", "text/name", told)), "zh")
    assert "| 参考 | 在 CPU 上用 Transformers 5.19.0 录制 |" in text.splitlines()


def test_findings_and_reasons_are_in_the_language_of_the_document() -> None:
    failed = row(
        "serving.models",
        None,
        status="fail",
        reason="serving.models: 1 of 2 checks failed: served name listed\n"
        "  served name listed: 'a' is not among ['b']\nRuntimeError: the engine's own words",
    )
    skipped = row("tasks.chart", None, status="na", reason="the reference does not name '3' itself")
    document = report(failed, skipped)
    assert fenced(render(document, "en"), "text")[-1] == failed["reason"]
    assert fenced(render(document, "zh"), "text")[-1].splitlines() == [
        "serving.models：2 项检查中 1 项未通过：已列出服务模型名",
        "  已列出服务模型名：['b'] 中没有 'a'",
        "RuntimeError: the engine's own words",
    ]
    assert "| 不适用 | 参考模型自身没有答出 '3' |" in render(document, "zh")


# --- documents -----------------------------------------------------------------------------------


def test_each_test_class_has_a_document_of_its_own() -> None:
    rows = [row("serving.text", None, suite_class=name) for name in ("TestA", "TestB")]
    others = [{**one, "model": "an-org/other", "suite_class": "TestC"} for one in rows[:1]]
    names = set(files(report(*rows, *others), ["zh"]))
    assert names == {
        "adaptation.zh.md",
        f"adaptation.{SLUG}.TestA.zh.md",
        f"adaptation.{SLUG}.TestB.zh.md",
        "adaptation.an-org--other.zh.md",
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_section_without_evidence_names_the_command_that_gives_it(language: str) -> None:
    text = render(report(row("serving.text", "text/name")), language)
    printed = fenced(text, "bash")
    places = " --vlm-datasets-root=DIR --vlm-harness-python=PYTHON"
    for marker in ("determinism", "accuracy", "numerics", "performance", f"dataset{places}"):
        command = f"pytest conformance -k TestIt -m {marker} --vlm-report=reports"
        assert f"{command} --vlm-report-append" in printed


def test_the_printed_commands_select_one_class_alone() -> None:
    document = report(row("serving.text", "text/name"))
    document["receipt"] = {
        **document["receipt"],
        "tests": {"TestIt": "conformance/test_it.py::TestIt"},
    }
    (found,) = view(document).models
    printed = [command.value for command in found.commands[1:]]
    assert printed[0] == "pytest conformance/test_it.py::TestIt --vlm-report=reports"
    assert all(line.startswith("pytest conformance/test_it.py::TestIt ") for line in printed)


def test_each_run_of_a_merged_report_has_its_command() -> None:
    document = report(row("serving.text", "text/name"))
    runs = [{"argv": ["conformance", "-m", marker]} for marker in ("npu", "performance")]
    document["receipt"] = {**document["receipt"], "runs": runs}
    (found,) = view(document).models
    typed = [command for command in found.commands if "--vlm-report=reports" not in command.value]
    assert [(shown(one.name, translator("en")), one.value) for one in typed] == [
        ("run 1", "pytest conformance -m npu"),
        ("run 2", "pytest conformance -m performance"),
    ]


def test_the_generator_of_the_load_is_in_the_language_of_the_document() -> None:
    told = {"generator": "one request at a time"}
    text = render(report(row("performance.single_stream", "text", told)), "zh")
    assert "压测工具：单请求" in text.splitlines()


@pytest.mark.parametrize(
    ("language", "banner", "measured"),
    [
        (
            "en",
            "on this platform, with these checkpoints: **cpu**, **tiny**.",
            "**TestIt**, measured on **a device** (platform cpu, checkpoint tiny); not an NPU",
        ),
        (
            "zh",
            "平台与权重类型为：**cpu**，**tiny**。",
            "**TestIt**，测量设备：**a device**（平台：cpu，权重类型：tiny）",
        ),
    ],
)
def test_the_sentences_about_the_origin_have_the_marks_of_their_language(
    language: str, banner: str, measured: str
) -> None:
    document = report(row("performance.single_stream", "text", {}))
    changes = {"platform": "cpu", "checkpoint": "tiny", "device": "a device", "simulated": False}
    document["receipt"] = {**document["receipt"], **changes}
    text = render(document, language)
    assert any(line.startswith("> ") and line.endswith(banner) for line in text.splitlines())
    assert measured in text


def test_runs_are_numbered_in_the_language_of_the_document() -> None:
    seen = workload()
    seen["evidence"]["series"] = [{"name": "latency", "unit": "s", "values": [1.1]}]
    text = render(report(seen), "zh")
    assert "| 第 1 次 | 1.1 s |" in text
    assert "Run 1" not in text


@pytest.mark.parametrize("checkpoint", ["full", "tiny"])
def test_a_command_of_vllm_bench_says_what_it_sends(checkpoint: str) -> None:
    command = "vllm bench latency --model an-org/a-model"
    document = report(row("performance.workload", "8x", {"command": command}))
    document["receipt"] = {**document["receipt"], "checkpoint": checkpoint}
    (found,) = view(document).models
    (name,) = (
        shown(one.name, translator("en")) for one in found.commands if one.value.endswith(command)
    )
    assert name.startswith("workload 8x; typed, it sends random prompts of vllm bench")
    assert name.endswith("not the tiny checkpoint") == (checkpoint == "tiny")


def declared(**changes: Any) -> dict[str, Any]:
    """A workload as report.json declares it."""
    counts = {"requests": 10, "input_tokens": 128, "output_tokens": 128, "concurrency": 2}
    return {"name": "128/128", "image_tokens": None, "request_rate": None} | counts | changes


def bench(load: dict[str, Any], *measured: Row, **changes: Any) -> list[str]:
    """The printed commands of `vllm bench serve`."""
    (found,) = view(report(*measured or [workload()], workloads=[load], **changes)).models
    values = [str(command.value) for command in found.commands]
    return [value for value in values if value.startswith("vllm bench serve")]


def test_a_load_of_texts_is_printed_as_a_command_of_vllm_bench_serve() -> None:
    (command,) = bench(declared())
    assert command == (
        f"vllm bench serve --model {MODEL} --backend openai --endpoint /v1/completions "
        "--port 8000 --dataset-name random --ignore-eos --temperature 0 --random-input-len 128 "
        "--random-output-len 128 --num-prompts 10 --max-concurrency 2"
    )
    assert bench(declared(concurrency=None, request_rate=1.5))[0].endswith(" --request-rate 1.5")


def test_a_load_finds_the_tokenizer_of_a_model_with_its_own_code_and_another_name() -> None:
    serve = f"vllm serve {MODEL} --trust-remote-code"
    (command,) = bench(declared(), serve_command=serve, served_name="alias")
    named = f"--model {MODEL} --served-model-name alias --trust-remote-code --backend"
    assert named in command


@pytest.mark.parametrize("load", [{"image_tokens": 2560}, {"input_tokens": None}, {"name": "a"}])
def test_a_load_of_pages_has_no_command_of_vllm_bench_serve(load: dict[str, Any]) -> None:
    assert bench(declared(**load)) == []


def test_a_load_that_was_not_measured_has_no_command() -> None:
    assert bench(declared(), row("performance.workload", "128/128", {}, status="error")) == []


def test_the_printed_commands_have_what_their_criteria_need() -> None:
    """A run of other serve arguments is not merged; data sets have no place that a report knows."""
    overrides = {"max_model_len": 8192, "dtype": "float16", "seed": None}
    document = report(row("serving.text", "text/name"))
    document["receipt"] = {**document["receipt"], "serve_overrides": overrides}
    (found,) = view(document).models
    printed = [shlex.split(str(command.value)) for command in found.commands[1:]]
    for words in printed:
        typed = [words[i + 1] for i, word in enumerate(words) if word == serve_overrides.OPTION]
        assert dict(map(serve_overrides.parsed, typed)) == overrides
    needed = {"--vlm-datasets-root=DIR", "--vlm-harness-python=PYTHON"}
    assert [needed <= set(words) for words in printed] == [False] * 5 + [True]


def test_what_a_model_does_not_support_asks_for_no_run() -> None:
    row_ = row("tasks.chart", "no-case", status="na", reason="vqa is declared unsupported: no")
    found = page(row("serving.text", None), row_).tasks
    assert found == Missing((sentence("vqa is declared unsupported: no"),))


def test_what_an_error_stopped_asks_for_no_run() -> None:
    stopped = row("dataset.mmmu_val", None, status="error", reason="no samples\nat all")
    text = render(report(row("serving.text", None), stopped), "en")
    assert "no samples" in fenced(text, "text")[-1]


def test_the_table_of_the_model_is_that_of_its_checkpoint() -> None:
    text = render(report(row("serving.text", None)), "zh")
    for line in (
        "| 模型架构 | Qwen2VLForConditionalGeneration (qwen2\\_vl) |",
        "| 模型尺寸 | 2.31 GB |",
        "| GQA 配置 | 14 heads、2 KV heads |",
        "| RoPE 类型 | mrope、mRoPE \\[8, 12, 12\\] |",
        "| 单卡 HBM | 64 GiB(65536 MiB) |",
        "| 权重显存 | 2.15 GiB |",
        "| 启动总耗时 | 31.50 秒 |",
    ):
        assert line in text.splitlines()


def test_the_driver_is_named_once() -> None:
    document = report(row("serving.text", None))
    document["receipt"] = {**RECEIPT, "versions": {"vllm": "0.18.0", "driver": "25.2.0"}}
    assert [line for line in render(document, "en").splitlines() if "25.2.0" in line] == [
        "| driver | 25.2.0 |"
    ]


def test_the_note_of_a_simulation_says_so() -> None:
    document = report(row("serving.text", None))
    changes = {"simulated": True, "origin": "simulated", "checkpoint": "tiny"}
    document["receipt"] = {**RECEIPT, **changes}
    note = [line for line in render(document, "zh").splitlines() if line.startswith("> ")]
    assert note[0].endswith("**npu，模拟**，**tiny**。")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_lines_of_the_log_are_printed_as_they_are(language: str) -> None:
    lines = ["INFO:     Application startup complete.", "[acl_graph.py:187] Replaying aclgraph"]
    text = render(report(row("serving.text", None), log_lines=lines), language)
    assert "\n".join(lines) in fenced(text, "text")


def test_an_unknown_engine_is_not_called_unchanged() -> None:
    def changes(**unmodified: Any) -> tuple[str, list[str]]:
        (step,) = [one for one in page(unmodified=unmodified).steps if one.number == "4"]
        return step.result, [shown(text, translator("en")) for text in step.evidence]

    unchanged = "vllm: 0 lines changed (every file is that of the release)"
    unknown = "ascend: its files cannot be compared with those of a release"
    assert changes(vllm=True) == ("pass", [unchanged])
    assert changes(vllm=True, ascend=["a.py"]) == ("fail", ["ascend: changed files: a.py"])
    assert changes(vllm=True, ascend=None) == ("missing", [unchanged, unknown])
    assert changes() == ("missing", [])


@pytest.mark.parametrize(
    ("statuses", "result"),
    [
        (["pass", "na"], "pass"),
        (["pass", "fail"], "fail"),
        (["pass", "error"], "fail"),
        (["skip"], "missing"),
        (["na"], "missing"),
        (["xfail"], "missing"),
        ([], "missing"),
    ],
)
def test_a_step_is_done_only_if_something_passed_and_nothing_failed(
    statuses: list[str], result: str
) -> None:
    rows = [row("determinism.repeat", None, status=status) for status in statuses]
    (step,) = [one for one in page(row("serving.text", None), *rows).steps if one.number == "8"]
    assert step.result == result


def test_a_dimension_without_a_pass_says_why() -> None:
    """A mark of failure beside perfect figures, and no evidence where there can be none."""
    told = {"got": "a", "expected": "a", "exact_match": True}
    found = page(
        row("baseline.text", "text/name", told),
        row("baseline.text", "text/sum", status="error", reason="the server has ended"),
        row("tasks.chart", "no-case", status="na", reason="vqa is declared unsupported: no"),
    )
    evidence = {one.name.text: one.evidence for one in found.conclusion.dimensions}
    shown_ = [shown(one, translator("en")) for one in evidence["accuracy of text"]]
    assert shown_ == ["1 of 1 answers equal the reference's (100%)", "1 errors"]
    assert evidence["questions about images"] == (sentence("vqa is declared unsupported: no"),)
    (accuracy,) = [one for one in found.steps if one.number == "7"]
    assert accuracy.evidence == evidence["accuracy of text"]


@pytest.mark.parametrize(
    ("rows", "result", "told"),
    [
        ([("determinism.concurrent", "pass")], "pass", "1 passed"),
        ([("ladder.concurrent", "pass"), ("ladder.concurrent", "na")], "pass", "1 passed"),
        ([("determinism.repeat", "pass"), ("ladder.concurrent", "fail")], "fail", "1 failed"),
    ],
)
def test_many_requests_at_once_belong_to_self_consistency(
    rows: list[tuple[str, str]], result: str, told: str
) -> None:
    """No mark of success without evidence, and none while the ladder failed."""
    found = page(
        row("serving.text", None),
        *(row(name, f"case-{at}", status=status) for at, (name, status) in enumerate(rows)),
    )
    dimensions = {one.name.text: one for one in found.conclusion.dimensions}
    dimension = dimensions["self-consistency"]
    assert dimension.result == result
    assert told in [shown(one, translator("en")) for one in dimension.evidence]
    (step,) = [one for one in found.steps if one.number == "8"]
    assert step.result == result


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_error_is_under_the_name_of_its_criterion(language: str) -> None:
    stopped = row("dataset.mmmu_val", None, status="error", reason="no samples")
    text = render(report(row("serving.text", None), stopped), language)
    _, _, after = text.partition("**dataset.mmmu\\_val**")
    assert fenced(after, "text")[0] == "no samples"


def read(case_id: str, truth: str, text: str, **measured: float) -> list[Row]:
    """The rows of a page that was read."""
    told = {"golden_cer": 0.0, "truth": truth, "got": text}
    return [
        row(f"document.{name}", case_id, told if name == "characters" else {}, measured=value)
        for name, value in measured.items()
    ]


def test_the_accuracy_over_all_pages_counts_each_character_once() -> None:
    long = read("document/a", "x" * 90, "x" * 90, characters=0.0, lines=1.0, numbers=1.0)
    short = read("document/b", "12 3456789", "", characters=1.0, lines=0.0, numbers=0.0)
    found = page(*long, *short).reading
    assert not isinstance(found, Missing)
    assert found.characters == pytest.approx(0.9)
    assert found.numbers == pytest.approx(0.0)  # only the second page has numbers
    assert found.lines == pytest.approx(0.5)
    assert found.pages[1].difference == (("-", "12 3456789"), ("+", ""))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_pictures_that_a_document_shows_are_among_its_files(language: str) -> None:
    shown_case = case("Read it.", ["page-01"])
    for image in shown_case["images"]:
        content = (REPOSITORY / image["file"]).read_bytes()
        image["sha256"] = hashlib.sha256(content).hexdigest()
    rows = read("document/page-01", "a title", "a title", characters=0.0, lines=1.0)
    written = files(report(*rows, cases={"document/page-01": shown_case}), [language])
    text = str(written[f"adaptation.{SLUG}.{language}.md"])
    (name,) = re.findall(r"!\[.*\]\((page\..*)\)", text)
    assert name in written
    assert f"| {name} |" in text.partition(translator(language)("Files"))[2]


def test_pages_are_counted_by_kind_of_content() -> None:
    rows = [
        *read("document/page-01", "x" * 30, "x" * 30, characters=0.0, lines=1.0),
        *read("document/page-02", "x" * 10, "", characters=1.0, lines=0.0),
        *read("document/formula", "E = mc", "E = mc", characters=0.0, lines=1.0, numbers=1.0),
        *read("document/invoice-1", "7", "1", characters=1.0, lines=0.0, numbers=0.0),
    ]
    lines = render(report(*rows), "zh").splitlines()
    start = lines.index("| 内容 | 页数 | 字符 | 字符（参考模型） | 整行 | 数字 |")
    assert lines[start + 2 : start + 5] == [
        "| 标题、正文与列表 | 2 | 75.00% | 100.00% | 50.00% | – |",
        "| 公式 | 1 | 100.00% | 100.00% | 100.00% | – |",
        "| document/invoice | 1 | 0.00% | 100.00% | 0.00% | 0.00% |",
    ]


def test_every_page_of_the_suite_has_a_kind_of_content() -> None:
    cases = json.loads((REPOSITORY / "fixtures" / "cases.json").read_text("utf-8"))["cases"]
    pages = [one["id"] for one in cases if one["id"].startswith("document/")]
    found = page(*(line for name in pages for line in read(name, "x", "x", characters=0.0))).reading
    assert not isinstance(found, Missing)
    assert [one.name for one in found.contents] == list(CONTENTS.values())


@pytest.mark.parametrize("truth", ["a page without numbers", "page 7"])
def test_nothing_is_said_of_numbers_that_nobody_read(truth: str) -> None:
    rates = {"characters": 0.0, **({"numbers": 1.0} if "7" in truth else {})}
    found = page(*read("document/a", truth, truth, **rates)).conclusion.dimensions
    (dimension,) = [one for one in found if one.name.text == "reading of documents"]
    texts = [shown(text, translator("en")) for text in dimension.evidence]
    assert texts == ["characters 100.00% right", "numbers 100.00% right"][: len(rates)]


@pytest.mark.parametrize("status", ["pass", "fail"])
def test_near_greedy_sampling_is_named_only_if_it_was_verified(status: str) -> None:
    found = page(row("parameters.greedy", "temperature", status=status))
    named = [control for control in found.method if "top_p 0.001" in str(control.condition)]
    assert len(named) == (status == "pass")


def test_the_speed_of_each_run_follows_from_its_times_and_tokens() -> None:
    series = [
        {"name": "latency", "unit": "s", "values": [1.1, 2.1]},
        {"name": "ttft", "unit": "s", "values": [0.1, 0.1]},
    ]
    told = {"series": series, "output_tokens": [11, 11]}
    found = page(row("performance.single_stream", "text", told)).speed
    assert not isinstance(found, Missing)
    (runs,) = found.runs
    assert [one.output_tokens for one in runs.requests] == [11, 11]
    assert runs.requests[0].throughput == pytest.approx(10)
    assert runs.requests[0].decode_throughput == pytest.approx(10)
    assert runs.mean.seconds == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.999968, "0.999968"),
        (0.999915, "0.999915"),
        (0.99996, "0.999960"),
        (-0.999968, "-0.999968"),
        (1.0, "1"),
        (1 - 1e-12, "1"),
        (1.00004, "1"),
        (0.9985, "0.9985"),
        (12.345678, "12.35"),
        (12345.6, "12346"),
        (math.inf, "inf"),
    ],
)
def test_a_number_is_shown_without_exponent_and_not_as_one(value: float, text: str) -> None:
    assert rounded(value, 4) == text


@pytest.mark.parametrize(
    ("value", "text"), [(999.4, "999"), (999.7, "1000"), (1e300, "1e+300"), (float("inf"), "inf")]
)
def test_a_number_just_below_a_power_of_ten_has_no_exponent(value: float, text: str) -> None:
    assert rounded(value, 3) == text


def test_the_figures_of_the_numerics_have_their_digits_and_units() -> None:
    told = {"relative_error": 0.028886, "cosine_similarity": 0.999978}
    lines = render(report(row("numerics.logits", "cosine_similarity", told)), "en").splitlines()
    assert "| relative\\_error | 2.89% |" in lines
    assert any(line.startswith("| cosine\\_similarity | 0.999978") for line in lines)


def test_a_score_has_two_standard_errors() -> None:
    told = {
        "score": 0.36556,
        "score_standard_error": 0.01605,
        "samples": 900,
        "total": 900,
        "reference": {"score": 0.363, "source": "a document"},
        "difference": 0.00256,
        "standard_error": 0.0227,
        "protocol": {"benchmark": "mmmu_val", "metric": "acc"},
    }
    text = render(report(row("dataset.mmmu_val", None, told)), "en")
    cells = "mmmu\\_val | acc | 36.56% | 1.60% | 900/900 | 36.30% (a document) | 0.26% | 2.27%"
    assert f"| {cells} | ✅ |" in text.splitlines()


def test_a_data_set_has_its_split_and_an_error_no_harness() -> None:
    told = {"score": 0.5, "protocol": {"benchmark": "docvqa", "harness": "evalscope"}}
    stopped = row("dataset.chartqa_test", None, status="error", reason="too few samples")
    text = render(report(row("dataset.docvqa_val", None, told, finding="equal"), stopped), "en")
    assert "* docvqa\\_val (evalscope): equal" in text.splitlines()
    assert "* chartqa\\_test: too few samples" in text.splitlines()
    assert "docvqa\\_val: 50.00%; 1 errors" in text


DOCUMENT = {
    "source": "a document",
    "device": "Ascend 910 (64 GB)",
    "versions": {"vllm-ascend": "0.18.0rc1"},
    "dtype": "bfloat16",
}
LOAD = {"name": "128/128", "requests": 10, "input_tokens": 128, "output_tokens": 128}
ON_AN_NPU = {
    "platform": "npu",
    "checkpoint": "full",
    "device": "1 x 910B4",
    "versions": {"vllm-ascend": "0.18.0rc1"},
}


def figure(**fields: Any) -> Row:
    return {
        "value": 71.5,
        "unit": "ms",
        "workload": "128/128",
        "statistic": "latency.mean",
    } | fields


def beside(one: Row, *rows: Row, **receipt: Any) -> list[str]:
    """The cells of a published figure in the document of a run on an NPU."""
    told = {**DOCUMENT, "figures": [one]}
    changes = {"published": told, "workloads": [LOAD], "memory": {}}
    seen = report(row("serving.text", None), *rows, **changes)
    seen["receipt"] = RECEIPT | ON_AN_NPU | receipt
    lines = render(seen, "en").splitlines()
    (line,) = lines[lines.index("|---|---|---|---|---|---|") + 1 :][:1]
    return [cell.strip() for cell in line.strip("| ").split("|")]


def workload(**conditions: Any) -> Row:
    name = "workload.128/128.latency.mean"
    return row(
        "performance.workload",
        "128/128",
        {
            "figures": [{"name": name, "value": 0.25, "unit": "s", "low": 0.2, "high": None}],
            "conditions": {"requests": 10, "warmups": 2, "dtype": "bfloat16"}
            | {"input_tokens": 128.0, "output_tokens": 128.0}
            | conditions,
            "untold": "10 requests cannot tell p99 (at least 299)",
        },
    )


def test_a_published_figure_is_beside_the_measured_one_with_both_conditions() -> None:
    name, value, stated, measured, conditions, equal = beside(figure(), workload())
    assert name == "workload · 128/128 · latency · mean"
    assert value == "71.5 ms"
    assert stated == (
        "Ascend 910 (64 GB), vllm-ascend 0.18.0rc1, bfloat16, requests: 10, input tokens: 128, "
        "output tokens: 128"
    )
    assert measured == "250 ms (200 ms … –)"
    assert conditions.startswith("1 x 910B4, checkpoint full, requests: 10, warm-up requests: 2,")
    assert equal == "yes"


@pytest.mark.parametrize(
    ("one", "measured", "receipt", "differences"),
    [
        (figure(), workload(), {"checkpoint": "tiny"}, "no: a tiny checkpoint"),
        (figure(), workload(), {"device": "1 x 310P3"}, "no: another device"),
        (figure(), workload(), {"simulated": True}, "no: another device"),
        (figure(), workload(), {"versions": {}}, "no: no vllm-ascend"),
        (
            figure(),
            workload(),
            {"versions": {"vllm-ascend": "0.23.0"}},
            "no: vllm-ascend 0.23.0",
        ),
        (figure(), workload(dtype="float16"), {}, "no: float16"),
        (figure(), workload(output_tokens=13.0), {}, "no: output tokens: 13"),
        (figure(), workload(dtype=None), {}, "no: unknown dtype"),
        (figure(), workload(input_tokens=None), {}, "no: unknown number of tokens"),
        (figure(conditions="cold"), workload(), {}, "no: cold"),
        (figure(device="a GPU"), workload(), {}, "no: another device"),
    ],
)
def test_conditions_that_differ_are_named(
    one: Row, measured: Row, receipt: Row, differences: str
) -> None:
    assert beside(one, measured, **receipt)[-1] == differences


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("dataset.mmmu_val", "数据集 · mmmu_val"),
        ("workload.text.user_throughput.mean", "工作负载 · text · 单用户吞吐量 · 平均"),
        ("text.user_throughput.mean", "文本 · 单用户吞吐量 · 平均"),
        ("tasks.scene_text.seconds", "场景文字（TextVQA） · 平均请求耗时"),
    ],
)
def test_a_name_of_the_model_file_is_no_word_of_a_figure(name: str, label: str) -> None:
    assert shown(figure_name(name), translator("zh")) == label


def test_the_versions_of_a_document_are_not_those_of_its_figures_from_elsewhere() -> None:
    """A document on an NPU quotes the figures of a GPU: vllm-ascend was not there."""
    cells = beside(figure(device="a GPU"), workload(), versions={})
    assert cells[2].startswith("a GPU, requests: 10,")
    assert cells[5] == "no: another device"


def test_the_device_of_a_figure_is_in_the_language_of_the_document() -> None:
    figures = [figure(device="a device that is not named")]
    one = row("serving.text", None)
    text = render(report(one, published={**DOCUMENT, "figures": figures}), "zh")
    assert "| 71.5 ms | 未说明的设备 |" in text


def test_a_figure_of_a_cpu_is_not_taken_for_that_of_an_npu() -> None:
    cells = beside(figure(), workload(), platform="cpu", checkpoint="tiny", device="a CPU")
    assert cells[3] == "250 ms (200 ms … –), not on an NPU"
    assert cells[4].startswith("a CPU, checkpoint tiny,")


@pytest.mark.parametrize(
    ("one", "rows", "reason"),
    [
        (figure(), [], "not measured; run pytest conformance -k TestIt -m performance"),
        (
            figure(statistic="latency.p99"),
            [workload()],
            "10 requests cannot tell p99 (at least 299)",
        ),
        (
            {"value": 1, "unit": "%", "name": "DocVQA", "unmeasured": "its answers are secret"},
            [],
            "its answers are secret",
        ),
        (
            {"value": 1, "unit": "%", "metric": "dataset.mmmu_val"},
            [row("dataset.mmmu_val", None, status="na", reason="a tiny checkpoint cannot")],
            "a tiny checkpoint cannot",
        ),
        (
            figure(),
            [row("performance.workload", "128/128", status="error", reason="x")],
            "a failure or an error stopped performance.workload",
        ),
        (
            {"value": 4.13, "unit": "GB", "metric": "weights_gib"},
            [],
            "not measured; run pytest conformance -k TestIt --vlm-report=reports",
        ),
        (
            {"value": 4.13, "unit": "GB", "metric": "weights_gib"},
            [row("serving.ready", None)],
            "the server did not state it",
        ),
    ],
)
def test_a_figure_without_a_neighbour_says_why(one: Row, rows: list[Row], reason: str) -> None:
    cells = beside(one, *rows)
    assert (cells[3], cells[5]) == ("–", "–")
    assert cells[4].startswith(reason), cells


@pytest.mark.parametrize(
    ("metric", "measured"),
    [("start", "31.5 s"), ("weights_seconds", "1.4 s"), ("weights_gib", "2.15 GiB")],
)
def test_a_published_loading_is_beside_what_was_loaded(metric: str, measured: str) -> None:
    told = {**DOCUMENT, "figures": [{"value": 60, "unit": "s", "metric": metric}]}
    phases = {"start": 30.0, "weights": 1.5, "first image": 12.0}
    one = row("serving.text", "text/name")
    text = render(report(one, published=told, phases_seconds=phases), "en")
    assert f"| 60 s | Ascend 910 (64 GB), vllm-ascend 0.18.0rc1, bfloat16 | {measured}" in text


def test_a_workload_has_its_conditions_its_runs_and_what_it_cannot_tell() -> None:
    seen = workload()
    seen["evidence"] |= {
        "series": [
            {"name": "latency", "unit": "s", "values": [1.1]},
            {"name": "ttft", "unit": "s", "values": [0.1]},
        ],
        "output_tokens": [11],
    }
    text = render(report(seen), "en")
    section = text.partition("### workload: 128/128")[2].partition("\n### ")[0]
    assert "requests: 10; warm-up requests: 2;" in section
    assert "| Run 1 | 1.1 s | 100 ms | 1 s | 11 | 10 tok/s | 10 tok/s |" in section
    assert "10 requests cannot tell p99 (at least 299)" in section


def test_reasons_that_differ_only_in_the_case_are_one_line() -> None:
    rows = [
        row(criterion, name, status="na", reason=f"{name} is for full checkpoints")
        for criterion in ("baseline.text", "serving.text")
        for name in ("text/long", "text/longer")
    ]
    (note,) = page(row("serving.models", None), *rows).notes
    assert note.reason == "the case is for full checkpoints"
    assert note.cases == ("text/long", "text/longer")
    assert note.rows == 4


def named_sections() -> Iterator[str]:
    """The sections that the table of docs/document.md names, "title" and "–" aside."""
    guide = (REPOSITORY / "docs" / "document.md").read_text("utf-8")
    for line in guide.splitlines():
        if re.match(r"\|[^|]+\| [MIGQ ]+ \|", line):
            yield from (part.strip() for part in line.split("|")[3].split(";"))


def has_section(text: str, name: str) -> bool:
    """True if a document has the headings of a name like "Accuracy: text" or "Deployment, 3"."""
    _, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    chapter, _, section = name.partition(":")
    chapter, _, number = chapter.partition(",")
    found = [part for part in parts if part.startswith(chapter)]
    if number.strip().isdigit():
        return f"### {number.strip()}. " in found[0]
    if chapter not in {"Accuracy", "Performance"} or not section:
        return bool(found)
    wanted = re.split(r"[,:]", section)[0].strip()
    return f"\n### {wanted}" in found[0].lower()


def test_the_document_has_every_section_that_its_guide_names() -> None:
    runs = {
        "series": [{"name": "latency", "unit": "s", "values": [1.1]}],
        "figures": [{"name": "text.latency.mean", "value": 1.1, "unit": "s"}],
    }
    rows = [row("performance.single_stream", kind, runs) for kind in ("text", "image")]
    rows.append(row("performance.workload", "128/128", runs))
    published = {"source": "a document", "figures": [figure()]}
    text = render(report(row("serving.text", None), *rows, published=published), "en")
    names = set(named_sections()) - {"title", "–"}
    assert len(names) > 20
    assert [name for name in sorted(names) if not has_section(text, name)] == []
    assert not has_section(text, "Accuracy: made up")


PAYLOADS = ("| a | b |\n|---|", "<script>alert(1)</script>", "```\n# 标题\n```", "![x](y) `*_~#")


def everywhere(text: str) -> Row:
    """A report that has a model's text in every place that can have one."""
    parted = {"position": 1, "served": [[text, -0.1]], "reference": [[text, -0.2]], "margin": 0.1}
    compared = {"got": f"{text}x", "expected": text, "reference": text, "exact_match": False}
    score = {
        "score": 0.5,
        "samples": 1,
        "total": 2,
        "categories": {text: {"samples": 1, "score": 1}},
    }
    return report(
        row("determinism.repeat", "text/name", {"texts": [text, f"{text}y"]}),
        row("baseline.text", "text/name", {**compared, "parting": parted}),
        row("baseline.image", "image/metrics", {**compared, "parting": parted}),
        row("baseline.divergence", text, {"parting": parted}, finding=text),
        *read("document/page-01", text, f"{text}z", characters=0.5, lines=0.5),
        row("serving.text", "text/name", {"got": text, "answer": {"output_tokens": 1}}),
        row("tasks.chart", text, {"got": text, "accepted": [text]}),
        row("dataset.mmmu_val", None, score, finding=text),
        row("serving.image", text, status="skip", reason=text),
        cases={name: {**case(text, pages), "images": []} for name, (_, pages) in CASES.items()},
        log_lines=[text],
    )


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text", PAYLOADS)
def test_no_text_of_a_model_changes_the_document(text: str, language: str) -> None:
    harmless, hostile = (render(everywhere(one), language) for one in ("x", text))
    assert headings(hostile) == headings(harmless)
    assert table_shapes(hostile) == table_shapes(harmless)
    assert not re.search(r"<\w", "\n".join(blocks(hostile)[1]))


# --- the printed commands ------------------------------------------------------------------------


def specs() -> list[ModelSpec]:
    """The models of conformance/."""
    found = []
    for path in sorted((REPOSITORY / "conformance").glob("test_*.py")):
        for value in runpy.run_path(str(path)).values():
            if isinstance(value, type) and issubclass(value, VLMConformance):
                found += [value.model] if isinstance(vars(value).get("model"), ModelSpec) else []
    return found


def printed_serve_words(spec: ModelSpec) -> list[str]:
    """The words of a model's printed serve command, as bash gives them to vllm."""
    words = ["vllm", "serve", spec.model_id, *command_line(spec.serve)]
    env = [f"{name}={shlex.quote(value)}" for name, value in spec.env.items()]
    line = " ".join([*env, shlex.join(words)])
    changes = {"serve_command": line, "env": dict(spec.env)}
    text = render(report(row("serving.text", None), **changes), "zh")
    (block,) = [one for one in fenced(text, "bash") if one.startswith("vllm serve")]
    script = f"vllm() {{ printf '%s\\0' \"$@\"; }}\n{block}"
    done = subprocess.run([BASH, "-ec", script], capture_output=True, check=True)
    return done.stdout.decode("utf-8").split("\0")[:-1]


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.model_id)
def test_the_printed_command_has_the_arguments_of_the_model_file(spec: ModelSpec) -> None:
    words = printed_serve_words(spec)
    address = ["--host", "0.0.0.0", "--port", "8000"]  # noqa: S104
    assert words == ["serve", spec.model_id, *address, *command_line(spec.serve)]


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.model_id)
def test_every_argument_of_a_model_file_has_its_purpose(spec: ModelSpec) -> None:
    for serve in (spec.serve, *(variant.serve for variant in spec.variants)):
        flags = [word for word in command_line(serve) if word.startswith("--")]
        assert [flag for flag in flags if flag not in PURPOSES] == []


def test_arguments_have_their_value_and_purpose_and_unknown_ones_are_left_out() -> None:
    command = f"vllm serve {MODEL} --max-model-len 8192 --no-enable-prefix-caching --made-up 7"
    lines = render(report(row("serving.text", None), serve_command=command), "zh").splitlines()
    start = lines.index("| 参数 | 说明 |")
    assert lines[start + 2 : start + 7] == [
        "| --host 0.0.0.0 | 服务监听地址，0.0.0.0 表示监听本机所有地址 |",
        "| --port 8000 | API 端口 |",
        "| --max-model-len 8192 | 最大上下文长度（输入与输出 token 之和） |",
        "| --no-enable-prefix-caching | 关闭前缀缓存：每个请求都从头计算 |",
        "",
    ]


@pytest.mark.vllm
def test_vllm_accepts_every_printed_serve_command() -> None:
    lines = [json.dumps(printed_serve_words(spec)[2:]) for spec in specs()]
    done = subprocess.run(
        [sys.executable, *COMMAND[1:]],
        input="\n".join(lines),
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == len(lines) * [
        {"problem": None}
    ]


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.model_id)
def test_the_offline_example_has_the_arguments_of_the_model_file(spec: ModelSpec) -> None:
    line = shlex.join(["vllm", "serve", spec.model_id, *command_line(spec.serve)])
    parsed = parse_serve_command(line)
    assert parsed is not None
    of_server = {"enable_auto_tool_choice", "tool_call_parser"}
    assert parsed.python_arguments == {
        name: value for name, value in spec.serve.items() if name not in of_server
    }


ARGUMENTS = """
import dataclasses
import inspect
import json
from vllm import LLM
from vllm.engine.arg_utils import EngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
names = [[one.name for one in dataclasses.fields(kind)] for kind in (EngineArgs, FrontendArgs)]
print(json.dumps([*names, [*inspect.signature(LLM.__init__).parameters]]))
"""


@pytest.mark.vllm
def test_the_arguments_of_the_api_server_are_those_of_vllm() -> None:
    environment = {**os.environ, "PYTHONPATH": child_pythonpath(os.environ.get("PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, "-c", ARGUMENTS],
        env=environment,
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    engine, server, offline = map(set, json.loads(done.stdout.splitlines()[-1]))
    assert not (engine | offline) & API_SERVER_ARGUMENTS
    assert server - engine - offline <= API_SERVER_ARGUMENTS


OF_THE_HOST = "LD_PRELOAD=/venv/lib/libiomp5.so VLLM_CPU_KVCACHE_SPACE=1 A='b c'"


def test_what_the_suite_adds_for_its_own_host_is_not_printed() -> None:
    """A platform's variables and the server of numerics.borders are of no use to a reader."""
    command = f"{OF_THE_HOST} vllm serve {MODEL} --seed 7"
    variants = {
        "eager": {"serve_command": f"B=1 {command} --enforce-eager"},
        "small_steps": {"serve_command": f"{command} --max-num-batched-tokens 64"},
    }
    rows = [row("serving.text", None), row("equivalence.eager", "answers")]
    text = render(report(*rows, serve_command=command, variants=variants), "zh")
    for word in ("LD_PRELOAD", "VLLM_CPU_KVCACHE_SPACE", "small_steps", "batched-tokens"):
        assert word not in text
    address = "--host 0.0.0.0 \\\n  --port 8000 \\\n"
    start = f"vllm serve {MODEL} \\\n  {address}  --seed 7"
    shown = [one for one in fenced(text, "bash") if one.startswith(("export", "vllm serve"))]
    assert shown == [
        "export A='b c'",
        start,
        f"export B=1\nexport A='b c'\n{start} \\\n  --enforce-eager",
    ]


IMAGE = "quay.io/ascend/vllm-ascend:v0.18.0rc1"


def containers(receipt: Row, **changes: Any) -> list[str]:
    """The commands of a document that start a container."""
    document = report(row("serving.text", None), **{"cards": [4, 6], **changes})
    environment = {**RECEIPT["environment"], "image": IMAGE}
    document["receipt"] = {**RECEIPT, "environment": environment, **receipt}
    return [one for one in fenced(render(document, "zh"), "bash") if "docker run" in one]


def test_the_container_of_an_npu_run_has_its_image_and_as_many_cards() -> None:
    (script,) = containers({})
    words = bash(f"docker() {{ printf '%s\\n' \"$@\"; }}\n{script}").splitlines()
    devices = [words[at + 1] for at, word in enumerate(words) if word == "--device"]
    cards = [one for one in devices if re.fullmatch(r"/dev/davinci\d+", one)]
    assert cards == ["/dev/davinci0", "/dev/davinci1"]
    assert words[-2:] == [IMAGE, "bash"]
    guide = (REPOSITORY / "docs" / "npu.md").read_text("utf-8")
    assert [line for line in script.splitlines()[1:] if line not in guide.splitlines()] == [
        "  --device /dev/davinci0 \\",
        "  --device /dev/davinci1 \\",
        "  --device /dev/davinci_manager \\",
        "  --device /dev/devmm_svm \\",
        "  --device /dev/hisi_hdc \\",
    ]  # the guide has these in two lines


@pytest.mark.parametrize(
    ("receipt", "changes"),
    [
        ({"environment": {"image": None}}, {}),
        ({"environment": None}, {}),
        ({"platform": "cpu", "origin": "cpu"}, {}),
        ({}, {"cards": []}),
    ],
)
def test_without_an_image_or_cards_no_container_is_printed(receipt: Row, changes: Row) -> None:
    assert containers(receipt, **changes) == []


ENGINE = """
import json, os

class SamplingParams:
    def __init__(self, **options): self.options = options

class LLM:
    def __init__(self, **arguments): self.arguments = arguments

    def chat(self, messages, sampling):
        text = json.dumps([self.arguments, sampling.options, messages, os.environ["A"]])
        return [type("Request", (), {"outputs": [type("Answer", (), {"text": text})]})]
"""


def test_the_offline_example_runs_as_printed(tmp_path: Path) -> None:
    (tmp_path / "vllm.py").write_text(ENGINE, "utf-8")
    text = render(report(row("serving.text", None)), "zh")
    (script,) = [one for one in fenced(text, "python") if "LLM(" in one]
    (tmp_path / "example.py").write_text(script, "utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "example.py")],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    arguments, options, (message,), variable = json.loads(done.stdout)
    assert arguments == {
        "model": MODEL,
        "dtype": "bfloat16",
        "enforce_eager": True,
        "limit_mm_per_prompt": {"image": 1},
        "enable_prefix_caching": False,
    }
    assert options == {"temperature": 0, "max_tokens": 256}
    image, prompt = message["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
    assert prompt["text"] == CASES["document/page-01"][0]
    assert variable == "b c"


@pytest.fixture
def printed(stub: Serve) -> dict[str, list[str]]:
    """Language -> the printed requests, sent to a running server instead of port 8000."""
    text = render(report(row("serving.text", None)), "zh")
    url = stub()
    return {
        language: [one.replace(SERVED, url) for one in fenced(text, language) if SERVED in one]
        for language in ("bash", "python")
    }


def expected(knowledge: Knowledge, case_id: str) -> str:
    (known,) = [
        known
        for (prompt, images), known in knowledge.known.items()
        if prompt == CASES[case_id][0] and len(images) == len(CASES[case_id][1]) and known.text
    ][:1]
    return known.text


def bash(script: str) -> str:
    """The output of a script that runs where the document's paths begin."""
    done = subprocess.run([BASH, "-ec", script], cwd=REPOSITORY, capture_output=True, check=True)
    return done.stdout.decode("utf-8")


def answered(script: str) -> str:
    return str(json.loads(bash(script))["choices"][0]["message"]["content"])


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")


@needs_curl
@pytest.mark.parametrize(("index", "case_id"), [(0, "text/name"), (1, "document/page-01")])
def test_the_curl_examples_run_as_printed(
    index: int, case_id: str, printed: dict[str, list[str]], knowledge: Knowledge
) -> None:
    assert answered(printed["bash"][index]) == expected(knowledge, case_id)


@needs_curl
def test_the_example_with_an_address_runs_as_printed(
    printed: dict[str, list[str]], knowledge: Knowledge
) -> None:
    text = render(report(row("serving.text", None)), "zh")
    (command,) = [one for one in fenced(text, "bash") if "http.server" in one]
    words = shlex.split(command.replace(FILES, "0").replace("python3", sys.executable))
    with subprocess.Popen(
        words,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as files:
        assert files.stdout is not None
        port = re.findall(r"port (\d+)", files.stdout.readline())[0]
        answer = answered(printed["bash"][2].replace(FILES, port))
        files.kill()
    assert answer == expected(knowledge, "document/page-01")


@needs_curl
def test_the_example_with_a_system_message_runs_as_printed(
    printed: dict[str, list[str]], knowledge: Knowledge
) -> None:
    (known,) = {
        known.text for (text, _), known in knowledge.known.items() if text.startswith("system:")
    }
    assert answered(printed["bash"][3]) == known


@needs_curl
def test_the_served_models_are_asked_as_printed(printed: dict[str, list[str]]) -> None:
    assert [one["id"] for one in json.loads(bash(printed["bash"][4]))["data"]] == [MODEL]
    assert len(printed["bash"]) == 5


def test_the_reply_is_that_of_the_printed_image_request() -> None:
    answer = {"prompt_tokens": 154, "output_tokens": 3, "seconds": 1.6, "finish_reason": "stop"}
    told = {"got": "标题\nx", "answer": answer}
    other = row("serving.text", "text/name", {**told, "got": "another"})
    text = render(report(other, row("serving.image", "document/page-01", told)), "zh")
    (reply,) = fenced(text, "json")
    assert json.loads(reply) == {
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "标题\nx"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 154, "completion_tokens": 3},
    }
    assert fenced(render(report(other), "zh"), "json") == []


@pytest.mark.skipif(shutil.which("ss") is None, reason="no ss")
def test_the_check_of_the_port_shows_who_listens() -> None:
    text = render(report(row("serving.text", None)), "zh")
    (command,) = [one for one in fenced(text, "bash") if one.startswith("ss ")]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        assert port in bash(command.replace("8000", port))
    assert bash(command.replace("8000", port)) == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_such_cases_there_is_no_request_with_an_address_or_a_system_message(
    language: str,
) -> None:
    cases = {"text/name": case(*CASES["text/name"])}
    text = render(report(row("serving.text", None), cases=cases), language)
    assert len([one for one in fenced(text, "bash") if SERVED in one]) == 2
    assert "http.server" not in text


def test_the_sdk_example_runs_as_printed(
    printed: dict[str, list[str]], knowledge: Knowledge
) -> None:
    (script,) = printed["python"]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, check=True
    )
    answer = done.stdout.decode("utf-8").removesuffix("\n")
    assert answer == expected(knowledge, "document/page-01")

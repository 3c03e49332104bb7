"""The bundle for an Ascend community: its files, its scripts, and what it must not say."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.replay_server import Defect, Knowledge
from helpers.outcome import Serve
from helpers.paths import REPOSITORY, SLUG
from test_document import (
    CASES,
    ENGINE,
    MODEL,
    PAYLOADS,
    RECEIPT,
    SERVED,
    Row,
    everywhere,
    expected,
    facts,
    row,
)
from test_report import headings, table_shapes

from pytest_ascend_vlm import cli
from pytest_ascend_vlm.reporting import bundle as bundles
from pytest_ascend_vlm.reporting.bundle import Attached, files, of_class
from pytest_ascend_vlm.reporting.bundle.attached import attached

CLASS = "TestMinerU25"
NPU_WORDS = re.compile(r"hardware: NPU|#\+NPU|GPU/CPU 与 NPU")
LOGITS = {
    "max_abs_error": 0.76,
    "mean_abs_error": 0.056,
    "cosine_similarity": 0.99993532,
    "positions": 1000,
    "flips": 6,
    "top5_match": 0.95,
    "within_1_percent": 0.61,
    "own_within_1_percent": 0.6,
    "R": 0.91,
    "K": 0.92,
}
SCORE = {
    "score": 0.54321,
    "samples": 900,
    "total": 900,
    "protocol": {"harness": "lm_eval", "version": "0.4", "benchmark": "mmmu_val", "metric": "acc"},
}
SINGLE = {"series": [{"name": "latency", "values": [0.5, 0.7]}]}
FULL = (
    row("serving.text", "text/name"),
    row("numerics.logits", "error_ratio", LOGITS),
    row("performance.single_stream", "text", SINGLE),
    row("dataset.mmmu_val", None, SCORE),
)
COMPARED = {"got": "a", "expected": "a", "reference": "Transformers", "exact_match": True}
COMPLETE = (
    row("serving.ready", None),
    row("serving.text", "text/name"),
    row("baseline.text", "text/name", COMPARED),
    row("numerics.logits", "error_ratio", LOGITS),
    row("determinism.repeat", "text/name", {"texts": ["a", "a"]}),
)
ATTACHED = Attached("conformance/test_it.py", {}, (), knows_logs=True)


def bundle(*rows: Row, receipt: Row | None = None, **changes: Any) -> dict[str, str]:
    """The files of a bundle of these rows, as text."""
    document = {
        "schema": 2,
        "receipt": {**RECEIPT, **(receipt or {})},
        "models": [facts(**changes)],
        "rows": list(rows or FULL),
    }
    found = files(of_class(document, "TestIt"), ATTACHED)
    return {name: text if isinstance(text, str) else text.decode() for name, text in found.items()}


def vllm_ascend(found: dict[str, str]) -> dict[str, str]:
    return {Path(name).suffix: text for name, text in found.items() if "vllm-ascend/" in name}


# --- README --------------------------------------------------------------------------------------


def test_the_readme_of_an_npu_has_the_communitys_front_matter_and_section() -> None:
    readme = bundle()["README.md"]
    assert readme.startswith("---\nhardware: NPU\ntags: [NPU, Ascend, ascend-npu]\n---\n")
    assert "## GPU/CPU 与 NPU 精度对比数据" in readme.splitlines()
    for line in (
        "| max\\_abs\\_diff | 0.76 |",
        "| mean\\_abs\\_diff | 0.056 |",
        "| cosine\\_similarity | 0.99993532 |",
        "| top1\\_match | 99.40% |",
        "| top5\\_match | 95.00% |",
        "| match\\_within\\_1\\_percent | 61.00% |",
        "| match\\_within\\_1\\_percent (reference in bf16) | 60.00% |",
        "| latency\\_ms (text) | 600 ms |",
        "| latency\\_ms (image) | 无数据 |",
    ):
        assert line in readme.splitlines()
    assert readme.count("逐元素 1% 不能检验 bf16 引擎是否正确") == 1


def test_figures_without_evidence_name_the_command_that_gives_them() -> None:
    readme = bundle(row("serving.text", None))["README.md"]
    section = readme.partition("精度对比数据")[2].partition("\n## ")[0]
    for marker, names in (("numerics", "max\\_abs\\_diff"), ("performance", "latency\\_ms (text)")):
        assert f"没有数据的对比项：{names}、" in section
        assert section.count(f"-m {marker} --vlm-report=reports") == 1


def test_a_report_of_an_older_version_lacks_single_figures() -> None:
    older = {key: value for key, value in LOGITS.items() if key != "top5_match"}
    readme = bundle(row("numerics.logits", "error_ratio", older))["README.md"]
    assert "没有数据的对比项：top5\\_match\n" in readme


def test_the_counts_are_those_of_the_model() -> None:
    own, other = (
        row("serving.text", "text/name"),
        row("serving.text", None, suite_class="TestOther"),
    )
    document = {
        "schema": 2,
        "receipt": {**RECEIPT, "requests": 900, "runs": [{"argv": [], "statuses": {"pass": 2}}]},
        "models": [
            facts(
                server_starts=2,
                requests=30,
                variants={"eager": {"serve_command": "v", "requests": 3}},
            ),
            facts(suite_class="TestOther", requests=867),
        ],
        "rows": [own, other],
    }
    found = of_class(document, "TestIt")
    assert (found["receipt"]["server_starts"], found["receipt"]["requests"]) == (3, 33)
    assert found["receipt"]["runs"] == [{"argv": []}]
    readme = str(files(found, ATTACHED)["README.md"])
    assert "| 33 |" in readme
    assert "900" not in readme


@pytest.mark.parametrize("verified", [True, False, None])
def test_an_image_that_somebody_only_stated_is_left_out(verified: bool | None) -> None:
    image = "quay.io/ascend/vllm-ascend:v0.18.0rc1"
    known = {**RECEIPT["environment"], "image": image, "image_verified": verified}
    found = bundle(receipt={"environment": known})
    assert [name for name, text in found.items() if image in text and not verified] == []
    assert (f"| {image} |" in found["README.md"]) == bool(verified)


def test_punctuation_of_chinese_text_is_full_width() -> None:
    narrow = re.compile(r"[一-鿿][,:;!?()]|[,:;!?()](?=[一-鿿])")
    templates = [path.read_text("utf-8") for path in Path(bundles.__file__).parent.glob("*.j2")]
    lines = [line for text in templates for line in text.splitlines()]
    assert len(lines) > 100
    assert [line for line in lines if narrow.search(line)] == []


@pytest.mark.parametrize(
    "receipt",
    [
        {"platform": "cpu"},
        {"platform": "endpoint"},
        {"simulated": True},
        {"platform": "cpu", "origin": "npu"},
    ],
)
def test_what_did_not_come_from_an_npu_does_not_look_as_if_it_did(receipt: Row) -> None:
    found = bundle(receipt=receipt)
    assert not vllm_ascend(found)
    assert [name for name, text in found.items() if NPU_WORDS.search(text)] == []
    assert "## 精度对比数据（不是 NPU 结果）" in found["README.md"].splitlines()


@pytest.mark.parametrize("status", ["fail", "error", "skip"])
def test_another_models_pass_on_an_npu_proves_nothing(status: str) -> None:
    other = row("serving.text", None, model="an-org/other", suite_class="TestOther")
    own = row("serving.text", None, status=status, reason="no")
    found = bundle(other, own)
    assert not NPU_WORDS.search(found["README.md"])
    parts = [json.loads(text) for name, text in found.items() if name.startswith("results/")]
    assert all(part["receipt"]["origin"] != "npu" for part in parts)
    assert {r["model"] for part in parts for r in part["rows"]} == {MODEL}


def test_a_tiny_checkpoint_gives_nothing_to_vllm_ascend() -> None:
    found = bundle(receipt={"checkpoint": "tiny"})
    assert not vllm_ascend(found)
    assert "| 权重 | 微型检查点（tiny），不是真实权重 |" in found["README.md"].splitlines()


@pytest.mark.parametrize("text", PAYLOADS)
def test_no_text_of_a_model_changes_the_bundle(text: str) -> None:
    def of(said: str) -> dict[str, str]:
        told = everywhere(said)
        return bundle(*told["rows"], cases=told["models"][0]["cases"])

    harmless, hostile = of("x"), of(text)
    assert harmless.keys() == hostile.keys()
    for name in (name for name in harmless if name.endswith(".md")):
        assert headings(hostile[name]) == headings(harmless[name])
        assert table_shapes(hostile[name]) == table_shapes(harmless[name])
    for name in (name for name in harmless if name.endswith(".py")):
        assert skeleton(hostile[name]) == skeleton(harmless[name])
    for name in (name for name in harmless if name.startswith("results/")):
        assert json.loads(hostile[name])["rows"]


def skeleton(source: str) -> str:
    """A script without its texts."""
    return re.sub(
        r"Constant\(value='(?:[^'\\]|\\.)*'|Constant\(value=\"(?:[^\"\\]|\\.)*\"",
        "",
        ast.dump(ast.parse(source)),
    )


@pytest.mark.parametrize("prompt", [*PAYLOADS, 'a"""\nimport os\n', "\u2028import os\n\x0c'"])
def test_no_prompt_changes_the_inference_script(prompt: str) -> None:
    def script(said: str) -> str:
        message = {"role": "user", "text": said, "images": 0}
        case = {"messages": [message], "images": [], "videos": [], "max_tokens": 5}
        return bundle(cases={"text/name": case}, model=MODEL)["inference.py"]

    assert skeleton(script(prompt)) == skeleton(script("x"))


# --- the scripts ---------------------------------------------------------------------------------


@pytest.fixture
def written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """A bundle of a run with the tiny checkpoint on a CPU, as the command writes it."""
    monkeypatch.chdir(REPOSITORY)
    logs = tmp_path / "logs" / "20260101-000000-abcdef"
    logs.mkdir(parents=True)
    for name in (f"{SLUG}-{CLASS}.log", f"{SLUG}-{CLASS}-graphs.2.log", f"{SLUG}-{CLASS}Else.log"):
        (logs / name).write_text("started", "utf-8")
    runs = [{"argv": [], "seconds": 1, "logs": str(path)} for path in (logs, tmp_path / "gone")]
    picture = "fixtures/documents/page-01.png"
    sha256 = hashlib.sha256((REPOSITORY / picture).read_bytes()).hexdigest()
    model = facts(suite_class=CLASS)
    for case in model["cases"].values():
        case["images"] = [{**image, "sha256": sha256} for image in case["images"]]
    document = {
        "schema": 2,
        "receipt": {**RECEIPT, "platform": "cpu", "checkpoint": "tiny", "runs": runs},
        "models": [model],
        "rows": [row("serving.text", "text/name", suite_class=CLASS)],
    }
    (tmp_path / "report.json").write_text(json.dumps(document), "utf-8")
    output = tmp_path / "bundle"
    assert cli.main(["report", "bundle", str(tmp_path), f"--output={output}"]) == 0
    assert f"written: {output / 'README.md'}\n" in capsys.readouterr().out
    return output


@pytest.mark.parametrize("name", ["{tmp}/page.png", "fixtures/../page.png", "fixtures/page.png"])
def test_a_picture_is_copied_into_the_bundle_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("page.png", "fixtures/page.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"pixels")
    source = f"from pytest_ascend_vlm import VLMConformance\nclass {CLASS}(VLMConformance): pass"
    (tmp_path / "test_a.py").write_text(source, "utf-8")
    image = {"file": name.format(tmp=tmp_path), "sha256": hashlib.sha256(b"pixels").hexdigest()}
    model = facts(suite_class=CLASS, cases={"a": {"images": [image]}})
    rows = [row("serving.text", "text/name", suite_class=CLASS)]
    document = {"receipt": RECEIPT, "models": [model], "rows": rows}
    pictures = [path for path in attached(document, tmp_path).files if path.endswith(".png")]
    assert pictures == ([name] if name == "fixtures/page.png" else [])


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=script.parent.parent.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_bundle_has_the_logs_and_says_which_are_gone(written: Path) -> None:
    home = written / "logs" / "20260101-000000-abcdef"
    names = {path.name for path in home.iterdir()}
    assert names == {f"{SLUG}-{CLASS}.log", f"{SLUG}-{CLASS}-graphs.2.log"}
    readme = (written / "README.md").read_text("utf-8")
    escaped = str(written.parent / "gone").replace("_", "\\_")
    assert f"* 没有服务日志：{escaped} 中已经没有此模型的日志。" in readme


def test_every_file_of_the_readme_is_there(written: Path) -> None:
    text = (written / "README.md").read_text("utf-8").partition("## 文件列表")[2]
    named = re.findall(r"^\| ([a-zA-Z][\w./\\-]+) \|", text.partition("\n## ")[0], re.MULTILINE)
    paths = [written / name.replace("\\", "") for name in named]
    assert len(paths) > 5
    assert [path for path in paths if not path.exists()] == []


@pytest.mark.parametrize(("behaviour", "code"), [(None, 0), (Defect.TEXT_GIVES_500, 1)])
def test_the_accuracy_script_judges_and_exits_with_its_code(
    behaviour: Defect | None, code: int, written: Path, stub: Serve
) -> None:
    url = stub(behaviour.value if behaviour else None)
    script = written / "eval" / "eval_accuracy.py"
    done = run(script, f"--vlm-server-url={url}", "-k", "capital] and baseline")
    assert done.returncode == code, done.stdout + done.stderr
    report = json.loads((written / "results" / "accuracy" / "report.json").read_text("utf-8"))
    statuses = {r["status"] for r in report["rows"] if r["criterion"] == "baseline.text"}
    assert statuses == ({"error"} if behaviour else {"pass"})


def test_the_performance_script_asks_for_the_measurements(written: Path) -> None:
    done = run(written / "eval" / "eval_performance.py", "--collect-only", "-q")
    assert done.returncode == 0
    assert f"{CLASS}::test_requests_one_at_a_time[text]" in done.stdout
    assert "test_text_is_answered" not in done.stdout


def test_the_inference_script_asks_a_server(
    written: Path, stub: Serve, knowledge: Knowledge
) -> None:
    script = written / "inference.py"
    script.write_text(script.read_text("utf-8").replace(SERVED, stub()), "utf-8")
    done = run(script)
    assert done.stdout.removesuffix("\n") == expected(knowledge, "document/page-01"), done.stderr


def test_the_inference_script_loads_the_model(written: Path, tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "vllm.py").write_text(ENGINE, "utf-8")
    done = run(written / "inference.py", "offline", PYTHONPATH=str(tmp_path / "engine"))
    arguments, _, (message,), variable = json.loads(done.stdout)
    assert (arguments["model"], variable) == (MODEL, "b c")
    assert message["content"][1]["text"] == CASES["document/page-01"][0]


# --- vllm-ascend ---------------------------------------------------------------------------------


def test_the_accuracy_configuration_is_that_of_vllm_ascends_test() -> None:
    found = bundle()
    path = f"vllm-ascend/tests/e2e/models/configs/{MODEL.partition('/')[2]}.yaml"
    assert yaml.safe_load(found[path]) == {
        "model_name": MODEL,
        "model_type": "vllm-vlm",
        "hardware": "Atlas A2 Series",
        "serve": {"dtype": "bfloat16", "enforce_eager": True, "max_images": 1},
        "tasks": [{"name": "mmmu_val", "metrics": [{"name": "acc,none", "value": 0.5432}]}],
        "num_fewshot": 0,
        "apply_chat_template": True,
        "fewshot_as_multiturn": False,
        "batch_size": "auto",
    }


@pytest.mark.parametrize(
    "score",
    [
        {**SCORE, "samples": 10},
        {**SCORE, "protocol": {**SCORE["protocol"], "harness": "evalscope"}},  # type: ignore[dict-item]
        {**SCORE, "protocol": {**SCORE["protocol"], "benchmark": "vlm_docvqa_val"}},  # type: ignore[dict-item]
    ],
    ids=["a part", "another harness", "a task of this project"],
)
def test_no_configuration_with_a_score_that_vllm_ascend_cannot_repeat(score: Row) -> None:
    found = bundle(row("serving.text", None), row("dataset.mmmu_val", None, score))
    assert vllm_ascend(found).keys() == {".md"}
    assert "没有 tests/e2e/models/configs 的 YAML 文件" in found["README.md"]


def cells(text: str) -> dict[str, str]:
    head, _, values = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
    )
    return dict(zip(head, values, strict=True))


def row_of_the_models(*rows: Row, **changes: Any) -> dict[str, str]:
    found = bundle(*rows, **changes)
    (text,) = [text for name, text in found.items() if name.endswith("supported_models.row.md")]
    return cells(text)


@pytest.mark.parametrize("group", ["serving", "baseline", "numerics", "determinism"])
@pytest.mark.parametrize("status", ["fail", "error", "skip", "xfail"])
def test_a_model_that_was_not_verified_has_no_tick(group: str, status: str) -> None:
    changed = {"status": status, "reason": "no"}
    rows = [{**one, **(changed if group in one["criterion"] else {})} for one in COMPLETE]
    variant = row("equivalence.tp2", "answers")
    variants = {"tp2": {"serve_command": f"vllm serve {MODEL} --tensor-parallel-size 2"}}
    assert "✅" not in row_of_the_models(*rows, variant, variants=variants).values()


def test_the_row_of_the_models_has_a_tick_for_what_was_verified_alone() -> None:
    variants = {
        name: {"serve_command": f"vllm serve {MODEL} {flags}"}
        for name, flags in (
            ("tp2", "--tensor-parallel-size 2"),
            ("w8a8", "--quantization ascend"),
            ("piecewise", """--compilation-config '{"cudagraph_mode": "PIECEWISE"}'"""),
        )
    }
    failed = row("equivalence.w8a8", "answers", status="xfail", reason="known")
    rows = (row("equivalence.tp2", "answers"), row("equivalence.piecewise", "answers"), failed)
    told = row_of_the_models(*COMPLETE, *rows, variants=variants)
    assert len(told) == 20
    ticked = {name for name, cell in told.items() if cell == "✅"}
    assert ticked == {"Support", "BF16", "Tensor Parallel", "Piecewise AclGraph"}
    assert told["Supported Hardware"] == "A2"
    assert told["W8A8"] == told["LoRA"] == "🟡"


def test_the_tutorial_has_the_sections_of_the_others() -> None:
    name = MODEL.partition("/")[2]
    tutorial = bundle()[f"vllm-ascend/docs/source/tutorials/models/{name}.md"]
    assert headings(tutorial)[1:3] == ["## Introduction", "## Supported Features"]
    assert "| mmmu\\_val | Atlas A2 Series | acc,none | 0.5432 |" in tutorial.splitlines()


# --- mistakes ------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, without a model file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(path: Path, *classes: str) -> str:
    rows = [row("serving.text", None, suite_class=name) for name in classes]
    models = [facts(suite_class=name) for name in classes]
    document = {"schema": 2, "receipt": RECEIPT, "models": models, "rows": rows}
    (path / "report.json").write_text(json.dumps(document), "utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("classes", "options", "said"),
    [
        (["TestA", "TestB"], [], "has several models; choose with --model one of: TestA, TestB"),
        (["TestA"], ["--model=TestC"], "has no judged test class TestC; choose with --model"),
        ([], [], "has no judged model."),
        (["TestNowhere"], [], "has the test class TestNowhere; run this command in the root"),
    ],
)
def test_a_mistake_is_one_line(
    classes: list[str],
    options: list[str],
    said: str,
    empty: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["report", "bundle", report(empty, *classes), f"--output={empty / 'o'}"]
    assert cli.main([*command, *options]) == 2
    assert said in capsys.readouterr().err
    assert not (empty / "o").exists()


@pytest.mark.parametrize("content", ["# VLMConformance\nclass (", "# VLMConformance\n\0"])
def test_a_model_file_that_is_no_python_is_named(
    content: str, empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = empty / "test_a_broken.py"
    broken.write_text(content, "utf-8")
    command = ["report", "bundle", report(empty, "TestIt"), f"--output={empty / 'o'}"]
    assert cli.main(command) == 2
    assert f"; {broken} is not valid Python, mend it if it has" in capsys.readouterr().err
    own = empty / "test_own.py"
    own.write_text("class TestIt(VLMConformance): ...", "utf-8")
    assert cli.main(command) == 0
    assert (empty / "o" / "conformance" / own.name).is_file()


def test_a_model_file_that_cannot_be_read_is_named(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "test_gone.py").symlink_to(empty / "gone.py")
    command = ["report", "bundle", report(empty, "TestIt"), f"--output={empty / 'o'}"]
    assert cli.main(command) == 2
    problem = f"{empty / 'test_gone.py'} cannot be read (No such file or directory)"
    assert problem in capsys.readouterr().err


def test_a_bundle_is_mixed_with_no_other_files(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The project keeps its README.md, and no file of a run on an NPU stays in a bundle."""
    readme = written / "README.md"
    readme.write_text("my own", "utf-8")
    command = ["report", "bundle", str(written.parent), f"--output={written}"]
    assert cli.main(command) == 2
    problem = f"{written} is not empty; name a new or an empty directory with --output.\n"
    assert capsys.readouterr().err.endswith(problem)
    assert readme.read_text("utf-8") == "my own"


def test_the_tutorial_says_that_a_model_failed() -> None:
    found = bundle(*FULL, row("serving.text", "text/sum", status="fail"))
    (text,) = [text for name, text in found.items() if "/tutorials/" in name]
    assert "**Result: ❌ Not ready: 1 checks failed" in text
    assert "verified" not in text

"""The load engine: what it sends, what it makes of what the generators measured, how it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fakes.replay_server import Behaviour, Defect, Knowledge, pixel_digest
from helpers.outcome import Serve
from helpers.paths import FIXTURES, NOBODY
from helpers.waiting import until
from PIL import Image

from pytest_ascend_vlm import Capability
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.engines.messages import messages
from pytest_ascend_vlm.engines.neutral import NEUTRAL
from pytest_ascend_vlm.errors import PreconditionError, ServerError
from pytest_ascend_vlm.load import evalscope_perf, generator, vllm_bench
from pytest_ascend_vlm.load.generator import Traffic, generate, read
from pytest_ascend_vlm.load.job import has_module, read_rows
from pytest_ascend_vlm.observation.load import Load
from pytest_ascend_vlm.spec.case import Case
from pytest_ascend_vlm.spec.case_files import load_cases

KEY = "a-secret-key"
GONE_WITHIN_SECONDS = 30.0

Tool = Callable[[str], None]


def case(prompt: str, **fields: Any) -> Case:
    return Case(f"text/{prompt}", Capability.TEXT, prompt, **fields)


def ignore(_doing: str) -> None:
    """Nobody watches."""


def written(path: Path, **changes: Any) -> Path:
    """A generator's result: two answers, of which the first has three tokens and the second one."""
    result = {
        "generator": "a generator 1.0",
        "duration": 2.0,
        "ttfts": [0.5, 0.25],
        "itls": [[0.25, 0.25], []],
        "input_lens": [40, 0],
        "output_lens": [3, 1],
        "generated_texts": ["巴黎。", "5"],
        "errors": ["", ""],
    }
    path.write_text(json.dumps({**result, **changes}), "utf-8")
    return path


TWO = Traffic((case("法国的首都"), case("sum")), concurrency=2)


# --- requests ------------------------------------------------------------------------------------


def test_rows_are_what_our_client_sends(tmp_path: Path) -> None:
    page = next(case for case in load_cases([FIXTURES]) if case.images)
    text = case("法国的首都是哪里？", max_tokens=7)
    files = generator.Files.of(tmp_path, TWO)
    generator.prepare(files, Traffic((page, text), 2), Endpoint(NOBODY, "a-model", KEY))
    job = json.loads(files.job.read_text("utf-8"))
    rows = read_rows(job)
    assert rows[0]["messages"] == messages(page)
    assert [part["type"] for part in rows[0]["messages"][0]["content"]] == ["image_url", "text"]
    asked = {"role": "user", "content": text.prompt}
    assert rows[1] == {"messages": [asked], "output_tokens": 7}
    assert KEY not in files.job.read_text("utf-8")


def _fed(tmp_path: Path, rows: list[dict[str, Any]], **job: Any) -> tuple[Any, list[Any]]:
    """The tool as it is fed, and what its function that asks was told."""
    asked: list[Any] = []

    async def ask(**told: Any) -> Any:
        asked.append(told)
        return SimpleNamespace(success=True, output_tokens=told["tokens"], error="")

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    tool = SimpleNamespace(
        SampleRequest=SimpleNamespace,
        ASYNC_REQUEST_FUNCS={"openai-chat": ask},
        get_request=lambda *told: told,
    )
    vllm_bench.feed(tool, {"rows": str(path), "ramp": None, "extra": NEUTRAL, **job})
    return tool, asked


def test_the_tool_is_fed_whole_messages_and_each_length(tmp_path: Path) -> None:
    image, text = {"type": "image_url", "image_url": {}}, {"type": "text", "text": "读。"}
    chat = [
        {"role": "system", "content": "简短回答。"},
        {"role": "user", "content": [text, image, text]},
    ]
    rows = [{"messages": chat, "output_tokens": 5}, {"messages": chat[:1], "output_tokens": 9}]
    tool, asked = _fed(tmp_path, rows)
    first, second = tool.get_samples("any", tokenizer=None)
    assert (first.multi_modal_data, first.expected_output_len) == (chat, 5)
    assert (second.multi_modal_data, second.expected_output_len) == (chat[:1], 9)
    content = first.multi_modal_data
    request = SimpleNamespace(extra_body={"seed": 1}, prompt="", multi_modal_content=content)
    send = tool.ASYNC_REQUEST_FUNCS["openai-chat"]
    asyncio.run(send(request_func_input=request, tokens=3))
    assert asked == [{"request_func_input": request, "tokens": 3}]
    assert request.extra_body == {"seed": 1, **NEUTRAL, "messages": chat}


@pytest.mark.parametrize(("tokens", "is_answer"), [(3, True), (0, False), (None, False)])
def test_a_stream_without_its_count_is_no_answer(
    tmp_path: Path, tokens: int | None, is_answer: bool
) -> None:
    tool, _ = _fed(tmp_path, [])
    request = SimpleNamespace(extra_body=None, prompt="读。", multi_modal_content=None)
    send = tool.ASYNC_REQUEST_FUNCS["openai-chat"]
    output = asyncio.run(send(request_func_input=request, tokens=tokens))
    assert (output.success, output.error == "") == (is_answer, is_answer)


def test_a_ramp_keeps_its_fractions(tmp_path: Path) -> None:
    tool, _ = _fed(tmp_path, [], ramp=[0.25, 1.5])
    assert tool.get_request(["a request"], 7, 8, 9) == (
        (["a request"], float("inf"), 1.0, "linear", 0.25, 1.5)
    )


def test_a_rate_and_an_exact_length_are_the_tools_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    files = generator.Files.of(tmp_path, TWO)
    traffic = dataclasses.replace(TWO, rate=1.5, exact=True)
    generator.prepare(files, traffic, Endpoint(NOBODY, "a-model", KEY))
    job = json.loads(files.job.read_text("utf-8"))
    assert job["extra"] == {**NEUTRAL, "ignore_eos": True}
    for_vllm = vllm_bench._arguments(job, "0.32.0")
    assert for_vllm[for_vllm.index("--request-rate") + 1] == "1.5"
    assert evalscope_perf._arguments(job, tmp_path / "perf")["rate"] == 1.5
    bodies = (tmp_path / "perf" / "requests.jsonl").read_text("utf-8").splitlines()
    assert all(json.loads(body)["ignore_eos"] for body in bodies)
    generator.prepare(files, TWO, Endpoint(NOBODY, "a-model", KEY))
    job = json.loads(files.job.read_text("utf-8"))
    assert "--request-rate" not in vllm_bench._arguments(job, "0.32.0")
    assert evalscope_perf._arguments(job, tmp_path / "perf")["rate"] == -1


# --- results -------------------------------------------------------------------------------------


def test_a_result_is_read(tmp_path: Path) -> None:
    found = read(written(tmp_path / "r.json"), TWO)
    first, second = found.timings
    assert (found.generator, found.concurrency, found.errors) == ("a generator 1.0", 2, ())
    assert (first.case_id, first.text, first.prompt_tokens) == ("text/法国的首都", "巴黎。", 40)
    assert (first.ttft_seconds, first.seconds, first.tpot_seconds) == (0.5, 1.0, 0.25)
    assert first.itl_seconds == (0.25, 0.25)
    assert (second.prompt_tokens, second.seconds, second.tpot_seconds) == (None, 0.25, None)
    assert found.output_throughput == 2.0
    assert found.goodput is None


@pytest.mark.parametrize(
    ("levels", "goodput"),
    [
        ({"ttft": 500, "tpot": 250}, 1.0),
        ({"ttft": 499}, 0.5),
        ({"tpot": 249}, 0.5),
        ({"ttft": 249, "tpot": 249}, 0.0),
        ({"e2el": 999}, 0.5),
    ],
)
def test_goodput_counts_what_meets_every_level(
    tmp_path: Path, levels: dict[str, float], goodput: float
) -> None:
    workload = dataclasses.replace(TWO, goodput=levels)
    assert read(written(tmp_path / "r.json"), workload).goodput == goodput


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"errors": ["", "Traceback\n  File\nClientError: 服务器断开\n"]},
            "ClientError: 服务器断开",
        ),
        ({"ttfts": [0.5, 0.0]}, "no token was received"),
    ],
)
def test_a_request_without_an_answer_is_an_error(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    found = read(written(tmp_path / "r.json", **changes), TWO)
    assert [timing.case_id for timing in found.timings] == ["text/法国的首都"]
    assert found.errors == (f"text/sum: {said}",)


@pytest.mark.parametrize(
    "changes",
    [
        {"ttfts": [0.5]},
        {"itls": None},
        {"duration": "long"},
        {"output_lens": [3, None]},
        dict.fromkeys(generator.COLUMNS, ()),
    ],
)
def test_a_result_of_another_form_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(PreconditionError, match=r"for 2 requests"):
        read(written(tmp_path / "r.json", **changes), TWO)


@pytest.mark.parametrize("content", [b"", b'{"duration": 2.0, "ttf', b"\xff\xfe", b"[]", None])
def test_a_corrupt_result_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PreconditionError, match=r"r\.json is not a load generator's result"):
        read(path, TWO)


# --- which generator -----------------------------------------------------------------------------


def test_a_module_is_found_without_an_import() -> None:
    assert has_module("email", "mime/text.py")
    assert not has_module("email", "mime/nothing.py")
    assert not has_module("no_such_package", "mime/text.py")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, bool], None]:
    """Says which generators are there: vLLM's, evalscope's."""

    def install(vllm: bool, evalscope: bool) -> None:
        monkeypatch.setattr(vllm_bench, "is_installed", lambda: vllm)
        monkeypatch.setattr(evalscope_perf, "is_installed", lambda: evalscope)

    return install


def test_vllm_comes_first(installed: Callable[[bool, bool], None]) -> None:
    installed(True, True)
    assert generator.generator_for(TWO) is vllm_bench
    installed(False, True)
    assert generator.generator_for(TWO) is evalscope_perf


def test_without_a_generator_it_says_what_to_install(
    installed: Callable[[bool, bool], None], tmp_path: Path
) -> None:
    installed(False, False)
    with pytest.raises(PreconditionError, match=r"pip install 'evalscope\[perf\]"):
        generate(TWO, Endpoint(NOBODY, "a-model", KEY), tmp_path, ignore)
    assert not list(tmp_path.iterdir())


def test_evalscope_has_no_ramp(installed: Callable[[bool, bool], None]) -> None:
    installed(False, True)
    with pytest.raises(PreconditionError, match="cannot raise the request rate"):
        generator.generator_for(dataclasses.replace(TWO, ramp=(1.0, 2.0)))


# --- the life of the process ---------------------------------------------------------------------

HONEST = """
    def main(arguments):
        import os
        lengths = [request.expected_output_len for request in get_samples(arguments, None)]
        assert os.environ["OPENAI_API_KEY"] == "a-secret-key"
        path = os.path.join(arguments.result_dir, arguments.result_filename)
        result = {"generator": arguments.metadata.removeprefix("generator="), "duration": 1.0}
        columns = ("ttfts", "itls", "input_lens", "generated_texts", "errors")
        values = (0.5, [0.5], 9, "好", "")
        result |= {name: [value] * len(lengths) for name, value in zip(columns, values)}
        json.dump({**result, "output_lens": lengths}, open(path, "w"))
"""
HANGS = """
    def main(arguments):
        import subprocess, sys, time
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)", arguments.result_dir]
        subprocess.Popen(sleeper, start_new_session=True)
        print("it hangs", flush=True)
        time.sleep(600)
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Installs a vLLM whose benchmark is a stand-in: `tool("def main(arguments): ...")`."""

    def install(main: str) -> None:
        names = (
            *("backend", "base-url", "endpoint", "model", "served-model-name", "dataset-name"),
            *("dataset-path", "temperature", "max-concurrency", "metadata"),
            *("ready-check-timeout-sec", "result-dir", "result-filename"),
        )
        root = tmp_path / "stand-in"
        (root / "vllm" / "benchmarks").mkdir(parents=True)
        (root / "vllm" / "__init__.py").write_text("__version__ = '0.0.1'\n")
        (root / "vllm" / "benchmarks" / "__init__.py").touch()
        head = f"""
            import json
            from types import SimpleNamespace as SampleRequest
            ASYNC_REQUEST_FUNCS = {{"openai-chat": print}}
            get_samples = get_request = get_tokenizer = None
            def add_cli_args(parser):
                for name in {names}:
                    parser.add_argument("--" + name)
                for name in ("save-result", "save-detailed"):
                    parser.add_argument("--" + name, action="store_true")
        """
        source = f"{textwrap.dedent(head)}\n{textwrap.dedent(main)}"
        (root / "vllm" / "benchmarks" / "serve.py").write_text(source, "utf-8")
        monkeypatch.setenv("PYTHONPATH", str(root))
        monkeypatch.syspath_prepend(str(root))

    return install


def left(directory: Path) -> list[psutil.Process]:
    """Processes that have the directory of the load on their command line."""
    found = psutil.process_iter(["cmdline", "status"])
    lines = {process: " ".join(process.info["cmdline"] or ()) for process in found}
    return [
        process
        for process, line in lines.items()
        if str(directory / "load") in line and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def run(tmp_path: Path, say: Callable[[str], None] = ignore) -> Load:
    return generate(TWO, Endpoint(NOBODY, "a-model", KEY), tmp_path / "load", say)


def test_a_run_leaves_its_files_and_no_process(tool: Tool, tmp_path: Path) -> None:
    tool(HONEST)
    found = run(tmp_path)
    assert found.generator == "vllm bench serve 0.0.1"
    assert [(one.text, one.output_tokens, one.seconds) for one in found.timings] == [
        ("好", 64, 1.0)
    ] * 2
    names = {path.name for path in (tmp_path / "load").iterdir()}
    ends = ("json", "job.json", "rows.jsonl", "log")
    assert names == {f"concurrency-2.{end}" for end in ends}
    assert all(KEY not in path.read_text("utf-8") for path in (tmp_path / "load").iterdir())
    assert not left(tmp_path)


@pytest.mark.parametrize(
    ("main", "said"),
    [
        ("def main(arguments): raise ValueError('坏了')", "ValueError: 坏了"),
        ("raise ImportError('No module named pandas')", "No module named pandas"),
        ("def add_cli_args(parser): pass", "0.0.1 does not know --backend"),
    ],
)
def test_a_generator_that_dies_says_why(tool: Tool, tmp_path: Path, main: str, said: str) -> None:
    tool(main)
    with pytest.raises(PreconditionError, match=said) as caught:
        run(tmp_path)
    assert "concurrency-2.log" in str(caught.value)
    assert not left(tmp_path)


def test_a_result_of_an_earlier_run_is_not_read(tool: Tool, tmp_path: Path) -> None:
    tool("def main(arguments): pass")
    (tmp_path / "load").mkdir()
    written(tmp_path / "load" / "concurrency-2.json")
    with pytest.raises(PreconditionError, match="FileNotFoundError"):
        run(tmp_path)


def test_a_generator_that_hangs_is_ended(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(HANGS)
    monkeypatch.setattr(generator, "START_SECONDS", 5.0)
    monkeypatch.setattr(generator, "ANSWER_SECONDS", 0.0)
    with pytest.raises(ServerError, match=r"2 requests at concurrency 2 did not end within 5 s"):
        run(tmp_path)
    assert not left(tmp_path)


def test_an_interrupted_run_leaves_nothing(tool: Tool, tmp_path: Path) -> None:
    tool(HANGS)

    def interrupt(_doing: str) -> None:
        log = tmp_path / "load" / "concurrency-2.log"
        if "it hangs" in log.read_text("utf-8"):
            assert len(left(tmp_path)) >= 3  # supervisor, tool, and what the tool started
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, interrupt)
    assert not left(tmp_path)


def test_a_killed_run_leaves_nothing(tool: Tool, tmp_path: Path) -> None:
    tool(HANGS)
    path = [str(Path(__file__).parent), *sys.path]
    program = (
        f"import sys; sys.path[:] = {path}; from test_load import *; run(Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    log = tmp_path / "load" / "concurrency-2.log"
    try:
        until(lambda: log.is_file() and "it hangs" in log.read_text("utf-8"), 120)
        assert left(tmp_path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: not left(tmp_path), GONE_WITHIN_SECONDS)


# --- the real tools ------------------------------------------------------------------------------


@pytest.fixture
def mixed(knowledge: Knowledge) -> list[Case]:
    """Texts, one of them Chinese, and pages, in turns; one comes twice."""
    asked = {prompt for prompt, _ in knowledge.known}
    cases = [one for one in load_cases([FIXTURES]) if one.prompt in asked]
    texts = [one for one in cases if not one.images and not one.videos]
    pages = [one for one in cases if len(one.images) == 1]
    chinese = next(one for one in texts if one.id.endswith("-zh"))
    return [texts[0], pages[0], chinese, pages[1], texts[0]]


def check(found: Load, asked: list[Case], knowledge: Knowledge) -> None:
    """Every answer is the reference's to its own request, and its times make sense."""
    assert [timing.case_id for timing in found.timings] == [one.id for one in asked]
    for timing, one in zip(found.timings, asked, strict=True):
        pixels = tuple(pixel_digest(Image.open(path)) for path in one.images)
        known = knowledge.known[one.prompt, pixels]
        assert timing.text == known.text[: len(timing.text)] != ""
        assert timing.prompt_tokens == known.prompt_tokens
        assert 0 < timing.ttft_seconds <= timing.seconds <= found.duration_seconds


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_asks_in_order(
    stub: Serve,
    knowledge: Knowledge,
    mixed: list[Case],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", NOBODY)
    # Slower than the progress is looked at.
    unhurried = Behaviour(crash=lambda _request, _state: time.sleep(1))
    endpoint = Endpoint(stub(unhurried, key=KEY), knowledge.model, KEY)
    workload = Traffic(mixed, 2, (50.0, 100.5), goodput={"ttft": 60_000})
    said: list[str] = []
    found = generate(workload, endpoint, tmp_path, said.append)
    assert found.generator.startswith("vllm bench serve ")
    check(found, mixed, knowledge)
    assert found.goodput == pytest.approx(found.request_throughput)
    assert any("of 5, " in doing for doing in said)
    assert not left(tmp_path)


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_keeps_a_rate_and_an_exact_length(
    stub: Serve, knowledge: Knowledge, mixed: list[Case], tmp_path: Path
) -> None:
    endpoint = Endpoint(stub(), knowledge.model, "none")
    lengths = [dataclasses.replace(one, max_tokens=70 + n) for n, one in enumerate(mixed)]
    found = generate(
        Traffic(lengths, len(lengths), rate=2.0, exact=True), endpoint, tmp_path, ignore
    )
    assert [timing.output_tokens for timing in found.timings] == [70, 71, 72, 73, 74]
    # Four random gaps of half a second together are hardly ever as short as this.
    assert found.duration_seconds > 0.1


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_counts_what_was_not_answered(
    stub: Serve, knowledge: Knowledge, mixed: list[Case], tmp_path: Path
) -> None:
    endpoint = Endpoint(stub(Defect.TEXT_GIVES_500.value), knowledge.model, "none")
    found = generate(Traffic(mixed, 2), endpoint, tmp_path, ignore)
    assert [timing.case_id for timing in found.timings] == [one.id for one in mixed if one.images]
    failed = [one.id for one in mixed if not one.images]
    assert found.errors == tuple(f"{name}: Internal Server Error" for name in failed)


@pytest.mark.skipif("VLM_HARNESS_PYTHON" not in os.environ, reason="VLM_HARNESS_PYTHON is not set")
def test_evalscope_does_the_same(
    stub: Serve,
    knowledge: Knowledge,
    mixed: list[Case],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_bench, "is_installed", lambda: False)
    monkeypatch.setattr(evalscope_perf, "is_installed", lambda: True)
    # It pins packages that an engine has in other versions, so it has an interpreter of its own.
    monkeypatch.setattr(
        generator, "sys", SimpleNamespace(executable=os.environ["VLM_HARNESS_PYTHON"])
    )
    monkeypatch.setenv("PYTHONPATH", str(FIXTURES.parent))
    url = stub(Defect.TEXT_GIVES_500.value, key=KEY)
    workload = Traffic(mixed, 2, goodput={"ttft": 60_000})
    found = generate(workload, Endpoint(url, knowledge.model, KEY), tmp_path, ignore)
    assert found.generator.startswith("evalscope perf ")
    check(found, [one for one in mixed if one.images], knowledge)
    assert len(found.errors) == 3
    assert all("list index out of range" in error for error in found.errors)

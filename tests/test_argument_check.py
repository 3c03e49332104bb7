"""A model file's serve arguments, judged by vLLM's own parser in a process of its own.

Most of it asks a stand-in: a package named `vllm`, found first on PYTHONPATH.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_ascend_vlm.engines.vllm import argument_check
from pytest_ascend_vlm.engines.vllm.argument_check import ArgumentChecker

PLACES = ("openai", "launchers")  # of the module `cli_args` in vLLM 0.11 and in 0.32

# STAND_IN in the environment says what goes wrong: "import" cannot be imported, "exit" leaves while
# it is imported, "hang" does not come back from parsing.
STAND_IN = """
import argparse, json, os, pathlib, subprocess, sys, time

with (pathlib.Path(__file__).parents[3] / "starts").open("a") as starts:
    print(os.getpid(), file=starts)
print("a log line on standard output")
subprocess.run(["echo", "and one of a child process"])
if os.environ.get("STAND_IN") == "import":
    raise ImportError("libascendcl.so:\\ncannot open shared object file")
if os.environ.get("STAND_IN") == "exit":
    os._exit(139)

class FlexibleArgumentParser(argparse.ArgumentParser):
    def parse_args(self, words):
        if os.environ.get("STAND_IN") == "hang":
            time.sleep(60)
        return super().parse_args(words)

def config(text):
    return {"known": 1}[json.loads(text)["key"]]

def invalid(text):
    raise argparse.ArgumentTypeError("1 error\\n  key\\n    For further information visit https://")

def make_arg_parser(parser):
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction)
    parser.add_argument("--stop", nargs="+")
    parser.add_argument("--config", type=config)
    parser.add_argument("--other-config", type=invalid)
    parser.add_argument("--additional-config", type=json.loads)
    return parser
"""


@pytest.fixture
def stand_in(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Makes the stand-in the installed vLLM 9.9; returns the file that gets a line per start."""
    package = tmp_path / "vllm" / "entrypoints" / getattr(request, "param", PLACES[0])
    package.mkdir(parents=True)
    for directory in (package, *package.parents[:2]):
        (directory / "__init__.py").touch()
    (package / "cli_args.py").write_text(STAND_IN, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(argument_check, "installed_versions", lambda *_: {"vllm": "9.9"})
    starts = tmp_path / "starts"
    starts.touch()
    return starts


@pytest.fixture
def cache() -> dict[str, str | None]:
    return {}


@pytest.fixture
def parser(cache: dict[str, str | None], stand_in: Path) -> Iterator[ArgumentChecker]:  # noqa: ARG001
    parser = ArgumentChecker(cache)
    yield parser
    parser.close()


def started(stand_in: Path) -> list[int]:
    return [int(line) for line in stand_in.read_text("utf-8").splitlines()]


def is_gone(pid: int, seconds: float = 30.0) -> bool:
    """Whether a process that is not our child ends in time; nobody may be there to reap it."""
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("stand_in", PLACES, indirect=True)
def test_one_process_answers_every_question_in_a_line(
    parser: ArgumentChecker, stand_in: Path
) -> None:
    asked: dict[str | None, dict[str, Any]] = {
        None: {"max_model_len": 8, "enforce_eager": False, "stop": ["甲", "b"]},
        "unrecognized arguments: --max-modle-len (did you mean --max-model-len?)": {
            "max_modle_len": 8
        },
        "unrecognized arguments: --no-enforce-eagre --zzz (did you mean --no-enforce-eager?)": {
            "enforce_eagre": False,
            "zzz": True,
        },
        "argument --max-model-len: invalid int value: 'many'": {"max_model_len": "many"},
        "argument --other-config: 1 error key": {"other_config": {"key": 1}},
        "the parser raises KeyError: 'unknown'": {"config": {"key": "unknown"}},
        "with these arguments vLLM prints a text and exits instead of serving": {"help": True},
    }
    assert [parser.problem(serve) for serve in asked.values()] == list(asked)
    assert len(started(stand_in)) == 1


def test_a_remembered_answer_needs_no_process(
    parser: ArgumentChecker,
    cache: dict[str, str | None],
    stand_in: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [parser.problem(serve) for serve in ({"max_model_len": 8}, {"help": True})]
    assert list(cache.values()) == answers
    assert all(len(key) == 64 for key in cache)
    again = ArgumentChecker(cache)
    assert [again.problem(serve) for serve in ({"max_model_len": 8}, {"help": True})] == answers
    assert len(started(stand_in)) == 1
    monkeypatch.setattr(argument_check, "installed_versions", lambda *_: {"vllm": "10.0"})
    newer = ArgumentChecker(cache)
    newer.problem({"max_model_len": 8})
    newer.close()
    assert len(started(stand_in)) == 2


def test_without_vllm_nobody_is_asked(
    stand_in: Path, cache: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argument_check, "installed_versions", lambda *_: {"vllm-ascend": "9.9"})
    parser = ArgumentChecker(cache)
    assert parser.problem({"max_modle_len": 8}) is None
    parser.close()
    assert not started(stand_in)
    assert not cache


BROKEN = {
    "import": "cannot be imported: ImportError: libascendcl.so: cannot open shared object file;",
    "exit": "died (exit code 139); for the full output run: python -m pytest_ascend_vlm.engines.",
}


@pytest.mark.parametrize("plan", BROKEN)
def test_a_broken_vllm_is_told_and_not_remembered(
    plan: str,
    parser: ArgumentChecker,
    cache: dict[str, str | None],
    stand_in: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STAND_IN", plan)
    told = {parser.problem({"max_model_len": number}) for number in range(3)}
    assert len(told) == 1
    assert f"vLLM 9.9 {BROKEN[plan]}" in str(told.pop())
    assert len(started(stand_in)) == 1
    assert not cache


def test_a_vllm_that_hangs_is_ended(
    parser: ArgumentChecker, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        f"from {argument_check.__name__} import main; import {argument_check.__name__} as module; "
        "module.TIME_LIMIT_SECONDS = 2; main()"
    )
    monkeypatch.setattr(argument_check, "COMMAND", ["python", "-c", program])
    monkeypatch.setenv("STAND_IN", "hang")
    assert "vLLM 9.9 took over" in str(parser.problem({"max_model_len": 8}))
    assert not psutil.pid_exists(*started(stand_in))


def test_close_ends_the_process(parser: ArgumentChecker, stand_in: Path) -> None:
    parser.close()
    parser.problem({})
    (pid,) = started(stand_in)
    assert psutil.pid_exists(pid)
    parser.close()
    parser.close()
    assert not psutil.pid_exists(pid)


def test_the_process_does_not_outlive_a_killed_run(stand_in: Path) -> None:
    program = (
        f"import os, {argument_check.__name__} as module; "
        "module.installed_versions = lambda *_: {'vllm': '9.9'}; "
        f"module.ArgumentChecker({{}}).problem({{}}); os.kill(os.getpid(), {signal.SIGKILL.value})"
    )
    run = subprocess.run([sys.executable, "-c", program], env=dict(os.environ), check=False)
    assert run.returncode == -signal.SIGKILL
    (pid,) = started(stand_in)
    assert is_gone(pid)


# All the ways in which vllm-ascend 0.11 to 0.23 reads its keys.
ASCEND_CONFIG = """
raise ImportError("this module is read, not imported")

class AscendConfig:
    def __init__(self, vllm_config):
        additional_config = vllm_config.additional_config or {}
        of_compilation = additional_config.get("ascend_compilation_config", {})
        self.fuses = of_compilation.get("fuse_norm_quant", True)
        self.flash = self._get_config_value(additional_config, "enable_flashcomm1", "FLASHCOMM1")
        self.sharing = (vllm_config.additional_config or {}).get("layer_sharding")
        if "dump_config" in additional_config:
            vllm_config.additional_config["refresh"] = True
        vllm_config.additional_config.setdefault("enable_cpu_binding", True)
"""


def test_a_key_that_vllm_ascend_ignores_is_a_problem(
    parser: ArgumentChecker, stand_in: Path
) -> None:
    package = stand_in.parent / "vllm_ascend"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError", "utf-8")
    (package / "ascend_config.py").write_text(ASCEND_CONFIG, "utf-8")
    known = (
        "ascend_compilation_config, dump_config, enable_cpu_binding, enable_flashcomm1, "
        "layer_sharding, refresh"
    )
    ignored = "which vllm-ascend ignores"
    asked: dict[str | None, dict[str, Any]] = {
        None: dict.fromkeys(known.split(", ")),
        f"additional_config has enable_cpu_bindng, {ignored} (did you mean enable_cpu_binding?)": {
            "refresh": True,
            "enable_cpu_bindng": True,
        },
        f"additional_config has fuse_norm_quant, {ignored} (it reads {known})": {
            "fuse_norm_quant": True
        },
    }
    assert [parser.problem({"additional_config": keys}) for keys in asked.values()] == list(asked)


def test_without_vllm_ascend_no_key_is_a_problem(parser: ArgumentChecker) -> None:
    assert parser.problem({"additional_config": {"anything": 1}}) is None


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_installed_vllm_knows_its_arguments(cache: dict[str, str | None]) -> None:
    valid = {
        "dtype": "bfloat16",
        "max_model_len": 16384,
        "gpu_memory_utilization": 0.9,
        "enforce_eager": True,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
    }
    parser = ArgumentChecker(cache)
    assert parser.problem(valid) is None
    unknown = "unrecognized arguments: --max-modle-len (did you mean --max-model-len?)"
    assert parser.problem({"max_modle_len": 16384}) == unknown
    for serve, flag, culprit in (
        ({"max_model_len": "many"}, "--max-model-len", "many"),
        (
            {"compilation_config": {"cudagraph_mod": "FULL"}},
            "--compilation-config",
            "cudagraph_mod",
        ),
    ):
        problem = str(parser.problem({**valid, **serve}))
        assert problem.startswith(f"argument {flag}")
        assert culprit in problem
        assert "\n" not in problem
    parser.close()
    assert len(cache) == 4

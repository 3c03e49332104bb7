"""What is launched: one answer for parser, server, offline engines, variants and document."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from helpers.models import model_spec

from pytest_ascend_vlm.engines.vllm.server import Launch, VllmServer
from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.platforms.ascend import Ascend
from pytest_ascend_vlm.platforms.cpu import Cpu
from pytest_ascend_vlm.session.launch import launch_arguments
from pytest_ascend_vlm.spec.case import Capability, Case
from pytest_ascend_vlm.spec.model import RESERVED_SERVE_ARGUMENTS, Budgets, Variant

SUITE = {"generation_config", "enable_prompt_tokens_details", "logprobs_mode", "max_logprobs"}


def test_the_suites_arguments_come_on_top_of_the_deployments() -> None:
    model = model_spec(serve={"max_model_len": 4096}, trust_remote_code=True)
    arguments = launch_arguments(model, Ascend())
    assert arguments.suite.keys() == SUITE
    assert arguments.deployment["max_model_len"] == 4096
    assert arguments.deployment["trust_remote_code"] is True
    assert arguments.all == {**arguments.deployment, **arguments.suite}
    assert not SUITE & arguments.deployment.keys()


def test_what_the_platform_drops_is_not_launched() -> None:
    model = model_spec(serve={"gpu_memory_utilization": 0.8})
    assert "gpu_memory_utilization" in launch_arguments(model, Ascend()).all
    assert "gpu_memory_utilization" not in launch_arguments(model, Cpu()).all


@pytest.mark.parametrize("name", sorted(RESERVED_SERVE_ARGUMENTS))
def test_a_model_file_cannot_set_what_the_suite_needs_to_see(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"serve sets {name}, which the suite sets"):
        model_spec(serve={name: "x"})


@pytest.mark.parametrize(
    "name", ["override_generation_conf", "override_generation_config.temperature", "por", "uds"]
)
def test_nor_by_a_name_that_vllms_parser_completes(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"serve sets {name}, which the suite sets"):
        model_spec(serve={name: "x"})


@pytest.mark.parametrize("name", ["logprobs_mode", "override_generation_config"])
def test_nor_can_a_variant(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        model_spec(variants=(Variant("other", {name: "x"}),))


def server(tmp_path: Path) -> VllmServer:
    launch = Launch(
        model_path=tmp_path,
        served_name="an-org/模型",
        serve={"dtype": "bfloat16", "limit_mm_per_prompt": {"image": 2}},
        env={"TASK_QUEUE_ENABLE": "1", "NOTE": "it's 中文"},
        budgets=Budgets(),
        log_path=tmp_path / "log",
        suite_serve={"max_logprobs": 64, "enable_prompt_tokens_details": True},
        device_env={"ASCEND_RT_VISIBLE_DEVICES": "3"},
    )
    case = Case("text/a", Capability.TEXT, "?")
    return VllmServer(launch, case, lambda *_: None, lambda: None)


def test_the_printed_command_is_the_deployment_with_its_environment(tmp_path: Path) -> None:
    words = shlex.split(server(tmp_path).serve_command)
    assert words[:2] == ["TASK_QUEUE_ENABLE=1", "NOTE=it's 中文"]
    assert words[2:5] == ["vllm", "serve", "an-org/模型"]
    assert words[5:] == ["--dtype", "bfloat16", "--limit-mm-per-prompt", '{"image": 2}']


def test_the_suites_own_arguments_are_told_apart(tmp_path: Path) -> None:
    told = server(tmp_path).suite_arguments
    assert told == "--max-logprobs 64 --enable-prompt-tokens-details"


def test_vllm_gets_both_and_its_devices(tmp_path: Path) -> None:
    one = server(tmp_path)
    command = shlex.join(one.command())
    assert "--dtype bfloat16" in command
    assert "--max-logprobs 64" in command
    environment = one.environment()
    assert environment["TASK_QUEUE_ENABLE"] == "1"
    assert environment["ASCEND_RT_VISIBLE_DEVICES"] == "3"

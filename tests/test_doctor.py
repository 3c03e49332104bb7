"""`ascend-vlm doctor` says what a host has, what is wrong with it, and what to do about it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from fakes.npu_host import Host, Shown, bare, table, with_two_cards

from pytest_ascend_vlm import doctor
from pytest_ascend_vlm.cli import main
from pytest_ascend_vlm.doctor import diagnose
from pytest_ascend_vlm.engines import npu_tensors
from pytest_ascend_vlm.engines.vllm import registry
from pytest_ascend_vlm.platforms.cpu import Cpu
from pytest_ascend_vlm.platforms.hccl_ports import port_lines, ranges
from pytest_ascend_vlm.platforms.leases import lease

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bare_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host without an NPU."""
    return bare(tmp_path, monkeypatch)


@pytest.fixture
def host(bare_host: Host) -> Host:
    """A host on which all is well."""
    return with_two_cards(bare_host)


def said(capsys: Capture, code: int) -> str:
    """What the command prints, held to the exit code it should end with."""
    assert main(["doctor"]) == code
    return capsys.readouterr().out


def test_a_good_host(host: Host, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(host.root / "hub"))
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    text = said(capsys, 0)
    assert "Cards (ASCEND_RT_VISIBLE_DEVICES is not set: all cards may be used)" in text
    assert "0  910B4         OK          3050 of  32768 MiB  usable\n" in text
    assert str(host.root / "dev" / "davinci1") in text
    assert "vllm-ascend: 0.18.0rc1\n" in text
    assert "vllm: 0.18.0+empty\n" in text
    assert "vllm and vllm-ascend have no known conflict" in text
    assert "torch-npu: not found" in text
    assert "driver: 25.1.0" in text
    assert "VLLM_USE_MODELSCOPE is 'True': vLLM loads models from ModelScope" in text
    assert f"Hugging Face's cache: {host.root / 'hub'} (empty), " in text
    assert text.endswith("A model can be served on an NPU here.\n")


@pytest.mark.usefixtures("bare_host")
def test_a_laptop(capsys: Capture) -> None:
    text = said(capsys, 1)
    assert "No model can be served on an NPU here:\n  * there is no Ascend NPU" in text
    assert "\n  * vLLM-Ascend is not installed" in text
    assert "--vlm-platform=cpu --vlm-checkpoint=tiny" in text.splitlines()[-1]


@pytest.mark.usefixtures("bare_host")
def test_a_laptop_without_vllm_is_told_what_the_cpu_lacks(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cpu, "unavailable_reason", lambda _: "vLLM is not installed: pip ...")
    assert said(capsys, 1).endswith("after fixing this: vLLM is not installed: pip ...\n")


def test_each_card_says_why_not(
    host: Host, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Shown(used=21000, processes=((4711, "推理进程", 17600),))
    host.shows(table(Shown(), busy, Shown(health="Alarm"), Shown(), Shown(), first_id=4))
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "0,1,2,3")
    with lease("npu", 1, [3], dict, print):
        text = said(capsys, 0)
    rows = [line.partition("MiB  ")[2] for line in text.splitlines()[1:6]]
    assert rows[0] == "usable"
    assert rows[1] == "card 1 (910B4) is occupied: pid 4711 (推理进程) holds 17600 MiB"
    assert rows[2] == "card 2 (910B4): health is Alarm; see npu-smi info -t health -i 6"
    assert rows[3].startswith("leased by ")
    assert rows[4] == "not named by ASCEND_RT_VISIBLE_DEVICES"


def test_a_leased_card_is_enough_an_occupied_one_is_not(host: Host, capsys: Capture) -> None:
    host.shows(table(Shown(processes=((4711, "python3", 17600),))))
    assert "no card can be used now; the table above shows the reasons" in said(capsys, 1)
    with lease("npu", 1, [0], dict, print):
        said(capsys, 0)


def test_a_leased_card_that_is_not_visible_is_not_enough(
    host: Host, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.shows(table(Shown(health="Alarm"), Shown()))
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "0")
    with lease("npu", 1, [1], dict, print):
        said(capsys, 1)


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("ASCEND_RT_VISIBLE_DEVICES", "7", "names card 7, but this host has the cards 0 to 1"),
        ("ASCEND_RT_VISIBLE_DEVICES", "", "is empty, which hides all cards"),
        ("VLLM_VERSION", "0.19.0", "vllm-ascend 0.18.0rc1 requires vllm 0.18.0, but vllm 0.19.0"),
    ],
)
@pytest.mark.usefixtures("host")
def test_what_is_set_wrongly_is_a_problem(
    variable: str, value: str, problem: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert problem in said(capsys, 1)
    assert len(diagnose({}).problems) == 1


def test_an_error_of_npu_smi_is_told_once(host: Host) -> None:
    host.shows("dcmi module initialize failed. ret is -8005")
    (problem,) = diagnose({}).problems
    assert "an internal error of the driver" in problem


def test_simulated_cards_serve_nothing(host: Host, capsys: Capture) -> None:
    for node in (host.root / "dev").iterdir():
        node.unlink()
    assert "the cards are SIMULATED" in said(capsys, 1)


def test_a_node_that_may_not_be_opened_is_a_problem(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = host.root / "dev" / "davinci0"
    monkeypatch.setattr("os.access", lambda path, _: path != node)
    (problem,) = diagnose({}).problems
    assert problem == f"this user cannot open {node}; add the user to the group HwHiAiUser"


def test_locks_in_the_way_are_a_problem(host: Host) -> None:
    (host.root / "tmp" / "pytest-ascend-vlm-cards").write_text("", "utf-8")
    (problem,) = diagnose({}).problems
    assert "must be a directory" in problem


def test_the_free_space_of_a_cache_that_is_not_there_is_that_of_its_disk(tmp_path: Path) -> None:
    assert doctor.nearest_existing(tmp_path / "a" / "b") == tmp_path


# --- torch_npu -----------------------------------------------------------------------------------


def state(capsys: Capture, code: int, card: int) -> str:
    """What the command prints about a card, after its memory."""
    return said(capsys, code).splitlines()[1 + card].partition("MiB  ")[2]


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ("raise 0", "raises RuntimeError: aclrtSetDevice failed, error code is 507033; stop what"),
        ("crash 0", "ended the process (exit code -11: SIGSEGV, a native crash); its output: pyt"),
    ],
)
def test_a_card_without_a_tensor_is_told_and_the_others_are_tried(
    plan: str, told: str, host: Host, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", plan)
    assert state(capsys, 0, 0).startswith(f"the first tensor on it {told}")
    assert state(capsys, 0, 1) == "usable"
    host.shows(table(Shown()))
    assert "no card can be used now; the table above shows the reasons" in said(capsys, 1)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("has_alarm", [True, False])
def test_a_card_that_hangs_is_told(
    has_alarm: bool, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends itself; if no signal reaches it, nobody waits for it."""
    program = (
        f"import sys, {npu_tensors.__name__} as module; module.CARD_SECONDS = {int(has_alarm)}; "
        "module.main(sys.argv[1:])"
    )
    monkeypatch.setattr(npu_tensors, "COMMAND", ["python", "-c", program])
    monkeypatch.setattr(npu_tensors, "CARD_SECONDS", 1)
    monkeypatch.setattr(npu_tensors, "LOAD_SECONDS", 60 if has_alarm else 4)
    monkeypatch.setenv("BROKEN", "hang 1")
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1")
    told = "the first tensor on it took over 1 s; stop what uses the card, or reset it with npu-smi"
    assert state(capsys, 1, 1).startswith(told)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (
            "import",
            "loading torch_npu raises ImportError: libascend_hal.so: cannot open shared object "
            "file: No such file; mount /usr/local/Ascend/driver/lib64 into the container",
        ),
        ("crash", "loading torch_npu ended the process (exit code -11: SIGSEGV, a native crash)"),
    ],
)
def test_a_torch_npu_that_cannot_be_loaded_is_a_problem(
    plan: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", plan)
    (problem,) = diagnose({}).problems
    assert problem.startswith(told)
    assert "\n" not in problem


def test_without_torch_npu_no_card_can_be_used(host: Host) -> None:
    host.runs("torch_npu", "raise ModuleNotFoundError(\"No module named 'torch_npu'\")")
    (problem,) = diagnose({}).problems
    assert problem.endswith("; use the vllm-ascend image, which contains torch_npu")


@pytest.mark.usefixtures("host")
def test_only_idle_cards_are_tried(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", "crash 0")
    with lease("npu", 1, [0], dict, print):
        assert state(capsys, 0, 0).startswith("leased by ")


# --- ports and image -----------------------------------------------------------------------------


def ports(text: str) -> range:
    """The ports that "60000" or "60000-60031" names."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        base = min(port, 65504)
        first, advice = port_lines({"HCCL_IF_BASE_PORT": str(base)})[:2]
    head, _, taken = first.partition(": taken: ")
    assert head == f"{base}-{base + 31} (HCCL_IF_BASE_PORT is '{base}')"
    # Others of this host may be taken as well, its neighbours too.
    assert any(port in ports(part) for part in taken.split(", "))
    assert "EJ0003" in advice


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({}, "60000-60031 (HCCL_IF_BASE_PORT is not set): "),
        (
            {"HCCL_HOST_SOCKET_PORT_RANGE": "61000,61002-61004", "HCCL_IF_BASE_PORT": "1"},
            "61000, 61002-61004 (HCCL_HOST_SOCKET_PORT_RANGE is '61000,61002-61004'): ",
        ),
        ({"HCCL_HOST_SOCKET_PORT_RANGE": "auto"}, "HCCL_HOST_SOCKET_PORT_RANGE is auto: "),
        ({"HCCL_IF_BASE_PORT": "65535"}, "HCCL_IF_BASE_PORT is '65535', which names no ports; "),
        ({"HCCL_IF_BASE_PORT": "many"}, "HCCL_IF_BASE_PORT is 'many', which names no ports; "),
    ],
)
@pytest.mark.usefixtures("bare_host")
def test_the_ports_are_those_that_hccl_takes(env: dict[str, str], told: str) -> None:
    assert port_lines(env)[0].startswith(told)


def test_ports_that_a_connection_may_take_are_to_be_reserved(
    bare_host: Host, capsys: Capture
) -> None:
    settings = bare_host.root / "settings"
    advice = "net.ipv4.ip_local_reserved_ports=60000-60031"
    assert advice not in said(capsys, 1)
    (settings / "ip_local_port_range").write_text("32768\t60999\n", "ascii")
    (settings / "ip_local_reserved_ports").write_text("\n", "ascii")
    assert advice in said(capsys, 1)
    (settings / "ip_local_reserved_ports").write_text("60000-60031\n", "ascii")
    assert advice not in said(capsys, 1)


def test_ports_are_written_as_ranges() -> None:
    assert ranges([3, 1, 2, 5]) == "1-3, 5"


def test_the_image_is_named_where_it_can_be_told(host: Host, capsys: Capture) -> None:
    root = host.root / "image"
    for name in ("etc", "run"):
        (root / name).mkdir()
    assert "Image\n  no container was recognized\n" in said(capsys, 0)
    (root / ".dockerenv").touch()
    (root / "etc" / "os-release").write_text('NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5"\n')
    built = host.root / "site" / "vllm_ascend" / "_build_info.py"
    built.write_text("# Auto-generated file\n__device_type__ = 'A2'\n", "utf-8")
    text = said(capsys, 0)
    assert "a container of Docker" in text
    assert "\n  system: Ubuntu 22.04.5\n  vllm-ascend is built for A2\n" in text
    (root / "run" / ".containerenv").write_text('engine="podman-4"\nimage="quay.io/a/b:v1"\n')
    assert "Image\n  quay.io/a/b:v1\n" in said(capsys, 0)


# --- the architectures of the models -------------------------------------------------------------

REGISTRY = """
import sys
from types import ModuleType, SimpleNamespace

plugins = ModuleType("vllm.plugins")
plugins.load_general_plugins = lambda: known.append("GlmOcrForConditionalGeneration")
sys.modules["vllm.plugins"] = plugins
known = ["LlamaForCausalLM"]
ModelRegistry = SimpleNamespace(get_supported_archs=lambda: known)
"""
MODELS = """
from pytest_ascend_vlm import Capability as C, ModelSpec, VLMConformance

def model(tiny, *requires):
    of_text = {C.TEXT}
    unsupported = {one: "-" for one in C if one not in of_text}
    return ModelSpec(
        f"a/{tiny}", tiny=tiny, requires=requires, supports=of_text, unsupported=unsupported
    )

"""


def models(directory: Path, **expressions: str) -> str:
    """A directory with a model file; class name -> expression of its model."""
    classes = "\n\n".join(
        f"class {name}(VLMConformance):\n    model = {expression}"
        for name, expression in expressions.items()
    )
    (directory / "models").mkdir(exist_ok=True)
    (directory / "models" / "test_models.py").write_text(MODELS + classes, "utf-8")
    return str(directory / "models")


def test_the_architectures_are_looked_up_with_those_of_plugins(host: Host, capsys: Capture) -> None:
    host.runs("vllm", REGISTRY)
    named = models(
        host.root,
        TestPlugin="model('glm_ocr')",
        TestOther="model('qwen2_vl')",
        TestNeeds="model('qwen2_vl', 'vllm>=99')",
        TestAway="model(None)",
    )
    assert main(["doctor", named]) == 0
    text = capsys.readouterr().out
    known = "GlmOcrForConditionalGeneration is in the registry of the installed vLLM"
    assert f"\n  TestPlugin: {known}\n" in text
    unknown = "Qwen2VLForConditionalGeneration is not in the registry of the installed vLLM"
    assert f"\n  TestOther: {unknown}\n" in text
    assert "\n  TestNeeds: not applicable: it needs vllm>=99, and vllm 0.18.0" in text
    assert "\n  TestAway: its architecture is unknown" in text
    assert main(["doctor", models(host.root, TestOther="model('qwen2_vl')")]) == 1
    assert "* vLLM 0.18.0+empty serves none of the models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "raise RuntimeError('Failed to load the backend extension: torch_npu')",
            "raises RuntimeError: Failed to load the backend extension: torch_npu",
        ),
        ("import os; os.abort()", "ended the process (exit code -6: SIGABRT, native code aborted)"),
        ("import time; time.sleep(60)", "took over 2 s"),
    ],
)
def test_a_vllm_that_cannot_be_asked_is_a_problem(
    code: str, told: str, host: Host, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "TIME_LIMIT_SECONDS", 2)
    host.runs("vllm", code)
    assert main(["doctor", models(host.root, TestOther="model('qwen2_vl')")]) == 1
    text = capsys.readouterr().out
    assert f"\n  * importing vLLM {told}; for the full output run python -m pytest_as" in text

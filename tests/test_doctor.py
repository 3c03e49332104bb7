"""`ascend-vlm doctor` says what a host has, what is wrong with it, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.npu_host import Host, Shown, bare, table, with_two_cards

from pytest_ascend_vlm import doctor
from pytest_ascend_vlm.cli import main
from pytest_ascend_vlm.doctor import diagnose
from pytest_ascend_vlm.platforms.cpu import Cpu
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
    assert len(diagnose().problems) == 1


def test_an_error_of_npu_smi_is_told_once(host: Host) -> None:
    host.shows("dcmi module initialize failed. ret is -8005")
    (problem,) = diagnose().problems
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
    (problem,) = diagnose().problems
    assert problem == f"this user cannot open {node}; add the user to the group HwHiAiUser"


def test_locks_in_the_way_are_a_problem(host: Host) -> None:
    (host.root / "tmp" / "pytest-ascend-vlm-cards").write_text("", "utf-8")
    (problem,) = diagnose().problems
    assert "must be a directory" in problem


def test_the_free_space_of_a_cache_that_is_not_there_is_that_of_its_disk(tmp_path: Path) -> None:
    assert doctor.nearest_existing(tmp_path / "a" / "b") == tmp_path

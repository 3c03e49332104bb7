"""Platforms: what a host is found to have, what is wrong with it, and what each one leaves out."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes.npu_host import CAT, Host, Shown, bare, table, with_two_cards
from helpers.models import model_spec

from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.platforms import PLATFORMS, cores, cpu_backend, image, select_platform
from pytest_ascend_vlm.platforms.ascend import POOL, Ascend
from pytest_ascend_vlm.platforms.ascend_versions import pair_problem
from pytest_ascend_vlm.platforms.base import Allocation, Platform
from pytest_ascend_vlm.platforms.cards import Card, CardProcess
from pytest_ascend_vlm.platforms.cores import physical_cores
from pytest_ascend_vlm.platforms.cpu import Cpu
from pytest_ascend_vlm.platforms.cuda import Cuda, NvidiaSmiError, parse_nvidia_smi
from pytest_ascend_vlm.platforms.endpoint import Remote
from pytest_ascend_vlm.platforms.host import operating_system
from pytest_ascend_vlm.platforms.npu_smi import NpuSmiError, driver_version, read_cards
from pytest_ascend_vlm.platforms.preflight import obstacles, visible_cards

VARIABLE = "ASCEND_RT_VISIBLE_DEVICES"
IDLE = Card(0, 0, 0, "910B4", "OK", 3050, 32768)


@pytest.fixture
def bare_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host without an NPU."""
    return bare(tmp_path, monkeypatch)


@pytest.fixture
def host(bare_host: Host) -> Host:
    """A host on which all is well."""
    return with_two_cards(bare_host)


def visible(value: str | None, count: int = 4, *, ascending: bool = True) -> tuple[int, ...]:
    return visible_cards(VARIABLE, value, count, ascending)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, (0, 1, 2, 3)), ("0", (0,)), ("1,3", (1, 3)), ("0,1,2,3", (0, 1, 2, 3))],
)
def test_visible_ids_are_read(value: str | None, expected: tuple[int, ...]) -> None:
    assert visible(value) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is empty, which hides all cards"),
        ("7,9", f"{VARIABLE}=7,9 names cards 7 and 9, but this host has the cards 0 to 3"),
        ("0,4", "names card 4, but"),
        ("1,2,1", "names card 1 more than once"),
        ("0-3", "contains '0-3', which is not the id of a card"),
        ("0, 1", "contains ' 1', which"),
        ("0,,1", "contains '', which"),
        ("0,-1", "contains '-1', which"),
        ("0;1", "contains '0;1', which"),
        ("二", "contains '二', which"),
        ("١", "contains '١', which"),
        ("9" * 5000, "which is not the id of a card"),
        ("3,1", "is not in ascending order, which CANN requires; write 1,3"),
    ],
)
def test_visible_ids_that_do_not_do_what_they_seem_to_are_refused(value: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        visible(value)
    assert said in str(caught.value)


def test_a_host_with_one_card_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="this host has only card 0"):
        visible("1", count=1)


def test_order_matters_only_where_the_driver_minds() -> None:
    assert visible("3,1", ascending=False) == (3, 1)


@pytest.mark.parametrize(
    ("vllm_ascend", "vllm"),
    [
        ("0.18.0rc1", "0.18.0"),
        ("0.18.0rc1", "0.18.0+empty"),
        ("v0.18.0", "v0.18.0"),
        ("0.7.3.post1", "0.7.3"),
        ("0.14.0rc1", "0.14.1"),
        ("0.11.0rc0", "0.11.0rc3"),
        ("0.10.1rc1", "0.10.1.1"),
        ("0.10.1rc1", "0.10.1"),
        ("0.8.5rc1", "0.8.5.post1"),
        # Nobody can tell: not installed, built from a commit, not of the form.
        (None, "0.18.0"),
        ("0.18.0", None),
        ("0.18.1.dev12+gabc1234", "0.19.0"),
        ("0.18.0", "0.19.0.dev3+gabc1234"),
        ("unknown", "0.19.0"),
    ],
)
def test_a_pair_that_goes_together_is_no_problem(vllm_ascend: str | None, vllm: str | None) -> None:
    assert pair_problem(vllm_ascend, vllm) is None


@pytest.mark.parametrize(
    ("vllm_ascend", "vllm", "partner"),
    [
        ("0.18.0rc1", "0.19.0", "0.18.0"),
        ("0.18.0rc1", "0.18.1", "0.18.0"),
        ("0.18.0rc1+local", "0.17.0+empty", "0.18.0"),
        ("0.18.0", "0.18.0rc1", "0.18.0"),
        ("0.14.0rc1", "0.14.0", "0.14.1"),
    ],
)
def test_a_pair_that_does_not_says_which_vllm_would(
    vllm_ascend: str, vllm: str, partner: str
) -> None:
    problem = pair_problem(vllm_ascend, vllm)
    assert problem is not None
    assert f"vllm-ascend {vllm_ascend} requires vllm {partner}, but vllm {vllm} is" in problem
    assert f"pip install vllm=={partner}," in problem


def reason(card: Card) -> tuple[str, bool]:
    obstacle = POOL.obstacles([card])[card.index]
    return obstacle.reason, obstacle.temporary


@pytest.mark.parametrize(
    "card",
    [
        IDLE,
        replace(IDLE, memory_used_mib=3400),
        replace(IDLE, memory_used_mib=4915),
        replace(IDLE, memory_used_mib=0, memory_total_mib=0),
        replace(IDLE, health="ok"),
    ],
)
def test_an_idle_card_can_be_used(card: Card) -> None:
    assert obstacles([card]) == {}


@pytest.mark.parametrize("health", ["Warning", "Alarm", "Critical", "UNKNOWN", "NA"])
def test_a_sick_card_cannot_and_will_not_recover_by_itself(health: str) -> None:
    card = replace(IDLE, index=2, board=5, health=health)
    said = f"card 2 (910B4): health is {health}; see npu-smi info -t health -i 5"
    assert reason(card) == (said, False)


def test_a_process_occupies_its_card_while_it_lives() -> None:
    card = replace(IDLE, index=1, processes=(CardProcess(4711, "python3", 30211),))
    assert reason(card) == (
        "card 1 (910B4) is occupied: pid 4711 (python3) holds 30211 MiB",
        True,
    )


def test_the_largest_processes_are_named() -> None:
    sizes = (130, 27000, None, 140, 150)
    processes = tuple(CardProcess(10 + i, "", size) for i, size in enumerate(sizes))
    said, _ = reason(replace(IDLE, name="", processes=processes))
    assert said == (
        "card 0 is occupied: pid 11 holds 27000 MiB, pid 14 holds 150 MiB, pid 13 holds 140 MiB "
        "and 2 more"
    )


def test_memory_without_a_process_belongs_to_somebody_who_cannot_be_seen() -> None:
    said, temporary = reason(replace(IDLE, memory_used_mib=4916))
    assert said.startswith("card 0 (910B4) is occupied: 4916 of 32768 MiB are in use by processes")
    assert temporary


@pytest.mark.usefixtures("host")
def test_a_good_host_has_no_problem() -> None:
    npu = Ascend()
    assert npu.unavailable_reason() is None
    assert npu.misconfigured_reason() is None
    assert not npu.simulated
    assert npu.device() == "2 x 910B4"
    assert npu.usable_cards() == 2


@pytest.mark.usefixtures("bare_host")
def test_without_npu_smi_and_nodes_there_is_no_npu() -> None:
    npu = Ascend()
    assert str(npu.unavailable_reason()).startswith("there is no Ascend NPU")
    assert npu.usable_cards() == 0
    assert not npu.simulated


def test_a_node_without_npu_smi_is_an_npu_that_cannot_be_asked(bare_host: Host) -> None:
    bare_host.installs("vllm-ascend", "0.18.0")
    (bare_host.root / "dev" / "vdavinci100").touch()
    assert str(Ascend().unavailable_reason()).startswith("npu-smi is not on PATH")


def test_without_vllm_ascend_no_server_can_run(bare_host: Host) -> None:
    bare_host.command("npu-smi", "true")
    assert str(Ascend().unavailable_reason()).startswith("vLLM-Ascend is not installed")


def test_an_error_of_npu_smi_is_the_reason(host: Host) -> None:
    host.shows("dcmi model initialized failed, because the device is used. ret is -8020")
    assert "the card is occupied by another container" in str(Ascend().unavailable_reason())
    assert Ascend().device().startswith("none: npu-smi info shows no card")


def test_npu_smi_that_cannot_be_run_is_an_error_of_its_own(host: Host) -> None:
    (host.root / "bin" / "npu-smi").chmod(0o755)
    (host.root / "bin" / "npu-smi").write_bytes(b"\x7fELF nonsense")
    with pytest.raises(NpuSmiError, match="npu-smi cannot be run"):
        read_cards()


def test_cards_without_nodes_are_simulated(host: Host) -> None:
    for node in (host.root / "dev").iterdir():
        node.unlink()
    assert Ascend().unavailable_reason() is None
    assert Ascend().simulated
    assert Ascend().device() == "SIMULATED 2 x 910B4"


@pytest.mark.usefixtures("host")
def test_wrong_ids_and_a_wrong_pair_are_errors_not_skips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "7")
    monkeypatch.setenv("VLLM_VERSION", "0.19.0")
    npu = Ascend()
    assert npu.unavailable_reason() is None
    pair, ids = str(npu.misconfigured_reason()).splitlines()
    assert "requires vllm 0.18.0, but vllm 0.19.0" in pair
    assert ids.startswith(f"{VARIABLE}=7 names card 7, but this host has the cards 0 to 1")
    assert npu.usable_cards() == 0


def test_only_visible_healthy_unoccupied_cards_count(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Shown(used=21000, processes=((4711, "推理进程", 17600),))
    host.shows(table(Shown(), busy, Shown(health="Alarm"), Shown()))
    assert Ascend().usable_cards() == 2
    monkeypatch.setenv(VARIABLE, "1,2,3")
    assert Ascend().usable_cards() == 1


def test_a_place_confines_its_server_to_its_cards(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "1,2,3")
    host.shows(table(Shown(), Shown(), Shown(health="Alarm"), Shown(used=3100), first_id=4))
    with Ascend().allocate(model_spec(devices=2), print) as place:
        assert place.cards == (1, 3)
        assert place.env == {VARIABLE: "1,3"}
        assert place.memory_used_mib() == 3050 + 3100
        host.shows(table(Shown(), Shown(used=9000), Shown(), Shown(used=20)))
        assert place.memory_used_mib() == 9020
        host.shows("dcmi module initialize failed. ret is -8005")
        assert place.memory_used_mib() is None


def test_there_is_no_place_on_occupied_cards(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_ascend_vlm.platforms.leases.GRACE_SECONDS", 0.0)
    monkeypatch.setattr("pytest_ascend_vlm.platforms.leases.POLL_SECONDS", 0.01)
    busy = Shown(processes=((4711, "推理进程", 17600),))
    host.shows(table(busy, busy))
    with (
        pytest.raises(ConfigurationError, match="pid 4711 \\(推理进程\\) holds 17600 MiB"),
        Ascend().allocate(model_spec(), print),
    ):
        pass


def test_versions_of_cann_and_the_driver(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ascend().versions()["vllm-ascend"] == "0.18.0rc1"
    assert Ascend().versions()["driver"] == "25.1.0"  # of npu-smi's head
    assert "CANN" not in Ascend().versions()
    toolkit = host.root / "Ascend" / "cann" / "aarch64-linux" / "ascend_toolkit_install.info"
    toolkit.parent.mkdir(parents=True)
    toolkit.write_text("package_name=a-toolkit\nversion=8.5.1\ninnerversion=V1\n", "utf-8")
    driver = host.root / "Ascend" / "driver" / "version.info"
    driver.parent.mkdir()
    driver.write_text("Version=25.2.0\nInnerversion=V1\n", "utf-8")
    assert Ascend().versions()["CANN"] == "8.5.1"
    assert Ascend().versions()["driver"] == "25.2.0"
    driver.write_text("Version=7.35.23\npackage_version=26.0.rc1\n", "utf-8")
    assert Ascend().versions()["driver"] == "26.0.rc1"
    other = host.root / "elsewhere" / "x86_64-linux" / toolkit.name
    other.parent.mkdir(parents=True)
    other.write_text("version=9.0.0\n", "utf-8")
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(host.root / "elsewhere"))
    assert Ascend().versions()["CANN"] == "9.0.0"


def test_the_memory_of_one_card(host: Host) -> None:
    assert Ascend().device_memory_mib() == 32768
    host.shows(table(Shown(total=65536), Shown(total=0), Shown(total=65452)))
    assert Ascend().device_memory_mib() == 65452
    host.shows("no table")
    assert Ascend().device_memory_mib() is None
    assert Cuda().device_memory_mib() is None
    assert Cpu().device_memory_mib() is None


IMAGE = "quay.io/ascend/vllm-ascend:v0.18.0rc1"


@pytest.mark.parametrize(
    ("file", "variable", "name"),
    [
        (None, None, None),
        (None, IMAGE, IMAGE),
        (None, "a scan.png", None),
        ("", IMAGE, IMAGE),
        (f'engine="podman-4.9.3"\nimage="{IMAGE}"\nimageid="abc"\n', "other/image:v1", IMAGE),
        (None, f"host.example:5000/vllm-ascend@sha256:{'0' * 64}", ...),
    ],
)
def test_the_image_of_a_container_is_known_if_something_tells_it(
    file: str | None,
    variable: str | None,
    name: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image, "ROOT", tmp_path)
    monkeypatch.delenv("IMAGE", raising=False)
    if file is not None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / ".containerenv").write_text(file, "utf-8")
    if variable is not None:
        monkeypatch.setenv("IMAGE", variable)
    assert image.image_name() == (variable if name is ... else name)
    assert image.is_verified() == bool(file)


def test_the_operating_system_is_named_with_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    release = {"PRETTY_NAME": "Ubuntu 22.04.5 LTS"}
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: release)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert operating_system() == "Ubuntu 22.04.5 LTS, aarch64"


def test_the_head_of_the_table_has_the_drivers_version() -> None:
    assert driver_version(table(Shown())) == "25.1.0"
    assert driver_version("no table") is None


ASCEND_ENV = {
    "ASCEND_LAUNCH_BLOCKING": "1",
    "HCCL_OP_EXPANSION_MODE": "AIV",
    "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
    "TASK_QUEUE_ENABLE": "1",
    "VLLM_ASCEND_ENABLE_NZ": "0",
    "CPU_AFFINITY_CONF": "1",
    "LCCL_DETERMINISTIC": "1",
}
THREADS = {"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false"}
KEPT = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with four cores and one memory node, and a user who has set nothing."""
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu_backend, "physical_cores", lambda: 4)
    monkeypatch.setattr(cpu_backend, "memory_nodes", lambda: 1)
    monkeypatch.setattr(cpu_backend, "vllm_in", lambda releases: "0.23.0" in releases)


@pytest.mark.usefixtures("four_cores")
def test_the_environment_of_an_npu_reaches_only_an_npu() -> None:
    model = model_spec(env={**ASCEND_ENV, **THREADS, **KEPT})
    assert Ascend().environment(model) == {**ASCEND_ENV, **THREADS, **KEPT}
    assert Cuda().environment(model) == {**THREADS, **KEPT}
    of_cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    assert Cpu().environment(model) == {**KEPT, **of_cpu}


def in_one_process(env: dict[str, str]) -> dict[str, str]:
    """The variables of a model's engine that say that it is one process."""
    return {**cpu_backend.one_process(env), **cpu_backend.threads(env)}


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize("of_user", [{}, {"OMP_NUM_THREADS": "1"}])
def test_an_engine_on_a_cpu_is_one_process_that_leaves_a_core(
    of_user: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in of_user.items():
        monkeypatch.setenv(name, value)
    expected = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "3"}
    assert in_one_process({"OMP_NUM_THREADS": "1"}) == expected


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    "decided", [{"VLLM_CPU_OMP_THREADS_BIND": "0-3"}, {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}]
)
def test_who_binds_threads_or_decides_keeps_the_processes_of_vllm(
    decided: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_one_process(decided) == {}
    for name, value in decided.items():
        monkeypatch.setenv(name, value)
    assert in_one_process({}) == {}


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("name", "found"),
    [("memory_nodes", lambda: 2), ("vllm_in", lambda releases: "0.18" in releases)],
)
def test_vllm_binds_threads_to_a_memory_node_and_old_releases_decide_themselves(
    name: str, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_backend, name, found)
    assert in_one_process({}) == {}


def test_memory_nodes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "NODES", tmp_path)
    assert cores.memory_nodes() == 1
    for name in ("node0", "node1", "possible"):
        (tmp_path / name).mkdir()
    assert cores.memory_nodes() == 2


@pytest.mark.parametrize(
    ("allowed", "number"), [({0, 1, 2, 3}, 2), ({0, 2}, 1), ({0, 1}, 2), ({3}, 1)]
)
def test_cores_are_counted_among_those_that_this_process_may_use(
    allowed: set[int], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        (tmp_path / str(cpu)).write_text(siblings, "ascii")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    monkeypatch.setattr(cores, "SIBLINGS", f"{tmp_path}/{{}}")
    assert physical_cores() == number


def test_cores_are_counted_where_sys_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "SIBLINGS", f"{tmp_path}/{{}}")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 16 if logical else 4)
    assert physical_cores() == 4


def test_the_arguments_of_an_npu_reach_only_an_npu() -> None:
    serve = {
        "max_model_len": 8192,
        "additional_config": {"weight_nz_mode": 1},
        "compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"},
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 2,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
    }
    model = model_spec(devices=4, serve=serve)
    assert Ascend().serve_arguments(model) == serve
    assert serve.keys() - Cuda().serve_arguments(model).keys() == {"additional_config"}
    assert Cpu().serve_arguments(model) == {
        "max_model_len": 8192,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "enforce_eager": True,
    }


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("platform", "env"), [(Cpu(), {"OMP_NUM_THREADS": "3"}), (Remote("http://127.0.0.1:9"), {})]
)
def test_where_there_are_no_cards_a_place_is_everywhere(
    platform: Platform, env: dict[str, str]
) -> None:
    assert platform.misconfigured_reason() is None
    assert platform.usable_cards() is None
    assert not platform.simulated
    with platform.allocate(model_spec(devices=8), print) as place:
        assert place == Allocation(env=env)
        assert place.memory_used_mib() is None


@pytest.mark.parametrize("name", PLATFORMS)
def test_every_platform_is_found_by_its_name(name: str) -> None:
    assert select_platform(name).name == name


GPUS = """\
GPU-aaaa, 4, 143771, NVIDIA H200
GPU-bbbb, 71000, 143771, NVIDIA H200
"""
APPS = "GPU-bbbb, 4711, 70500, python3, with a comma\nGPU-bbbb, 4712, [N/A], 推理进程\n"


def test_nvidia_smi_is_read() -> None:
    assert parse_nvidia_smi(GPUS, APPS) == (
        Card(0, 0, 0, "NVIDIA H200", "OK", 4, 143771),
        Card(
            1,
            1,
            0,
            "NVIDIA H200",
            "OK",
            71000,
            143771,
            (
                CardProcess(4711, "python3, with a comma", 70500),
                CardProcess(4712, "推理进程", None),
            ),
        ),
    )


def test_a_process_without_a_number_still_occupies_its_gpu() -> None:
    (card,) = parse_nvidia_smi(GPUS.splitlines()[0], "GPU-aaaa, [N/A], [N/A], [Not Found]\n")
    assert card.processes == (CardProcess(0, "[Not Found]", None),)


def test_a_text_without_gpus_is_refused() -> None:
    with pytest.raises(NvidiaSmiError, match="No devices were found"):
        parse_nvidia_smi("No devices were found", "")


def test_a_gpu_is_leased_as_a_card_is(bare_host: Host) -> None:
    cuda = Cuda()
    bare_host.installs("vllm", "0.18.0")
    (bare_host.root / "gpus").write_text(GPUS, "utf-8")
    (bare_host.root / "apps").write_text(APPS, "utf-8")
    root = bare_host.root
    bare_host.command(
        "nvidia-smi", f'case "$1" in *gpu=*) {CAT} {root}/gpus;; *) {CAT} {root}/apps;; esac'
    )
    assert cuda.unavailable_reason() is None
    assert cuda.misconfigured_reason() is None
    assert cuda.device() == "2 x NVIDIA H200"
    assert cuda.device_memory_mib() == 143771
    assert cuda.usable_cards() == 1
    with cuda.allocate(model_spec(), print) as place:
        assert place.cards == (0,)
        assert place.env == {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        assert place.memory_used_mib() == 4


def test_importing_platforms_is_cheap() -> None:
    code = (
        "import sys; from pytest_ascend_vlm.platforms import PLATFORMS, select_platform\n"
        "for name in PLATFORMS: select_platform(name)\n"
        "print(*sorted({'torch', 'psutil', 'vllm'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


@pytest.mark.parametrize(
    ("release", "alone", "among_others"),
    [("0.13.0", True, True), ("0.18.0", False, True), ("0.23.0", False, False)],
)
def test_a_release_that_structured_outputs_end_is_not_asked(
    release: str, alone: bool, among_others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_ascend_vlm.versions.installed_vllm", lambda: release)
    assert (Cpu().structured_outputs_problem is not None) is alone
    assert (Cpu().structured_crowd_problem is not None) is among_others


@pytest.mark.parametrize(("release", "size"), [("0.11.0.post2", 16), ("0.13.0", None)])
def test_the_oldest_release_has_small_blocks_on_a_cpu(
    release: str, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_ascend_vlm.versions.installed_vllm", lambda: release)
    assert cpu_backend.serve_arguments().get("block_size") == size
    assert (Cpu().preemption_problem is not None) is (size is not None)

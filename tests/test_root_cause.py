"""What a dead engine died of, read off its log.

`logs/` has logs of real vLLM servers of five releases, cut down to a few frames a traceback. The
name says of what they died: `nolib` a library that has to be preloaded, `kvbig` memory that is not
there, `badweights` a cut shard, `killed` SIGKILL, and so on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm.processes.exit_code import exit_code
from pytest_ascend_vlm.processes.post_mortem import post_mortem
from pytest_ascend_vlm.processes.root_cause import ENDED_FROM_OUTSIDE, root_cause

LOGS = Path(__file__).parent / "logs"

# log -> who said it, what it says, what is advised
REAL = {
    "011-flag": ("", "unrecognized arguments: --no-such-flag", "ModelSpec.serve"),
    "011-killed": ("", ENDED_FROM_OUTSIDE, "dmesg"),
    "018-arch": (
        "APIServer",
        "model type `no_such_vl` but Transformers does not",
        "Transformers 4",
    ),
    "018-badweights": ("EngineCore", "Error while deserializing header", "damaged"),
    "018-flag": ("", "unrecognized arguments: --no-such-flag", "ModelSpec.serve"),
    "018-kvbig": ("EngineCore", "you tried to allocate 1073741824000 bytes", "max_model_len"),
    "018-nodir": ("APIServer", "HFValidationError: Repo id must be", "--vlm-weights-root"),
    "018-nolib": ("EngineCore", "libtcmalloc is not found in LD_PRELOAD", "libtcmalloc-minimal4"),
    "023-arch2": ("APIServer", "['NoSuchVLForConditionalGeneration'] are not supp", "config.json"),
    "023-wrongshape": ("Worker", "exceeds dimension size (376)", "damaged"),
    "032-killed": ("", "EngineCore ended with exit code -9: SIGKILL", "dmesg"),
    "032-kvbig": ("Worker", "less than requested memory for kv (4000.0 GiB)", "max_model_len"),
    "032-longmodellen": ("", "max_model_len (10000000) is greater than", "lower max_model_len"),
    "032-noweights": ("Worker", "Cannot find any model weights with", "damaged, incomplete"),
}


@pytest.mark.parametrize("name", REAL)
def test_the_cause_of_a_real_death(name: str) -> None:
    log = (LOGS / f"{name}.log").read_bytes().decode("utf-8")
    process, said, advice = REAL[name]
    cause = root_cause(log)
    assert cause is not None
    assert said in cause.lines[0]
    assert (cause.process.name if cause.process else "") == process
    message = post_mortem("the server died.", log, LOGS / f"{name}.log").split("\n")
    assert message[0] == "the server died."
    assert message[1].startswith(f"Root cause ({process}" if process else "Root cause: ")
    advised = [line for line in message if line.startswith("What to try: ")]
    assert len(advised) == 1
    assert advice in advised[0]
    assert "root cause above" not in "\n".join(message[: message.index("The end of its log:")])


def test_every_log_is_expected() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == REAL.keys()


# --- logs that are written here -------------------------------------------------------------------


def logged(process: str, *said: str, level: str = "ERROR", where: str = "core.py:708") -> list[str]:
    """What a process says through its logger: a traceback that ends with the given lines."""
    text = ["Traceback (most recent call last):", '  File "f.py", line 1, in f', "    f()", *said]
    tag = f"({process}) " if process else ""
    return [f"{tag}{level} 11-25 20:01:02 [{where}] {line}" for line in text]


def printed(process: str, *said: str) -> list[str]:
    """The same past its logger."""
    tag = f"({process}) " if process else ""
    text = ["Traceback (most recent call last):", '  File "f.py", line 1, in f', "    f()", *said]
    return [f"{tag}{line}" for line in text]


API_SERVER = printed(
    "APIServer pid=1",
    "RuntimeError: Engine core initialization failed. See root cause above. "
    "Failed core proc(s): {'EngineCore_DP0': 1}",
)
CORE_POINTS = logged(
    "EngineCore_DP0 pid=20",
    "Exception: WorkerProc initialization failed due to an exception in a background process. "
    "See stack trace for root cause.",
)
UNKNOWN = "[ERROR] 2025-11-25-20:01:15 (PID:1, Device:-1) ERR99999 UNKNOWN applicaiton exception"


def cause_of(*parts: Sequence[str]) -> tuple[str, str]:
    """Who said it, and what, of a log in parts."""
    cause = root_cause("\n".join(line for part in parts for line in part))
    assert cause is not None
    return str(cause.process or ""), "\n".join(cause.lines)


def test_a_worker_without_memory_and_the_peers_that_it_took_along() -> None:
    peer = logged("VllmWorker TP0 pid=30", "RuntimeError: [pair.cc:534] Connection closed by peer")
    full = logged(
        "VllmWorker TP4 pid=31", "RuntimeError: NPU out of memory. Tried to allocate 2 GiB"
    )
    said = cause_of(peer, full, CORE_POINTS, [UNKNOWN], API_SERVER, [UNKNOWN])
    assert said == (
        "VllmWorker TP4, pid 31",
        "RuntimeError: NPU out of memory. Tried to allocate 2 GiB",
    )


def test_a_lost_peer_is_the_cause_where_there_is_no_other() -> None:
    lost = "torch.distributed.DistBackendError: NCCL error in: x.cpp:3, remote process exited"
    assert cause_of(logged("Worker_TP1 pid=31", lost), CORE_POINTS, API_SERVER)[1] == lost


@given(st.randoms(use_true_random=False))
def test_processes_may_interleave_as_they_like(order: random.Random) -> None:
    worker = logged("Worker_TP0 pid=3", "ValueError: no kernel for head size 33", where="w.py:1")
    parts = [worker, list(CORE_POINTS), list(API_SERVER), ["nanobind: leaked 3 types!", ""] * 3]
    mixed: list[str] = []
    while left := [part for part in parts if part]:
        mixed.append(order.choice(left).pop(0))
    said = cause_of(mixed)
    assert said == ("Worker_TP0, pid 3", "ValueError: no kernel for head size 33")


def test_a_report_of_cann_comes_with_the_exception_that_carries_it() -> None:
    process, said = cause_of(
        [".", *logged("EngineCore_DP0 pid=20",
            "RuntimeError: Worker failed with error 'call aclnnX failed, detail:EZ9999: Inner!",
            "EZ9999: [PID: 20] 2025-11-25-20:01:02 op kernel bin not found.[FUNC:A][FILE:b.cc]",
            "        TraceBack (most recent call last):",
            "', please check the stack trace above for the root cause")],
        API_SERVER,
    )  # fmt: skip
    assert process == "EngineCore_DP0, pid 20"
    assert said.startswith("call aclnnX failed, detail:EZ9999")
    assert "op kernel bin not found" in said
    assert "please check" not in said


def test_a_report_of_cann_above_the_exception_is_found_there() -> None:
    above = ["EZ9999: Inner Error!", "EZ9999: [PID: 294] 2025-11-25 setup failed for X.[FUNC:x]"]
    refers = logged("", "RuntimeError: The Inner error is reported as above. Operator is X.")
    assert cause_of(above, refers)[1].split("\n") == [
        "RuntimeError: The Inner error is reported as above. Operator is X.",
        "EZ9999: [PID: 294] 2025-11-25 setup failed for X.[FUNC:x]",
    ]


def test_a_report_of_cann_is_the_cause_where_nobody_raised_anything() -> None:
    report = "E10001: 2025-11-25 Value [x] for parameter [y] is invalid. Reason: z."
    assert cause_of([report], API_SERVER)[1] == report


@pytest.mark.parametrize(
    "code", ["ERR02200 DIST call hccl api failed.", "EI0006: Getting socket times out."]
)
def test_cards_that_do_not_reach_each_other(code: str) -> None:
    error = (
        "RuntimeError: create_config:x.ts:148 HCCL function error: hcclCommInit, error code is 7"
    )
    log = [*logged("VllmWorker rank=1 pid=7", error, f"[ERROR] (PID:7) {code}"), *API_SERVER]
    assert cause_of(log) == ("VllmWorker rank=1, pid 7", f"{error}\n[ERROR] (PID:7) {code}")
    assert "npu-smi info" in post_mortem("it died.", "\n".join(log), Path("x.log"))


def test_a_chain_is_told_from_its_end() -> None:
    chain = [
        *printed("", "KeyError: 'down_proj'"),
        *("", "The above exception was the direct cause of the following exception:", ""),
        *printed("", "RuntimeError: layer 3 cannot be loaded"),
        *("", "During handling of the above exception, another exception occurred:", ""),
        *printed("", "OSError: the model cannot be loaded"),
    ]
    assert cause_of(chain)[1].split("\n") == [
        "OSError: the model cannot be loaded",
        "while handling RuntimeError: layer 3 cannot be loaded",
        "caused by KeyError: 'down_proj'",
    ]


def test_of_a_chain_that_ends_in_a_pointer_the_rest_is_told() -> None:
    core = [
        *logged("EngineCore pid=2", "ValueError: head size 33 is not supported"),
        "(EngineCore pid=2) ERROR 11-25 20:01:02 [core.py:708] During handling of the above "
        "exception, another exception occurred:",
        *logged("EngineCore pid=2", "RuntimeError: engine loop has died. See stack trace above."),
    ]
    assert cause_of(core, API_SERVER)[1] == "ValueError: head size 33 is not supported"


def test_what_came_before_an_answer_did_not_end_the_server() -> None:
    refused = [
        *logged("APIServer pid=1", "OSError: image file is truncated", where="serving.py:1"),
        '(APIServer pid=1) INFO:     127.0.0.1:1 - "POST /v1/chat/completions HTTP/1.1" 500 Error',
    ]
    dead = logged("APIServer pid=1", "vllm.EngineDeadError: EngineCore encountered an issue.")
    assert cause_of(refused, dead)[1] == ENDED_FROM_OUTSIDE
    core = logged("EngineCore pid=2", "torch.OutOfMemoryError: CUDA out of memory.")
    assert cause_of(refused, core, dead, refused[-1:])[0] == "EngineCore, pid 2"


def test_what_goes_wrong_while_a_process_ends_is_not_what_it_died_of() -> None:
    heading = "(EngineCore pid=2) ERROR 11-25 20:01:02 [core.py:708] EngineCore failed to start."
    death = [heading, *logged("EngineCore pid=2", "ValueError: head size 33 is not supported")]
    after = printed("EngineCore pid=2", "AttributeError: 'X' object has no attribute 'close'")
    before = logged("EngineCore pid=2", "KeyError: 'handled'", where="fsm.py:3")
    assert cause_of(before, death, after)[1] == "ValueError: head size 33 is not supported"


def test_an_exception_that_sends_to_the_logs_is_told_where_they_have_no_more() -> None:
    vague = printed(
        "APIServer pid=1",
        "pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "  Value error, Model architectures ['X'] failed to be inspected. Please check the logs.",
    )
    missing = "ImportError: libascendcl.so: cannot open shared object file"
    inspected = logged("APIServer pid=1", "RuntimeError: Error raised in subprocess:", where="r:1")
    told = [*inspected, *logged("APIServer pid=1", missing, where="r:1")]
    assert cause_of(told, vague)[1] == missing
    assert "failed to be inspected" in cause_of(vague)[1]


@pytest.mark.parametrize(
    ("crash", "detail"),
    [
        (
            "Fatal Python error: Segmentation fault",
            '  File "site-packages/torch/nn.py", line 2 in f',
        ),
        (
            "terminate called after throwing an instance of 'c10::Error'",
            "  what():  no kernel image",
        ),
        ("Bus error (core dumped)", ""),
    ],
)
def test_a_native_crash(crash: str, detail: str) -> None:
    after = ["", "Current thread 0x7f (most recent call first):", detail]
    process, said = cause_of([crash, *after], API_SERVER)
    assert said.split("\n") == [crash, *([detail.strip()] if detail else [])]
    assert process == ""


def test_an_exception_before_a_native_crash_is_the_cause() -> None:
    missing = "ImportError: libhccl.so: cannot open shared object file: No such file or directory"
    log = [*logged("EngineCore pid=2", missing), "terminate called without an active exception"]
    assert cause_of(log, API_SERVER)[1] == missing
    message = post_mortem("the server died.", "\n".join(log), Path("server.log"))
    assert "LD_LIBRARY_PATH" in message


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: Engine core initialization failed. See root cause above. "
        "Failed core proc(s): {'EngineCore_0': -9}",
        "ERROR 11-25 20:01:02 [multiproc_executor.py:315] Worker proc EngineCore_0 died "
        "unexpectedly (exit code: -9), shutting down executor.",
        "RuntimeError: Process EngineCore_0 (PID: 12) died with exit code -9",
    ],
)
def test_a_signal_that_another_process_saw(line: str) -> None:
    said = cause_of(["non-default args: {'max_model_len': -1}"], printed("", line))[1]
    assert said == f"EngineCore_0 ended with {exit_code(-9)}"
    assert "SIGKILL" in said


def test_what_ended_nothing_is_no_cause() -> None:
    missing = "ImportError: libcudart.so.12: cannot open shared object file"
    log = [
        *logged("", missing, level="WARNING"),
        "Exception ignored in: <function Engine.__del__ at 0x7f>",
        *printed("", "AttributeError: 'NoneType' object has no attribute 'close'"),
        "Traceback (most recent call last):",  # cut off
        UNKNOWN,
        "INFO:     Shutting down",
        "reading shard 3 of 9",
    ]
    assert root_cause("\n".join(log)) is None


def test_an_exception_of_a_thread_is_the_cause_where_there_is_no_other() -> None:
    thread = ["Exception in thread Thread-1 (watch):", *printed("", "ValueError: closed file")]
    process = printed("", "RuntimeError: no device")
    assert cause_of(process, thread)[1] == "RuntimeError: no device"
    assert cause_of(thread)[1] == "ValueError: closed file"


@pytest.mark.parametrize(
    "line",
    [
        "python: error while loading shared libraries: libx.so: cannot open shared object file",
        "/usr/bin/python: No module named vllm",
        "[rank0]: ValueError: No available memory for the cache blocks.",
    ],
)
def test_what_stands_alone_is_found(line: str) -> None:
    begin = ["[rank0]: Traceback (most recent call last):"] if line.startswith("[rank0]") else []
    assert cause_of(begin, [line])[1] == line.removeprefix("[rank0]: ")


def test_the_last_error_that_was_logged_is_no_more_than_that() -> None:
    line = "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000)"
    assert cause_of([line, "INFO: bye"])[1] == f"unknown; the last error in the log is: {line}"


@pytest.mark.parametrize("log", ["", "INFO 11-25 20:01:02 [x.py:1] Starting to load model\nup\n"])
def test_without_a_cause_the_end_of_the_log_is_shown(log: str) -> None:
    message = post_mortem("the server died.", log, Path("server.log"))
    assert "Root cause" not in message
    assert "What to try" not in message
    assert ("  | up\n" if log else "(the log is empty)") in message
    assert message.endswith("(whole log: server.log)")


@given(st.text())
def test_any_log_can_be_read(text: str) -> None:
    message = post_mortem("it died.", text, Path("x.log"))
    assert all(line.isprintable() for line in message.split("\n"))


@pytest.mark.parametrize("unit", ["x", "a.", "(a", "ab-", "died "])
def test_a_line_of_megabytes_is_read_no_further_than_it_tells(unit: str) -> None:
    long = unit * 1_000_000
    error = "ValueError: no kernel"
    assert cause_of([long], printed("", error), [long])[1].startswith(error)


def test_a_long_line_is_cut_and_colours_are_gone() -> None:
    error = f"\x1b[31mValueError: \x1b[0m{'长' * 5000}\r"
    assert len(cause_of(printed("", error))[1]) < 500
    assert "\x1b" not in cause_of(printed("", error))[1]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "exit code 1"),
        (137, "exit code 137: SIGKILL, which the kernel sends when memory runs out"),
        (-11, "exit code -11: SIGSEGV, a native crash"),
        (139, "exit code 139: SIGSEGV, a native crash"),
        (200, "exit code 200"),
        (None, "exit code unknown"),
    ],
)
def test_an_exit_code_in_words(code: int | None, words: str) -> None:
    assert exit_code(code) == words

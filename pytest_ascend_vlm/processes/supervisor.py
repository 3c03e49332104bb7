"""Keeps a server's processes from outliving the test run that started them.

Run as `python -m pytest_ascend_vlm.processes.supervisor LOG COMMAND...`, standard input a pipe.
It starts the command in a process group of its own and then listens to the pipe:

* the word `stop` ends the server gently: SIGTERM, and SIGKILL after `SIGTERM_TIMEOUT_SECONDS`;
* the end of the pipe means that whoever started us is gone, however it died (SIGKILL included):
  the server has `ORPHAN_GRACE_SECONDS`.

As a subreaper it inherits every descendant whose parent dies, so that a worker that left the
process group is found too. It exits only when no descendant is left, with the command's exit code,
and its last words on standard output are a JSON list of those that had to be killed: a server that
leaves an engine process behind keeps a card's memory wherever nobody cleans up after it.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

SIGTERM_TIMEOUT_SECONDS = 30.0
ORPHAN_GRACE_SECONDS = 4.0
DESCENDANT_GRACE_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.1
_ENDING = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


def main(argv: list[str]) -> int:
    """Runs the command `argv[1:]` with its output in the file `argv[0]`."""
    _step_back_from_the_terminal()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with Path(argv[0]).open("ab") as log:
        server = subprocess.Popen(
            argv[1:],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_begin_server,  # noqa: PLW1509  (this process has one thread)
        )
    orphaned = _wait(server)
    killed = [] if orphaned else _linger(server)
    _end_all(server)
    if not orphaned:
        print(json.dumps(killed), flush=True)
    return _shell_code(server.returncode)


def _shell_code(returncode: int | None) -> int:
    """An exit code as a shell has it: 128 + the signal where one ended the process."""
    if returncode is None:
        return 1
    return returncode if returncode >= 0 else 128 - returncode


def _step_back_from_the_terminal() -> None:
    """Ctrl-C is for the test run, which then tells us to stop.

    We have a process group of our own for that, and the server another one, so that it can be
    signalled as a whole. Not a session: the kernel shares the CPUs out by session
    (`kernel.sched_autogroup_enabled`), and a busy server would starve the client that measures it.

    A process that uses the terminal from the background is stopped. One that ignores SIGTTIN and
    SIGTTOU, as the server then does as well, gets an error when it reads and may write.
    """
    os.setpgid(0, 0)
    for number in (*_ENDING, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)


def _begin_server() -> None:
    """In the server, before it runs: restore signals, and die should the supervisor be killed."""
    os.setpgid(0, 0)
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _wait(server: subprocess.Popen[bytes]) -> bool:
    """Until the server died by itself, or we were told to end it and its time is up.

    Returns:
        Whether nobody is left to tell.
    """
    deadline = float("inf")
    pipe: int | None = sys.stdin.fileno()
    while server.poll() is None and time.monotonic() < deadline:
        word = _read(pipe)
        if word is None:
            continue
        if word == b"":
            pipe = None
        if deadline == float("inf"):
            _signal_group(server, signal.SIGTERM)
        allowed = ORPHAN_GRACE_SECONDS if word == b"" else SIGTERM_TIMEOUT_SECONDS
        deadline = min(deadline, time.monotonic() + allowed)
    return pipe is None


def _linger(server: subprocess.Popen[bytes]) -> list[str]:
    """Gives what is left of the server time to end by itself; returns what did not, in words."""
    deadline = time.monotonic() + DESCENDANT_GRACE_SECONDS
    while (left := _descendants()) and time.monotonic() < deadline and server.poll() is not None:
        psutil.wait_procs(left, timeout=_POLL_SECONDS)
    return [_process_text(process) for process in left]


def _descendants() -> list[psutil.Process]:
    """Every live descendant; one that only waits to be reaped holds nothing any more."""
    return [p for p in psutil.Process().children(recursive=True) if _is_alive(p)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _process_text(process: psutil.Process) -> str:
    try:
        return f"pid {process.pid} ({process.name()})"
    except psutil.NoSuchProcess:
        return f"pid {process.pid}"


def _read(pipe: int | None) -> bytes | None:
    """What the pipe says within a moment: None for nothing, b"" for its end."""
    if pipe is None:
        time.sleep(_POLL_SECONDS)
        return None
    ready, _, _ = select.select([pipe], [], [], _POLL_SECONDS)
    return os.read(pipe, 64) if ready else None


def _end_all(server: subprocess.Popen[bytes]) -> None:
    """Kills whatever is left of the server, in and out of its process group."""
    _signal_group(server, signal.SIGKILL)
    while descendants := psutil.Process().children(recursive=True):
        for process in descendants:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(descendants, timeout=_POLL_SECONDS)
        server.poll()


def _signal_group(server: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

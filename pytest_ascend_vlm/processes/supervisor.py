"""Keeps a server's processes from outliving the test run that started them.

Run as `python -m pytest_ascend_vlm.processes.supervisor LOG SCRATCH COMMAND...`, with a pipe as
standard input. The supervisor starts the command (the server) in a process group of its own and
reads the pipe:

* on the word `stop` it sends SIGTERM, and SIGKILL after `SIGTERM_TIMEOUT_SECONDS`;
* the end of the pipe means that the parent process is gone, even if it was killed by SIGKILL. The
  supervisor sends SIGTERM, and SIGKILL after `ORPHAN_GRACE_SECONDS`. Then it removes the directory
  SCRATCH (if that is not empty text), which the parent would have removed.

The supervisor is a subreaper: it inherits every descendant whose parent dies. So it also finds a
worker that left the process group. It exits when no descendant is left, with the command's exit
code, and removes the server's temporary files. Its output is a JSON list of the survivors that it
had to kill: without a supervisor, such an engine process would keep a card's memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SIGTERM_TIMEOUT_SECONDS = 30.0
ORPHAN_GRACE_SECONDS = 4.0
DESCENDANT_GRACE_SECONDS = 5.0
_KILL_SECONDS = 30.0  # a process that SIGKILL does not end by then hangs in the kernel (state D)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.1
_CANNOT_RUN = 127  # as in a shell
_ENDING = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


def main(argv: list[str]) -> int:
    """Runs a command.

    Args:
        argv: the file that the command's output is appended to, the scratch directory or "", and
            the command.
    """
    log_path, scratch, *command = argv
    _leave_terminal_to_parent()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # The prefix is short because the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="vlm-", ignore_cleanup_errors=True) as own:
        with Path(log_path).open("ab") as log:
            try:
                server = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **_temporary_files(own)},
                    preexec_fn=_begin_server,  # noqa: PLW1509  (this process has one thread)
                )
            except OSError as error:
                log.write(f"{command[0]}: {error.strerror}\n".encode())
                return _CANNOT_RUN
        orphaned = _wait(server)
        survivors = [] if orphaned else _await_descendants(server)
        _kill_all(server)
    if orphaned and scratch:
        shutil.rmtree(scratch, ignore_errors=True)
    if not orphaned:
        print(json.dumps(survivors), flush=True)
    return _shell_code(server.returncode)


def _temporary_files(directory: str) -> dict[str, str]:
    """Variables that move a server's temporary files to a directory.

    vLLM leaves sockets behind when it is killed. PyTorch's compiler keeps its cache there, too, but
    later starts need it.
    """
    cache = Path(tempfile.gettempdir()) / f"torchinductor_{os.getuid()}"
    return {
        "TMPDIR": directory,
        "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(cache)),
    }


def _shell_code(returncode: int | None) -> int:
    """An exit code as in a shell: 128 + the signal if a signal ended the process."""
    if returncode is None:
        return 1
    return returncode if returncode >= 0 else 128 - returncode


def _leave_terminal_to_parent() -> None:
    """Moves the supervisor to a background process group, so that Ctrl-C reaches only the test run.

    The test run then stops the supervisor through the pipe. The server has another process group,
    so that all of its processes can be signalled at once. Neither has a session of its own: the
    kernel shares CPU time between sessions (`kernel.sched_autogroup_enabled`), and a busy server
    would slow down the client that measures it.

    By default the kernel suspends a background process that uses the terminal. A process that
    ignores SIGTTIN and SIGTTOU gets an error when it reads, and may write. The server inherits
    that.
    """
    os.setpgid(0, 0)
    for number in (*_ENDING, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)


def _begin_server() -> None:
    """Runs in the server's process before exec: restores signals; dies with the supervisor."""
    os.setpgid(0, 0)
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _wait(server: subprocess.Popen[bytes]) -> bool:
    """Waits until the server ends, or until its time after a stop request is over.

    Returns:
        True if the parent process is gone.
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
        timeout = ORPHAN_GRACE_SECONDS if word == b"" else SIGTERM_TIMEOUT_SECONDS
        deadline = min(deadline, time.monotonic() + timeout)
    return pipe is None


def _await_descendants(server: subprocess.Popen[bytes]) -> list[str]:
    """Gives the server's descendants time to end; describes the survivors."""
    deadline = time.monotonic() + DESCENDANT_GRACE_SECONDS
    while (left := _descendants()) and time.monotonic() < deadline and server.poll() is not None:
        psutil.wait_procs(left, timeout=_POLL_SECONDS)
    return [_process_text(process) for process in left]


def _descendants() -> list[psutil.Process]:
    """Every live descendant. A zombie does not count: it holds no resources."""
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
    """Reads the pipe for `_POLL_SECONDS`: None if it has no data, b"" at its end."""
    if pipe is None:
        time.sleep(_POLL_SECONDS)
        return None
    ready, _, _ = select.select([pipe], [], [], _POLL_SECONDS)
    return os.read(pipe, 64) if ready else None


def _kill_all(server: subprocess.Popen[bytes]) -> None:
    """Kills the survivors, inside and outside the server's process group; gives up in the end."""
    _signal_group(server, signal.SIGKILL)
    deadline = time.monotonic() + _KILL_SECONDS
    while descendants := psutil.Process().children(recursive=True):
        if time.monotonic() > deadline:
            return
        for process in descendants:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        # Only `server` may wait for the server, or its exit code is lost.
        others = [process for process in descendants if process.pid != server.pid]
        psutil.wait_procs(others, timeout=_POLL_SECONDS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_POLL_SECONDS)


def _signal_group(server: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A process's exit code in words."""

from __future__ import annotations

import signal

_MEANS = {
    signal.SIGKILL: "which the kernel sends when memory runs out",
    signal.SIGSEGV: "a native crash",
    signal.SIGABRT: "native code aborted",
    signal.SIGBUS: "often because /dev/shm is full",
    signal.SIGILL: "an instruction that this processor does not have",
    signal.SIGTERM: "stopped by another process",
}


def exit_code(code: int | None) -> str:
    """An exit code with the signal that it means: `exit code 137: SIGKILL, which ...`.

    Args:
        code: 128 + the signal, as in a shell, or the negative signal, as in `subprocess`.
    """
    if code is None:
        return "exit code unknown"
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number)
    except ValueError:
        return f"exit code {code}"
    means = f", {_MEANS[name]}" if name in _MEANS else ""
    return f"exit code {code}: {name.name}{means}"

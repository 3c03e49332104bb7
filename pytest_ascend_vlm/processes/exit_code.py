"""A process's exit code in words."""

from __future__ import annotations

import signal

_MEANS = {
    signal.SIGKILL: "which the kernel sends when memory runs out",
    signal.SIGSEGV: "a native crash",
    signal.SIGABRT: "native code gave up",
    signal.SIGBUS: "often because /dev/shm is full",
    signal.SIGILL: "an instruction that this processor does not have",
    signal.SIGTERM: "told to end from outside",
}


def exit_code(code: int | None) -> str:
    """An exit code with the signal it stands for: `exit code 137: SIGKILL, which ...`.

    Args:
        code: as a shell has it, 128 + the signal, or as Python has it, the negative signal.
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

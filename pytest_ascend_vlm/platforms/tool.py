"""Runs a vendor's command line tool to read the cards of this host."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from ..errors import ConfigurationError

_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Tool:
    """A command line tool, with the error and the advice for its failures.

    Attributes:
        name: name of the executable on PATH.
        error: class of the exception that a failure raises.
        if_missing: advice if the tool is not on PATH; may be empty.
        if_broken: advice if the tool cannot be run; may be empty.
        if_hanging: advice if the tool does not end in time; if empty, `if_broken` is used.
    """

    name: str
    error: type[ConfigurationError]
    if_missing: str = ""
    if_broken: str = ""
    if_hanging: str = ""

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the tool; returns its output, whatever its exit status.

        Raises:
            ConfigurationError: an instance of `error`: the tool is missing, cannot be run, or
                hangs.
        """
        try:
            return subprocess.run(
                [self.name, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self.error(self._explain(error)) from None

    def _explain(self, error: OSError | subprocess.TimeoutExpired) -> str:
        if isinstance(error, FileNotFoundError):
            problem, advice = f"{self.name} is not on PATH", self.if_missing
        elif isinstance(error, subprocess.TimeoutExpired) and self.if_hanging:
            asked = " ".join(error.cmd)
            problem = f"{asked} did not answer within {_TIMEOUT_SECONDS:.0f} s"
            advice = self.if_hanging
        else:
            problem, advice = f"{self.name} cannot be run ({error})", self.if_broken
        return f"{problem}; {advice}." if advice else f"{problem}."

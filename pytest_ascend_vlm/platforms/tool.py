"""Asks a vendor's command line tool about the cards of this host."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from ..errors import ConfigurationError

_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Tool:
    """A tool on PATH, and what its user is told where it gives no answer.

    Attributes:
        name: what it is called.
        error: what is raised where it gives no answer.
        if_missing: advice where it is not on PATH; empty where there is none.
        if_broken: advice where it cannot be run; empty where there is none.
        if_hanging: advice where it does not answer in time; without any, such a tool is one that
            cannot be run.
    """

    name: str
    error: type[ConfigurationError]
    if_missing: str = ""
    if_broken: str = ""
    if_hanging: str = ""

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What the tool prints, whatever its exit status.

        Raises:
            ConfigurationError: the tool's own `error`: it is not there, cannot be run, or hangs.
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

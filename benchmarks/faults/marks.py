"""Marks that a fault was reached, and that it made a difference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Marks:
    """A directory with an empty file for each mark, so that several processes can write it.

    Attributes:
        directory: the directory; it exists.
    """

    directory: Path

    def reached(self, fault: str) -> None:
        """Marks that the code with the fault ran."""
        (self.directory / f"{fault}.reached").touch()

    def acted(self, fault: str) -> None:
        """Marks that the fault changed something."""
        (self.directory / f"{fault}.acted").touch()

    def was_reached(self, fault: str) -> bool:
        """True if the code with the fault ran."""
        return (self.directory / f"{fault}.reached").exists()

    def has_acted(self, fault: str) -> bool:
        """True if the fault changed something."""
        return (self.directory / f"{fault}.acted").exists()

    def forget_actions(self) -> None:
        """Removes the marks of what a server's own start did."""
        for path in self.directory.glob("*.acted"):
            path.unlink()

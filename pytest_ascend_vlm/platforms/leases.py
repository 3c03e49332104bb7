"""Leases cards of this host to one run at a time, with one file lock per card for all users.

The kernel releases a lock when its process ends, even if it is killed. Other programs use cards
without these locks, so the state of each card is checked as well, after its lock was taken.

The locks are `flock(2)` on files in a world-writable directory. The library filelock cannot be
used: since version 4 it rejects a file that another user created in such a directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigurationError
from ..progress import ProgressCallback
from .preflight import Obstacle

_DIRECTORY = "pytest-ascend-vlm-cards"
POLL_SECONDS = 1.0
# Time that a killed server needs until its cards are free.
GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Situation:
    """The state of the cards at one moment.

    Attributes:
        visible: ids of the cards that may be leased.
        leased: card id -> holder, for the cards that are leased to other runs.
        obstacles: card id -> another reason why the card cannot be used.
    """

    visible: tuple[int, ...]
    leased: Mapping[int, str]
    obstacles: Mapping[int, Obstacle]

    @property
    def free(self) -> list[int]:
        """The ids of the cards that can be leased now, in ascending order."""
        return [c for c in sorted(self.visible) if c not in {*self.leased, *self.obstacles}]

    @property
    def free_once_returned(self) -> int:
        """The number of free cards when all leases have ended.

        A process on a leased card counts as the server of the run that leased the card.
        """
        occupied = self.obstacles.keys() - self.leased.keys()
        return len(set(self.visible) - occupied - self._unusable)

    @property
    def free_at_best(self) -> int:
        """The number of free cards when all leases and all other processes have ended."""
        return len(set(self.visible) - self._unusable)

    @property
    def lines(self) -> list[str]:
        """The state of each card, one line each."""
        return [self._line(card) for card in sorted(self.visible)]

    @property
    def _unusable(self) -> set[int]:
        return {card for card, obstacle in self.obstacles.items() if not obstacle.temporary}

    def _line(self, card: int) -> str:
        if card in self.leased and card not in self._unusable:
            return f"card {card} is leased by {self.leased[card]}"
        return self.obstacles[card].reason if card in self.obstacles else f"card {card} is free"


@contextlib.contextmanager
def lease(
    kind: str,
    count: int,
    visible: Collection[int],
    look: Callable[[], Mapping[int, Obstacle]],
    on_progress: ProgressCallback,
) -> Iterator[tuple[int, ...]]:
    """Leases cards for the duration of the context, all of them or none.

    Waits while other runs lease the missing cards. The ids are in ascending order, because CANN
    requires that. The kernel ends the lease if this process dies.

    Args:
        kind: kind of the cards, such as "npu"; each kind has ids of its own.
        count: number of cards.
        visible: ids of the cards that may be leased.
        look: returns card id -> obstacle for the cards that cannot be used now; does not know
            leases.
        on_progress: called with what the lease is waiting for.

    Raises:
        ConfigurationError: there are too few cards, even counting those leased to other runs.
    """
    with contextlib.ExitStack() as leased:
        occupied_since: float | None = None
        while True:
            situation = _try(leased, kind, count, visible, look)
            if len(situation.free) >= count:
                break
            if situation.free_once_returned >= count:
                occupied_since = None
            else:
                occupied_since = occupied_since or time.monotonic()
                patience = occupied_since + GRACE_SECONDS - time.monotonic()
                if situation.free_at_best < count or patience < 0:
                    raise ConfigurationError(_too_few(count, situation))
            on_progress(f"waiting for {_cards(count)}: {'; '.join(situation.lines)}")
            time.sleep(POLL_SECONDS)
        yield tuple(situation.free[:count])


def leased_by(kind: str, cards: Collection[int]) -> dict[int, str]:
    """Card id -> holder, for those of the cards that are leased now."""
    with _guard(kind) as directory, _taken(directory, kind, cards) as locks:
        return _holders(directory, kind, set(cards) - set(locks))


def _try(
    leased: contextlib.ExitStack,
    kind: str,
    count: int,
    visible: Collection[int],
    look: Callable[[], Mapping[int, Obstacle]],
) -> Situation:
    """Leases the lowest free cards if there are enough, otherwise none.

    A guard lock admits one run at a time. Without it, two runs could each hold one card and wait
    for the other's.
    """
    with _guard(kind) as directory, _taken(directory, kind, visible) as locks:
        holders = _holders(directory, kind, set(visible) - set(locks))
        situation = Situation(tuple(visible), holders, look())
        if len(situation.free) >= count:
            for card in situation.free[:count]:
                leased.callback(_unlock, locks.pop(card))
        return situation


@contextlib.contextmanager
def _taken(directory: Path, kind: str, cards: Collection[int]) -> Iterator[dict[int, int]]:
    """Takes the lock of each card that is not leased: card id -> file descriptor.

    Locks that the caller does not remove from the dictionary are released at the end.
    """
    locks: dict[int, int] = {}
    try:
        for card in cards:
            with contextlib.suppress(BlockingIOError):
                locks[card] = _lock(_path(directory, kind, card), fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield locks
    finally:
        for lock in locks.values():
            _unlock(lock)


@contextlib.contextmanager
def _guard(kind: str) -> Iterator[Path]:
    """The directory of the locks, guarded against other runs for the duration of the context."""
    directory = Path(tempfile.gettempdir()) / _DIRECTORY
    try:
        _make_directory(directory)
        lock = _lock(directory / f"{kind}.lock", fcntl.LOCK_EX)
        try:
            yield directory
        finally:
            _unlock(lock)
    except OSError as error:
        raise ConfigurationError(
            f"the locks of the cards cannot be opened ({error}). Ask the owner of {directory} to "
            "remove it while no test runs; the next run creates it again for all users."
        ) from error


def _make_directory(path: Path) -> None:
    """Creates the directory atomically with its mode, because other users may use it at once."""
    if not os.path.lexists(path):
        new = Path(tempfile.mkdtemp(dir=path.parent))
        new.chmod(0o1777)
        try:
            new.rename(path)
        except OSError:  # another process has created it in the meantime
            new.rmdir()
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise ConfigurationError(
            f"{path} must be a directory, for the locks of this host's cards; remove the file."
        )


def _path(directory: Path, kind: str, card: int) -> Path:
    return directory / f"{kind}-{card}.lock"


def _lock(path: Path, operation: int) -> int:
    """Takes the lock of a file; returns the descriptor that holds it.

    Raises:
        BlockingIOError: another process holds the lock, and the operation has LOCK_NB.
    """
    lock = _open(path)
    try:
        fcntl.flock(lock, operation)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _unlock(lock: int) -> None:
    """Releases a lock, even if a forked child has inherited the descriptor."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _open(path: Path) -> int:
    """Opens a lock file that any user may have created; creates it if it is missing.

    O_CREAT is not used: in a sticky directory Linux rejects it for another user's file, even for
    root (fs.protected_regular).
    """
    try:
        if not os.path.lexists(path):
            _make_file(path)
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigurationError(
                f"{path} is a symbolic link, which this package never creates; remove it."
            ) from None
        raise


def _make_file(path: Path) -> None:
    """Creates a file atomically with its mode, independent of the umask."""
    with tempfile.NamedTemporaryFile(dir=path.parent) as new, contextlib.suppress(FileExistsError):
        os.fchmod(new.fileno(), 0o666)
        os.link(new.name, path)


def _holders(directory: Path, kind: str, cards: Collection[int]) -> dict[int, str]:
    try:
        held = Path("/proc/locks").read_text("ascii")
    except OSError:
        held = ""
    inodes = {card: _path(directory, kind, card).stat().st_ino for card in cards}
    return {card: holder(held, inode) for card, inode in inodes.items()}


def holder(proc_locks: str, inode: int) -> str:
    """The holder of a file's lock, from the content of `/proc/locks`.

    `/proc/locks` does not list processes of other containers; they are "another run".
    """
    for line in proc_locks.splitlines():
        match line.split():
            case [_, "FLOCK", _, _, pid, file, *_] if file.rpartition(":")[2] == str(inode):
                return f"pid {pid}"
    return "another run"


def _too_few(count: int, situation: Situation) -> str:
    cards = "".join(f"\n  {line}" for line in situation.lines)
    return (
        f"the model needs {_cards(count)}, but only {len(situation.free)} of the "
        f"{len(situation.visible)} visible cards can be used:{cards}\n"
        "Free a card, or name other cards in the variable of visible cards."
    )


def _cards(count: int) -> str:
    return f"{count} cards" if count > 1 else "a card"

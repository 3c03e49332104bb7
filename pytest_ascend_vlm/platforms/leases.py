"""Who may use which card of this host: one lock for each card, shared by all runs and users.

The kernel drops a lock with the process that holds it, however that ends. A lock says nothing of
processes that know no locks, so each card is looked at as well, after its lock was taken.

The locks are `flock(2)` on files in a directory for all users. The library filelock does not do:
since version 4 it refuses a file that another user made in such a directory.
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
_POLL_SECONDS = 1.0
# What a server that was killed a moment ago needs until its cards are free.
_GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Situation:
    """The cards at one moment.

    Attributes:
        visible: all that may be taken, by id.
        leased: those that other runs have, and who.
        obstacles: what stands in the way of using a card, leases aside.
    """

    visible: tuple[int, ...]
    leased: Mapping[int, str]
    obstacles: Mapping[int, Obstacle]

    @property
    def free(self) -> list[int]:
        """What can be taken now, lowest id first."""
        return [c for c in sorted(self.visible) if c not in {*self.leased, *self.obstacles}]

    @property
    def free_once_returned(self) -> int:
        """How many cards there will be when every lease has ended.

        The process on a leased card is the server of the run that leased it.
        """
        strangers = self.obstacles.keys() - self.leased.keys()
        return len(set(self.visible) - strangers - self._lasting)

    @property
    def free_at_best(self) -> int:
        """How many there will be when strangers' processes have ended, too."""
        return len(set(self.visible) - self._lasting)

    @property
    def lines(self) -> list[str]:
        """Each card in words."""
        return [self._in_words(card) for card in sorted(self.visible)]

    @property
    def _lasting(self) -> set[int]:
        return {card for card, obstacle in self.obstacles.items() if not obstacle.passing}

    def _in_words(self, card: int) -> str:
        if card in self.leased and card not in self._lasting:
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
    """Takes cards, all of them or none; they are returned on exit and on any death.

    Waits as long as others lease what is missing. The ids are in ascending order, the only one that
    CANN takes.

    Args:
        kind: what the cards are, "npu"; each kind counts its own.
        count: how many.
        visible: ids of those that may be taken.
        look: what stands in the way of using a card now, leases aside.
        on_progress: told what is waited for.

    Raises:
        ConfigurationError: there would not be enough cards even if every lease ended.
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
                patience = occupied_since + _GRACE_SECONDS - time.monotonic()
                if situation.free_at_best < count or patience < 0:
                    raise ConfigurationError(_too_few(count, situation))
            on_progress(f"waiting for {_cards(count)}: {'; '.join(situation.lines)}")
            time.sleep(_POLL_SECONDS)
        yield tuple(situation.free[:count])


def leased_by(kind: str, cards: Collection[int]) -> dict[int, str]:
    """Those of the cards that are leased now, and by whom."""
    with _guard(kind) as directory, _taken(directory, kind, cards) as locks:
        return _holders(directory, kind, set(cards) - set(locks))


def _try(
    leased: contextlib.ExitStack,
    kind: str,
    count: int,
    visible: Collection[int],
    look: Callable[[], Mapping[int, Obstacle]],
) -> Situation:
    """Takes the lowest free cards where there are enough of them, else none.

    One at a time on this host: two runs that took card by card could each wait for the other's.
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
    """Takes the lock of each card that nobody holds: its descriptor, by card.

    Those that are still there at the end are returned.
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
    """The directory of the locks, which nobody else changes meanwhile."""
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
            f"the locks of the cards cannot be opened ({error}); let the owner of {directory} "
            "remove it when no test runs: it is made again, for every user."
        ) from error


def _make_directory(path: Path) -> None:
    """Makes the directory, which is there with its mode at once: other users may come any time."""
    if not os.path.lexists(path):
        new = Path(tempfile.mkdtemp(dir=path.parent))
        new.chmod(0o1777)
        try:
            new.rename(path)
        except OSError:  # somebody else was faster
            new.rmdir()
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise ConfigurationError(
            f"{path} has to be a directory, the locks of this host's cards are in it; remove it."
        )


def _path(directory: Path, kind: str, card: int) -> Path:
    return directory / f"{kind}-{card}.lock"


def _lock(path: Path, operation: int) -> int:
    """Takes the lock of a file; returns the descriptor that holds it.

    Raises:
        BlockingIOError: somebody has it, and the operation is not to wait.
    """
    lock = _open(path)
    try:
        fcntl.flock(lock, operation)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _unlock(lock: int) -> None:
    """Ends a lock also where a child was forked since, which has the file open as well."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _open(path: Path) -> int:
    """Opens a file that any user may have made, and makes it where there is none.

    Never with O_CREAT: in a sticky directory Linux refuses that for another user's file, also to
    root (fs.protected_regular).
    """
    try:
        if not os.path.lexists(path):
            _make_file(path)
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigurationError(
                f"{path} is a link that no run of this package made; remove it."
            ) from None
        raise


def _make_file(path: Path) -> None:
    """Makes a file that is there with its mode at once, whatever the umask."""
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
    """Who holds the lock of a file, going by the content of `/proc/locks`.

    The kernel leaves out processes that cannot be seen from here.
    """
    for line in proc_locks.splitlines():
        match line.split():
            case [_, "FLOCK", _, _, pid, file, *_] if file.rpartition(":")[2] == str(inode):
                return f"pid {pid}"
    return "another run"


def _too_few(count: int, situation: Situation) -> str:
    cards = "".join(f"\n  {line}" for line in situation.lines)
    return (
        f"the model needs {_cards(count)}, and of the {len(situation.visible)} visible here "
        f"{len(situation.free)} can be used:{cards}\n"
        "Free a card, or let the variable of visible cards name others."
    )


def _cards(count: int) -> str:
    return f"{count} cards" if count > 1 else "a card"

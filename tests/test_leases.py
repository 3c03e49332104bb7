"""Cards are leased all or none, to one run at a time, and come back however their holder ends."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.platforms import leases
from pytest_ascend_vlm.platforms.leases import Situation, holder, lease, leased_by
from pytest_ascend_vlm.platforms.preflight import Obstacle

HOLDER = """
import sys, time
from pytest_ascend_vlm.platforms.leases import lease
with lease("npu", int(sys.argv[1]), [int(card) for card in sys.argv[2:]], dict, print) as cards:
    print("has", *cards, flush=True)
    time.sleep(600)
"""
SICK = Obstacle("card 1 (910B4): health is Alarm", temporary=False)
BUSY = Obstacle("card 1 (910B4) is occupied: pid 4711", temporary=True)

Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Locks of the test's own, and no long waits."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(leases, "GRACE_SECONDS", 0.3)
    return tmp_path / "pytest-ascend-vlm-cards"


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts processes that hold cards: `hold(1, 0, 2)` one of the cards 0 and 2."""
    with contextlib.ExitStack() as stack:

        def start(count: int, *cards: int) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLDER, str(count), *map(str, cards)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline().startswith("has")
            return process

        yield start


def nothing_said(line: str) -> None:
    pytest.fail(f"had to wait: {line}")


def take(
    count: int,
    *visible: int,
    obstacles: Mapping[int, Obstacle] | None = None,
    say: Callable[[str], None] = nothing_said,
) -> contextlib.AbstractContextManager[tuple[int, ...]]:
    return lease("npu", count, visible, lambda: obstacles or {}, say)


def test_the_lowest_free_cards_are_taken_and_returned() -> None:
    with take(2, 5, 0, 3) as first:
        assert first == (0, 3)
        with take(1, 0, 3, 5) as second:
            assert second == (5,)
    with take(3, 0, 3, 5) as again:
        assert again == (0, 3, 5)


def test_a_failure_returns_the_cards() -> None:
    with pytest.raises(ZeroDivisionError), take(1, 0):
        raise ZeroDivisionError
    with take(1, 0) as cards:
        assert cards == (0,)


def test_a_look_that_fails_keeps_nothing() -> None:
    def look() -> Mapping[int, Obstacle]:
        raise ConfigurationError("npu-smi hangs")

    with pytest.raises(ConfigurationError, match="hangs"), lease("npu", 1, [0], look, print):
        pass
    assert leased_by("npu", [0]) == {}


def test_kinds_of_cards_are_counted_apart() -> None:
    with take(1, 0), lease("cuda", 1, [0], dict, nothing_said) as cards:
        assert cards == (0,)


def test_a_card_of_another_process_is_waited_for(hold: Hold) -> None:
    process = hold(1, 0)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 3:
            process.terminate()

    with take(2, 0, 1, say=say) as cards:
        assert cards == (0, 1)
    assert len(said) >= 3
    assert said[0].startswith("waiting for 2 cards: card 0 is leased by ")
    assert said[0].endswith("; card 1 is free")


def test_kill_9_returns_the_cards(hold: Hold) -> None:
    process = hold(2, 0, 1)
    assert leased_by("npu", [0, 1, 2]).keys() == {0, 1}
    process.kill()
    process.wait()
    with take(2, 0, 1) as cards:
        assert cards == (0, 1)


def test_what_a_killed_holder_started_keeps_no_card(tmp_path: Path) -> None:
    """The server of a run that was killed may live for seconds more."""
    started = tmp_path / "pid"
    program = f"""
import os, signal, subprocess, sys
from pytest_ascend_vlm.platforms.leases import lease
with lease("npu", 1, [0], dict, print):
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(sleeper, close_fds=False)
    open({str(started)!r}, "w").write(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    try:
        assert leased_by("npu", [0]) == {}
    finally:
        os.kill(int(started.read_text("ascii")), signal.SIGKILL)


def test_a_forked_child_keeps_no_card() -> None:
    with take(1, 0):
        child = os.fork()
        if not child:
            time.sleep(600)
            os._exit(0)
    try:
        assert leased_by("npu", [0]) == {}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_waiting_run_holds_nothing(hold: Hold) -> None:
    """Two runs that each held a card and waited for the other's would wait for ever."""
    first = hold(1, 0)
    waiting = threading.Event()
    done = threading.Event()

    def wait_for_both() -> None:
        with take(2, 0, 1, say=lambda _: waiting.set()):
            done.set()

    thread = threading.Thread(target=wait_for_both)
    thread.start()
    assert waiting.wait(20)
    second = hold(1, 1)
    assert not done.is_set()
    for process in (first, second):
        process.kill()
    assert done.wait(20)
    thread.join()


def test_runs_that_race_never_share_a_card_and_all_come_through(tmp_path: Path) -> None:
    log = tmp_path / "log"
    racer = """
import sys, time
from pytest_ascend_vlm.platforms import leases
leases.POLL_SECONDS = 0.02
for _ in range(5):
    with leases.lease("npu", 2, [0, 1, 2], dict, lambda line: None) as cards:
        for sign in "+-":
            with open(sys.argv[1], "a") as log:
                log.write("".join(f"{sign}{card}\\n" for card in cards))
            time.sleep(0.01)
"""
    racers = [subprocess.Popen([sys.executable, "-c", racer, str(log)]) for _ in range(3)]
    assert [process.wait(60) for process in racers] == [0, 0, 0]
    entries = log.read_text("utf-8").split()
    held: set[str] = set()
    for entry in entries:
        assert (entry[1] in held) == (entry[0] == "-")
        held ^= {entry[1]}
    assert len(entries) == 3 * 5 * 2 * 2


def test_a_card_that_cannot_be_used_is_not_taken() -> None:
    with take(2, 0, 1, 2, obstacles={1: SICK}) as cards:
        assert cards == (0, 2)


def test_cards_that_nobody_can_give_are_not_waited_for() -> None:
    with pytest.raises(ConfigurationError) as caught, take(2, 0, 1, obstacles={1: SICK}):
        pass
    assert str(caught.value) == (
        "the model needs 2 cards, but only 1 of the 2 visible cards can be used:\n"
        "  card 0 is free\n"
        "  card 1 (910B4): health is Alarm\n"
        "Free a card, or name other cards in the variable of visible cards."
    )


def test_more_cards_than_there_are_is_an_error_at_once(hold: Hold) -> None:
    hold(1, 0)
    with pytest.raises(ConfigurationError, match="needs 3 cards") as caught, take(3, 0, 1):
        pass
    assert "card 0 is leased by" in str(caught.value)


def test_a_sick_card_is_not_waited_for_though_it_is_leased(hold: Hold) -> None:
    hold(1, 1)
    with pytest.raises(ConfigurationError, match="Alarm"), take(2, 0, 1, obstacles={1: SICK}):
        pass


def test_a_strangers_process_has_a_moment_to_end() -> None:
    said: list[str] = []
    since = time.monotonic()
    with (
        pytest.raises(ConfigurationError, match="occupied: pid 4711"),
        take(1, 1, obstacles={1: BUSY}, say=said.append),
    ):
        pass
    assert time.monotonic() - since >= 0.3
    assert said[0] == "waiting for a card: card 1 (910B4) is occupied: pid 4711"


def test_a_process_that_ends_in_time_frees_its_card() -> None:
    obstacles = {1: BUSY}
    with take(1, 1, obstacles=obstacles, say=lambda _: obstacles.clear()) as cards:
        assert cards == (1,)


def test_a_new_strangers_process_has_a_moment_of_its_own(hold: Hold) -> None:
    """What a card was before somebody leased it says nothing about what is on it after."""
    obstacles = {1: BUSY}
    waited: list[float] = []
    process: list[subprocess.Popen[str]] = []

    def say(line: str) -> None:
        if not process:
            process.append(hold(1, 1))
            time.sleep(0.4)  # longer than the grace that began before the lease
        elif "leased" in line:
            process[0].kill()
            process[0].wait()
            waited.append(time.monotonic())

    with pytest.raises(ConfigurationError), take(1, 1, obstacles=obstacles, say=say):
        pass
    assert time.monotonic() - waited[-1] >= 0.3


def test_the_server_on_a_leased_card_is_waited_for_longer(hold: Hold) -> None:
    """Its process is no stranger: the card is free when the lease ends."""
    process = hold(1, 1)
    obstacles = {1: BUSY}
    since = time.monotonic()

    def say(line: str) -> None:
        assert "card 1 is leased by" in line
        if time.monotonic() - since > 0.6:
            obstacles.clear()
            process.kill()

    with take(1, 1, obstacles=obstacles, say=say) as cards:
        assert cards == (1,)


def test_every_user_can_take_part(directory: Path) -> None:
    before = os.umask(0o077)
    try:
        with take(1, 0):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o1777
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"npu.lock": 0o666, "npu-0.lock": 0o666}


MODES = """
import os, stat, sys
from pathlib import Path
from pytest_ascend_vlm.platforms.leases import lease

directory = Path(sys.argv[1])
modes = {directory: 0o1777, directory / "npu.lock": 0o666, directory / "npu-0.lock": 0o666}

def look(event, arguments):
    for path, mode in modes.items():
        if os.path.lexists(path) and stat.S_IMODE(os.lstat(path).st_mode) != mode:
            print(f"at {event}, {path.name} is {stat.filemode(os.lstat(path).st_mode)}")

os.umask(0o077)
sys.addaudithook(look)
with lease("npu", 1, [0], dict, print):
    pass
"""


def test_no_user_is_shut_out_for_a_moment(directory: Path) -> None:
    """Another may come between the making of a file and its mode, or we may be killed there."""
    program = [sys.executable, "-c", MODES, str(directory)]
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout == ""


ONLY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory of temporary files like /tmp, which every user gets to; root came first."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        Path(path).chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", path)
        with take(1, 9):  # so that everything is imported, too
            pass
        yield


@ONLY_ROOT
@pytest.mark.usefixtures("shared")
def test_three_users_share_the_locks() -> None:
    for user in (65533, 65534, 65533):
        assert _exit_code(_lease_as(user)) == 0
    with lease("other", 1, [0], dict, nothing_said) as cards:
        assert cards == (0,)


@ONLY_ROOT
@pytest.mark.usefixtures("shared")
def test_a_card_of_another_user_is_leased() -> None:
    """Whoever made the files: here one user did, and another has the card."""
    assert _exit_code(_lease_as(65533)) == 0
    (has, tell), (wait, may_end) = os.pipe(), os.pipe()
    holder = _lease_as(65534, lambda: (os.write(tell, b"!"), os.read(wait, 1)))
    os.close(tell)
    assert os.read(has, 1) == b"!"
    assert leased_by("other", [0]) == {0: f"pid {holder}"}
    waiting = _lease_as(65533, say=lambda line: os._exit(4 + (str(holder) in line)))
    assert _exit_code(waiting) == 5
    os.write(may_end, b"!")
    assert _exit_code(holder) == 0
    for end in (has, wait, may_end):
        os.close(end)


def _lease_as(
    user: int,
    meanwhile: Callable[[], object] = dict,
    say: Callable[[str], None] = nothing_said,
) -> int:
    """Starts a child process of another user that takes a card and returns it; its pid."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(60)  # it ends, whatever becomes of the test
        os.umask(0o077)
        os.setuid(user)
        with lease("other", 1, [0], dict, say):
            meanwhile()
        code = 0
    finally:
        os._exit(code)


def _exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_link_in_the_place_of_the_directory_is_not_followed(
    directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    directory.symlink_to(tmp_path / "target")
    with pytest.raises(ConfigurationError, match="must be a directory"), take(1, 0):
        pass
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize("name", ["npu.lock", "npu-0.lock"])
def test_a_link_in_the_place_of_a_lock_is_not_followed(
    directory: Path, tmp_path: Path, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("content", "utf-8")
    directory.mkdir()
    (directory / name).symlink_to(precious)
    with pytest.raises(ConfigurationError, match="is a symbolic link"), take(1, 0):
        pass
    assert precious.read_text("utf-8") == "content"


def test_locks_that_cannot_be_opened_say_what_to_do(directory: Path) -> None:
    (directory / "npu-0.lock").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="Ask the owner of"), take(1, 0):
        pass


def test_the_kernel_knows_who_holds_a_lock() -> None:
    table = (
        "1: POSIX  ADVISORY  WRITE 17 08:01:131 0 EOF\n"
        "2: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF\n"
        "2: -> FLOCK  ADVISORY  WRITE 4712 08:01:132 0 EOF\n"
        "3: FLOCK  ADVISORY  WRITE 4713 00:2f:1131 0 EOF\n"
    )
    assert holder(table, 131) == "pid 4711"
    assert holder(table, 132) == "another run"
    assert holder("", 131) == "another run"


CARDS = st.frozensets(st.integers(0, 5))


@given(CARDS, CARDS, st.dictionaries(st.integers(0, 5), st.sampled_from([SICK, BUSY])))
def test_waiting_never_loses_a_card(
    visible: frozenset[int], leased: frozenset[int], obstacles: dict[int, Obstacle]
) -> None:
    who = dict.fromkeys(leased & visible, "pid 1")
    situation = Situation(tuple(visible), who, {c: o for c, o in obstacles.items() if c in visible})
    assert set(situation.free) == visible - leased - obstacles.keys()
    assert len(situation.free) <= situation.free_once_returned <= situation.free_at_best
    assert situation.free_at_best <= len(visible) == len(situation.lines)

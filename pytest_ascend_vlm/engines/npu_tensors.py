"""Makes a tensor on each card with torch_npu: the smallest thing that a server needs to work.

Loading torch_npu, or the first use of a card, may raise an error, crash the process or hang. So
child processes do it. `python -m pytest_ascend_vlm.engines.npu_tensors CARD...` uses the cards in
the order in which ASCEND_RT_VISIBLE_DEVICES names them, and writes lines of JSON:

* first `{"loaded": "2.9.0"}`, or `{"unusable": "raises ImportError: ..."}` and nothing else;
* then for each card `{"card": 0, "problem": null}`, or its problem as one line of text.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence

from ..errors import ConfigurationError
from ..platforms.ascend import POOL
from ..processes.exit_code import exit_code
from ..processes.limited import Replies, answer, answer_channel, ask, one_line

LOAD_SECONDS = 120
CARD_SECONDS = 60
COMMAND = ["python", "-m", "pytest_ascend_vlm.engines.npu_tensors"]
_SHOWN = 300
_CANN = (
    "source CANN's set_env.sh, and check that torch, torch_npu and CANN are the versions of one "
    "vllm-ascend image"
)
_DRIVER = (
    "mount /usr/local/Ascend/driver/lib64 into the container, and add it, with its driver and "
    "common directories, to LD_LIBRARY_PATH"
)
# Text of an error -> what to do. The first that is found counts.
_ADVICE = {
    "libascend_hal.so": _DRIVER,
    "libascendcl.so": _CANN,
    "libhccl.so": _CANN,
    "torch_npu'": "use the vllm-ascend image, which contains torch_npu",
}
_RESET = (
    "stop what uses the card, or reset it with npu-smi; CANN's log is in ~/ascend/log/debug/plog"
)


def card_problems(cards: Sequence[int]) -> dict[int, str]:
    """Card -> reason why no tensor can be made on it, for the cards that have one.

    Args:
        cards: ids of the cards, in ascending order.

    Raises:
        ConfigurationError: torch_npu cannot be loaded, so no card can be used.
    """
    found: dict[int, str] = {}
    left = list(cards)
    while left:
        replies = _ask(left)
        loaded, *of_cards = replies.answers or [{"unusable": _end(replies, LOAD_SECONDS)}]
        if "unusable" in loaded:
            raise ConfigurationError(_advised(f"loading torch_npu {loaded['unusable']}", _CANN))
        for reply in of_cards:
            card = left.pop(0)
            if reply["problem"] is not None:
                found[card] = _advised(f"the first tensor on it {reply['problem']}", _RESET)
        if left:
            found[left.pop(0)] = f"the first tensor on it {_end(replies, CARD_SECONDS)}; {_RESET}"
    return found


def _ask(cards: Sequence[int]) -> Replies:
    """The answers of a child process, which ends at the first card that hangs or crashes it."""
    names = [str(card) for card in cards]
    # The child's alarm ends most hangs; the limit here is for a process that no signal reaches.
    seconds = LOAD_SECONDS + CARD_SECONDS * len(cards)
    env = {**os.environ, POOL.variable: ",".join(names)}
    return ask([sys.executable, *COMMAND[1:], *names], env, seconds)


def _end(replies: Replies, seconds: int) -> str:
    if replies.timed_out:
        return f"took over {seconds} s"
    return f"ended the process ({exit_code(replies.code)}); its output: {' '.join(COMMAND)} 0"


def _advised(problem: str, otherwise: str) -> str:
    advice = next((text for sign, text in _ADVICE.items() if sign in problem), otherwise)
    return f"{problem}; {advice}"


def main(cards: Sequence[str]) -> int:
    """Makes a tensor on each of the cards that ASCEND_RT_VISIBLE_DEVICES names."""
    with answer_channel() as channel:
        signal.alarm(LOAD_SECONDS)
        try:
            import torch
            import torch_npu  # type: ignore[import-not-found]  # noqa: F401
        except Exception as error:  # an installation can be broken in any way
            traceback.print_exc()
            answer(channel, {"unusable": f"raises {one_line(error)[:_SHOWN]}"})
            return 1
        answer(channel, {"loaded": torch.__version__})
        for index, card in enumerate(cards):
            signal.alarm(CARD_SECONDS)
            try:
                total = float((torch.ones(2, device=f"npu:{index}") * 2).sum().cpu())
                problem = None if total == 4.0 else f"has the sum {total} instead of 4"
            except Exception as error:  # whatever the driver raises
                traceback.print_exc()
                problem = f"raises {one_line(error)[:_SHOWN]}"
            answer(channel, {"card": int(card), "problem": problem})
        signal.alarm(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

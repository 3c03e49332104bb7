"""Asks the installed vLLM for the architectures that it can serve.

Importing vLLM takes ten seconds, and may fail in any way. Therefore a child process does it:
`python -m pytest_ascend_vlm.engines.vllm.registry` writes `{"architectures": [...]}`, those of
vllm-ascend and other plugins included, or `{"unusable": "ImportError: ..."}`.
"""

from __future__ import annotations

import os
import sys
import traceback

from ...errors import ConfigurationError
from ...processes.exit_code import exit_code
from ...processes.limited import answer, answer_channel, ask, one_line
from .. import torch_companions

TIME_LIMIT_SECONDS = 600.0
COMMAND = ["python", "-m", "pytest_ascend_vlm.engines.vllm.registry"]


def known_architectures() -> frozenset[str]:
    """The names that `architectures` of a config.json may have, for the installed vLLM.

    Raises:
        ConfigurationError: vLLM cannot be imported.
    """
    replies = ask([sys.executable, *COMMAND[1:]], dict(os.environ), TIME_LIMIT_SECONDS)
    reply = next(iter(replies.answers), {})
    if "architectures" in reply:
        return frozenset(reply["architectures"])
    if replies.timed_out:
        problem = f"took over {TIME_LIMIT_SECONDS:.0f} s"
    elif "unusable" in reply:
        problem = f"raises {reply['unusable']}"
    else:
        problem = f"ended the process ({exit_code(replies.code)})"
    raise ConfigurationError(
        f"importing vLLM {problem}; for the full output run {' '.join(COMMAND)}"
    )


def main() -> int:
    """Writes the architectures in the registry, with those of plugins."""
    with answer_channel() as channel:
        torch_companions.install()
        try:
            from vllm import ModelRegistry
            from vllm.plugins import load_general_plugins

            load_general_plugins()
            answer(channel, {"architectures": sorted(ModelRegistry.get_supported_archs())})
        except Exception as error:  # an installation can be broken in any way
            traceback.print_exc()
            answer(channel, {"unusable": one_line(error)})
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

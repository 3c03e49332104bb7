"""A cluster of this host alone, which ends with the run.

Run as `python -m pytest_ascend_vlm.scheduling.local ADDRESS_FILE RESOURCES TMPDIR` under the
supervisor: a driver that is killed would otherwise leave processes of Ray behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..platforms import select_platform
from ..processes.post_mortem import tail
from ..processes.shared_tmp import shared_tmp, use_shared_tmp
from ..processes.supervised import SupervisedProcess
from ..writing import write_atomically
from .resources import requested, resource_of

_START_SECONDS = 120.0
_SHORT_TMP = "/tmp"  # noqa: S108 - the path of a socket has at most 107 bytes
_STORE_BYTES = 100 * 2**20  # messages are small; Ray would take a third of the memory


@contextlib.contextmanager
def local_cluster(platform: str) -> Iterator[str]:
    """Starts a cluster of this host for the duration of the context; yields its address.

    Args:
        platform: the platform; its visible cards become a resource of the cluster.

    Raises:
        ConfigurationError: Ray does not start.
    """
    # Whoever may connect to a cluster can run anything on it.
    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    cards = select_platform(platform).visible_cards()
    asked = {**requested(resource_of(platform), cards), "num_cpus": None} if cards else {}
    with tempfile.TemporaryDirectory(prefix="vlm-ray-") as own:
        told, log = Path(own, "address"), Path(own, "log")
        log.touch()
        arguments = [str(told), json.dumps(asked), shared_tmp()]
        command = [sys.executable, "-m", __name__, *arguments]
        process = SupervisedProcess(command, log, {"TMPDIR": _SHORT_TMP}, scratch=Path(own))
        with contextlib.closing(process.polled()) as polled:
            for seconds in polled:
                if told.is_file() or seconds > _START_SECONDS:
                    break
            if not told.is_file():
                problem = "Ray does not start on this host. The end of its log:"
                raise ConfigurationError(f"{problem}\n{tail(process.log)}")
            yield told.read_text("utf-8")


def main(argv: list[str]) -> None:
    """Runs the cluster until it is ended."""
    import ray

    resources: dict[str, Any] = json.loads(argv[1])
    directory = tempfile.gettempdir()  # the supervisor's, which is removed with it
    use_shared_tmp(argv[2])
    ray.init(
        **resources,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=_STORE_BYTES,
        _temp_dir=directory,
    )
    address = ray.get_runtime_context().gcs_address
    write_atomically(Path(argv[0]), address.encode())
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])

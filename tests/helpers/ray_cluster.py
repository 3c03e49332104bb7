"""A real Ray cluster of several nodes on this host, each with four simulated cards of its own.

This file is also the program that runs the cluster, under the supervisor: whatever happens to a
test, no process of Ray stays behind.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from pytest_ascend_vlm.processes.supervised import SupervisedProcess
from pytest_ascend_vlm.writing import write_atomically

CARDS = 4
START_SECONDS = 120.0


@dataclass(frozen=True)
class RayCluster:
    """A running cluster.

    Attributes:
        address: its address.
        environment: variables of a process that joins it.
        raylets: name of a node -> process id of its raylet.
    """

    address: str
    environment: Mapping[str, str]
    raylets: Mapping[str, int]

    def kill_host(self, name: str) -> None:
        """Kills all processes of a node, as if its power failed."""
        raylet = psutil.Process(self.raylets[name])
        processes = [raylet, *raylet.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@contextlib.contextmanager
def cluster(directory: Path, hosts: Mapping[str, Mapping[str, str]]) -> Iterator[RayCluster]:
    """Starts a cluster for the duration of the context.

    Args:
        directory: a directory for its files.
        hosts: name of each node -> its environment variables, in addition to this process's.
    """
    directory.mkdir(parents=True)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    told, log = directory / "told.json", directory / "cluster.log"
    log.touch()
    command = [sys.executable, str(Path(__file__)), str(told), json.dumps(hosts)]
    process = SupervisedProcess(command, log, token)
    with contextlib.closing(process.polled()) as polled:
        for seconds in polled:
            if told.is_file() or seconds > START_SECONDS:
                break
        assert told.is_file(), process.log
        known = json.loads(told.read_text("utf-8"))
        yield RayCluster(known["address"], token, known["raylets"])


def main(told: Path, hosts: Mapping[str, Mapping[str, str]]) -> None:
    from ray.cluster_utils import Cluster

    home = Path(tempfile.gettempdir())  # the supervisor's, which is removed with it
    (home / "ray").mkdir()
    running = Cluster()
    raylets = {}
    for name, environment in hosts.items():
        # In one directory, nodes would unpack what travels to them over each other.
        own = {"include_dashboard": False, "temp_dir": str(home / name)} if raylets else {}
        node = running.add_node(
            num_cpus=2,
            resources={"NPU": CARDS},
            object_store_memory=80 * 2**20,
            node_name=name,
            env_vars=dict(environment),
            **own,
        )
        raylets[name] = node.all_processes["raylet"][0].process.pid
    known = {"address": running.address, "raylets": raylets}
    write_atomically(told, json.dumps(known).encode())
    signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))

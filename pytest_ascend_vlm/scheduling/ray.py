"""A Ray cluster: its nodes, and tasks that run there. The only module that calls Ray.

A task streams what it has to tell. Ray ends the tasks of a driver that dies; the processes that a
task started end with it (processes/supervisor.py).
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError
from ..session.fleet import Host
from . import node
from .local import local_cluster
from .parcel import Parcel
from .resources import requested, resource_of
from .work import Message, Question, Work

LOCAL = "local"

_END_SECONDS = 10.0
# Without these, a task that asks for no card would see none.
_ALL_CARDS = {
    "RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES": "1",
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
}
_INSTALL = "pip install 'pytest-ascend-vlm[ray]'"


@dataclass(frozen=True)
class Node:
    """A living node of the cluster.

    Attributes:
        id: Ray's id.
        name: its name, unique in the cluster.
        cards: the number of cards that it gives to the cluster.
    """

    id: str
    name: str
    cards: int


@dataclass(frozen=True)
class Arrival:
    """Something that came from a task.

    Attributes:
        task: the task.
        messages: messages; empty at the end of the task.
        error: the error that ended the task, or None.
        died: True if the host or its process died, so that the task can run elsewhere.
    """

    task: Any
    messages: Sequence[Message] = ()
    error: str | None = None
    died: bool = False


class Cluster:
    """A connection to a cluster, as its driver."""

    def __init__(self, ray: Any, platform: str) -> None:
        """Takes a connected module.

        Args:
            ray: the module `ray`, after its `init`.
            platform: the platform whose cards are asked for.
        """
        self._ray = ray
        self._resource = resource_of(platform)

    def nodes(self) -> list[Node]:
        """The living nodes of the cluster, sorted by name.

        A node has the name of `ray start --node-name`, else that of its host.
        """
        living = [one for one in self._ray.nodes() if one["Alive"]]
        seen: Counter[str] = Counter()
        nodes = []
        for one in sorted(living, key=lambda one: (_name(one), one["NodeID"])):
            name = _name(one)
            seen[name] += 1
            unique = name if seen[name] == 1 else f"{name}-{seen[name]}"
            cards = int(one["Resources"].get(self._resource, 0))
            nodes.append(Node(one["NodeID"], unique, cards))
        return nodes

    def look(self, nodes: Sequence[Node], question: Question) -> list[Host]:
        """The hosts of nodes, each asked on the host itself.

        Raises:
            ConfigurationError: a host cannot answer.
        """
        asking = self._ray.remote(node.look)
        options = {"num_cpus": 0, "runtime_env": {"env_vars": _ALL_CARDS}}
        answers = [
            asking.options(**options, scheduling_strategy=self._on(one)).remote(question)
            for one in nodes
        ]
        return [
            Host(name=one.name, cards=one.cards, **self._answer(one, answer))
            for one, answer in zip(nodes, answers, strict=True)
        ]

    def start(self, work: Work, place: Node, cards: int) -> Any:
        """Starts a task that judges; its arrivals come from `wait`."""
        judging = self._ray.remote(node.judge)
        return judging.options(
            **requested(self._resource, cards),
            max_retries=0,
            num_returns="streaming",
            scheduling_strategy=self._on(place),
        ).remote(work)

    def wait(self, tasks: Sequence[Any], seconds: float) -> list[Arrival]:
        """What came from tasks; waits if nothing is there yet."""
        ready, _ = self._ray.wait(list(tasks), num_returns=1, timeout=seconds)
        return [self._arrival(task) for task in ready]

    def end(self, tasks: Sequence[Any]) -> None:
        """Ends tasks, and waits a moment until their processes have ended."""
        left = list(tasks)
        for task in left:
            self._ray.cancel(task)
        until = time.monotonic() + _END_SECONDS
        while left and time.monotonic() < until:
            gone = [one.task for one in self.wait(left, 1.0) if not one.messages]
            left = [task for task in left if task not in gone]

    def _arrival(self, task: Any) -> Arrival:
        from ray.exceptions import RayError, RayTaskError

        try:
            return Arrival(task, self._ray.get(next(task)))
        except StopIteration:
            return Arrival(task)
        except RayTaskError as error:
            return Arrival(task, error=_told(error))
        except RayError as error:
            return Arrival(task, error=_told(error), died=True)

    def _answer(self, one: Node, answer: Any) -> dict[str, Any]:
        from ray.exceptions import RayError

        try:
            found: dict[str, Any] = self._ray.get(answer)
        except RayError as error:
            raise ConfigurationError(
                f"{one.name} cannot answer: {_told(error)}. It needs this package: {_INSTALL}."
            ) from error
        return found

    def _on(self, one: Node) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(one.id, soft=False)


@contextlib.contextmanager
def connected(address: str, platform: str, parcel: Parcel | None = None) -> Iterator[Cluster]:
    """Connects to a cluster for the duration of the context.

    Args:
        address: HOST:PORT, "auto" for the cluster of this host, or "local" to start one here.
        platform: the platform whose cards are asked for.
        parcel: the files that travel to the hosts; None for none.

    Raises:
        ConfigurationError: Ray is not installed, or there is no cluster at the address.
    """
    if address.startswith("ray://"):
        raise ConfigurationError(
            f"{address} is an address of the Ray client, which cannot run a test. Start pytest on "
            "a host of the cluster, with `auto` as the address."
        )
    if importlib.util.find_spec("ray") is None:
        raise ConfigurationError(f"Ray is not installed: {_INSTALL}")
    with contextlib.ExitStack() as stack:
        if address == LOCAL:
            address = stack.enter_context(local_cluster(platform))
        import ray  # reads the token of a local cluster when it is imported

        travels = {} if parcel is None else _working_directory(parcel)
        try:
            ray.init(address, runtime_env=travels, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise ConfigurationError(
                f"cannot join the Ray cluster {address}: {' '.join(str(error).split())} Start it "
                "with `ray start --head`, and pytest on one of its hosts."
            ) from error
        stack.callback(ray.shutdown)
        yield Cluster(ray, platform)


def _name(node: Mapping[str, Any]) -> str:
    """The name that a node was started with; Ray's default is its address."""
    named, address = node.get("NodeName") or "", node["NodeManagerAddress"]
    return str(named if named and named != address else node["NodeManagerHostname"])


def _working_directory(parcel: Parcel) -> dict[str, Any]:
    return {"working_dir": str(parcel.root), "excludes": list(parcel.excluded)}


def _told(error: BaseException) -> str:
    """The message of an error that Ray passed on, without its traceback."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).split())

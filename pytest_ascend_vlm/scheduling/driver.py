"""`pytest --vlm-ray`: makes jobs of the collected tests, and hands them to the cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ..errors import ConfigurationError
from ..integration.append import require_appendable
from ..integration.criterion_call import call_of
from ..integration.options import directory_name
from ..integration.receipt import suite_digest
from ..integration.reporter import PROCESS
from ..integration.selection import NOT_APPLICABLE, require_packages
from ..progress import Step
from ..session.fleet import Fleet, Host, judging, mixed, other_suites
from ..session.options import Options
from ..session.run import RUN, Run
from ..spec.model import ModelSpec
from . import reasons
from .jobs import Job
from .parcel import parcel
from .ray import Cluster, Node, connected
from .replay import Replay
from .resources import CPU, resource_of
from .spread import Observer, Place, Spread
from .work import Question, Work, is_plain

_CACHE_KEY = "ascend-vlm/class-seconds"

# Options of the driver alone: it writes the report and decides when to stop.
_OF_DRIVER: Mapping[str, Any] = {
    "vlm_ray": None,
    "vlm_ray_mixed": False,
    "vlm_report": None,
    "vlm_report_append": False,
    "vlm_resume": None,
    "vlm_gate": False,
    "xmlpath": None,
    "maxfail": 0,
    "usepdb": False,
    "rootdir": None,
    "inifilename": None,
    "confcutdir": None,
    "basetemp": None,
    "lf": False,
    "failedfirst": False,
    "stepwise": False,
    # pytest sets the one above if it sees one of these.
    "stepwise_skip": False,
    "stepwise_reset": False,
}


def run_loop(session: pytest.Session) -> bool | None:
    """Runs the tests of a session on a cluster; None if this is no such run, or nothing is to run.

    Raises:
        pytest.UsageError: there is no cluster, or its hosts cannot judge together.
    """
    config, run = session.config, session.config.stash[RUN]
    address = run.options.ray
    stops = session.testsfailed and not config.option.continue_on_collection_errors
    if address is None or config.option.collectonly or stops or not session.items:
        return None
    try:
        own = parcel(config.rootpath, config.getini("norecursedirs"), _elsewhere(run.options))
        run.on_step(Step("cluster", f"joining {address}"))
        with connected(address, run.options.platform, own) as cluster:
            Driver(session, cluster).run()
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from error
    return True


class Driver:
    """The process that collects, prints and writes the report."""

    def __init__(self, session: pytest.Session, cluster: Cluster) -> None:
        """Starts nothing."""
        self._session = session
        self._config = session.config
        self._run: Run = session.config.stash[RUN]
        self._cluster = cluster
        self._replay = Replay(session.config, session.items)
        self._seconds: dict[str, float] = {}
        self._reporter: Any = session.config.pluginmanager.get_plugin(PROCESS)

    def run(self) -> None:
        """Asks the hosts, then runs the tests on them.

        Raises:
            ConfigurationError: the hosts cannot judge together.
            pytest.UsageError: the hosts lack packages that each model needs.
        """
        nodes = judging(self._cluster.nodes())
        jobs = self._jobs(max(node.cards for node in nodes))
        hosts = self._hosts(nodes, jobs)
        self._run.fleet = Fleet(tuple(hosts))
        require_appendable(self._run)
        self._reporter.read_earlier()
        jobs = self._loadable(jobs)
        self._begin(hosts)
        if reason := reasons.unavailable(hosts):
            self._replay.skip([item.nodeid for item in self._left if _is_served(item)], reason)
            jobs = self._jobs(0)
        places = [Place(host, node) for host, node in zip(hosts, nodes, strict=True)]
        try:
            Spread(self._cluster, places, self._replay, self._observer()).run(jobs, self._work)
        finally:
            self._store_seconds()

    @property
    def _left(self) -> list[pytest.Item]:
        """The tests that have not ended."""
        return [item for item in self._session.items if item.nodeid not in self._replay.ended]

    def _jobs(self, most_cards: int) -> list[Job]:
        """The jobs of the tests that have not ended."""
        applicable = [item for item in self._left if NOT_APPLICABLE not in item.stash]
        without_cards = resource_of(self._run.options.platform) == CPU

        def needed(model: ModelSpec) -> int:
            return 1 if without_cards else cards_of(model, most_cards)

        return jobs_of(applicable, needed, self._stored_seconds())

    def _hosts(self, nodes: Sequence[Node], jobs: Iterable[Job]) -> list[Host]:
        """The hosts, as they describe themselves.

        Raises:
            ConfigurationError: they cannot judge together.
        """
        options = self._run.options
        wanted = {job.model_id for job in jobs}
        models = {one.model_id: one for item in self._left if (one := call_of(item).model)}
        question = Question(
            dataclasses.replace(_absolute(options), api_key=None),
            directory_name(self._config, "fixtures"),
            tuple(model for name, model in models.items() if name in wanted),
            digests=options.report is not None,
        )
        self._run.on_step(Step("cluster", f"asking {len(nodes)} hosts"))
        hosts = self._cluster.look(nodes, question)
        if not any(host.cards for host in hosts) and reasons.unavailable(hosts) is None:
            resource = resource_of(options.platform)
            raise ConfigurationError(
                f"--vlm-ray: no host of the cluster has the resource {resource}. Start Ray on each "
                f"host with its number of cards: ray start ... --resources='{{\"{resource}\": 8}}'"
            )
        lines = [*other_suites(hosts, suite_digest()), *mixed(hosts)]
        if lines and not options.ray_mixed:
            raise ConfigurationError(
                "\n  ".join(
                    [
                        "--vlm-ray: the hosts differ, so their results cannot be one report. Give "
                        "them the same image, or add --vlm-ray-mixed:",
                        *lines,
                    ]
                )
            )
        return hosts

    def _loadable(self, jobs: Iterable[Job]) -> list[Job]:
        """The jobs that the packages of a host can load; the others are not applicable.

        Raises:
            pytest.UsageError: there is none.
        """
        require_packages(self._left, self._run)
        for item in self._left:
            model = call_of(item).model
            if model and (reason := self._run.lacks_packages_reason(model)):
                item.stash[NOT_APPLICABLE] = reason
        lacking = {item.nodeid for item in self._left if NOT_APPLICABLE in item.stash}
        return [job for job in jobs if lacking.isdisjoint(job.tests)]

    def _begin(self, hosts: Iterable[Host]) -> None:
        """Begins the report, and shows what is known before the first test."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.showfspath = False  # tests of several classes end in turn
            devices = (f"{host.name}: {host.set_up['device']}" for host in hosts)
            terminal.line(f"Ray cluster: {', '.join(devices)}")
        self._reporter.begin([item.nodeid for item in self._session.items])
        for line in (line for host in hosts for line in _about(host)):
            self._reporter.note(line)
        unasked = [item.nodeid for item in self._left if NOT_APPLICABLE in item.stash]
        self._replay.skip(unasked, "not applicable")

    def _observer(self) -> Observer:
        return Observer(
            self._reporter.take_event,
            self._reporter.note,
            self._seconds.__setitem__,
            self._require_going_on,
        )

    def _require_going_on(self) -> None:
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)
        if self._session.shouldstop:
            raise self._session.Interrupted(self._session.shouldstop)

    def _work(self, job: Job, host: str) -> Work:
        root, ini = self._config.rootpath, self._config.inipath
        directory = _below(root, self._config.invocation_params.dir)
        earlier = self._reporter.earlier
        return Work(
            suite_class=job.name,
            tests=frozenset(job.tests),
            options=self._options(job),
            directory=directory or Path(),
            ini=None if ini is None else _below(root, ini),
            host=host,
            run_name=self._run.logs.name,
            log_dir=self._run.options.log_dir.absolute(),
            earlier=earlier and earlier.as_text(frozenset(job.tests)),
        )

    def _options(self, job: Job) -> dict[str, Any]:
        """Pytest's options for the process of a job."""
        own, typed = _absolute(self._run.options), vars(self._config.option)
        needed = {
            name
            for item in self._left
            if (model := call_of(item).model) and model.model_id == job.model_id
            for name in (model.model_id, *(one.checkpoint for one in model.variants))
        }
        plain = {name: value for name, value in typed.items() if is_plain(value)}
        plain.pop("file_or_dir", None)  # the class takes the place of the typed paths
        return {
            **plain,
            **{name: value for name, value in _OF_DRIVER.items() if name in typed},
            "vlm_weights_root": own.weights_root,
            "vlm_weights": [f"{one}={own.weights[one]}" for one in own.weights if one in needed],
            "vlm_datasets_root": own.datasets_root,
            "vlm_log_dir": own.log_dir,
        }

    def _stored_seconds(self) -> Mapping[str, float]:
        cache = getattr(self._config, "cache", None)
        return {} if cache is None else cache.get(_CACHE_KEY, {})

    def _store_seconds(self) -> None:
        cache = getattr(self._config, "cache", None)
        is_whole = self._reporter.earlier is None  # what is taken over takes no time
        if cache is not None and is_whole:
            cache.set(_CACHE_KEY, {**self._stored_seconds(), **self._seconds})


def jobs_of(
    items: Iterable[pytest.Item], cards_of: Callable[[ModelSpec], int], seconds: Mapping[str, float]
) -> list[Job]:
    """One job for each test class; tests without a class are a job of their module.

    Args:
        items: the tests.
        cards_of: returns the number of cards that a model's servers take.
        seconds: node id of a class -> its duration in an earlier run.
    """
    grouped: dict[str, list[pytest.Item]] = {}
    for item in items:
        owner = item.getparent(pytest.Class) or item.getparent(pytest.Module)
        grouped.setdefault(owner.nodeid if owner else item.nodeid, []).append(item)
    jobs = []
    for name, own in grouped.items():
        model = call_of(own[0]).model
        cards = cards_of(model) if model and any(map(_is_served, own)) else 0
        tests = tuple(item.nodeid for item in own)
        jobs.append(Job(name, cards, tests, model.model_id if model else "", seconds.get(name)))
    return jobs


def cards_of(model: ModelSpec, most: int) -> int:
    """The cards of a model, or of its largest variant that fits on one host, as on a single host.

    Args:
        model: the model.
        most: number of cards of the largest host.
    """
    variants = (model.as_variant(variant).devices for variant in model.variants)
    return max([model.devices, *(cards for cards in variants if cards <= most)])


def _is_served(item: pytest.Item) -> bool:
    """True for a test that needs a server of a model."""
    return item.get_closest_marker("npu") is not None


def _about(host: Host) -> Iterator[str]:
    """Reasons why a host does not run some or all tests, one line each."""
    if problem := host.unavailable or host.misconfigured:
        yield f"{host.name} starts no server: {problem}"
    for reasons_of in (host.packages, host.weights):
        for model_id, why in reasons_of.items():
            if why:
                yield f"{host.name} cannot run {model_id}: {why}"


def _absolute(options: Options) -> Options:
    """The options with paths that are the same in every working directory."""
    return dataclasses.replace(
        options,
        weights_root=options.weights_root and options.weights_root.absolute(),
        datasets_root=options.datasets_root and options.datasets_root.absolute(),
        log_dir=options.log_dir.absolute(),
    )


def _elsewhere(options: Options) -> Iterator[Path]:
    """The directories of a project that do not travel."""
    reports = (options.report, options.resume)
    named = (*reports, options.log_dir, options.weights_root, options.datasets_root)
    yield from (path for path in (*named, *options.weights.values()) if path is not None)


def _below(root: Path, path: Path) -> Path | None:
    """A path relative to the root; None if it is not below it."""
    return path.relative_to(root) if path.is_relative_to(root) else None

"""Measures how fast one served model is, by the request, in pairs, and under load."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..criteria import performance as rules
from ..criteria.performance import Asked, Measured, Prefill, Ratio, median_ratio
from ..engines.vllm import metrics
from ..errors import PreconditionError, ServerError
from ..golden import performance_runs as stored
from ..load import generator
from ..load.generator import Workload
from ..load.uncached import Cold
from ..observation.answers import Completion, Load, Timing
from ..processes.cpu_usage import CpuUse
from ..spec.model import Capability, Case
from .device_slot import Once, Stage
from .judge import Goldens

if TYPE_CHECKING:
    from ..engines.client import Client

ROUNDS = 30
PAIRS = 24
_WARMUPS = 2
_SCALES = (0.25, 0.5, 0.75, 1.0)
_A_SIZE = 5
_IDLE_SECONDS = 4.0
_SERVICE_LEVEL = 5.0
_LEAST_LEVEL_MS = 1.0
_TOLERANCE = 0.02


class Measuring:
    """Measures one model: each thing when it is first asked for, and once.

    So figures do not depend on which tests ran before. Whoever asks is not judged by the answers:
    `requests_are_answered` and `require_answers` look at them.
    """

    def __init__(self, stage: Stage, client: Client, goldens: Goldens, directory: Path) -> None:
        """Args: directory: where changed images may be put."""
        self._stage = stage
        self._client = client
        self._goldens = goldens
        self._cold = Cold(directory)
        self._loads: dict[str, Once[Load]] = {}
        self._prefill = Once(self._measure_prefill)
        self._cpu = Once(self._measure_cpu)
        self._tokens: dict[str, int] = {}

    def cases(self, kind: str) -> tuple[Case, ...]:
        """The requests of a kind, "text" or "image".

        Raises:
            PreconditionError: there are none.
        """
        cases = self._stage.run.cases_for(self._stage.model, kind)
        if not cases:
            raise PreconditionError(f"there is no {kind} case that this checkpoint can be asked")
        return cases

    def load(self, name: str) -> Load:
        """How requests were answered.

        Args:
            name: "text" or "image" for one streamed request after another, "load.c1" and so on for
                as many at a time, "load.ramp" for ever more a second, up to what the highest level
                was answered at.
        """
        if name not in self._loads:
            self._loads[name] = Once(partial(self._measure_load, name))
        return self._loads[name]()

    def prefill(self) -> Prefill:
        """TTFT with the largest image against that of a text of as many tokens, in turns."""
        return self._prefill()

    def cpu(self) -> tuple[list[float], list[float]]:
        """CPU use of the server's processes while it waits, and while it answers, in percent.

        Raises:
            PreconditionError: they cannot be seen from here, or what it answers is none.
            ServerError: the server is not running.
        """
        return self._cpu()

    def figures(self, names: Iterable[str]) -> dict[str, Measured]:
        """Every figure, by name, of the measurements that some figures come from.

        Raises:
            PreconditionError: one of the measurements cannot be made, or its requests were not
                answered.
        """
        measurements = dict.fromkeys(map(rules.measurement_of, names))
        return self._figures(measurements)

    def all_figures(self) -> dict[str, Measured]:
        """Every figure that this model has here, by name.

        Raises:
            PreconditionError: as `figures` does.
        """
        return self._figures(self._measurements)

    def asked_for(self, kind: str) -> Asked:
        """What is known about the requests of a kind."""
        cases = self.cases(kind)
        return Asked(
            {case.id: case.max_tokens for case in cases},
            {case.id: self._image_tokens(case) for case in cases if case.images},
            {case.id: text for case in cases if (text := self._goldens.text_of(case)) is not None},
        )

    def _image_tokens(self, case: Case) -> int:
        if case.id not in self._tokens:
            whole = self._prompt_tokens(case)
            self._tokens[case.id] = whole - self._prompt_tokens(replace(case, images=()))
        return self._tokens[case.id]

    def _prompt_tokens(self, case: Case) -> int:
        tokens = self._client.prompt_tokens(case)
        if tokens is None:
            raise PreconditionError("the server does not tell how many tokens a prompt has")
        return tokens

    def against(self, other: Client, kind: str) -> dict[str, Ratio]:
        """TTFT and latency here over those of another endpoint, asked the same in turns."""
        here: list[Timing] = []
        there: list[Timing] = []
        cases = itertools.cycle(self.cases(kind))
        for turn in range(PAIRS):
            case = self._cold.case(next(cases))
            sides = [(here, self._client), (there, other)]
            for timings, client in sides if turn % 2 else reversed(sides):
                timings.append(self._time(client, case))
        return {
            "TTFT": median_ratio(_paired(here, there, lambda one: one.ttft_seconds)),
            "latency": median_ratio(_paired(here, there, lambda one: one.seconds)),
        }

    @property
    def sees_processes(self) -> bool:
        """Whether the server is one of ours."""
        return self._stage.is_ours

    def client_of(self, url: str) -> Client:
        """A client of another endpoint that serves the model under its own name."""
        from ..engines.client import Client
        from ..engines.endpoint import Endpoint, RunningServer

        options = self._stage.run.options
        server = RunningServer(Endpoint(url, self._stage.model.model_id, options.bearer))
        return Client(server.endpoint, server.explain_loss)

    def save(self, baseline: stored.Baseline) -> Path:
        """Stores the figures that runs are compared by, always the same ones; returns the file."""
        figures = self.all_figures().values()
        return stored.append(baseline, {one.name: one.value for one in figures if one.is_typical})

    def baseline(self) -> stored.Baseline:
        """The runs that were stored under this run's key."""
        run, model = self._stage.run, self._stage.model
        server = self._stage.server
        key = {
            "model": model.model_id,
            "weights_sha256": run.golden_key(model).weights_sha256,
            "device": run.platform.device(),
            "versions": dict(run.platform.versions()),
            "serve_command": server.serve_command if server else "",
            "env": dict(model.env),
            "workload": stored.digest(self._workload_key()),
        }
        return stored.load(run.options.performance_dir, model.slug, key)

    def _workload_key(self) -> list[Any]:
        """All that decides about what is asked and how it is measured."""
        run, model = self._stage.run, self._stage.model
        cases = [_described(case) for kind in rules.KINDS for case in run.cases_for(model, kind)]
        how = [ROUNDS, PAIRS, _WARMUPS, _IDLE_SECONDS, _SERVICE_LEVEL, _LEAST_LEVEL_MS]
        return [cases, self._measurements, how, run.options.requests]

    @property
    def _measurements(self) -> tuple[str, ...]:
        """What can be measured of this model here, by what it supports and where it is served."""
        of_images = Capability.IMAGE in self._stage.model.supports
        return tuple(
            name
            for name in rules.MEASUREMENTS
            if (of_images or name == "text") and (self.sees_processes or name != "cpu")
        )

    def _figures(self, measurements: Iterable[str]) -> dict[str, Measured]:
        found = itertools.chain.from_iterable(map(self._figures_of, measurements))
        return {figure.name: figure for figure in found}

    def _figures_of(self, measurement: str) -> Sequence[Measured]:
        if measurement == "cpu":
            return rules.cpu_figures(self.cpu()[1])
        if measurement == "image.prefill":
            return (self.prefill().added,)
        seen = self.load(measurement)
        rules.require_answers(measurement, seen, self.asked_for(_kind(measurement)))
        return rules.figures(measurement, seen)

    def _measure_load(self, name: str) -> Load:
        if name in rules.KINDS:
            with self._warm(name) as client:
                return self._one_at_a_time(client, name)
        level = name.removeprefix("load.")
        workload = self._ramp() if level == "ramp" else self._workload(int(level.removeprefix("c")))
        with self._warm("image"):
            return self._generate(level, workload)

    @contextlib.contextmanager
    def _warm(self, kind: str) -> Iterator[Client]:
        """A client of a server that has just answered such requests, whatever ran before.

        The client is nobody else's, so its answers are no matter of the test that measures first.
        """
        with self._client.disposable() as client:
            for case in itertools.islice(itertools.cycle(self.cases(kind)), _WARMUPS):
                with contextlib.suppress(ServerError):
                    self._time(client, self._cold.case(case))
            yield client

    def _one_at_a_time(self, client: Client, kind: str) -> Load:
        answers: list[Timing] = []
        errors: list[str] = []

        def ask_all() -> None:
            for case in itertools.islice(itertools.cycle(self.cases(kind)), ROUNDS):
                try:
                    answers.append(self._time(client, self._cold.case(case)))
                except ServerError as error:
                    errors.append(str(error))

        _, server_seconds = metrics.while_doing(self._client.endpoint, ask_all)
        # Between two requests the images of the next one are made; nobody waits for an answer then.
        seconds = sum(answer.seconds for answer in answers)
        return Load(
            "one request at a time",
            1,
            seconds,
            tuple(answers),
            tuple(errors),
            server_seconds=server_seconds,
        )

    def _measure_prefill(self) -> Prefill:
        image = max(self.cases("image"), key=self._image_tokens)
        tokens = self._prompt_tokens(image)
        text = self._text_of(tokens)
        words = tokens - self._image_tokens(image)
        # One token is no answer that could be judged; other requests' answers are.
        with self._client.disposable() as client:

            def first_token(case: Case, scale: float = 1.0) -> Timing:
                return self._time(client, self._cold.case(case, scale), max_tokens=1)

            pairs = _in_turns(
                lambda: first_token(image).ttft_seconds, lambda: first_token(text).ttft_seconds
            )
            scaled = [first_token(image, scale) for scale in _SCALES for _ in range(_A_SIZE)]
        return Prefill(
            median_ratio(pairs),
            tokens,
            Measured("image.prefill.median", statistics.median(a - b for a, b in pairs), "s"),
            [((one.prompt_tokens or words) - words, one.ttft_seconds) for one in scaled],
        )

    def _measure_cpu(self) -> tuple[list[float], list[float]]:
        if not self.sees_processes:
            raise PreconditionError(
                "the CPU use of a server that someone else runs cannot be measured. Declare no "
                "limit of cpu.mean and cpu.peak for it, or let the suite start the server."
            )
        # The warm-up also starts a server again that was stopped in the meantime.
        with self._warm("image") as client:
            server = self._stage.server
            if server is None or not server.processes():
                raise ServerError("the server is not running, so its CPU use cannot be measured")
            with CpuUse(server.processes) as idle:
                time.sleep(_IDLE_SECONDS)
            with CpuUse(server.processes) as busy:
                answers = self._keep_busy(client)
        seen = Load("one request at a time", 1, _IDLE_SECONDS, answers)
        rules.require_answers("cpu", seen, self.asked_for("image"))
        return idle.samples, busy.samples

    def _keep_busy(self, client: Client) -> tuple[Timing, ...]:
        answers = []
        deadline = time.monotonic() + _IDLE_SECONDS
        for case in itertools.cycle(self.cases("image")):
            answers.append(self._time(client, self._cold.case(case)))
            if time.monotonic() > deadline:
                break
        return tuple(answers)

    def _generate(self, name: str, workload: Workload) -> Load:
        run, model = self._stage.run, self._stage.model
        endpoint = self._client.endpoint
        directory = run.logs.directory / f"{self._stage.label}-load" / name

        def say(doing: str) -> None:
            run.say(f"{model.model_id}: load {name}: {doing}")

        found, server_seconds = metrics.while_doing(
            endpoint, lambda: generator.generate(workload, endpoint, directory, say)
        )
        return replace(found, server_seconds=server_seconds)

    def _workload(self, concurrency: int, **more: Any) -> Workload:
        wanted = self._stage.run.options.requests
        cases = itertools.islice(itertools.cycle(self.cases("image")), wanted)
        requests = tuple(self._cold.case(case) for case in cases)
        return Workload(requests, concurrency, **more)

    def _ramp(self) -> Workload:
        highest = max(rules.LEVELS)
        alone, most = self.load("load.c1"), self.load(f"load.c{highest}")
        if not alone.timings or not most.timings:
            raise PreconditionError(
                "nothing was answered one at a time, so there is no service level"
            )
        typical = {
            "ttft": statistics.median(timing.ttft_seconds for timing in alone.timings),
            "tpot": statistics.median(timing.tpot_seconds or 0.0 for timing in alone.timings),
        }
        levels = {
            name: max(1000 * _SERVICE_LEVEL * seconds, _LEAST_LEVEL_MS)
            for name, seconds in typical.items()
        }
        rates = (most.request_throughput / 4, most.request_throughput)
        return self._workload(4 * highest, ramp=rates, goodput=levels)

    def _time(self, client: Client, case: Case, max_tokens: int | None = None) -> Timing:
        sampling = Cold.sampling(max_tokens or case.max_tokens)
        return _timing(client.stream(case, sampling, bare=True))

    def _text_of(self, tokens: int) -> Case:
        """A text prompt of so many tokens."""

        def of(words: int) -> Case:
            return Case("text/prefill", Capability.TEXT, " ".join(["page"] * words), max_tokens=1)

        few, many = (self._prompt_tokens(of(words)) for words in (8, 108))
        wanted = 8 + round((tokens - few) / max((many - few) / 100, 0.01))
        text = of(max(wanted, 1))
        got = self._prompt_tokens(text)
        if abs(got - tokens) > max(_TOLERANCE * tokens, 4):
            raise PreconditionError(
                f"a text of {tokens} tokens was wanted and one of {got} found, so an image's share "
                "of TTFT cannot be told from that of its tokens"
            )
        return text


def _kind(measurement: str) -> str:
    """The kind of request that a load sends."""
    return "text" if measurement == "text" else "image"


def _described(case: Case) -> list[Any]:
    """What decides how long a request takes."""
    images = [hashlib.sha256(path.read_bytes()).hexdigest() for path in case.images]
    return [case.id, case.prompt, case.max_tokens, images]


def _in_turns(a: Callable[[], float], b: Callable[[], float]) -> list[tuple[float, float]]:
    """Pairs of two measurements; the order within a pair alternates."""
    pairs = []
    a(), b()  # warm-up
    for turn in range(PAIRS):
        if turn % 2:
            first, second = a(), b()
        else:
            second, first = b(), a()
        pairs.append((first, second))
    return pairs


def _paired(
    here: Sequence[Timing], there: Sequence[Timing], of: Callable[[Timing], float]
) -> list[tuple[float, float]]:
    return [(of(a), of(b)) for a, b in zip(here, there, strict=True)]


def _timing(answer: Completion) -> Timing:
    if answer.first_token_seconds is None or answer.usage is None:
        raise ServerError(f"{answer.case_id}: the stream brought no token, or no usage")
    return Timing(
        answer.case_id,
        answer.text,
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        answer.first_token_seconds,
        answer.seconds,
    )

"""Measures how fast one served model is, by the request, in pairs, and under load."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..criteria.performance import LEVELS, Asked, Measured, Prefill, Ratio, median_ratio
from ..engines import load, metrics
from ..engines.cold import Cold
from ..engines.cpu_use import CpuUse
from ..errors import GoldenError, PreconditionError, ServerError
from ..golden import performance as stored
from ..observation import Completion, Load, Timing
from ..spec import Capability, Case
from .session import Goldens
from .stage import Once, Stage

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
    """Measures one model and keeps what it found.

    Attributes:
        found: every figure so far, by name.
    """

    def __init__(self, stage: Stage, client: Client, goldens: Goldens, directory: Path) -> None:
        """Args: directory: where changed images may be put."""
        self.found: dict[str, Measured] = {}
        self._stage = stage
        self._client = client
        self._goldens = goldens
        self._cold = Cold(directory)
        self._loads: dict[str, Once[Load]] = {}
        self._tokens: dict[str, int] = {}

    def keep(self, figures: Iterable[Measured]) -> None:
        """Keeps figures for what looks at all of them."""
        self.found |= {figure.name: figure for figure in figures}

    def cases(self, kind: str) -> tuple[Case, ...]:
        """The requests of a kind, "text" or "image".

        Raises:
            PreconditionError: there are none.
        """
        cases = self._stage.run.cases_for(self._stage.model, kind)
        if not cases:
            raise PreconditionError(f"there is no {kind} case that this checkpoint can be asked")
        return cases

    def asked_for(self, kind: str) -> Asked:
        """What is known about the requests of a kind."""
        cases = self.cases(kind)
        return Asked(
            {case.id: case.max_tokens for case in cases},
            {case.id: self._image_tokens(case) for case in cases if case.images},
            {case.id: text for case in cases if (text := self._reference(case)) is not None},
        )

    def _reference(self, case: Case) -> str | None:
        with contextlib.suppress(GoldenError):
            return self._goldens(case).text
        return None

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

    def one_at_a_time(self, kind: str, benchmark: Any) -> Load:
        """One streamed request after another, timed by pytest-benchmark.

        Args:
            kind: "text" or "image".
            benchmark: the fixture of pytest-benchmark.
        """
        cases = itertools.cycle(self.cases(kind))
        answers: list[Timing] = []
        errors: list[str] = []

        def fresh() -> tuple[tuple[Case], dict[str, Any]]:
            return (self._cold.case(next(cases)),), {}

        def ask(case: Case) -> None:
            try:
                answers.append(self._time(self._client, case))
            except ServerError as error:
                errors.append(str(error))

        _, server_seconds = metrics.while_doing(
            self._client.endpoint,
            lambda: benchmark.pedantic(ask, setup=fresh, rounds=ROUNDS, warmup_rounds=_WARMUPS),
        )
        answers, errors = answers[-ROUNDS:], errors[-ROUNDS:]
        benchmark.extra_info["model"] = self._stage.model.model_id
        benchmark.extra_info["ttft_seconds"] = [answer.ttft_seconds for answer in answers]
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

    def prefill(self) -> Prefill:
        """TTFT with the largest image against that of a text of as many tokens, in turns."""
        image = max(self.cases("image"), key=self._image_tokens)
        tokens = self._prompt_tokens(image)
        text = self._text_of(tokens)
        words = tokens - self._image_tokens(image)
        # One token is no answer that could be judged; other requests' answers are.
        with self._client.disposable() as other:

            def first_token(case: Case, scale: float = 1.0) -> Timing:
                return self._time(other, self._cold.case(case, scale), max_tokens=1)

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

    def level(self, concurrency: int) -> Load:
        """A load of so many requests at a time; measured once."""
        return self._loaded(f"c{concurrency}", lambda: self._workload(concurrency))

    def ramp(self) -> Load:
        """Ever more requests a second, up to what the highest level was answered at."""
        return self._loaded("ramp", self._ramp)

    @property
    def sees_processes(self) -> bool:
        """Whether the server is one of ours."""
        return self._stage.is_ours

    def cpu(self) -> tuple[list[float], list[float]]:
        """CPU use of the server's processes while it waits, and while it answers, in percent.

        Raises:
            ServerError: it is not running.
        """
        server = self._stage.server
        if server is None or not server.processes():
            raise ServerError("the server is not running, so its CPU use cannot be measured")
        with CpuUse(server.processes) as idle:
            time.sleep(_IDLE_SECONDS)
        with CpuUse(server.processes) as busy:
            deadline = time.monotonic() + _IDLE_SECONDS
            for case in itertools.cycle(self.cases("image")):
                self._time(self._client, self._cold.case(case))
                if time.monotonic() > deadline:
                    break
        return idle.samples, busy.samples

    def client_of(self, url: str) -> Client:
        """A client of another endpoint that serves the model under its own name."""
        from ..engines.client import Client
        from ..engines.endpoint import Endpoint, RunningServer

        options = self._stage.run.options
        server = RunningServer(Endpoint(url, self._stage.model.model_id, options.bearer))
        return Client(server.endpoint, server.explain_loss)

    def save(self, baseline: stored.Baseline) -> Path:
        """Stores the figures that runs are compared by; returns the file.

        Raises:
            PreconditionError: nothing was measured in this run.
        """
        run = {figure.name: figure.value for figure in self.found.values() if figure.is_typical}
        if not run:
            raise PreconditionError("nothing was measured; run all of -m performance to store it")
        return stored.append(baseline, run)

    def baseline(self) -> stored.Baseline:
        """The runs that were stored under this run's key."""
        run, model = self._stage.run, self._stage.model
        workload = [
            [case.id, case.prompt, case.max_tokens, [image.name for image in case.images]]
            for kind in ("text", "image")
            for case in run.cases_for(model, kind)
        ]
        server = self._stage.server
        key = {
            "model": model.model_id,
            "weights_sha256": run.golden_key(model).weights_sha256,
            "device": run.platform.device(),
            "versions": dict(run.platform.versions()),
            "serve_command": server.serve_command if server else "",
            "env": dict(model.env),
            "workload": stored.digest([workload, ROUNDS, run.options.requests]),
        }
        return stored.load(run.options.performance_dir, model.slug, key)

    def _loaded(self, name: str, workload: Callable[[], load.Workload]) -> Load:
        if name not in self._loads:
            self._loads[name] = Once(lambda: self._generate(name, workload()))
        return self._loads[name]()

    def _generate(self, name: str, workload: load.Workload) -> Load:
        run, model = self._stage.run, self._stage.model
        endpoint = self._client.endpoint
        directory = run.logs.directory / f"{self._stage.label}-load" / name

        def say(doing: str) -> None:
            run.say(f"{model.model_id}: load {name}: {doing}")

        found, server_seconds = metrics.while_doing(
            endpoint, lambda: load.generate(workload, endpoint, directory, say)
        )
        return replace(found, server_seconds=server_seconds)

    def _workload(self, concurrency: int, **more: Any) -> load.Workload:
        wanted = self._stage.run.options.requests
        cases = itertools.islice(itertools.cycle(self.cases("image")), wanted)
        requests = tuple(self._cold.case(case) for case in cases)
        return load.Workload(requests, concurrency, **more)

    def _ramp(self) -> load.Workload:
        highest = max(LEVELS)
        alone, most = self.level(1), self.level(highest)
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

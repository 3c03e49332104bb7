"""The fixtures of the criteria, for a user's own tests too.

They read `model` from the test's class, so they work in every subclass of `VLMConformance`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import ConfigurationError
from ..session.comparison import Comparison
from ..session.device_slot import Once, Stage
from ..session.judge import Answers, ForcedAnswers, Goldens, Judge, Reference, Task
from ..session.numerics import Numbers
from ..session.run import RUN, Run
from ..spec.model import Case, ModelSpec
from ..suite.criterion import Criterion, NotApplicable, documentation
from .selection import criterion_of

if TYPE_CHECKING:
    from ..criteria.error_statistics import Measures
    from ..engines.client import Client
    from ..engines.endpoint import Server
    from ..observation.answers import Timing
    from ..session.performance import Measuring
    from ..suite.dataset import Datasets

JUDGE = pytest.StashKey[Judge]()


@pytest.fixture(scope="session")
def vlm_run(request: pytest.FixtureRequest) -> Run:
    """The run: its options, platform and cases."""
    return request.config.stash[RUN]


@pytest.fixture(scope="class")
def vlm_model(request: pytest.FixtureRequest) -> ModelSpec:
    """The model of the test's class."""
    model = getattr(request.cls, "model", None)
    if not isinstance(model, ModelSpec):
        raise ConfigurationError(
            f"{request.node.nodeid} uses a fixture of a served model; put the test into a class "
            "with model = ModelSpec(...), best a subclass of VLMConformance."
        )
    return model


@pytest.fixture(scope="class")
def stage(request: pytest.FixtureRequest, vlm_run: Run, vlm_model: ModelSpec) -> Iterator[Stage]:
    """The place of the model's servers and engines; on cards, theirs alone."""
    with vlm_run.place(vlm_model) as place:
        yield Stage(vlm_run, vlm_model, f"{vlm_model.slug}-{request.cls.__name__}", place)


@pytest.fixture(scope="class")
def server(stage: Stage) -> Iterator[Server]:
    """The served model: started for the first test that needs it, stopped after the last."""
    # A plugin that repeats tests asks for it again; the server knows that it did not start.
    server = stage.server or stage.run.server(stage.model, stage.label, stage.place)
    stage.server = server
    try:
        server.start()
        yield server
    finally:
        server.stop()
        stage.run.note_server(stage.model, server, stage.place)


@pytest.fixture(scope="class")
def client(server: Server, vlm_run: Run, vlm_model: ModelSpec) -> Iterator[Client]:
    """A connection to the served model that keeps what it answers."""
    from ..engines.client import Client

    client = Client(server.endpoint, server.explain_loss, ensure=server.revive)
    with contextlib.closing(client):
        yield client
        record = {"model": vlm_model.model_id, "requests": client.requests}
        vlm_run.model_records.append(record)


@pytest.fixture(scope="class")
def answers(client: Client) -> Answers:
    """The first greedy answer to each case, asked for once."""
    return Answers(client)


@pytest.fixture(scope="class")
def golden(request: pytest.FixtureRequest, vlm_run: Run, vlm_model: ModelSpec) -> Goldens:
    """The references of the model: `golden(case)`."""
    return Goldens(vlm_run.golden_store(_model_file(request)), vlm_run.golden_key(vlm_model))


@pytest.fixture(scope="class")
def datasets(
    request: pytest.FixtureRequest, vlm_run: Run, vlm_model: ModelSpec, server: Server
) -> Datasets:
    """The data sets of the model, asked by harnesses."""
    from ..suite.dataset import Datasets

    return Datasets(vlm_run, vlm_model, server, _model_file(request))


@pytest.fixture(scope="class")
def forced(client: Client, golden: Goldens) -> ForcedAnswers:
    """What the served model thinks of the reference's answers: `forced(case)`."""
    return ForcedAnswers(client, golden)


@pytest.fixture(scope="class")
def numbers(
    request: pytest.FixtureRequest, stage: Stage, all_cases: tuple[Case, ...], golden: Goldens
) -> Numbers:
    """What is measured of the model's numbers without its server."""
    cases = tuple(case for case in all_cases if golden(case).numerics is not None)
    if not cases:
        raise NotApplicable("the references are text only")
    return Numbers(stage, cases, golden, _offline_tasks(request))


@pytest.fixture(scope="class")
def served_logits(forced: ForcedAnswers, numbers: Numbers) -> Once[Measures]:
    """How far the served logits are from the reference's, over all cases."""
    return Once(lambda: numbers.logits(forced))


@pytest.fixture(scope="class")
def measuring(
    stage: Stage, client: Client, golden: Goldens, tmp_path_factory: pytest.TempPathFactory
) -> Measuring:
    """What measures the served model's speed, each thing once."""
    from ..session.performance import Measuring

    return Measuring(stage, client, golden, tmp_path_factory.mktemp("cold"))


@pytest.fixture
def stopwatch(
    request: pytest.FixtureRequest, vlm_model: ModelSpec
) -> Callable[[Sequence[Timing]], None]:
    """Gives pytest-benchmark what was measured, as if it had measured it: `stopwatch(timings)`.

    Raises:
        ConfigurationError: it is not installed, or switched off.
    """
    passed = [0.0]

    def replayed() -> float:
        return passed[0]

    request.node.add_marker(pytest.mark.benchmark(timer=replayed))
    try:
        benchmark: Any = request.getfixturevalue("benchmark")
    except pytest.FixtureLookupError:
        raise ConfigurationError(
            "speed is measured with pytest-benchmark: pip install 'pytest-ascend-vlm[perf]'"
        ) from None
    if benchmark.disabled:
        raise ConfigurationError("pytest-benchmark is switched off; leave out --benchmark-disable")

    def replay(timings: Sequence[Timing]) -> None:
        seconds = iter([timing.seconds for timing in timings])

        def answer() -> None:
            passed[0] += next(seconds)

        if timings:
            benchmark.pedantic(answer, rounds=len(timings))
        benchmark.extra_info["model"] = vlm_model.model_id
        benchmark.extra_info["ttft_seconds"] = [timing.ttft_seconds for timing in timings]

    return replay


@pytest.fixture(scope="class")
def reference(
    request: pytest.FixtureRequest, vlm_run: Run, vlm_model: ModelSpec
) -> Iterator[Reference]:
    """The reference engine, loaded on first use."""
    options = vlm_run.options
    reference = Reference(
        load=lambda: vlm_run.reference_engine(vlm_model),
        recording=options.record,
        task=Task(
            key=vlm_run.golden_key(vlm_model),
            cases=_cases_to_ask(request),
            golden_dir=options.golden_dir,
            drafts_dir=options.log_dir / "recording",
        ),
        say=lambda what: vlm_run.say(f"{vlm_model.model_id}: {what}"),
    )
    with contextlib.closing(reference):
        yield reference


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Judge:
    """Takes the test's verdict: `judge(verdict)`."""
    what = criterion_of(request.node) or Criterion(f"own.{request.node.originalname}")
    # A test that asks nobody gets no server for its verdict, and no goldens.
    asks = "client" in request.fixturenames
    cases = request.getfixturevalue("all_cases") if asks else ()
    judge = Judge(
        criterion=what,
        documentation=documentation(request.function),
        case_id=case_id_of(request.node),
        client=request.getfixturevalue("client") if asks else None,
        goldens=request.getfixturevalue("golden") if asks else None,
        cases={case.id: case for case in cases},
    )
    request.node.stash[JUDGE] = judge
    return judge


@pytest.fixture
def comparison(answers: Answers, golden: Goldens, judge: Judge) -> Comparison:
    """Served answers beside the reference's: `comparison(case)` gives both."""
    return Comparison(answers, golden, judge)


@pytest.fixture(scope="class")
def all_cases(vlm_run: Run, vlm_model: ModelSpec) -> tuple[Case, ...]:
    """Every case the model can be asked."""
    return vlm_run.cases_for(vlm_model, "all")


@pytest.fixture(scope="class")
def image_cases(vlm_run: Run, vlm_model: ModelSpec) -> tuple[Case, ...]:
    """Every case with an image."""
    return vlm_run.cases_for(vlm_model, "image")


@pytest.fixture(scope="class")
def image_case(image_cases: tuple[Case, ...]) -> Case:
    """The first case with an image."""
    if not image_cases:
        raise ConfigurationError("fixtures/cases.json has no case with an image for this model.")
    return image_cases[0]


@pytest.fixture(scope="class")
def text_case(vlm_run: Run, vlm_model: ModelSpec) -> Case:
    """The first case without an image."""
    cases = vlm_run.cases_for(vlm_model, "text")
    if not cases:
        raise ConfigurationError("fixtures/cases.json has no text case for this model.")
    return cases[0]


@pytest.fixture(scope="class")
def long_case(all_cases: tuple[Case, ...]) -> Case:
    """The case with the longest answer to be expected."""
    return max(all_cases, key=lambda case: case.max_tokens)


def _model_file(request: pytest.FixtureRequest) -> str:
    """The test file as a command line names it."""
    path = Path(request.path)
    with contextlib.suppress(ValueError):
        path = path.relative_to(request.config.invocation_params.dir)
    return str(path)


def case_id_of(item: pytest.Item) -> str | None:
    """The case or other parameter a test is asked with, as its id has it between brackets."""
    callspec = getattr(item, "callspec", None)
    return callspec.id if callspec is not None else None


def _that_run(request: pytest.FixtureRequest) -> Iterator[pytest.Item]:
    """The selected tests of a class, in their order, without those that are skipped already."""
    for item in request.session.items:
        if getattr(item, "cls", None) is request.cls and item.get_closest_marker("skip") is None:
            yield item


def _offline_tasks(request: pytest.FixtureRequest) -> frozenset[str]:
    """What the tests of a class will ask of the offline engines."""
    criteria = (criterion_of(item) for item in _that_run(request))
    return frozenset(what.offline for what in criteria if what and what.offline)


def _cases_to_ask(request: pytest.FixtureRequest) -> tuple[Case, ...]:
    """The cases that the tests of a class will ask the reference, in their order."""
    found = (_case_for_reference(item) for item in _that_run(request))
    return tuple({case.id: case for case in found if case is not None}.values())


def _case_for_reference(item: pytest.Item) -> Case | None:
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec is not None else None
    uses = "reference" in getattr(item, "fixturenames", ())
    return case if uses and isinstance(case, Case) else None

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
from ..session.run import RUN, Run

if TYPE_CHECKING:
    from ..criteria.error_statistics import ErrorStatistics
    from ..engines.client import Client
    from ..engines.endpoint import Server
    from ..observation.load import Timing
    from ..session.answers import Answers, ForcedAnswers
    from ..session.comparison import Comparison
    from ..session.datasets import Datasets
    from ..session.device_slot import DeviceSlot
    from ..session.goldens import Goldens
    from ..session.judge import Judge
    from ..session.memo import Memo
    from ..session.model import ModelSession
    from ..session.numerics import NumericsSession
    from ..session.performance import PerformanceSession
    from ..session.reference import ReferenceSession
    from ..spec.case import Case
    from ..spec.model import ModelSpec

JUDGE = pytest.StashKey["Judge"]()


@pytest.fixture(scope="session")
def vlm_run(request: pytest.FixtureRequest) -> Run:
    """The run: its options, platform and cases."""
    return request.config.stash[RUN]


@pytest.fixture(scope="class")
def vlm_model(request: pytest.FixtureRequest) -> ModelSpec:
    """The model of the test's class."""
    from ..spec.model import ModelSpec

    model = getattr(request.cls, "model", None)
    if not isinstance(model, ModelSpec):
        raise ConfigurationError(
            f"{request.node.nodeid} uses a fixture of a served model; put the test into a class "
            "with model = ModelSpec(...), best a subclass of VLMConformance."
        )
    return model


@pytest.fixture(scope="class")
def model_session(vlm_run: Run, vlm_model: ModelSpec) -> ModelSession:
    """The model in this run: its checkpoint, cases, launch arguments and goldens."""
    from ..session.model import ModelSession

    return ModelSession(vlm_run, vlm_model)


@pytest.fixture(scope="class")
def device_slot(
    request: pytest.FixtureRequest, model_session: ModelSession
) -> Iterator[DeviceSlot]:
    """The devices of the model's servers and engines; cards are leased for this model alone."""
    from ..session.device_slot import DeviceSlot, allocate

    with allocate(model_session) as allocation:
        yield DeviceSlot(model_session, request.cls.__name__, allocation)


@pytest.fixture(scope="class")
def server(device_slot: DeviceSlot) -> Iterator[Server]:
    """The served model: started for the first test that needs it, stopped after the last."""
    # A plugin that repeats tests asks for it again; the server knows that it did not start.
    server = device_slot.own_server()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        device_slot.record_server()


@pytest.fixture(scope="class")
def client(server: Server, device_slot: DeviceSlot) -> Iterator[Client]:
    """A connection to the served model that keeps what it answers."""
    from ..engines.client import Client

    client = Client(server.endpoint, server.explain_loss, ensure=server.ensure_running)
    with contextlib.closing(client):
        yield client
        device_slot.requests += client.requests


@pytest.fixture(scope="class")
def answers(client: Client) -> Answers:
    """The served model's greedy answers, each case asked once: `answers(case)`."""
    from ..session.answers import Answers

    return Answers(client)


@pytest.fixture(scope="class")
def golden(request: pytest.FixtureRequest, model_session: ModelSession) -> Goldens:
    """The references of the model: `golden(case)`."""
    from ..session.goldens import Goldens

    store = model_session.golden_store(_model_file(request))
    return Goldens(store, model_session.golden_key)


@pytest.fixture(scope="class")
def datasets(
    request: pytest.FixtureRequest, model_session: ModelSession, server: Server
) -> Datasets:
    """The data sets of the model, asked by evaluation harnesses."""
    from ..session.datasets import Datasets

    return Datasets(model_session, server, _model_file(request))


@pytest.fixture(scope="class")
def forced(client: Client, golden: Goldens) -> ForcedAnswers:
    """Log-probabilities that the served model gives the reference's answers: `forced(case)`."""
    from ..session.answers import ForcedAnswers

    return ForcedAnswers(client, golden)


@pytest.fixture(scope="class")
def numerics(
    request: pytest.FixtureRequest,
    device_slot: DeviceSlot,
    all_cases: tuple[Case, ...],
    golden: Goldens,
) -> NumericsSession:
    """Measures the model's numbers without its server: offline engines and variants."""
    from ..session.judge import NotApplicable
    from ..session.numerics import NumericsSession

    cases = tuple(case for case in all_cases if golden(case).numerics is not None)
    if not cases:
        raise NotApplicable("the references are text only")
    return NumericsSession(device_slot, cases, golden, _offline_tasks(request))


@pytest.fixture(scope="class")
def served_logits(forced: ForcedAnswers, numerics: NumericsSession) -> Memo[ErrorStatistics]:
    """Error of the served logits against the reference's, over all cases: `served_logits()`."""
    from ..session.memo import Memo

    return Memo(lambda: numerics.logits(forced))


@pytest.fixture(scope="class")
def performance(
    device_slot: DeviceSlot,
    client: Client,
    golden: Goldens,
    tmp_path_factory: pytest.TempPathFactory,
) -> PerformanceSession:
    """Measures the served model's speed, each metric once."""
    from ..session.performance import PerformanceSession

    return PerformanceSession(device_slot, client, golden, tmp_path_factory.mktemp("uncached"))


@pytest.fixture
def benchmark_timings(
    request: pytest.FixtureRequest, vlm_model: ModelSpec
) -> Callable[[Sequence[Timing]], None]:
    """Gives pytest-benchmark what was measured, as if it had measured it.

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
    request: pytest.FixtureRequest, model_session: ModelSession
) -> Iterator[ReferenceSession]:
    """The reference engine (Transformers on CPU), loaded on first use."""
    from ..session.recording import RecordingPlan
    from ..session.reference import ReferenceSession

    options = model_session.run.options
    reference = ReferenceSession(
        load=model_session.reference_engine,
        recording=options.record,
        plan=RecordingPlan(
            key=model_session.golden_key,
            cases=_cases_to_ask(request),
            golden_dir=options.golden_dir,
            bf16_dir=options.log_dir / "recording",
        ),
        on_progress=model_session.on_progress,
    )
    with contextlib.closing(reference):
        yield reference


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Judge:
    """Takes the test's verdict: `judge(verdict)`."""
    from ..criteria.criterion import Criterion, documentation
    from ..criteria.groups import OWN_GROUP
    from ..session.judge import Judge
    from .criterion_call import call_of

    call = call_of(request.node)
    # A test that asks nobody gets no server for its verdict, and no goldens.
    asks = "client" in request.fixturenames
    cases = request.getfixturevalue("all_cases") if asks else ()
    judge = Judge(
        criterion=call.criterion or Criterion(f"{OWN_GROUP}.{request.node.originalname}"),
        documentation=documentation(request.function),
        case_id=call.case_id,
        client=request.getfixturevalue("client") if asks else None,
        goldens=request.getfixturevalue("golden") if asks else None,
        cases={case.id: case for case in cases},
    )
    request.node.stash[JUDGE] = judge
    return judge


@pytest.fixture
def comparison(answers: Answers, golden: Goldens, judge: Judge) -> Comparison:
    """Served answers beside the reference's: `comparison(case)` gives both."""
    from ..session.comparison import Comparison

    return Comparison(answers, golden, judge)


@pytest.fixture(scope="class")
def all_cases(model_session: ModelSession) -> tuple[Case, ...]:
    """Every case that the model can be asked, clips left out."""
    from ..criteria.criterion import Cases

    return model_session.cases(Cases.ALL)


@pytest.fixture(scope="class")
def image_cases(model_session: ModelSession) -> tuple[Case, ...]:
    """Every case with an image."""
    from ..criteria.criterion import Cases

    return model_session.cases(Cases.IMAGE)


@pytest.fixture(scope="class")
def image_case(image_cases: tuple[Case, ...]) -> Case:
    """The first case with an image."""
    if not image_cases:
        raise ConfigurationError("fixtures/cases.json has no case with an image for this model.")
    return image_cases[0]


@pytest.fixture(scope="class")
def text_case(model_session: ModelSession) -> Case:
    """The first case without an image."""
    from ..criteria.criterion import Cases

    cases = model_session.cases(Cases.TEXT)
    if not cases:
        raise ConfigurationError("fixtures/cases.json has no text case for this model.")
    return cases[0]


@pytest.fixture(scope="class")
def long_case(all_cases: tuple[Case, ...]) -> Case:
    """The case whose answer may be longest."""
    return max(all_cases, key=lambda case: case.max_tokens)


def _model_file(request: pytest.FixtureRequest) -> str:
    """The test file as a command line names it."""
    path = Path(request.path)
    with contextlib.suppress(ValueError):
        path = path.relative_to(request.config.invocation_params.dir)
    return str(path)


def _tests_that_run(request: pytest.FixtureRequest) -> Iterator[pytest.Item]:
    """The selected tests of a class, in their order, without those that are skipped already."""
    from .criterion_call import call_of

    for item in request.session.items:
        if call_of(item).suite_class is request.cls and item.get_closest_marker("skip") is None:
            yield item


def _offline_tasks(request: pytest.FixtureRequest) -> frozenset[str]:
    """What the tests of a class will ask of the offline engines."""
    from .criterion_call import call_of

    criteria = (call_of(item).criterion for item in _tests_that_run(request))
    return frozenset(one.offline for one in criteria if one and one.offline)


def _cases_to_ask(request: pytest.FixtureRequest) -> tuple[Case, ...]:
    """The cases that the tests of a class will ask the reference, in their order."""
    from .criterion_call import call_of

    asking = (
        call_of(item)
        for item in _tests_that_run(request)
        if "reference" in getattr(item, "fixturenames", ())
    )
    return tuple({call.case.id: call.case for call in asking if call.case is not None}.values())

"""The fixtures of the suite's criteria, which a user's own tests can use as well.

They read the attribute `model` of the test class, so they work in every subclass of
`VLMConformance`. `pytest --fixtures -v` prints their documentation.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import CheckpointError, ConfigurationError
from ..session.run import RUN, Run

if TYPE_CHECKING:
    from ..checkpoints.tokens import TextTokenizer
    from ..criteria.error_statistics import ErrorStatistics
    from ..engines.client import Client
    from ..engines.endpoint import Server
    from ..engines.transformers.model import Encoder
    from ..observation.load import Timed
    from ..session.answers import Answers, ForcedAnswers
    from ..session.borders import Borders
    from ..session.comparison import Comparison
    from ..session.crowds import Crowds
    from ..session.datasets import Datasets
    from ..session.device_slot import DeviceSlot
    from ..session.goldens import Goldens
    from ..session.grid import GridRuns
    from ..session.image_files import ImageFiles
    from ..session.image_runs import ImageRuns
    from ..session.judge import Judge
    from ..session.memo import Memo
    from ..session.model import ModelSession
    from ..session.numerics import NumericsSession
    from ..session.parameters import ParameterRuns
    from ..session.performance import PerformanceSession
    from ..session.recovery import RecoveryRuns
    from ..session.reference import ReferenceSession
    from ..session.request_runs import RequestRuns
    from ..session.soak import SoakRun
    from ..spec.case import Case
    from ..spec.model import ModelSpec

JUDGE = pytest.StashKey["Judge"]()


@pytest.fixture(scope="session")
def vlm_run(request: pytest.FixtureRequest) -> Run:
    """The test run: its options, platform and cases. Scope: session."""
    return request.config.stash[RUN]


@pytest.fixture(scope="class")
def vlm_model(request: pytest.FixtureRequest) -> ModelSpec:
    """The `ModelSpec` of the test class. Scope: class.

    Raises:
        ConfigurationError: the test is not in a class with `model = ModelSpec(...)`.
    """
    from ..spec.model import ModelSpec

    model = getattr(request.cls, "model", None)
    if not isinstance(model, ModelSpec):
        raise ConfigurationError(
            f"{request.node.nodeid} uses a fixture that needs a model; put the test into a class "
            "with model = ModelSpec(...), preferably a subclass of VLMConformance."
        )
    return model


@pytest.fixture(scope="class")
def model_session(vlm_run: Run, vlm_model: ModelSpec) -> ModelSession:
    """The model in this run: its checkpoint, cases, serve arguments and goldens. Scope: class."""
    from ..session.model import ModelSession

    return ModelSession(vlm_run, vlm_model)


@pytest.fixture(scope="class")
def device_slot(
    request: pytest.FixtureRequest, model_session: ModelSession
) -> Iterator[DeviceSlot]:
    """The devices that the model's servers and offline engines run on, one at a time. Scope: class.

    Cards are leased exclusively until the last test of the class has ended.

    Raises:
        ConfigurationError: the host has too few cards, or is configured wrongly.
    """
    from ..session.device_slot import DeviceSlot, allocate

    with allocate(model_session) as allocation:
        yield DeviceSlot(model_session, request.cls.__name__, allocation)


@pytest.fixture(scope="class")
def server(device_slot: DeviceSlot) -> Iterator[Server]:
    """The model's server, started for the first test that needs it. Scope: class.

    The server is stopped after the last test of the class. With `--vlm-server-url` it is the
    endpoint of that URL, and nothing is started or stopped. `server.endpoint` has its address.

    Raises:
        ServerError: the server does not become ready; the message quotes its log.
        CheckpointError: the weights are missing, incomplete, or of another revision.
    """
    # A plugin that repeats tests requests this fixture again after a failed start. The server
    # remembers the failure and does not start twice.
    server = device_slot.own_server()
    try:
        server.start()
        device_slot.record_facts()  # a killed run has no other chance
        yield server
    finally:
        try:
            server.stop()
        finally:
            device_slot.record_facts()


@pytest.fixture(scope="class")
def client(server: Server, device_slot: DeviceSlot) -> Iterator[Client]:
    """The client of the served model, for requests beyond `answers(case)`. Scope: class.

    Example::

        def test_long_answer(self, client, text_case, judge):
            completion = client.complete(text_case)
            judge(at_least(len(completion.text), 20, "characters", "length of the answer"))

    `client.complete(case)` returns a new `Completion` at every call. The judge checks the
    completions of a test for degenerate text.

    Raises:
        ServerError: `complete`: the server refused the request, or died.
    """
    from ..engines.client import Client

    client = Client(server.endpoint, server.explain_loss, ensure=server.ensure_running)
    with contextlib.closing(client):
        yield client
        device_slot.requests += client.requests


@pytest.fixture(scope="class")
def answers(client: Client) -> Answers:
    """The served model's greedy answer to a case: `answers(case)`. Scope: class.

    Returns a `Completion`. Each case is asked once; all tests of the class share the answer.

    Example::

        def test_invoice_number(self, answers, image_case, judge):
            found = "4711" in answers(image_case).text
            judge(checklist({"number": None if found else "4711 is missing"}))

    Raises:
        ServerError: the server refused the request, or died.
    """
    from ..session.answers import Answers

    return Answers(client)


@pytest.fixture(scope="class")
def golden(request: pytest.FixtureRequest, model_session: ModelSession) -> Goldens:
    """The reference's recorded answer to a case: `golden(case)`. Scope: class.

    Returns a `Reference`. Without a recorded golden it is the published answer, if the model
    declares one and the run uses the full checkpoint.

    Example::

        def test_same_length(self, answers, golden, text_case, judge):
            longer = len(answers(text_case).text) - len(golden(text_case).text)
            judge(at_most(abs(longer), 20, "characters", "difference in length"))

    Raises:
        GoldenError: the golden is missing, damaged, or recorded for other inputs. The message
            contains the command that records it.
    """
    from ..session.goldens import Goldens

    store = model_session.golden_store(_model_file(request))
    return Goldens(store, model_session.golden_key)


@pytest.fixture(scope="class")
def encoder(model_session: ModelSession) -> Encoder:
    """The reference's processor and chat template: `encoder.prompt(case)`. Scope: class.

    It gets the `mm_processor_kwargs` of the model's serve arguments, as the server does. The test
    is skipped if Transformers or the checkpoint is not on this host.
    """
    try:
        return model_session.encoder()
    except (CheckpointError, ConfigurationError) as error:
        pytest.skip(f"the reference's processor cannot be loaded: {error}")


@pytest.fixture(scope="class")
def datasets(
    request: pytest.FixtureRequest, model_session: ModelSession, server: Server
) -> Datasets:
    """The model's data sets, evaluated by lm_eval or EvalScope. Scope: class.

    `datasets.evaluate(task)` returns the scores of a `DatasetTask`; `datasets.reference(task)`
    returns the scores that they are compared with.

    Raises:
        ConfigurationError: `evaluate`: the harness is not installed, or does not have the task.
        GoldenError: `reference`: there are no recorded or published scores.
        PreconditionError: the data is missing, or the two protocols differ.
        ServerError: the harness died.
    """
    from ..session.datasets import Datasets

    return Datasets(model_session, server, _model_file(request))


@pytest.fixture(scope="class")
def forced(client: Client, golden: Goldens) -> ForcedAnswers:
    """The served model's logits for the tokens of the golden: `forced(case)`. Scope: class.

    The golden's answer is appended to the prompt, and the server lists the most likely tokens at
    each position (teacher forcing). So both sides are compared on the same token sequence, even
    after a divergence. Returns a `Forced`; each case is asked once.

    Example::

        def test_logits_are_finite(self, forced, text_case, judge):
            broken = ~np.isfinite(forced(text_case).scores.floor)
            judge(at_most(int(broken.sum()), 0, "positions", "positions with NaN or infinity"))

    Raises:
        GoldenError: the golden is missing, damaged, or recorded for other inputs.
        PreconditionError: the golden is text only, the server returns no prompt log-probabilities,
            or its prompt differs.
        ServerError: the server refused the request, or died.
    """
    from ..session.answers import ForcedAnswers

    return ForcedAnswers(client, golden)


@pytest.fixture(scope="class")
def image_runs(
    client: Client, answers: Answers, forced: ForcedAnswers, golden: Goldens
) -> ImageRuns:
    """Images that the served model computes again, alone and together with others. Scope: class.

    Raises:
        GoldenError, PreconditionError, ServerError: as for `forced`.
    """
    from ..session.image_runs import ImageRuns

    return ImageRuns(client, answers, forced, golden)


@pytest.fixture(scope="class")
def parameter_runs(client: Client, device_slot: DeviceSlot) -> ParameterRuns:
    """Request parameters, tried on the served model. Scope: class."""
    from ..session.parameters import ParameterRuns

    declared = device_slot.session.arguments.deployment
    speculates = any(name.startswith(("speculative_", "spec_")) for name in declared)
    return ParameterRuns(client, may_lack=speculates or not device_slot.starts_engines)


@pytest.fixture(scope="class")
def recovery_runs(  # noqa: PLR0913, PLR0917  (they make its requests)
    vlm_model: ModelSpec,
    server: Server,
    client: Client,
    answers: Answers,
    text_case: Case,
    image_case: Case,
    clip_cases: tuple[Case, ...],
) -> RecoveryRuns:
    """Bad requests to the served model, and an engine that stops or dies. Scope: class."""
    from ..session.bad_requests import ImageRequests
    from ..session.recovery import RecoveryRuns

    clip = next(iter(clip_cases), None)
    requests = ImageRequests(vlm_model, server, client, text_case, image_case, clip)
    return RecoveryRuns(server, answers, requests)


@pytest.fixture(scope="class")
def request_runs(
    client: Client, server: Server, image_case: Case, golden: Goldens, vlm_model: ModelSpec
) -> RequestRuns:
    """Requests of all kinds, sent as they are: `request_runs.run(steps)`. Scope: class.

    Raises:
        ConfigurationError: the model has no case with an image.
    """
    from ..session.request_runs import RequestRuns

    return RequestRuns(client, server, image_case, golden, vlm_model.budgets.first_image)


@pytest.fixture(scope="class")
def borders(device_slot: DeviceSlot, golden: Goldens, any_image_cases: tuple[Case, ...]) -> Borders:
    """The model served in small steps: `borders.run()`. Scope: class.

    The model's own server is stopped while it runs. It runs once, when a test first asks for it.

    Raises:
        ServerError: the server did not start, or refused a request.
    """
    from ..session.borders import Borders

    return Borders(device_slot, golden, any_image_cases)


@pytest.fixture(scope="class")
def image_files(
    client: Client,
    golden: Goldens,
    any_image_cases: tuple[Case, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> ImageFiles:
    """One coloured picture as files of many formats, which the served model reads. Scope: class.

    Raises:
        ConfigurationError: the model has no case with this picture.
        GoldenError, PreconditionError, ServerError: `read`: as for `forced`.
    """
    from ..session.image_files import CASE, ImageFiles

    case = next((case for case in any_image_cases if case.id == CASE), None)
    if case is None:
        raise ConfigurationError(f"fixtures/cases.json has no case {CASE} for this model.")
    return ImageFiles(client, golden, case, tmp_path_factory.mktemp("formats"))


@pytest.fixture(scope="class")
def numerics(
    request: pytest.FixtureRequest,
    device_slot: DeviceSlot,
    all_cases: tuple[Case, ...],
    golden: Goldens,
) -> NumericsSession:
    """Numerical measurements by offline engines and servers of variants. Scope: class.

    The model's own server is stopped while they run. Each measurement is made once, when a test
    first asks for it.

    Raises:
        NotApplicable: every golden of the model is text only. The test is then not applicable.
        ServerError: an engine or a variant's server failed.
    """
    from ..session.judge import NotApplicable
    from ..session.numerics import NumericsSession

    cases = tuple(case for case in all_cases if golden(case).numerics is not None)
    if not cases:
        raise NotApplicable("all goldens of this model are text only")
    return NumericsSession(device_slot, cases, golden, _offline_tasks(request))


@pytest.fixture(scope="class")
def served_logits(forced: ForcedAnswers, numerics: NumericsSession) -> Memo[ErrorStatistics]:
    """The error of the served logits over all cases: `served_logits()`. Scope: class.

    Returns `ErrorStatistics` against the reference's float32 logits; computed once.

    Raises:
        GoldenError, PreconditionError, ServerError: as for `forced`.
    """
    from ..session.memo import Memo

    return Memo(lambda: numerics.logits(forced))


@pytest.fixture(scope="class")
def performance(
    device_slot: DeviceSlot,
    client: Client,
    golden: Goldens,
    tmp_path_factory: pytest.TempPathFactory,
) -> PerformanceSession:
    """Latency, throughput and CPU usage of the served model. Scope: class.

    `performance.load(name)` returns the timings of a workload, `performance.metrics(names)` single
    figures. Each workload runs once, when a test first asks for it. Its requests avoid the prefix
    cache and the multimodal cache.

    Raises:
        PreconditionError: this checkpoint has no case of the kind, or a workload's requests failed.
    """
    from ..session.performance import PerformanceSession

    return PerformanceSession(device_slot, client, golden, tmp_path_factory.mktemp("uncached"))


@pytest.fixture(scope="class")
def crowds(
    model_session: ModelSession,
    client: Client,
    all_cases: tuple[Case, ...],
    forced: ForcedAnswers,
    golden: Goldens,
) -> Crowds:
    """Many different requests at one time: `crowds.ask(12, 0.0, answers)`. Scope: class."""
    from ..session.crowds import Crowds

    return Crowds(client, all_cases, forced, golden, model_session.run.progress("load"))


@pytest.fixture(scope="class")
def grid(
    model_session: ModelSession,
    client: Client,
    any_image_cases: tuple[Case, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> GridRuns:
    """The largest image at several sizes: `grid.row(448, (1, 2, 3))`. Scope: class.

    Raises:
        ConfigurationError: the model has no case with one image.
    """
    from ..session.grid import GridRuns

    cases = _with_one_image(any_image_cases)
    return GridRuns(
        client, cases, tmp_path_factory.mktemp("grid"), model_session.run.progress("grid")
    )


@pytest.fixture(scope="class")
def soak(
    device_slot: DeviceSlot,
    text_case: Case,
    image_cases: tuple[Case, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SoakRun]:
    """The model under many different images: `soak.run()`. Scope: class.

    Returns a `Soak`: memory after each image, and answers before and after them. The model's own
    server is stopped while it runs. It runs once, when a test first asks for it.

    Raises:
        ConfigurationError: the model has no case with one image.
        ServerError: the server did not start, died, or refused a request.
    """
    from ..session.soak import SoakRun

    cases = _with_one_image(image_cases)
    yield SoakRun(device_slot, text_case, cases, tmp_path_factory.mktemp("soak"))
    device_slot.record_facts()


def _with_one_image(cases: tuple[Case, ...]) -> list[Case]:
    found = [case for case in cases if len(case.every_image) == len(case.images) == 1]
    if not found:
        raise ConfigurationError("fixtures/cases.json has no case with one image for this model.")
    return found


@pytest.fixture
def benchmark_timings(
    request: pytest.FixtureRequest, vlm_model: ModelSpec
) -> Callable[[Sequence[Timed]], None]:
    """Hands timings to pytest-benchmark: `benchmark_timings(timings)`. Scope: function.

    pytest-benchmark then prints, stores and compares their `seconds` like its own measurements.
    They are replayed on a simulated clock; nothing is measured again.

    Raises:
        ConfigurationError: pytest-benchmark is not installed, or is disabled.
    """
    from ..observation.load import Timing

    if not request.config.pluginmanager.hasplugin("benchmark"):
        raise ConfigurationError(
            "this test needs pytest-benchmark: pip install 'pytest-ascend-vlm[perf]'"
        )
    if request.config.getoption("benchmark_disable"):
        raise ConfigurationError("pytest-benchmark is disabled; remove --benchmark-disable")

    def replay(timings: Sequence[Timed]) -> None:
        elapsed = 0.0
        seconds = iter([timing.seconds for timing in timings])

        def simulated_clock() -> float:
            return elapsed

        def advance_clock() -> None:
            nonlocal elapsed
            elapsed += next(seconds)

        if not timings:
            return
        request.node.add_marker(pytest.mark.benchmark(timer=simulated_clock))
        # Not before there is something to replay: pytest-benchmark warns of a fixture without use.
        benchmark: Any = request.getfixturevalue("benchmark")
        benchmark.pedantic(advance_clock, rounds=len(timings))
        benchmark.extra_info["model"] = vlm_model.model_id
        firsts = [timing.ttft_seconds for timing in timings if isinstance(timing, Timing)]
        benchmark.extra_info["ttft_seconds"] = firsts

    return replay


@pytest.fixture(scope="class")
def reference(
    request: pytest.FixtureRequest, model_session: ModelSession
) -> Iterator[ReferenceSession]:
    """The reference engine (Transformers on CPU), loaded on first use. Scope: class.

    `reference.answer(case)` runs the model again in bfloat16. Criteria that only need the recorded
    answer use `golden` instead, which is fast.

    Raises:
        CheckpointError: the weights are missing, incomplete, or of another revision.
    """
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
        on_progress=model_session.run.progress("reference engine"),
        untaught_reason=model_session.untaught_reason,
    )
    with contextlib.closing(reference):
        yield reference


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Judge:
    """Passes or fails the test by a verdict, and adds it to the report. Scope: function.

    `judge(verdict)` takes what `at_least`, `at_most` and `checklist` make. A test may judge
    several times; the first verdict that does not pass ends it.

    Example::

        def test_answer_is_short(self, answers, text_case, judge):
            length = len(answers(text_case).text)
            judge(at_most(length, 200, "characters", "length of the answer"))

    `judge.not_applicable(reason)` ends the test as not applicable, `judge.cannot_run(reason)` as
    skipped.

    Raises:
        CriterionFailed: the verdict does not pass. The message contains the measured value, the
            threshold, the details, and the docstring's text after "If this fails:".
        NoAnswer: an answer of this test is degenerate: NaN, one repeated symbol, a loop, or empty.
    """
    from ..criteria.criterion import documentation
    from ..session.judge import Judge
    from .criterion_call import call_of

    call = call_of(request.node)
    if call.judged is None:
        raise ConfigurationError(
            "take `judge` as an argument of the test: with request.getfixturevalue('judge') the "
            "report would have no row of the test."
        )
    # A test that sends no request needs neither a server nor goldens for its verdict.
    asks = "client" in request.fixturenames
    cases = request.getfixturevalue("all_cases") if asks else ()
    judge = Judge(
        criterion=call.judged,
        documentation=documentation(request.function),
        case_id=call.case_id,
        client=request.getfixturevalue("client") if asks else None,
        goldens=request.getfixturevalue("golden") if asks else None,
        cases={case.id: case for case in cases},
    )
    request.node.stash[JUDGE] = judge
    return judge


@pytest.fixture
def comparison(
    answers: Answers, golden: Goldens, judge: Judge, model_session: ModelSession
) -> Comparison:
    """The served answer to a case and the reference's: `comparison(case)`. Scope: function.

    Returns the pair (`Completion`, `Reference`), after a check that both sides saw the same prompt,
    token by token.

    Example::

        def test_similar(self, comparison, text_case, judge):
            served, reference = comparison(text_case)
            ratio = similarity(reference.text, served.text)
            judge(at_least(ratio, 0.9, "ratio", "similarity to the reference"))

    Raises:
        GoldenError: the golden is missing, damaged, or recorded for other inputs.
        PreconditionError: the two prompts differ.
        ServerError: the server refused the request, or died.
    """
    from ..session.comparison import Comparison

    return Comparison(answers, golden, judge, model_session.token_text)


@pytest.fixture(scope="class")
def text_tokenizer(model_session: ModelSession) -> TextTokenizer | None:
    """The checkpoint's tokenizer; None if it cannot be read on this host. Scope: class."""
    return model_session.text_tokenizer


@pytest.fixture(scope="class")
def all_cases(model_session: ModelSession) -> tuple[Case, ...]:
    """All cases that this checkpoint can be asked, except video cases. Scope: class."""
    from ..criteria.criterion import Cases

    return model_session.cases(Cases.STILL)


@pytest.fixture(scope="class")
def image_cases(model_session: ModelSession) -> tuple[Case, ...]:
    """All cases with an image that this checkpoint can be asked. Scope: class."""
    from ..criteria.criterion import Cases

    return model_session.cases(Cases.IMAGE)


@pytest.fixture(scope="class")
def any_image_cases(model_session: ModelSession) -> tuple[Case, ...]:
    """All cases with an image, for tests that need no right answer. Scope: class.

    They include cases that a tiny checkpoint was not taught.
    """
    from ..criteria.criterion import Cases

    return model_session.cases(Cases.IMAGE, untaught=True)


@pytest.fixture(scope="class")
def clip_cases(model_session: ModelSession) -> tuple[Case, ...]:
    """All cases with a lossless clip, for tests that need no right answer. Scope: class."""
    from ..criteria.criterion import Cases

    return model_session.cases(Cases.CLIP, untaught=True)


@pytest.fixture(scope="class")
def image_case(image_cases: tuple[Case, ...]) -> Case:
    """The first case with an image. Scope: class.

    Raises:
        ConfigurationError: the model has no such case.
    """
    if not image_cases:
        raise ConfigurationError("fixtures/cases.json has no case with an image for this model.")
    return image_cases[0]


@pytest.fixture(scope="class")
def text_case(model_session: ModelSession) -> Case:
    """The first case without an image. Scope: class.

    Raises:
        ConfigurationError: the model has no such case.
    """
    from ..criteria.criterion import Cases

    cases = model_session.cases(Cases.TEXT)
    if not cases:
        raise ConfigurationError("fixtures/cases.json has no text case for this model.")
    return cases[0]


@pytest.fixture(scope="class")
def long_case(all_cases: tuple[Case, ...]) -> Case:
    """The case with the largest `max_tokens`. Scope: class."""
    return max(all_cases, key=lambda case: case.max_tokens)


def keep_server_running(item: pytest.Item) -> None:
    """Restarts the server of a test if the server died, or if an earlier test ended it.

    A test with only a client needs no start here: the client starts the server when it sends its
    first request.
    """
    arguments: Mapping[str, Any] = getattr(item, "funcargs", {})
    slot, server = arguments.get("device_slot"), arguments.get("server")
    if slot is None or server is None:
        return
    from .criterion_call import call_of

    # Other projects may have fixtures of these names, in tests without a model.
    if call_of(item).model is None or server is not slot.server:
        return
    server.recover()
    if "server" in inspect.signature(item.function).parameters:  # type: ignore[attr-defined]
        server.ensure_running()


def _model_file(request: pytest.FixtureRequest) -> str:
    """The test file, relative to the directory that pytest was started in."""
    path = Path(request.path)
    with contextlib.suppress(ValueError):
        path = path.relative_to(request.config.invocation_params.dir)
    return str(path)


def _tests_that_run(request: pytest.FixtureRequest) -> Iterator[pytest.Item]:
    """The selected tests of the requesting class that really run, in order."""
    from .criterion_call import call_of
    from .replaced import really_runs

    for item in request.session.items:
        if call_of(item).suite_class is request.cls and really_runs(item):
            yield item


def _offline_tasks(request: pytest.FixtureRequest) -> frozenset[str]:
    """The offline tasks that the selected tests of the class need."""
    from .criterion_call import call_of

    criteria = (call_of(item).criterion for item in _tests_that_run(request))
    return frozenset(one.offline for one in criteria if one and one.offline)


def _cases_to_ask(request: pytest.FixtureRequest) -> tuple[Case, ...]:
    """The cases that the selected tests of the class will ask the reference, in order."""
    from .criterion_call import call_of

    asking = (
        call_of(item)
        for item in _tests_that_run(request)
        if "reference" in getattr(item, "fixturenames", ())
    )
    return tuple({call.case.id: call.case for call in asking if call.case is not None}.values())

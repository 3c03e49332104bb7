"""The fixtures of the criteria, for a user's own tests too.

They read `model` from the test's class, so they work in every subclass of `VLMConformance`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..errors import ConfigurationError
from ..spec import Case, ModelSpec
from .criterion import Criterion, documentation
from .run import RUN, Run
from .session import Answers, Goldens, Judge, Reference

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..engines.endpoint import Server

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
def server(request: pytest.FixtureRequest, vlm_run: Run, vlm_model: ModelSpec) -> Iterator[Server]:
    """The served model: started for the first test that needs it, stopped after the last."""
    log_name = f"{vlm_model.slug}-{request.cls.__name__}"
    with vlm_run.place(vlm_model) as place:
        server = vlm_run.server(vlm_model, log_name, place)
        try:
            server.start()
            yield server
        finally:
            server.stop()
            vlm_run.note_server(vlm_model, server, place)


@pytest.fixture(scope="class")
def client(server: Server, vlm_run: Run, vlm_model: ModelSpec) -> Iterator[Client]:
    """A connection to the served model that keeps what it answers."""
    from ..engines.client import Client

    with contextlib.closing(Client(server.endpoint, server.explain_loss)) as client:
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
    path = Path(request.path)
    with contextlib.suppress(ValueError):
        path = path.relative_to(request.config.invocation_params.dir)
    return Goldens(vlm_run.golden_store(str(path)), vlm_run.golden_key(vlm_model))


@pytest.fixture(scope="class")
def reference(vlm_run: Run, vlm_model: ModelSpec) -> Reference:
    """The reference engine, loaded on first use."""
    return Reference(
        engine=lru_cache(lambda: vlm_run.reference_engine(vlm_model)),
        recording=vlm_run.options.record,
        key=vlm_run.golden_key(vlm_model),
        golden_dir=vlm_run.options.golden_dir,
    )


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Judge:
    """Takes the test's verdict: `judge(verdict)`."""
    marker = request.node.get_closest_marker("vlm_criterion")
    what = marker.args[0] if marker else Criterion(f"own.{request.node.originalname}")
    names = request.fixturenames
    judge = Judge(
        criterion=what,
        documentation=documentation(request.function),
        case_id=case_id_of(request.node),
        client=request.getfixturevalue("client") if "client" in names else None,
        goldens=request.getfixturevalue("golden") if "golden" in names else None,
    )
    request.node.stash[JUDGE] = judge
    return judge


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


def case_id_of(item: pytest.Item) -> str | None:
    """The case or other parameter a test is asked with, as its id has it between brackets."""
    callspec = getattr(item, "callspec", None)
    return callspec.id if callspec is not None else None

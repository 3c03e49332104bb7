"""What a server lists about tokens: from its JSON, and over HTTP, to what is compared."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fakes.replay_server import LISTS_FEW, Behaviour, Defect, Knowledge, serve
from helpers.models import model_spec
from helpers.paths import FIXTURES, GOLDENS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_ascend_vlm import Capability, Case, Thresholds
from pytest_ascend_vlm.criteria import numerics as rules
from pytest_ascend_vlm.criteria.comparison import compare_logits
from pytest_ascend_vlm.criteria.error_statistics import ErrorStatistics
from pytest_ascend_vlm.engines import logprobs
from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.errors import PreconditionError, ServerError
from pytest_ascend_vlm.golden.store import GoldenKey, GoldenStore
from pytest_ascend_vlm.observation.numerics import Forced, ReferenceNumerics

Position = dict[str, dict[str, Any]]
CASE = "text/首都"
ANSWER = (7, 8)


def position(values: dict[int, float | None], ranks: tuple[int, ...] = ()) -> Position:
    """What is listed at a position, most likely first or with ranks of its own."""
    return {
        str(token): {"logprob": value, "rank": rank}
        for (token, value), rank in zip(
            values.items(), ranks or range(1, len(values) + 1), strict=True
        )
    }


def reply(*positions: Position | None) -> dict[str, Any]:
    """A response about a prompt that ends with the answer."""
    prompt = [*range(len(positions) + 1 - len(ANSWER)), *ANSWER]
    return {"prompt_token_ids": prompt, "prompt_logprobs": [None, *positions]}


def forced(*positions: Position, count: int = 1) -> Forced:
    return logprobs.forced(CASE, reply(*positions), ANSWER, count)


# --- raw logits or log-probabilities -------------------------------------------------------------

LOGITS = hnp.arrays(np.float64, (3, 5), elements=st.floats(-30, 30))


def positions_of(values: np.ndarray) -> list[Position]:
    return [position(dict(enumerate(row))) for row in values.tolist()]


@given(LOGITS)
def test_log_probabilities_are_taken_for_what_they_are(logits: np.ndarray) -> None:
    normal = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert not logprobs.scores(positions_of(normal)).are_logits
    assert not logprobs.scores(positions_of(normal[:, :2])).are_logits


@given(LOGITS, st.floats(0.01, 30))
def test_what_would_be_more_than_all_probability_is_raw_logits(
    logits: np.ndarray, excess: float
) -> None:
    logits[1] += excess - np.log(np.exp(logits[1]).sum())
    assert logprobs.scores(positions_of(logits)).are_logits


def test_a_sum_that_is_rounded_up_is_still_of_probabilities() -> None:
    assert not forced(
        *[position({1: math.log(0.5) + 2e-4, 2: math.log(0.5)})] * 2
    ).scores.are_logits


def test_an_answers_raw_logits_become_log_probabilities_and_those_stay() -> None:
    raw = logprobs.top_logprobs([{3: 20.0, 4: 20.0}, {3: 11.0, 4: None}])
    assert raw.at(0) == pytest.approx({3: math.log(0.5), 4: math.log(0.5)})
    assert raw.at(1) == pytest.approx({3: 0.0, 4: math.nan}, nan_ok=True)
    assert logprobs.top_logprobs([{3: -0.5, 4: -2.0}]).at(0) == {3: -0.5, 4: -2.0}


# --- from JSON to arrays -------------------------------------------------------------------------


def test_every_position_but_the_first_is_listed_most_likely_first() -> None:
    seen = forced(position({5: -3.0, 6: -0.1}), position({7: -0.2}), position({8: -0.1, 9: -3.0}))
    assert seen.case_id == CASE
    assert seen.top_k == 1
    assert seen.scores.token_ids.tolist() == [[6, 5], [7, -1], [8, 9]]
    assert seen.scores.values[[0, 2]].tolist() == [[-0.1, -3.0], [-0.1, -3.0]]
    assert np.isnan(seen.scores.values[1, 1])


def test_the_floor_is_the_least_of_the_likeliest_and_not_the_forced_tokens() -> None:
    far = position({7: -20.0, 1: -0.1, 2: -3.0}, ranks=(1000, 1, 2))
    near = position({8: -3.0, 1: -0.1}, ranks=(2, 1))
    scores = forced(far, near, count=2).scores
    assert scores.floor.tolist() == [-3.0, -3.0]
    assert scores.token_ids[0].tolist() == [1, 2, 7]


def test_no_number_becomes_nan_and_no_floor() -> None:
    scores = forced(position({1: -0.5, 2: None, 3: -3.0}), position({1: None})).scores
    values = dict(zip(scores.token_ids[0].tolist(), scores.values[0].tolist(), strict=True))
    assert values == pytest.approx({1: -0.5, 2: math.nan, 3: -3.0}, nan_ok=True)
    assert np.isnan(scores.values[1]).all()
    assert scores.floor == pytest.approx([-0.5, math.nan], nan_ok=True)
    assert not scores.are_logits


SOUND = position({1: -0.1})


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        ({}, "a proxy in between may drop them"),
        ({**reply(SOUND, SOUND), "prompt_logprobs": None}, "a proxy in between may drop them"),
        ({**reply(SOUND, SOUND), "prompt_token_ids": None}, "a proxy in between may drop them"),
        ({**reply(SOUND, SOUND), "prompt_token_ids": [0, 7, 9]}, "the same tokenizer and chat"),
        (reply(SOUND, None), "returned no logprobs for some positions"),
        (reply({}, SOUND), "returned no logprobs for some positions"),
        (reply(SOUND, SOUND), "asks for the 64 most likely tokens .* the server listed 1, "),
    ],
)
def test_what_cannot_be_compared_is_an_error_of_the_set_up(
    body: dict[str, Any], advice: str
) -> None:
    with pytest.raises(PreconditionError, match=rf"^{CASE}: .*{advice}"):
        logprobs.forced(CASE, body, ANSWER, 64)


# --- from a server -------------------------------------------------------------------------------

SPEC = model_spec(model_id="OpenDataLab/MinerU2.5-2509-1.2B")
BARS = rules.NumericsThresholds.of_logits(Thresholds())
CASES = ("text/capital-zh", "image/metrics")


def asked(name: str) -> Case:
    """A case as its golden was recorded."""
    document = json.loads((GOLDENS / SPEC.slug / "tiny" / f"{name}.json").read_text("utf-8"))
    inputs = document["inputs"]
    images = tuple(next(FIXTURES.rglob(image["name"])) for image in inputs["images"])
    needs = Capability.IMAGE if images else Capability.TEXT
    return Case(name, needs, inputs["prompt"], images, max_tokens=inputs["max_tokens"])


@contextlib.contextmanager
def client_of(
    knowledge: Knowledge, behaviour: Behaviour | None = None, *, raw_logits: bool = False
) -> Iterator[Client]:
    with serve(knowledge, behaviour, raw_logits=raw_logits) as url:
        endpoint = Endpoint(url, knowledge.model, "none")
        with contextlib.closing(Client(endpoint, lambda: None)) as client:
            yield client


def force(client: Client, name: str) -> tuple[Forced, ReferenceNumerics]:
    """What a server makes of a golden's answer, and the golden's numbers."""
    case = asked(name)
    golden = GoldenStore([GOLDENS], "").load(GoldenKey(SPEC, "tiny", None), case)
    assert golden.numerics is not None
    return client.force(case, golden.text, golden.numerics.token_ids), golden.numerics


def measured(client: Client) -> ErrorStatistics:
    return ErrorStatistics([compare_logits(*force(client, name)) for name in CASES])


@pytest.mark.parametrize("raw_logits", [False, True])
def test_a_server_that_gives_the_references_bf16_is_one_rounding_off(
    raw_logits: bool, knowledge: Knowledge
) -> None:
    with client_of(knowledge, raw_logits=raw_logits) as client:
        seen, _ = force(client, CASES[0])
        assert (seen.scores.are_logits, seen.top_k) == (raw_logits, 64)
        measures = measured(client)
    assert measures.images == 1
    assert measures.error_ratio.value == pytest.approx(1)
    assert measures.kl_ratio.value == pytest.approx(1)
    assert all(rule(measures, BARS).passed for rule in rules.LOGIT_RULES.values())


@pytest.mark.parametrize("defect", [Defect.LOGPROBS_ARE_NOISY, Defect.LOGPROBS_ARE_NAN])
def test_a_server_of_other_numbers_breaks_the_rules(defect: Defect, knowledge: Knowledge) -> None:
    with client_of(knowledge, defect.value) as client:
        measures = measured(client)
    assert not rules.judge_error_ratio(measures, BARS).passed
    assert not rules.judge_kl_ratio(measures, BARS).passed


def test_a_server_that_lists_twenty_tokens_is_asked_for_twenty(knowledge: Knowledge) -> None:
    with client_of(knowledge, LISTS_FEW) as client:
        seen, numerics = force(client, CASES[0])
        assert client.requests == 2
    assert seen.top_k == 20
    assert (seen.scores.token_ids >= 0).sum(axis=1).max() <= 21
    measures = ErrorStatistics([compare_logits(seen, numerics)])
    assert measures.comparisons[0].exact.shape[1] == 10
    assert all(rule(measures, BARS).passed for rule in rules.LOGIT_RULES.values())


def test_a_server_that_refuses_both_is_quoted(knowledge: Knowledge) -> None:
    with (
        client_of(knowledge, Defect.TEXT_GIVES_500.value) as client,
        pytest.raises(ServerError, match=r"text/capital-zh: .* 500 .*list index out of range"),
    ):
        force(client, CASES[0])


def test_a_server_that_drops_them_is_an_error_of_the_set_up(knowledge: Knowledge) -> None:
    with (
        client_of(knowledge, Defect.PROMPT_LOGPROBS_ARE_DROPPED.value) as client,
        pytest.raises(PreconditionError, match="returned no prompt_logprobs"),
    ):
        force(client, CASES[0])

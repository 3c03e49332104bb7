"""Workloads and published figures as a model file declares them, and the prompts they make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from helpers.models import model_spec
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm import Capability, Figure, Limit, Published, VLMConformance, Workload
from pytest_ascend_vlm.errors import ConfigurationError, PreconditionError
from pytest_ascend_vlm.session.random_words import words_of

VALID = {"name": "128/128", "requests": 10, "input_tokens": 128, "concurrency": 2}
TEXT_ONLY = {
    "supports": {Capability.TEXT},
    "unsupported": dict.fromkeys(set(Capability) - {Capability.TEXT}, "texts only"),
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "load.c8"}, "a name has letters, digits, _, -, + and / only"),
        ({"input_tokens": None}, "declare input_tokens, image_tokens, or both"),
        ({"concurrency": None}, "declare concurrency, request_rate, or both"),
        ({"requests": 0}, "requests=0 is no whole number above 0"),
        ({"input_tokens": 12.5}, "input_tokens=12.5 is no whole number above 0"),
        ({"request_rate": 0.0}, "request_rate=0.0 is no number of requests per second"),
        (
            {"goodput": {"latency": 500}},
            "goodput={'latency': 500}; write {'ttft': 500, 'tpot': 50}",
        ),
        ({"goodput": {"ttft": -1}}, "goodput={'ttft': -1}"),
        ({"name": None}, "a name has letters, digits, _, -, + and / only"),
        ({"requests": "24"}, "requests='24' is no whole number above 0. Write requests=24."),
        ({"requests": None}, "requests=None is no whole number above 0"),
        ({"requests": True}, "requests=True is no whole number above 0"),
        ({"output_tokens": None}, "output_tokens=None is no whole number above 0"),
        ({"request_rate": "fast"}, "above 0. Write request_rate=2.5."),
        ({"request_rate": True}, "request_rate=True is no number of requests per second"),
        ({"goodput": {"ttft": "500"}}, "goodput={'ttft': '500'}; write {'ttft': 500, 'tpot': 50}"),
        ({"goodput": 500}, "goodput=500; write {'ttft': 500, 'tpot': 50}"),
        ({"goodput": None}, "goodput=None; write {'ttft': 500, 'tpot': 50}"),
    ],
)
def test_a_workload_that_cannot_be_sent_is_refused(changes: dict[str, Any], said: str) -> None:
    Workload(**VALID)
    with pytest.raises(ConfigurationError, match=re.escape(said)) as raised:
        Workload(**VALID | changes)
    assert "Workload(" in str(raised.value)


def test_no_two_workloads_share_their_files() -> None:
    names = {Workload(**VALID | {"name": name}).log_name for name in ("a/b", "a-b", "a+b", "a_b")}
    assert len(names) == 4
    assert not any("/" in name for name in names)


BATCHES = {"name": "8x", "requests": 24, "tool": "latency", "input_tokens": 32, "concurrency": 8}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tool": "startup"}, "tool='startup' is none of serve, latency, throughput"),
        ({"input_tokens": None}, "gives texts to an offline engine: declare input_tokens"),
        ({"image_tokens": 640}, "and no image_tokens, request_rate or goodput"),
        ({"request_rate": 1.0}, "and no image_tokens, request_rate or goodput"),
        ({"goodput": {"ttft": 500}}, "and no image_tokens, request_rate or goodput"),
        ({"concurrency": None}, "declare concurrency, and a multiple of it as requests"),
        ({"requests": 20}, "declare concurrency, and a multiple of it as requests"),
        ({"requests": "24"}, "requests='24' is no whole number above 0. Write requests=24."),
        ({"requests": None}, "requests=None is no whole number above 0"),
        ({"concurrency": "4"}, "concurrency='4' is no whole number above 0"),
        ({"tool": "throughput"}, "gives the engine all requests at once: no concurrency"),
    ],
)
def test_a_workload_that_no_offline_engine_gets_is_refused(
    changes: dict[str, Any], said: str
) -> None:
    assert Workload(**BATCHES).batch == 8
    assert Workload("all", 24, tool="throughput", input_tokens=32).batch == 24
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        Workload(**BATCHES | changes)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"workloads": (Workload(**VALID), Workload(**VALID))}, "two workloads have the name"),
        (
            {"workloads": (Workload("page", 3, image_tokens=256, concurrency=1),), **TEXT_ONLY},
            "the workload 'page' has pages, but Capability.IMAGE is unsupported",
        ),
    ],
)
def test_a_workload_of_another_model_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        model_spec(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"workload": "128/128"},
        {"statistic": "latency.mean"},
        {"name": "DocVQA"},
        {"unmeasured": "it is secret"},
        {"metric": "start", "workload": "128/128", "statistic": "latency.mean"},
        {"metric": "start", "name": "start"},
    ],
)
def test_a_figure_names_one_measured_number_or_the_reason(fields: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="needs workload and statistic, or metric, or"):
        Figure(71.5, "ms", **fields)


@pytest.mark.parametrize(
    ("workload", "statistic"),
    [
        ("128/256", "latency.mean"),
        ("128/128", "latency.p42"),
        ("128/128", "speed"),
        ("128/128", "total_throughput"),
        ("8x", "ttft.mean"),
        ("8x", "total_throughput"),
    ],
)
def test_a_figure_or_limit_of_nothing_that_is_measured_is_refused(
    workload: str, statistic: str
) -> None:
    figure = Figure(71.5, "ms", workload=workload, statistic=statistic)
    limit = Limit(f"workload.{workload}.{statistic}", 0.5, device="910B4")
    wrong = ({"published": Published("a document", figures=(figure,))}, {"limits": (limit,)})
    for fields in wrong:
        model = model_spec(workloads=(Workload(**VALID), Workload(**BATCHES)), **fields)
        with pytest.raises(ConfigurationError, match="no metric has that name"):
            type("TestIt", (VLMConformance,), {"model": model})


def test_figures_and_limits_of_a_workload_are_accepted() -> None:
    figure = Figure(71.5, "ms", workload="128/128", statistic="latency.p99")
    of_batches = Figure(500, "ms", workload="8x", statistic="latency.mean")
    limit = Limit("workload.128/128.output_throughput", 300, device="910B4")
    published = Published("a document", figures=(figure, of_batches))
    workloads = (Workload(**VALID), Workload(**BATCHES))
    model = model_spec(workloads=workloads, published=published, limits=(limit,))
    type("TestIt", (VLMConformance,), {"model": model})


# --- prompts -------------------------------------------------------------------------------------


@given(tokens=st.integers(60, 600), template=st.integers(0, 40), each=st.integers(1, 5))
def test_words_make_a_prompt_of_about_as_many_tokens(tokens: int, template: int, each: int) -> None:
    def count(words: Sequence[str]) -> int:
        # As in a tokenizer: a short word is one token, and longer ones have one or several.
        return template + sum(1 + len(word) % each if len(word) > 1 else 1 for word in words)

    found = count(words_of(tokens, count))
    assert abs(found - tokens) <= max(0.02 * tokens, 4)


def test_words_of_one_token_make_exactly_as_many() -> None:
    for tokens in (32, 128, 200):
        words = words_of(tokens, lambda words: 20 + len(words))
        assert len(words) == tokens - 20


def test_a_template_that_is_longer_than_the_prompt_is_an_error() -> None:
    with pytest.raises(PreconditionError, match="no text makes a prompt of 16 tokens"):
        words_of(16, lambda words: 30 + len(words))

"""The suite against servers of known quality: the good server passes, each bad one fails."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import test_any_request
import test_bad_files
from fakes.replay_server import (
    Behaviour,
    Defect,
    Knowledge,
    Refused,
    Request,
    State,
    read_goldens,
    serve,
)
from helpers.goldens import ENGINE, answer
from helpers.host import HAS_NPU
from helpers.models import criteria, few_cases, model_file
from helpers.outcome import Judged, Row, Serve
from helpers.paths import CHECKPOINT, FIXTURES, NOBODY, SLUG
from PIL import Image

from pytest_ascend_vlm import Capability, ModelSpec, VLMConformance
from pytest_ascend_vlm.criteria.criterion import VARIANT, documentation
from pytest_ascend_vlm.golden.recorder import record
from pytest_ascend_vlm.golden.store import GoldenKey
from pytest_ascend_vlm.spec.case_files import load_cases
from pytest_ascend_vlm.suite.serving import _unsupported_probes

# Criteria that need a server started by the suite, so a running endpoint cannot be judged by them.
# test_own_servers.py and test_simulated_npu.py start bad servers.
NOT_ON_AN_ENDPOINT = {
    "serving.ready",
    "serving.offline",
    "determinism.preemption",
    "determinism.restart",
    "lifecycle.stop",
    "lifecycle.kill",
    "recovery.stopped_engine",
    "recovery.killed_engine",
    "numerics.hidden_states",
    "numerics.transformers",
    "numerics.fp32_probe",
    "equivalence.graphs",
    "equivalence.full_decode_only",
    "equivalence.no_prefix_cache",
    "numerics.borders",
}
# Criteria that a document parser does not support; test_bad_answers.py tests another model.
NOT_OF_MINERU = {
    "serving.video",
    "baseline.frames",
    "numerics.clips",
    "tasks.clip",
    *(f"tasks.{name}" for name in ("scene_text", "document", "chart", "reasoning", "chinese")),
    "tasks.grounding",
    # It takes one image, and its tiny checkpoint reads pages only.
    "baseline.order",
    "tasks.size",
    "tasks.order",
    # test_tools.py has a model that declares its parser of tool calls.
    "parameters.tools",
}
# Criteria of which the server of these tests refuses every parameter.
NOT_OF_THE_SERVER = {"parameters.choice", "parameters.form", "parameters.sampled"}
# Criteria that run only if -m names their marker.
ONLY_WHERE_NAMED = {
    name
    for name in criteria()
    if name.startswith(("reference.", "performance.", "ladder.", "grid.", "growth.", "dataset."))
}

PAGE = {"document.characters", "document.lines", "document.numbers", "document.order"}
NUMERIC = {"baseline.divergence", "baseline.logprobs"}
READINGS = {"serving.encodings", "serving.formats", "serving.urls"}
LOGITS = {"baseline.logprobs", "numerics.logits", "numerics.images"}
# Criteria that compare images with the reference.
COMPARED = {
    "numerics.logits",
    "numerics.tokens",
    "numerics.images",
    "numerics.answers",
    "determinism.cold",
    "determinism.batched_images",
}
# The tests that take nearly half of a run. They are asked only of servers that the table names
# them for, and of those that break nearly everything. That they hold on a sound server is tested
# once.
SLOW = {
    "determinism.cold": "computed_again",
    "determinism.batched_images": "images_together",
    "determinism.concurrent": "concurrent_runs",
    "numerics.long_answer": "long_generation",
    "serving.image_sizes": "image_sizes",
}
PICTURES = "image_sizes or largest_image"
LEFT = "leaves] or leaves_early or twenty_leave"
TRACES_OF_A_TRACEBACK = re.compile(r"Traceback \(most recent|^E  |\.py:\d+: ", re.MULTILINE)


@dataclass(frozen=True)
class Caught:
    """The expected outcome of a defect.

    Attributes:
        fails: exactly the criteria that fail.
        errors: exactly the criteria that have an error.
        green: criteria that must not fail. It is set for a defect that breaks nearly everything;
            `fails` is then only a part of the failing criteria.
        only: a `-k` expression; by default all tests run with a few cases, but for slow ones.
    """

    fails: set[str] = field(default_factory=set)
    errors: set[str] = field(default_factory=set)
    green: set[str] | None = None
    only: str = ""

    @property
    def asked(self) -> str:
        """The `-k` expression of the tests that judge the server."""
        if self.only:
            return self.only
        if self.green is not None:
            return few_cases()
        named = self.fails | self.errors
        left_out = [test for criterion, test in SLOW.items() if criterion not in named]
        return " and ".join([few_cases(), *(f"not {test}" for test in left_out)])


CAUGHT = {
    Defect.NAME_NOT_LISTED: Caught({"serving.models"}),
    Defect.TEXT_GIVES_500: Caught(
        # The tokens of an image are unknown if the request without the image is refused.
        {
            "serving.text",
            "serving.prompt_text",
            "serving.image",
            "serving.unsupported",
            "baseline.prompt",
        },
        errors={
            "serving.bad_input",
            "serving.odd_input",
            "serving.streaming",
            "baseline.text",
            *NUMERIC,
            "numerics.logits",
            "numerics.tokens",
            "numerics.answers",
            "numerics.long_answer",
            "determinism.repeat",
            "determinism.seeded",
            "determinism.unsure",
            "determinism.concurrent",
            "determinism.restart",
        },
    ),
    Defect.USAGE_DOES_NOT_ADD_UP: Caught({"serving.text", "serving.image"}),
    Defect.NO_FINISH_REASON: Caught({"serving.text", "serving.image", "serving.limits"}),
    # A prompt without its image has another length, so it is not compared with the reference.
    Defect.IMAGE_COSTS_NOTHING: Caught(
        {"serving.image", "serving.image_sizes", "baseline.prompt"},
        errors={
            "baseline.image",
            *NUMERIC,
            *PAGE,
            *COMPARED,
            "determinism.prefix_cache",
            *READINGS,
        },
    ),
    Defect.WEBP_READ_WRONGLY: Caught({"serving.encodings"}),
    Defect.DROPS_PARAMETERS: Caught(
        {
            "parameters.greedy",
            "parameters.sampled",
            "parameters.end",
            "parameters.choice",
            "parameters.form",
        },
        only="parameters",
    ),
    Defect.STREAM_LOSES_ITS_END: Caught({"serving.streaming"}),
    Defect.STREAM_COUNTS_ANOTHER_PROMPT: Caught({"serving.streaming"}, only="stream_adds_up"),
    Defect.STREAM_LACKS_LOGPROBS: Caught({"serving.streaming"}, only="stream_adds_up"),
    Defect.STREAM_HALVES_LOGPROBS: Caught({"serving.streaming"}, only="stream_adds_up"),
    Defect.STREAM_IS_BUFFERED: Caught({"serving.streaming"}),
    Defect.STREAMS_LOSE_PIECES_IN_COMPANY: Caught({"determinism.concurrent"}),
    Defect.STREAM_BREAKS_CHARACTERS: Caught({"serving.streaming"}),
    Defect.IGNORES_MAX_TOKENS: Caught({"serving.limits"}),
    Defect.IGNORES_STOP: Caught({"serving.limits"}),
    Defect.IGNORES_N: Caught({"serving.limits"}),
    Defect.USAGE_COUNTS_ONE_OF_N: Caught({"serving.limits"}),
    Defect.STREAM_HAS_ONE_ANSWER: Caught({"parameters.greedy"}, only="keep_greedy"),
    Defect.STREAM_JOINS_ANSWERS: Caught({"parameters.greedy"}, only="keep_greedy"),
    # Such an endpoint may lack --limit-mm-per-prompt; test_own_servers.py has these two with it.
    Defect.ANSWERS_TOO_MANY_IMAGES: Caught(errors={"serving.multi_image"}),
    Defect.ANSWERS_VIDEO: Caught(errors={"serving.unsupported"}),
    Defect.BAD_IMAGE_GIVES_500: Caught({"serving.bad_input"}),
    Defect.BAD_IMAGE_KILLS_ENGINE: Caught(
        # The first bad image ends the engine, so the other bad requests get no reply.
        {"serving.bad_input"},
        errors={"serving.bad_input"},
        only="bad_input",
    ),
    # The first row ends the engine, so the second one gets no reply.
    Defect.WRITTEN_TOKENS_KILL_ENGINE: Caught(
        {"serving.odd_input"}, errors={"serving.odd_input"}, only="odd_input"
    ),
    # These compare the smallest image, among others.
    Defect.SMALL_PICTURES_GIVE_500: Caught(
        {"serving.image_sizes"}, errors={"determinism.cold", "determinism.batched_images"}
    ),
    Defect.SIXTEEN_BITS_GIVE_500: Caught({"serving.image_sizes"}, only="image_sizes"),
    Defect.SIDES_ARE_CUT: Caught({"serving.image_sizes"}),
    Defect.TOO_THIN_PICTURES_ARE_ANSWERED: Caught({"serving.image_sizes"}, only="image_sizes"),
    Defect.TOO_THIN_PICTURES_GIVE_500: Caught({"serving.image_sizes"}, only="image_sizes"),
    Defect.LARGE_PICTURES_GIVE_500: Caught({"serving.largest_image"}, only=PICTURES),
    Defect.LARGE_PICTURES_KILL_ENGINE: Caught({"serving.largest_image"}, only=PICTURES),
    Defect.LARGE_PICTURES_ARE_GARBLED_AT_FIRST: Caught({"serving.largest_image"}, only=PICTURES),
    Defect.ABORTED_REQUESTS_STAY: Caught({"recovery.request"}, only=LEFT),
    Defect.ABORTED_UNSTREAMED_REQUESTS_STAY: Caught({"recovery.request"}, only=LEFT),
    Defect.ABORTED_PREFIX_IS_WRONG: Caught({"recovery.request"}, only=LEFT),
    Defect.ABORTED_STATE_STAYS: Caught({"recovery.request"}, only=LEFT),
    Defect.TOO_LONG_SPOILS_ITS_IMAGE: Caught({"recovery.request"}, only="too_long]"),
    Defect.BAD_FILE_SPOILS_IMAGES: Caught({"recovery.request"}, only="corrupt_file"),
    Defect.HANGING_URL_BLOCKS_ALL: Caught({"recovery.request"}, only="url_hangs"),
    Defect.TEXTS_ARE_NORMALIZED: Caught({"serving.prompt_text"}),
    Defect.TEXTS_ARE_ESCAPED: Caught({"serving.prompt_text"}),
    Defect.EMPTY_LINES_ARE_LOST: Caught({"serving.prompt_text"}, only="prompt_text"),
    Defect.EMOJI_ARE_LOST: Caught({"serving.prompt_text"}, only="prompt_text"),
    Defect.UNKNOWN_MODEL_IS_ANSWERED: Caught({"serving.bad_input"}),
    Defect.LONG_PROMPT_GIVES_500: Caught({"serving.bad_input"}),
    Defect.ERRORS_ARE_PLAIN_TEXT: Caught({"serving.bad_input"}),
    Defect.SECOND_RUN_DIFFERS: Caught(
        {
            "determinism.repeat",
            "determinism.seeded",
            "determinism.concurrent",
            "determinism.prefix_cache",
            "determinism.next_turn",
            "determinism.batched_images",
            "determinism.unsure",
        }
    ),
    Defect.IGNORES_SEED: Caught({"determinism.seeded"}),
    Defect.ONE_SEED_FOR_ALL_ANSWERS: Caught({"determinism.seeded"}),
    # If all answers are equal, an ignored seed cannot be detected, so there is no verdict.
    Defect.ONE_SEED_FOR_ALL: Caught(errors={"determinism.seeded"}),
    Defect.SAMPLES_GREEDILY: Caught(errors={"determinism.seeded"}),
    Defect.COMPANY_CHANGES_ANSWER: Caught({"determinism.concurrent", "determinism.batched_images"}),
    Defect.STOP_STRINGS_END_OTHER_ANSWERS: Caught(
        {"parameters.together"}, only="parameters or concurrent_runs"
    ),
    # Most other requests are cold, so they do not use the cache.
    Defect.CACHE_IGNORES_IMAGE: Caught({"determinism.prefix_cache", "serving.image_sizes"}),
    Defect.SAMPLES_A_GREEDY_REQUEST: Caught({"determinism.unsure", "determinism.next_turn"}),
    Defect.NUMBERS_CHANGE_A_LITTLE: Caught({"determinism.cold"}),
    Defect.ONE_TOKEN_IS_OFF: Caught({"numerics.tokens"}),
    Defect.GENERATED_BLOCKS_ARE_WRONG: Caught({"determinism.next_turn"}),
    Defect.CACHE_IGNORES_SALT: Caught(
        errors={
            "determinism.repeat",
            "determinism.concurrent",
            "determinism.prefix_cache",
            "determinism.next_turn",
        }
    ),
    Defect.CACHE_IS_NOT_TOLD: Caught(errors={"determinism.prefix_cache"}),
    Defect.TEXT_OFF_BY_ONE_TOKEN: Caught(
        {"baseline.text", "baseline.divergence", "numerics.answers"}
    ),
    # Pages of another size have another prompt, which is an error.
    Defect.ANOTHER_PAGE_IS_READ: Caught(
        {"baseline.image", *NUMERIC, *PAGE, "numerics.images", "numerics.answers"},
        errors=COMPARED - {"numerics.answers", "numerics.images"},
    ),
    # Every text is right, but the log-probabilities are wrong.
    Defect.LOGPROBS_ARE_NOISY: Caught(
        {*LOGITS, "numerics.tokens", "numerics.answers", "numerics.long_answer"}
    ),
    # The answer ends where it always does, so nothing far behind the prompt was computed.
    Defect.IGNORES_IGNORE_EOS: Caught(errors={"numerics.long_answer"}),
    Defect.LONG_ANSWERS_GO_WRONG: Caught({"numerics.long_answer"}),
    Defect.PROMPT_LOGPROBS_ARE_DROPPED: Caught(
        errors={*LOGITS, *COMPARED, *READINGS, "numerics.long_answer"}
    ),
    # The likeliest tokens differ least, so the means over short lists would be too small.
    Defect.LISTS_ARE_CUT: Caught(errors={"numerics.answers", "numerics.long_answer"}),
    Defect.PROMPT_LISTS_ARE_CUT: Caught(
        errors={*LOGITS, *COMPARED, *READINGS, "numerics.long_answer"}
    ),
    Defect.LINES_ARE_SWAPPED: Caught(
        {
            "baseline.image",
            "baseline.divergence",
            "document.characters",
            "document.order",
            "numerics.answers",
        }
    ),
    Defect.A_DIGIT_IS_WRONG: Caught(
        {"baseline.image", "baseline.divergence", "numerics.answers", *PAGE - {"document.order"}}
    ),
    # A sampled answer has one line, so each is empty, and an ignored seed could not be detected.
    Defect.LAST_LINE_IS_LOST: Caught(
        {"baseline.image", "baseline.divergence", "numerics.answers", *PAGE},
        errors={"determinism.seeded"},
    ),
    # Another prompt is one finding; all that compares answers is an error then.
    Defect.PROMPT_IS_LONGER: Caught(
        {"baseline.prompt", "serving.image_sizes"},
        errors={
            "baseline.text",
            "baseline.image",
            *NUMERIC,
            *PAGE,
            *COMPARED,
            "numerics.long_answer",
        },
    ),
    # The prompt is the reference's; only the reported length is wrong.
    Defect.USAGE_IS_TOO_LOW: Caught({"serving.text", "serving.image", "baseline.prompt"}),
    Defect.USAGE_HIDES_AN_ANSWERS_END: Caught({"serving.text", "serving.image", "serving.limits"}),
    # Texts and forced log-probabilities are right.
    Defect.LOGPROBS_OF_THE_NEXT_TOKEN: Caught(
        {"serving.text", "serving.image", "numerics.answers", "numerics.long_answer"}
    ),
    # The lists are right; only the entries beside them are wrong.
    Defect.ENTRY_OF_ANOTHER_TOKEN: Caught({"serving.text", "serving.image"}),
    Defect.NUMBER_OF_ANOTHER_TOKEN: Caught({"serving.text", "serving.image"}),
    Defect.LOGPROBS_ARE_NAN: Caught(
        {
            "serving.text",
            "serving.image",
            "baseline.text",
            "baseline.image",
            *PAGE,
            *LOGITS,
            "determinism.repeat",
        },
        green={"serving.models"},
    ),
    Defect.EXCLAMATION_MARKS: Caught(
        {"serving.text", "serving.image", "baseline.text", "baseline.image", *PAGE},
        green={"serving.models"},
    ),
    Defect.ENDLESS_LOOP: Caught(
        {"serving.text", "serving.image", "baseline.text", "baseline.image", *PAGE},
        green={"serving.models", "serving.multi_image"},
    ),
    Defect.EMPTY_ANSWER: Caught(
        {"serving.text", "serving.image", "baseline.text", "baseline.image", *PAGE},
        green={"serving.models"},
    ),
}
# The degeneration guard catches these before a criterion's own rule runs.
GUARDED = {
    Defect.STREAM_BREAKS_CHARACTERS,
    Defect.LOGPROBS_ARE_NAN,
    Defect.EXCLAMATION_MARKS,
    Defect.ENDLESS_LOOP,
    Defect.EMPTY_ANSWER,
}
KILLER = Defect.BAD_IMAGE_KILLS_PROCESS
OF_CLIPS = {
    Defect.FRAMES_ARE_REVERSED,
    Defect.A_FRAME_IS_REPEATED,
    Defect.FRAMES_ARE_DROPPED,
    Defect.TIMES_ARE_ASSUMED,
}


def test_a_good_server_meets_every_criterion(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub())
    assert outcome.result.ret == 0
    assert not outcome.criteria("fail") | outcome.criteria("error")
    assert outcome.criteria("skip") == NOT_ON_AN_ENDPOINT
    unasked = {"own.test_two_step_parsing"}
    assert outcome.criteria_of_nothing_else("na") == NOT_OF_MINERU | NOT_OF_THE_SERVER | unasked
    assert outcome.criteria("pass") == judged_here()
    expected = [row["case"] for row in outcome.rows if row["status"] == "xfail"]
    assert expected == ["gigapixel-image"]
    count, more = len(judged_here()), len(NOT_ON_AN_ENDPOINT)
    last = outcome.text.splitlines()[-1]
    told = f"{count - 1} of {count + more} criteria verified on http://127.0.0.1:"
    assert last.startswith(told)
    assert "; 1 with expected failures" in last


def judged_here() -> set[str]:
    """The criteria that judge MinerU behind an endpoint."""
    unjudged = NOT_ON_AN_ENDPOINT | NOT_OF_MINERU | NOT_OF_THE_SERVER | ONLY_WHERE_NAMED
    return criteria().keys() - unjudged - {VARIANT}


def test_every_defect_is_in_the_table() -> None:
    # test_bad_answers.py has several images, test_bad_clips.py has clips
    elsewhere = {KILLER, Defect.IMAGES_ARE_REVERSED, *OF_CLIPS, *test_bad_files.DEFECTS}
    elsewhere |= {*test_any_request.CAUGHT, Defect.DIES_OF_AN_IMAGE_AFTER_A_CLIENT_LEFT}
    elsewhere |= {Defect.A_CROWD_CHANGES_ANSWERS}  # test_ladder.py
    # test_growth.py and test_own_servers.py send many images
    elsewhere |= {
        Defect.IMAGES_ARE_KEPT,
        Defect.IMAGES_OF_REFUSED_REQUESTS_ARE_KEPT,
        Defect.IMAGES_OF_ABORTED_REQUESTS_ARE_KEPT,
        Defect.EVICTED_IMAGES_ARE_CONFUSED,
    }
    assert CAUGHT.keys() | elsewhere == set(Defect)


def marked(defect: Defect) -> Any:
    """A row of the table, with the criteria whose own rules catch it."""
    own = set() if defect in GUARDED else CAUGHT[defect].fails
    return pytest.param(defect, marks=pytest.mark.catches(*own))


@pytest.mark.parametrize("defect", [*map(marked, CAUGHT)], ids=lambda defect: defect.name)
def test_a_bad_server_is_caught_by_what_should_catch_it(
    defect: Defect, stub: Serve, judged: Judged
) -> None:
    caught = CAUGHT[defect]
    outcome = judged(stub(defect.value), "-k", caught.asked)
    if caught.green is None:
        assert outcome.criteria("fail") == caught.fails
        assert outcome.criteria("error") == caught.errors
    else:
        assert caught.fails <= outcome.criteria("fail")
        assert not caught.green & (outcome.criteria("fail") | outcome.criteria("error"))
    assert outcome.result.ret == 1
    assert not TRACES_OF_A_TRACEBACK.search(outcome.text)
    for row in outcome.rows:
        if row["status"] == "fail":
            assert_is_a_review(row)


def assert_is_a_review(row: Row) -> None:
    """Asserts that a failure contains the case, the measured value and the threshold."""
    reason = row["reason"]
    assert reason.startswith(row["criterion"])
    if " is degenerate: " in reason:
        assert "What to try: " in reason
        return
    case = f" [{row['case']}]" if row["case"] else ""
    assert reason.startswith(f"{row['criterion']}{case}: ")
    measured, threshold = float(row["measured"]), float(row["threshold"])
    assert f"\n  measured {measured:.4g} {row['unit']}, at " in reason
    assert f" {threshold:.4g} is required (margin " in reason


@pytest.mark.parametrize(("criterion", "name"), criteria().items(), ids=criteria())
def test_every_criterion_says_what_to_try(criterion: str, name: str) -> None:
    documented = documentation(getattr(VLMConformance, name))
    assert documented.text
    assert documented.if_this_fails, f"{criterion} would fail without advice"
    assert "If this fails" not in documented.text


def test_a_process_that_a_bad_image_kills_leaves_nothing_green(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(KILLER.value), "-k", "bad_input")
    assert not outcome.criteria("pass")
    assert outcome.criteria("fail") | outcome.criteria("error") == {"serving.bad_input"}
    assert not TRACES_OF_A_TRACEBACK.search(outcome.text)


def test_the_first_wrong_character_is_pointed_at(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Defect.TEXT_OFF_BY_ONE_TOKEN.value), "-k", "text_matches and zh")
    for reason in outcome.reasons("baseline.text"):
        expected, got, mark = re.findall(r"^  +(?:expected|got): (.*)|(\^ first)", reason, re.M)[:3]
        assert expected[0] != got[0]
        assert mark[1] == "^ first"


LOOP = "the page " * 30


@pytest.fixture
def looping(project: pytest.Pytester) -> Knowledge:
    """Answers of a model that, like its reference, loops until the limit on one case."""
    model = ModelSpec("OpenDataLab/MinerU2.5-2509-1.2B", supports=frozenset(Capability))
    key = GoldenKey(model, "tiny", None)
    case = next(case for case in load_cases((FIXTURES,)) if case.id == "text/capital")
    record(project.path / "golden", key, case, answer(LOOP, case.id), ENGINE)
    return read_goldens(project.path / "golden" / SLUG / "tiny", FIXTURES, CHECKPOINT)


@pytest.mark.parametrize("name", ["text_is_answered", "stream_adds_up", "repeat_runs"])
def test_a_loop_of_the_reference_is_excused_by_every_criterion(
    name: str, looping: Knowledge, judged: Judged
) -> None:
    # Only the guard reads the golden in these tests.
    with serve(looping) as url:
        outcome = judged(url, "-k", f"{name} and capital]")
    assert {row["status"] for row in outcome.rows} == {"pass"}, outcome.text


def test_a_loop_of_another_case_excuses_nothing(looping: Knowledge, judged: Judged) -> None:
    with serve(looping, Defect.ENDLESS_LOOP.value) as url:
        outcome = judged(url, "-k", "text_is_answered and (capital] or sum])")
    status = {row["case"]: row["status"] for row in outcome.rows}
    assert status == {"text/capital": "pass", "text/sum": "fail"}


@pytest.mark.parametrize("golden", [None, "{"], ids=["missing", "damaged"])
def test_without_a_golden_a_loop_is_judged_and_no_error(
    golden: str | None, project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    path = project.path / "golden" / SLUG / "full" / "text" / "sum.json"
    path.parent.mkdir(parents=True)
    if golden:
        path.write_text(golden, "utf-8")
    url = stub(Defect.ENDLESS_LOOP.value)
    outcome = judged(url, "-k", "text_is_answered and sum]", checkpoint="full")
    assert outcome.criteria("fail") == {"serving.text"}, outcome.text
    good = judged(stub(), "-k", "text_is_answered and sum]", checkpoint="full")
    assert good.criteria("pass") == {"serving.text"}


@pytest.mark.parametrize("before", ["", "text_is_answered or "])
def test_an_answer_is_guarded_whoever_asked_for_it_first(
    before: str, stub: Serve, judged: Judged
) -> None:
    asked = f"({before}text_matches) and capital]"
    outcome = judged(stub(Defect.LOGPROBS_ARE_NAN.value), "-k", asked)
    assert "baseline.text" in outcome.criteria("fail"), outcome.text


OWN_VERDICT = """
from pytest_ascend_vlm.criteria.verdict import at_least

class TestNothingServed:
    def test_mine(self, judge):
        judge(at_least(1.0, 1.0, "rate", "no server and no model is needed for a verdict"))
"""


def test_a_verdict_of_a_users_own_needs_neither_server_nor_goldens(
    project: pytest.Pytester, judged: Judged
) -> None:
    project.makepyfile(test_mine=OWN_VERDICT)
    judged(NOBODY, "test_mine.py").result.assert_outcomes(passed=1)


def test_a_key_is_sent_and_never_shown(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_SERVER_API_KEY", "sk-very-secret")
    outcome = judged(stub(key="sk-very-secret"), "-k", "models or text_is_answered")
    assert outcome.criteria("pass") == {"serving.models", "serving.text"}
    written = [path.read_text("utf-8") for path in outcome.directory.iterdir()]
    assert not any("sk-very-secret" in text for text in [outcome.text, *written])


OWN_DETERMINISM = """
    @pytest.mark.determinism(runs=3)
    def test_mine(self, client, text_case):
        return client.complete(text_case)
"""


def test_a_users_own_determinism_test_passes_where_answers_repeat(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, OWN_DETERMINISM)
    outcome = judged(stub(), "-k", "mine", "test_own_model.py")
    outcome.result.assert_outcomes(
        passed=1, deselected=outcome.result.parseoutcomes()["deselected"]
    )


def test_a_users_own_determinism_test_fails_where_answers_alternate(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, OWN_DETERMINISM)
    outcome = judged(stub(Defect.SECOND_RUN_DIFFERS.value), "-k", "mine", "test_own_model.py")
    assert outcome.result.parseoutcomes()["failed"] == 1
    assert "run 2 of 3 differs from the first" in outcome.text
    assert "^ first difference" in outcome.text
    assert not TRACES_OF_A_TRACEBACK.search(outcome.text)


def test_a_determinism_test_that_returns_nothing_is_told_so(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    project.makepyfile(
        test_mine="import pytest\n\n@pytest.mark.determinism(2)\ndef test_mine():\n    pass\n"
    )
    outcome = judged(stub(), "test_mine.py")
    assert outcome.result.parseoutcomes()["errors"] == 1
    assert "so it must return the completion" in outcome.text


@pytest.mark.skipif(HAS_NPU, reason="this machine has an NPU")
def test_without_an_npu_a_users_npu_test_is_skipped_with_the_reason(
    project: pytest.Pytester, judged: Judged
) -> None:
    project.makepyfile(test_mine="import pytest\n\n@pytest.mark.npu\ndef test_mine():\n    1 / 0\n")
    outcome = judged(None, "-rs", "test_mine.py")
    outcome.result.assert_outcomes(skipped=1)
    assert "there is no Ascend NPU" in outcome.text
    assert "criteria verified" not in outcome.text


@pytest.mark.skipif(HAS_NPU, reason="this machine has an NPU")
def test_without_an_npu_no_criterion_counts_as_verified(judged: Judged) -> None:
    outcome = judged(None, "-k", few_cases())
    skipped = judged_here() | NOT_ON_AN_ENDPOINT | {"own.test_two_step_parsing"}
    # few_cases() leaves these out.
    skipped -= {"serving.largest_image", "serving.any_request", "recovery.request"}
    skipped -= {"parameters.greedy", "parameters.sampled", "parameters.end", "parameters.together"}
    skipped |= {"baseline.order"}  # that it takes one image is found out when the test runs
    assert outcome.criteria("skip") == skipped
    last = outcome.text.splitlines()[-1]
    assert last.startswith(f"0 of {len(skipped)} criteria verified: there is no Ascend NPU")


EXPECTED = "(ExpectedFailure('{}', 'known to be wrong', 'issue 7'),)"


def test_an_expected_failure_that_fails_is_expected(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, "    pass", expected_failures=EXPECTED.format("serving.models"))
    url = stub(Defect.NAME_NOT_LISTED.value)
    outcome = judged(url, "-k", "models", "test_own_model.py")
    assert outcome.result.ret == 0
    assert outcome.criteria("xfail") == {"serving.models"}
    assert outcome.rows[0]["reason"] == "known to be wrong (issue 7)"


OTHER_PLUGIN = """
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    if call.when == "call":
        print("another plugin sees", call.excinfo and call.excinfo.typename)
    return (yield)
"""


def test_an_expected_failure_that_passes_is_red(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    project.makeconftest(OTHER_PLUGIN)
    model_file(project, "    pass", expected_failures=EXPECTED.format("serving.models"))
    outcome = judged(stub(), "-k", "models", "test_own_model.py")
    assert outcome.result.ret == 1
    assert outcome.criteria("fail") == {"serving.models"}
    (reason,) = outcome.reasons("serving.models")
    assert reason.startswith("serving.models is expected to fail, but passes: known to be wrong")
    assert reason in outcome.text
    assert "another plugin sees WrongEnding" in outcome.text


def test_a_crash_is_not_the_failure_that_was_expected(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, "    pass", expected_failures=EXPECTED.format("baseline.text"))
    url = stub(Defect.PROMPT_IS_LONGER.value)
    outcome = judged(url, "-k", "text_matches", "test_own_model.py")
    assert outcome.result.ret == 1
    assert outcome.criteria("error") == {"baseline.text"}
    assert not outcome.criteria("xfail")


def test_an_expected_failure_can_name_one_case(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    expected = EXPECTED.format("serving.bad_input[not-an-image]")
    model_file(project, "    pass", expected_failures=expected)
    url = stub(Defect.BAD_IMAGE_GIVES_500.value)
    outcome = judged(url, "-k", "not-an-image or truncated", "test_own_model.py")
    found = {row["case"]: row["status"] for row in outcome.rows}
    assert found == {"not-an-image": "xfail", "truncated-image": "fail"}


def test_a_test_of_the_suite_without_a_verdict_is_red(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    project.makepyfile(
        test_mine="""
import pytest
from pytest_ascend_vlm.suite.criterion import Criterion

@pytest.mark.vlm_criterion(Criterion("serving.text"))
def test_mine():
    pass
"""
    )
    project.makeconftest(OTHER_PLUGIN)
    outcome = judged(stub(), "test_mine.py")
    assert outcome.result.parseoutcomes()["errors"] == 1
    assert "ended without a verdict, so it verified nothing" in outcome.text
    assert "another plugin sees ConfigurationError" in outcome.text


def test_what_is_declared_unsupported_is_asked_for_with_files_that_a_server_could_read() -> None:
    unsupported = dict.fromkeys(set(Capability) - {Capability.TEXT}, "texts only")
    model = ModelSpec("a/b", supports={Capability.TEXT}, unsupported=unsupported)
    probes = _unsupported_probes(model, load_cases([FIXTURES]))
    files = {
        name: base64.b64decode(chat[0]["content"][0][f"{name}_url"]["url"].partition(",")[2])
        for name, chat in probes.items()
    }
    assert files.keys() == {"image", "video"}
    assert files["video"][4:8] == b"ftyp"
    with Image.open(io.BytesIO(files["image"])) as image:
        image.verify()


@pytest.mark.parametrize(
    "source",
    [
        """
class TestMine(VLMConformance):
    model = ModelSpec("a/b", unsupported=dict.fromkeys(set(C) - {C.TEXT, C.IMAGE}, "no"))
    def test_models_are_listed(self): pass
""",
        """
class Lenient:
    def test_models_are_listed(self): pass
class TestMine(Lenient, VLMConformance):
    model = ModelSpec("a/b", unsupported=dict.fromkeys(set(C) - {C.TEXT, C.IMAGE}, "no"))
""",
        """
import pytest
class Lenient:
    @pytest.fixture
    def judge(self, judge): return lambda verdict: None
class TestMine(Lenient, VLMConformance):
    model = ModelSpec("a/b", unsupported=dict.fromkeys(set(C) - {C.TEXT, C.IMAGE}, "no"))
""",
        """
import pytest
class TestMine(VLMConformance):
    model = ModelSpec("a/b", unsupported=dict.fromkeys(set(C) - {C.TEXT, C.IMAGE}, "no"))
    @pytest.fixture(name="judge")
    def lenient(self): return lambda verdict: None
""",
    ],
    ids=["in the class", "through a mixin", "what it is judged by", "under another name"],
)
def test_a_criterion_cannot_be_overridden(
    source: str, project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    text = refused(source, project, judged, stub)
    name = "judge" if "pytest.fixture" in source else "test_models_are_listed"
    assert f"overrides {name}." in text
    assert "ModelSpec(expected_failures=...)" in text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class TestMine(VLMConformance):\n    pass", "TestMine.model must be a ModelSpec."),
        (
            "model = ModelSpec('a/b')",
            "the model supports Capability.DOCUMENT, Capability.GROUNDING, Capability.",
        ),
        ("model = ModelSpec('a/b', devices=0)", "ModelSpec('a/b'): "),
        ("loose = Thresholds(similarity=0.5)", 'State the reason with because="..."'),
    ],
)
def test_a_mistake_in_a_model_file_is_shown_as_its_message(
    source: str, message: str, project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    assert message in refused(source, project, judged, stub)


def refused(source: str, project: pytest.Pytester, judged: Judged, stub: Serve) -> str:
    """The output for a model file that cannot be collected."""
    imports = "from pytest_ascend_vlm import Capability as C, ModelSpec, Thresholds, VLMConformance"
    project.makepyfile(test_mine=f"{imports}\n{source}\n")
    outcome = judged(stub(), "test_mine.py")
    outcome.result.assert_outcomes(errors=1)
    assert not TRACES_OF_A_TRACEBACK.search(outcome.text)
    return outcome.text


def test_the_markers_are_known_to_a_strict_project(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    marks = ["npu", "cpu_baseline", "serving", "accuracy", "numerics", "performance", "robustness"]
    lines = "".join(f"@pytest.mark.{mark}\n" for mark in marks)
    project.makepyfile(test_mine=f"import pytest\n\n{lines}def test_mine():\n    pass\n")
    outcome = judged(stub(), "-m", "cpu_baseline", "test_mine.py")
    outcome.result.assert_outcomes(passed=1)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_reasoning_parser_is_an_error_that_names_it(
    field: str, stub: Serve, judged: Judged
) -> None:
    def parsed(body: dict[str, Any]) -> dict[str, Any]:
        for choice in body["choices"]:
            choice["message"] |= {"content": None, field: choice["message"]["content"]}
        return body

    asked = "text_is_answered or text_matches or seeded"
    outcome = judged(stub(Behaviour(reply=parsed)), "-k", asked)
    assert outcome.criteria("error") == {"serving.text", "baseline.text", "determinism.seeded"}
    assert not outcome.criteria("fail")
    for row in outcome.rows:
        if row["status"] == "error":
            assert f"into the field {field} of the reply" in row["reason"]
            assert "Start it without --reasoning-parser" in row["reason"]


def test_a_server_of_other_behaviour_can_be_made(stub: Serve, judged: Judged) -> None:
    shouting = Behaviour(answered=lambda text, _request, _state: text.upper())
    outcome = judged(stub(shouting), "-k", "text_matches and capital]")
    assert outcome.criteria("fail") == {"baseline.text"}


def by_turns(request: Request, _knowledge: Knowledge, state: State) -> Request:
    """The request at one of two replicas, which take turns and have a cache each."""
    with state.lock:
        state.asked["replica"] += 1
        return replace(request, salt=f"{request.salt}/{state.asked['replica'] % 2}")


def test_replicas_with_a_cache_each_are_judged(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Behaviour(seen=by_turns)), "-k", "prefix_cache_is or next_turn_is")
    assert outcome.criteria("pass") == {"determinism.prefix_cache", "determinism.next_turn"}


def test_a_server_that_caches_no_generated_block_shows_nothing(stub: Serve, judged: Judged) -> None:
    def refused(request: Request, _state: State) -> Refused | None:
        is_later = len(request.turns) > 1
        return Refused(400, "one turn is enough", "turns") if is_later else None

    outcome = judged(stub(Behaviour(crash=refused)), "-k", "next_turn_is")
    assert outcome.criteria("na") == {"determinism.next_turn"}
    told = judged(stub(Defect.CACHE_IS_NOT_TOLD.value), "-k", "next_turn_is")
    assert told.criteria("na") == {"determinism.next_turn"}

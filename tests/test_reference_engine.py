"""The reference engine: one data type in memory at a time, recordings that continue, progress."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.goldens import ENGINE, PROMPT_IDS, answer
from helpers.models import model_spec
from helpers.outcome import Judged
from helpers.paths import CHECKPOINT, MODEL_FILE, SLUG
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from pytest_ascend_vlm import Capability, Case
from pytest_ascend_vlm.duration import duration_text
from pytest_ascend_vlm.engines import torch_companions
from pytest_ascend_vlm.engines.transformers import cpu_threads, reference
from pytest_ascend_vlm.engines.transformers.cpu_threads import (
    bf16_speed_text,
    use_cores,
)
from pytest_ascend_vlm.engines.transformers.model import (
    Encoder,
    ForwardPass,
    Sequence,
    TransformersModel,
)
from pytest_ascend_vlm.engines.transformers.reference import Bf16Pass, TransformersReference
from pytest_ascend_vlm.errors import ConfigurationError, PreconditionError
from pytest_ascend_vlm.golden.recorder import readable_json
from pytest_ascend_vlm.golden.store import GoldenKey, digest, relative_path
from pytest_ascend_vlm.observation.answers import Completion
from pytest_ascend_vlm.observation.answers import Reference as ReferenceAnswer
from pytest_ascend_vlm.session import recording
from pytest_ascend_vlm.session.model import ModelSession
from pytest_ascend_vlm.session.recording import (
    Countdown,
    HalfGoldens,
    Recording,
    RecordingPlan,
)

SPEED = 0.2
VOCABULARY = 288


class Engine:
    """Answers without any model, and notes what it was asked to do.

    Attributes:
        done: "bfloat16" and "float32" where that had to be loaded, "draft <case>", "finish <case>",
            "answer <case>", "close".
        fails: what a case's draft raises.
        attention: of the model.
    """

    def __init__(self) -> None:
        self.done: list[str] = []
        self.provenance: dict[str, Any] = dict(ENGINE)
        self.tokens = PROMPT_IDS
        self.fails: dict[str, BaseException] = {}
        self.attention = "sdpa"
        self._loaded = ""
        self._last: weakref.ref[np.ndarray] | None = None

    def load(self, dtype: str) -> SimpleNamespace:
        if self._loaded != dtype:
            self.done.append(dtype)
            self._loaded = dtype
        return SimpleNamespace(attention=self.attention)

    def close(self) -> None:
        self.done.append("close")
        self._loaded = ""

    def prompt_token_ids(self, case: Case) -> tuple[int, ...]:
        assert case.id
        return self.tokens

    def answer(self, case: Case) -> Completion:
        self.load("bfloat16")
        self.done.append(f"answer {case.id}")
        given = answer(case_id=case.id)
        return Completion(case.id, given.text, given.token_ids, None, None, None, seconds=0.1)

    def bf16_pass(self, case: Case) -> Bf16Pass:
        assert self._loaded == "bfloat16"
        assert self._last is None or self._last() is None, "two drafts are in memory"
        logits = np.random.default_rng(len(case.id)).normal(size=(5, 99)).astype(np.float32)
        self._last = weakref.ref(logits)
        if case.id in self.fails:
            raise self.fails[case.id]
        self.done.append(f"draft {case.id}")
        return Bf16Pass((1, 2, 3), np.arange(5), logits, logits[:, :7].copy())

    def finish(self, case: Case, draft: Bf16Pass) -> ReferenceAnswer:
        assert self._loaded == "float32"
        assert draft.token_ids == (1, 2, 3)
        self.done.append(f"finish {case.id}")
        return answer(case_id=case.id)


@dataclasses.dataclass
class Desk:
    """A recording of three cases, as often as one likes.

    Attributes:
        plan: what is recorded.
        said: every line of progress.
    """

    plan: RecordingPlan
    said: list[str] = dataclasses.field(default_factory=list)

    @property
    def cases(self) -> tuple[Case, ...]:
        return self.plan.cases

    def golden(self, number: int) -> Path:
        return self.plan.golden_dir / relative_path(self.plan.key, self.cases[number])

    def waiting(self) -> list[str]:
        """The names of the drafts that wait."""
        return sorted(path.stem for path in self.plan.bf16_dir.rglob("*.*"))

    def record(self, engine: Engine | None = None, plan: RecordingPlan | None = None) -> list[str]:
        """Records all cases and returns what the engine had to do for that."""
        engine, plan = engine or Engine(), plan or self.plan
        recorder = Recording(engine, plan, self.said.append)  # type: ignore[arg-type]
        for case in plan.cases:
            recorder.record(case)
        return engine.done


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(recording, "bf16_speed", lambda: SPEED)
    (tmp_path / "image.png").write_bytes(b"an image")
    asked = Case("image/a", Capability.IMAGE, "图里有什么?", (tmp_path / "image.png",))
    cases = (asked, Case("text/b", Capability.TEXT, "b?"), Case("text/c", Capability.TEXT, "c?"))
    key = GoldenKey(model_spec(), "tiny", "abc")
    return Desk(RecordingPlan(key, cases, tmp_path / "golden", tmp_path / "drafts"))


ALL = [
    *("bfloat16", "draft image/a", "draft text/b", "draft text/c"),
    *("float32", "finish image/a", "finish text/b", "finish text/c"),
]


# --- one data type after the other ---------------------------------------------------------------


def test_bf16_is_through_with_all_cases_before_float32_is_loaded(desk: Desk) -> None:
    assert desk.record() == ALL
    assert desk.waiting() == []
    assert all(desk.golden(number).is_file() for number in range(3))


def test_a_draft_on_disk_has_lost_nothing(desk: Desk) -> None:
    case, draft = desk.cases[1], Engine()
    draft.load("bfloat16")
    made = draft.bf16_pass(case)
    drafts = HalfGoldens(desk.plan.bf16_dir, desk.plan.key, ENGINE)
    drafts.keep(case, made)
    read = drafts.load(case)
    assert read.token_ids == made.token_ids
    for name in ("positions", "logits", "hidden"):
        assert getattr(read, name).tobytes() == getattr(made, name).tobytes()


def test_half_a_draft_is_cleared_away(desk: Desk) -> None:
    half = desk.plan.bf16_dir / desk.plan.key.model.slug / "tiny" / "image" / ".a.safetensors.x1"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"killed while it was written")
    desk.record()
    assert desk.waiting() == []


def test_what_goes_wrong_with_one_case_stops_no_other(desk: Desk) -> None:
    engine, (first, second, third) = Engine(), desk.cases
    engine.fails = {second.id: PreconditionError("it cannot be forced")}
    recorder = Recording(engine, desk.plan, desk.said.append)  # type: ignore[arg-type]
    recorder.record(first)
    for _ in range(2):  # asked again, as pytest-rerunfailures does
        with pytest.raises(PreconditionError, match="it cannot be forced"):
            recorder.record(second)
    recorder.record(third)
    assert engine.done == [step for step in ALL if second.id not in step]
    assert not desk.golden(1).exists()


def test_a_case_that_nobody_announced_is_recorded_too(desk: Desk) -> None:
    engine, last = Engine(), desk.cases[2]
    plan = dataclasses.replace(desk.plan, cases=desk.cases[:2])
    recorder = Recording(engine, plan, desk.said.append)  # type: ignore[arg-type]
    paths = [recorder.record(case) for case in (*plan.cases, last)]
    assert paths[2] == desk.golden(2)
    assert engine.done[-4:] == ["bfloat16", "draft text/c", "float32", "finish text/c"]


def test_attention_is_named_where_it_is_not_the_usual_one(desk: Desk) -> None:
    desk.record()
    assert "attention" not in json.loads(desk.golden(0).read_text("utf-8"))["provenance"]
    desk.golden(0).unlink()
    other = Engine()
    other.attention = "eager+sdpa"
    desk.record(other)
    assert json.loads(desk.golden(0).read_text("utf-8"))["provenance"]["attention"] == "eager+sdpa"
    assert desk.record() == []  # and the golden holds, although that is known after loading only


# --- what is recorded already --------------------------------------------------------------------


def test_goldens_that_hold_are_left_alone_and_nothing_is_loaded(desk: Desk) -> None:
    desk.record()
    before = [desk.golden(number).stat().st_mtime_ns for number in range(3)]
    assert desk.record() == []
    assert desk.said[-1] == "3 of 3 already recorded"
    assert [desk.golden(number).stat().st_mtime_ns for number in range(3)] == before


def asked_differently(desk: Desk, **changes: Any) -> list[str]:
    first = dataclasses.replace(desk.cases[0], **changes)
    return desk.record(plan=dataclasses.replace(desk.plan, cases=(first, *desk.cases[1:])))


def repainted(desk: Desk) -> list[str]:
    desk.cases[0].images[0].write_bytes(b"another image")
    return desk.record()


def shortened(desk: Desk, suffix: str) -> list[str]:
    path = desk.golden(0).with_suffix(suffix)
    path.write_bytes(path.read_bytes()[:-9])
    return desk.record()


def of_another_schema(desk: Desk) -> list[str]:
    document = {**json.loads(desk.golden(0).read_text("utf-8")), "schema": 1}
    document["sha256"] = digest(document)
    desk.golden(0).write_text(readable_json(document), "utf-8")
    return desk.record()


def deleted(desk: Desk) -> list[str]:
    desk.golden(0).unlink()
    return desk.record()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda desk: asked_differently(desk, prompt="And now?"), id="prompt"),
        pytest.param(lambda desk: asked_differently(desk, max_tokens=65), id="max_tokens"),
        pytest.param(lambda desk: asked_differently(desk, images=()), id="no-image"),
        pytest.param(repainted, id="image"),
        pytest.param(lambda desk: shortened(desk, ".json"), id="damaged"),
        pytest.param(lambda desk: shortened(desk, ".safetensors"), id="damaged-numbers"),
        pytest.param(of_another_schema, id="schema"),
        pytest.param(deleted, id="deleted"),
    ],
)
def test_a_golden_that_does_not_hold_is_recorded_again_and_no_other(
    change: Callable[[Desk], list[str]], desk: Desk
) -> None:
    desk.record()
    assert change(desk) == ["bfloat16", "draft image/a", "float32", "finish image/a"]
    assert "2 of 3 already recorded" in desk.said


@pytest.mark.parametrize("what", ["weights", "versions", "processor", "template"])
def test_another_engine_records_everything_again(what: str, desk: Desk) -> None:
    desk.record()
    engine, plan = Engine(), desk.plan
    if what == "weights":
        plan = dataclasses.replace(plan, key=dataclasses.replace(plan.key, weights_sha256="def"))
    elif what == "template":
        engine.tokens = (*engine.tokens[:-1], 99)
    else:
        engine.provenance[what] = {"torch": "3"} if what == "versions" else "AnotherProcessor"
    assert desk.record(engine, plan) == ALL


# --- a recording that was killed -----------------------------------------------------------------


def test_drafts_that_were_made_are_not_made_again(desk: Desk) -> None:
    engine = Engine()
    engine.fails = {"text/c": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        desk.record(engine)
    assert desk.waiting() == ["a", "b"]
    assert desk.record() == ["bfloat16", "draft text/c", *ALL[4:]]
    assert desk.said[-5:-2] == [
        "0 of 3 already recorded",
        f"answering 3 of 3, {bf16_speed_text(SPEED)}",
        "float32 of answer 1 of 3",
    ]


MISFITS = {"rows": slice(1, None), "logits": slice(1, None), "hidden": slice(0, 2)}


@pytest.mark.parametrize("what", MISFITS)
def test_a_draft_whose_numbers_belong_to_no_rows_is_made_again(what: str, desk: Desk) -> None:
    engine = Engine()
    engine.fails = {"text/b": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        desk.record(engine)
    (draft,) = desk.plan.bf16_dir.rglob("a.safetensors")
    with safe_open(draft, "numpy") as file:
        metadata = file.metadata()
    numbers = load_file(draft)
    numbers[what] = numbers[what][MISFITS[what]]
    save_file(numbers, draft, metadata)
    assert desk.record() == ALL


@pytest.mark.parametrize("what", ["prompt", "versions", "truncated"])
def test_drafts_of_something_else_are_made_again(what: str, desk: Desk) -> None:
    engine = Engine()
    engine.fails = {"text/b": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        desk.record(engine)
    engine = Engine()
    if what == "prompt":
        assert asked_differently(desk, prompt="And now?") == ALL
        return
    if what == "versions":
        engine.provenance["versions"] = {"torch": "3"}
    else:
        (draft,) = desk.plan.bf16_dir.rglob("a.safetensors")
        draft.write_bytes(draft.read_bytes()[:-1])
    assert desk.record(engine) == ALL


PLUGIN = """
import os, signal
from pytest_ascend_vlm.engines.transformers.reference import TransformersReference
from pytest_ascend_vlm.session import recording

record, draft = recording.record, TransformersReference.bf16_pass

def record_and_die(*arguments):
    record(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

def draft_and_tell(self, case):
    with open("drafted.txt", "a") as file:
        print(case.id, file=file)
    return draft(self, case)

TransformersReference.bf16_pass = draft_and_tell
if "DIES" in os.environ:
    recording.record = record_and_die
"""


def run_recording(project: Path, **env: str) -> int:
    """Records two texts with the tiny checkpoint in a process; its exit status."""
    command = [
        *(sys.executable, "-m", "pytest", MODEL_FILE.name, "-p", "told", "-p", "no:cacheprovider"),
        *("-m", "cpu_baseline", "--vlm-record", "--vlm-checkpoint=tiny", "-k", "capital] or sum]"),
    ]
    path = os.pathsep.join([str(project), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, **env}
    return subprocess.run(command, cwd=project, env=env, check=False).returncode


def test_a_recording_that_is_killed_continues(tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE.name).write_bytes(MODEL_FILE.read_bytes())
    (tmp_path / "told.py").write_text(PLUGIN, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    goldens, drafts = tmp_path / "golden" / SLUG / "tiny" / "text", tmp_path / ".vlm-logs"

    assert run_recording(tmp_path, DIES="1") == -signal.SIGKILL
    assert [path.name for path in goldens.glob("*.json")] == ["capital.json"]
    assert sorted(path.stem for path in drafts.rglob("*.safetensors")) == ["capital", "sum"]
    before = (goldens / "capital.json").stat().st_mtime_ns

    assert run_recording(tmp_path) == 0
    assert (tmp_path / "drafted.txt").read_text("utf-8").split() == ["text/capital", "text/sum"]
    assert (goldens / "capital.json").stat().st_mtime_ns == before
    completion = json.loads((goldens / "sum.json").read_text("utf-8"))["completion"]
    assert completion["text"] == "Two plus three is 5."
    assert not list(drafts.rglob("*.safetensors"))


# --- as the fixture sets it up -------------------------------------------------------------------


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Stands in for the reference engine of every run."""
    engine = Engine()
    monkeypatch.setattr(ModelSession, "reference_engine", lambda *_: engine)
    monkeypatch.setattr(recording, "bf16_speed", lambda: SPEED)
    return engine


TWO_CASES = ("-m", "cpu_baseline", "-k", "capital] or sum]")
ALL_OF_TWO = [
    *("bfloat16", "draft text/capital", "draft text/sum"),
    *("float32", "finish text/capital", "finish text/sum", "close"),
]


@pytest.mark.usefixtures("_warm")
def test_only_the_selected_cases_are_recorded(engine: Engine, judged: Judged) -> None:
    outcome = judged(None, *TWO_CASES, "--vlm-record")
    outcome.result.assert_outcomes(
        passed=2, deselected=outcome.result.parseoutcomes()["deselected"]
    )
    assert engine.done == ALL_OF_TWO


def test_a_case_that_the_checkpoint_was_not_taught_is_recorded_for_its_logits(
    engine: Engine, judged: Judged, project: pytest.Pytester
) -> None:
    checkpoint = project.path / "fixtures" / "tiny" / "unread"
    shutil.copytree(CHECKPOINT, checkpoint)
    (checkpoint / "untaught.json").write_text('{"text/sum": "cannot add"}', "utf-8")
    path = project.path / "conformance" / MODEL_FILE.name
    path.write_text(path.read_text("utf-8").replace('"qwen2_vl"', '"unread"'), "utf-8")
    judged(None, *TWO_CASES, "--vlm-record")
    assert engine.done == ALL_OF_TWO


def test_one_models_weights_are_gone_before_anothers_come(
    engine: Engine, judged: Judged, project: pytest.Pytester
) -> None:
    path = project.path / "conformance" / MODEL_FILE.name
    other = path.read_text("utf-8").replace("2509-1.2B", "other").replace("TestMiner", "TestOther")
    path.with_name("test_other.py").write_text(other, "utf-8")
    selected = "(TestMiner and capital]) or (TestOther and sum])"
    judged(None, "-m", "cpu_baseline", "-k", selected, "--vlm-record")
    assert engine.done == [
        *("bfloat16", "draft text/capital", "float32", "finish text/capital", "close"),
        *("bfloat16", "draft text/sum", "float32", "finish text/sum", "close"),
    ]


def test_a_replay_needs_no_float32(engine: Engine, judged: Judged) -> None:
    outcome = judged(None, *TWO_CASES)
    # What the stand-in answers is wrong; that it was asked is what counts here.
    assert outcome.criteria("fail") == {"reference.replay"}
    assert engine.done == ["bfloat16", "answer text/capital", "answer text/sum", "close"]


# --- the engine itself, on a tiny checkpoint -----------------------------------------------------


@pytest.fixture(scope="module")
def asked() -> Case:
    return Case("text/capital", Capability.TEXT, "What is the capital of France?")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every model that the engine loads; while it does, no other may have its weights."""
    models: list[Any] = []
    original = reference.TransformersModel

    def load(*arguments: Any, **more: Any) -> Any:
        assert not any(has_weights(model) for model in models)
        models.append(original(*arguments, **more))
        return models[-1]

    monkeypatch.setattr(reference, "TransformersModel", load)
    return models


def has_weights(model: Any) -> bool:
    return any(weight.device.type != "meta" for weight in model._model.parameters())


@pytest.fixture
def tiny() -> Iterator[TransformersReference]:
    engine = TransformersReference(CHECKPOINT, trust_remote_code=False, on_progress=lambda _: None)
    with contextlib.closing(engine):
        yield engine


def test_never_are_both_data_types_in_memory(
    tiny: TransformersReference, loaded: list[Any], asked: Case
) -> None:
    draft = tiny.bf16_pass(asked)
    assert [model.dtype for model in loaded] == ["bfloat16"]
    assert has_weights(loaded[0])
    reference = tiny.finish(asked, draft)
    # The list holds the first model still, as a traceback would; its weights are gone all the same.
    assert [model.dtype for model in loaded] == ["bfloat16", "float32"]
    assert [has_weights(model) for model in loaded] == [False, True]
    tiny.close()
    assert not has_weights(loaded[1])
    assert reference.text == "The capital of France is Paris."
    again = tiny.answer(asked)
    assert again.token_ids == reference.token_ids
    assert again.top is not None
    assert tuple(again.top.token_ids[:, 0].tolist()) == reference.token_ids  # greedy


def test_numbers_of_the_two_passes_are_those_of_two_models_side_by_side(
    tiny: TransformersReference, asked: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "HIDDEN_POSITIONS", 16)
    numerics = tiny.finish(asked, tiny.bf16_pass(asked)).numerics
    assert numerics is not None
    encoder = Encoder(CHECKPOINT, trust_remote_code=False)
    sequence = encoder.with_answer(asked, "The capital of France is Paris.")
    rounded, exact = (
        TransformersModel(CHECKPOINT, dtype, trust_remote_code=False).force(
            sequence, sequence.positions
        )
        for dtype in ("bfloat16", "float32")
    )
    listed = numerics.top_tokens
    assert (numerics.bf16 == np.take_along_axis(rounded.logits, listed, axis=1)).all()
    assert (numerics.fp32 == np.take_along_axis(exact.logits, listed, axis=1)).all()
    kept = np.searchsorted(sequence.positions, numerics.hidden.positions)
    assert len(kept) == 16
    assert (numerics.hidden.bf16 == rounded.hidden[kept]).all()
    assert (numerics.hidden.fp32 == exact.hidden[kept]).all()


def forced_numbers(asked: Case) -> tuple[Sequence, ForwardPass]:
    """What the tiny checkpoint makes, in float32, of a forced answer."""
    sequence = Encoder(CHECKPOINT, trust_remote_code=False).with_answer(asked, "Paris")
    model = TransformersModel(CHECKPOINT, "float32", trust_remote_code=False)
    return sequence, model.force(sequence, sequence.positions)


def change_forward(monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]) -> None:
    """Puts `change(forward, model, **inputs)` in the place of the model's own forward."""
    torch_companions.install()
    from transformers import Qwen2VLForConditionalGeneration as Model

    forward = Model.forward
    monkeypatch.setattr(Model, "forward", lambda self, **inputs: change(forward, self, **inputs))


def as_transformers_4(forward: Callable[..., Any], model: Any, **inputs: Any) -> Any:
    """Ignores `logits_to_keep`; what it calls the last hidden states is before the last norm."""
    inputs.pop("logits_to_keep", None)
    output = forward(model, **inputs)
    if output.hidden_states is not None:
        output.hidden_states = output.hidden_states[:-1]
    return output


def test_numbers_are_of_their_rows_whatever_the_model_ignores(
    asked: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, expected = forced_numbers(asked)
    assert len(sequence.positions) < len(sequence.token_ids), (
        "every row is kept: this shows nothing"
    )
    change_forward(monkeypatch, as_transformers_4)
    _, numbers = forced_numbers(asked)
    assert numbers.logits.shape == expected.logits.shape == (len(sequence.positions), VOCABULARY)
    np.testing.assert_allclose(numbers.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(numbers.hidden, expected.hidden, atol=1e-5)


def with_the_last_row_alone(forward: Callable[..., Any], model: Any, **inputs: Any) -> Any:
    return forward(model, **inputs, logits_to_keep=1)


def with_logits_of_other_rows(forward: Callable[..., Any], model: Any, **inputs: Any) -> Any:
    output = forward(model, **inputs)
    output.logits = output.logits[:, 1:]
    return output


def with_two_passes(forward: Callable[..., Any], model: Any, **inputs: Any) -> Any:
    forward(model, **inputs)
    return forward(model, **inputs)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (with_the_last_row_alone, "gives its output layer"),
        (with_logits_of_other_rows, "gives logits of shape"),
        (with_two_passes, "2 times in one pass"),
    ],
)
def test_a_pass_whose_numbers_belong_to_no_rows_is_an_error(
    change: Callable[..., Any], problem: str, asked: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_forward(monkeypatch, change)
    with pytest.raises(ConfigurationError, match=problem) as raised:
        forced_numbers(asked)
    assert "text/capital" in str(raised.value)
    assert "Transformers" in str(raised.value)


def test_a_draft_of_other_rows_is_no_half_of_a_golden(
    tiny: TransformersReference, asked: Case
) -> None:
    draft = tiny.bf16_pass(asked)
    shifted = dataclasses.replace(draft, positions=draft.positions + 1)
    with pytest.raises(PreconditionError, match=r"text/capital: .*Delete its half"):
        tiny.finish(asked, shifted)


@pytest.mark.parametrize(("supported", "expected"), [(True, "sdpa"), (False, "eager")])
def test_attention_is_fused_where_the_model_knows_it(
    supported: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_companions.install()
    from transformers import Qwen2VLPreTrainedModel

    monkeypatch.setattr(Qwen2VLPreTrainedModel, "_supports_sdpa", supported)
    model = TransformersModel(CHECKPOINT, "bfloat16", trust_remote_code=False)
    assert model.attention == expected


# --- the CPU -------------------------------------------------------------------------------------


GIB = 1024**3


@pytest.mark.parametrize(("weights", "threads"), [(3_000_000, 1), (GIB // 4, 4), (16 * GIB, 32)])
def test_threads_are_as_many_as_the_weights_keep_busy(
    weights: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as vllm-ascend's images set it
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=chosen.append))
    monkeypatch.setattr(cpu_threads, "physical_cores", lambda: 32)
    use_cores(weights)
    assert chosen == [threads]


def test_the_number_of_an_environment_is_replaced() -> None:
    code = (
        f"from {cpu_threads.__name__} import physical_cores, use_cores; import torch; "
        "use_cores(2**40); print(torch.get_num_threads() - physical_cores())"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert ran.stdout == b"0\n"


def test_the_speed_of_bf16_is_measured_once() -> None:
    assert cpu_threads.bf16_speed() > 0
    assert cpu_threads.bf16_speed() == cpu_threads.bf16_speed()


@pytest.mark.parametrize(
    ("speed", "words", "is_slow"),
    [
        (0.009, "bf16 at 0.009 x", True),
        (0.2, "bf16 at 0.2 x", True),
        (1.94, "bf16 at 1.9 x", False),
        (29.3, "bf16 at 29 x", False),
    ],
)
def test_a_cpu_without_bf16_is_called_slow(speed: float, words: str, is_slow: bool) -> None:
    said = bf16_speed_text(speed)
    assert said.startswith(f"{words} the speed of fp32")
    assert ("a CPU with bf16 instructions" in said) == is_slow


# --- progress ------------------------------------------------------------------------------------


def case_of(name: str, tokens: int = 64) -> Case:
    return Case(f"text/{name}", Capability.TEXT, "?", max_tokens=tokens)


def test_the_estimate_follows_how_long_answers_may_be() -> None:
    now = 0.0
    cases = [case_of("a"), case_of("b", 448), case_of("c", 512)]
    countdown = Countdown("answering", cases, before=20, clock=lambda: now)
    assert countdown.next(cases[0]) == "answering 21 of 23"
    now = 15.0  # 64 of 1024 tokens took it; 960 are left
    assert countdown.next(cases[1]) == "answering 22 of 23, about 4 min left"
    now = 600.0  # 512 took it, 512 are left
    assert countdown.next(cases[2]) == "answering 23 of 23, about 10 min left"


def test_the_first_case_says_what_is_to_be_known_beforehand() -> None:
    countdown = Countdown("answering", [case_of("a")], at_first="slowly", clock=lambda: 0.0)
    assert countdown.next(case_of("a")) == "answering 1 of 1, slowly"


def test_cases_that_nobody_announced_and_cases_asked_twice_are_counted() -> None:
    ticks = itertools.count(0, 60)
    countdown = Countdown("answering", [case_of("a")], clock=lambda: float(next(ticks)))
    said = [countdown.next(case_of(name)) for name in "aab"]
    assert said[0] == "answering 1 of 1"
    assert said[1].startswith("answering 1 of 1, about ")
    assert said[2].startswith("answering 2 of 2, about ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "10 s"), (37, "40 s"), (89, "90 s"), (90, "2 min"), (3600, "60 min"), (9000, "2.5 h")],
)
def test_a_duration_is_as_exact_as_an_estimate(seconds: float, words: str) -> None:
    assert duration_text(seconds) == words


def test_a_torch_npu_without_a_driver_is_one_error(tmp_path: Path) -> None:
    """Torch loads it when it is imported, and raises what it raises."""
    (tmp_path / "torch.py").write_text(
        "raise RuntimeError('Failed to load the backend extension: torch_npu. \\nYou can ...')"
    )
    code = (
        "from pathlib import Path; from pytest_ascend_vlm.engines.transformers.model import "
        "Encoder; Encoder(Path('.'), trust_remote_code=False)"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("pytest_ascend_vlm.errors.ConfigurationError: torch cannot be imported")
    assert "an environment without torch_npu" in last

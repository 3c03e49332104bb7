"""Goldens: what is damaged, stale or for another request is an error, never a verdict."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.replay_server import Defect
from helpers.goldens import ENGINE, answer
from helpers.models import model_spec
from helpers.outcome import Judged, Serve
from helpers.paths import FIXTURES, GOLDENS, SLUG
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from pytest_ascend_vlm import Capability, Case, ModelSpec, Published
from pytest_ascend_vlm.errors import GoldenError
from pytest_ascend_vlm.golden.recorder import readable_json, record
from pytest_ascend_vlm.golden.store import GoldenKey, GoldenStore, digest
from pytest_ascend_vlm.observation.answers import Reference
from pytest_ascend_vlm.observation.numerics import ReferenceHidden, ReferenceNumerics
from pytest_ascend_vlm.session.goldens import Goldens

COMMAND = "pytest conformance/test_it.py -m cpu_baseline --vlm-record --vlm-checkpoint=tiny"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A golden on disk and what it was recorded for."""

    root: Path
    json: Path
    tensors: Path
    key: GoldenKey
    case: Case

    def load(self, key: GoldenKey | None = None, case: Case | None = None) -> Reference:
        store = GoldenStore([self.root], COMMAND)
        return store.load(key or self.key, case or self.case)

    def refusal(self, **changes: object) -> str:
        """The message with which the golden is refused."""
        with pytest.raises(GoldenError) as caught:
            self.load(**changes)  # type: ignore[arg-type]
        message = str(caught.value)
        assert COMMAND in message
        assert "\n\n" not in message
        return message


def recorded_in(root: Path) -> Recorded:
    """Records a golden under a directory."""
    image = root / "image.png"
    image.write_bytes(b"an image")
    case = Case("image/a", Capability.IMAGE, "图里有什么?", (image,))
    key = GoldenKey(model_spec(), "tiny", "abc")
    path = record(root / "golden", key, case, answer(), ENGINE)
    return Recorded(root / "golden", path, path.with_suffix(".safetensors"), key, case)


@pytest.fixture
def golden(tmp_path: Path) -> Recorded:
    return recorded_in(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A golden for many examples in one test; each puts back what it changes."""
    return recorded_in(tmp_path_factory.mktemp("shared"))


def test_what_was_recorded_is_what_is_read(golden: Recorded) -> None:
    read, written = golden.load(), answer()
    assert (read.text, read.token_ids, read.prompt_token_ids) == (
        written.text,
        written.token_ids,
        written.prompt_token_ids,
    )
    assert read.source == "recorded with Transformers 5.19.0 on CPU"
    assert read.numerics is not None
    assert written.numerics is not None
    assert fields(read.numerics.hidden) == fields(written.numerics.hidden)
    assert fields(read.numerics) == fields(written.numerics)


def test_placeholders_are_kept(golden: Recorded) -> None:
    assert golden.load().placeholders == ()
    written = dataclasses.replace(answer(), placeholders=(261, 262))
    record(golden.root, golden.key, golden.case, written, ENGINE)
    assert golden.load().placeholders == (261, 262)


def fields(numbers: ReferenceNumerics | ReferenceHidden) -> dict[str, object]:
    """What a golden keeps in one array each, up to float32."""
    return {
        name: np.asarray(value, dtype=np.float32).tolist()
        for name, value in vars(numbers).items()
        if name != "hidden"
    }


def test_the_json_is_for_people(golden: Recorded) -> None:
    text = golden.json.read_text("utf-8")
    assert "图里有什么?" in text
    assert "巴黎" in text
    tokens = next(line for line in text.splitlines() if '"token_ids"' in line)
    assert tokens.rstrip().endswith("258 ],")


def test_where_someone_else_runs_the_model_its_weights_are_not_compared(golden: Recorded) -> None:
    unknown = dataclasses.replace(golden.key, weights_sha256=None)
    assert golden.load(key=unknown).text == answer().text


# Steps that are prime to the width of a number reach each of its bytes.
@pytest.mark.parametrize(("file", "step"), [("json", 3), ("tensors", 31)])
def test_one_changed_bit_anywhere_is_an_error(file: str, step: int, shared: Recorded) -> None:
    path: Path = getattr(shared, file)
    sound = path.read_bytes()
    for position in range(0, len(sound), step):
        path.write_bytes(with_byte(sound, position, sound[position] ^ 1))
        shared.refusal()
    path.write_bytes(sound)
    assert shared.load()


@given(st.data())
def test_a_changed_byte_is_an_error_or_changes_nothing(
    shared: Recorded, data: st.DataObject
) -> None:
    sound = shared.json.read_bytes()
    changed = with_byte(
        sound,
        data.draw(st.integers(0, len(sound) - 1), "position"),
        data.draw(st.integers(0, 255), "byte"),
    )
    shared.json.write_bytes(changed)
    try:
        if json_of(changed) == json.loads(sound):  # one kind of white space for another
            assert shared.load()
        else:
            shared.refusal()
    finally:
        shared.json.write_bytes(sound)


def json_of(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None


def with_byte(data: bytes, position: int, byte: int) -> bytes:
    return data[:position] + bytes([byte]) + data[position + 1 :]


@pytest.mark.parametrize("file", ["json", "tensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_golden_is_an_error(file: str, share: float, golden: Recorded) -> None:
    path: Path = getattr(golden, file)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert str(path) in golden.refusal()


@pytest.mark.parametrize(
    "content", ["[]", "null", "3", '{"schema": 1}', '{"schema": 2}', '{"sha256": "\\ud800"}']
)
def test_a_file_that_is_no_golden_is_an_error(content: str, golden: Recorded) -> None:
    golden.json.write_text(content, "utf-8")
    assert str(golden.json) in golden.refusal()


def test_a_golden_with_an_impossible_character_is_an_error(golden: Recorded) -> None:
    document = json.loads(golden.json.read_text("utf-8"))
    document["completion"]["text"] = "\ud800"
    golden.json.write_text(json.dumps(document), "utf-8")
    assert str(golden.json) in golden.refusal()


def test_a_missing_golden_names_where_it_was_looked_for(golden: Recorded) -> None:
    golden.json.unlink()
    message = golden.refusal()
    assert "there is no golden an-org--a-model/tiny/image/a.json" in message
    assert str(golden.root) in message


def test_missing_tensors_are_an_error(golden: Recorded) -> None:
    golden.tensors.unlink()
    assert str(golden.tensors) in golden.refusal()


def test_the_golden_of_another_prompt_is_an_error(golden: Recorded) -> None:
    message = golden.refusal(case=dataclasses.replace(golden.case, prompt="What is it?"))
    assert "its prompt was '图里有什么?', now it is 'What is it?'" in message


def test_the_golden_of_another_limit_is_an_error(golden: Recorded) -> None:
    message = golden.refusal(case=dataclasses.replace(golden.case, max_tokens=7))
    assert "max_tokens was 64, now it is 7" in message


@pytest.mark.parametrize("change", ["content", "count"])
def test_the_golden_of_another_image_is_an_error(change: str, golden: Recorded) -> None:
    image = golden.case.images[0]
    if change == "content":
        image.write_bytes(b"another image")
    images = (image,) if change == "content" else (image, image)
    case = dataclasses.replace(golden.case, images=images)
    assert "the images have changed" in golden.refusal(case=case)


def test_a_renamed_image_is_the_same_image(golden: Recorded) -> None:
    renamed = golden.case.images[0].rename(golden.root / "renamed.png")
    assert golden.load(case=dataclasses.replace(golden.case, images=(renamed,)))


def test_the_golden_of_other_weights_is_an_error(golden: Recorded) -> None:
    message = golden.refusal(key=dataclasses.replace(golden.key, weights_sha256="def"))
    assert "other weights of an-org/a-model" in message


def test_the_first_directory_that_has_a_golden_is_believed(golden: Recorded) -> None:
    own = golden.root.parent / "own"
    record(own, golden.key, golden.case, answer("里昂"), ENGINE)
    store = GoldenStore([own, golden.root], COMMAND)
    assert store.load(golden.key, golden.case).text == "里昂"


def test_a_damaged_golden_does_not_fall_back_to_another(golden: Recorded) -> None:
    own = golden.root.parent / "own"
    path = record(own, golden.key, golden.case, answer("里昂"), ENGINE)
    path.write_text("{}", "utf-8")
    with pytest.raises(GoldenError):
        GoldenStore([own, golden.root], COMMAND).load(golden.key, golden.case)


def test_recording_again_replaces_the_golden(golden: Recorded) -> None:
    record(golden.root, golden.key, golden.case, answer("里昂。"), ENGINE)
    assert golden.load().text == "里昂。"


@pytest.mark.parametrize("writes", [0, 1])
def test_a_disk_that_fills_up_while_recording_leaves_no_wrong_verdict(
    writes: int, golden: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = golden.json.read_bytes()
    monkeypatch.setattr(os, "fsync", disk_that_is_full_after(writes))
    with pytest.raises(OSError, match="No space left"):
        record(golden.root, golden.key, golden.case, answer("里昂。"), ENGINE)
    assert golden.json.read_bytes() == before
    assert {path.suffix for path in golden.json.parent.iterdir()} == {".json", ".safetensors"}
    assert not list(golden.json.parent.glob(".*"))
    if writes == 0:
        assert golden.load().text == answer().text
    else:
        assert f"does not belong to {golden.json.name}" in golden.refusal()


def disk_that_is_full_after(writes: int) -> Callable[[int], None]:
    done = 0

    def fsync(_handle: int) -> None:
        nonlocal done
        if done == writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += 1

    return fsync


# --- numbers that do not belong to their rows ----------------------------------------------------


def cut(name: str, *index: slice) -> Callable[[dict[str, np.ndarray]], None]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name] = np.ascontiguousarray(tensors[name][index])

    return change


MISFITS = {
    **{
        f"{name}-one-row-less": cut(name, slice(1, None))
        for name in (
            *("rows", "is_image", "listed", "fp32", "bf16", "fp32_logsumexp", "bf16_logsumexp"),
            *("hidden_rows", "hidden_is_image", "hidden_fp32", "hidden_bf16"),
        )
    },
    **{
        f"{name}-narrower": cut(name, slice(None), slice(1, None))
        for name in ("listed", "fp32", "bf16", "hidden_fp32", "hidden_bf16")
    },
    "rows-reversed": cut("rows", slice(None, None, -1)),
    "another-answer": cut("forced_token_ids", slice(1, None)),
    "rows-shifted": lambda tensors: tensors.update(rows=tensors["rows"] + 1),
    "hidden-behind": lambda tensors: tensors.update(hidden_rows=tensors["hidden_rows"] + 1),
    "fp32-absent": lambda tensors: tensors.pop("fp32"),
}


def rewritten(golden: Recorded, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Changes a golden's numbers and all its digests, as a recorder with a defect would have."""
    tensors = load_file(golden.tensors)
    change(tensors)
    save_file(tensors, golden.tensors)
    document = json.loads(golden.json.read_text("utf-8"))
    document["tensors_sha256"] = hashlib.sha256(golden.tensors.read_bytes()).hexdigest()
    document["sha256"] = digest(document)
    golden.json.write_text(readable_json(document), "utf-8")


@pytest.mark.parametrize("misfit", MISFITS)
def test_numbers_that_do_not_belong_to_their_rows_are_an_error(
    misfit: str, golden: Recorded
) -> None:
    rewritten(golden, MISFITS[misfit])
    assert str(golden.json) in golden.refusal()


def test_a_table_of_another_length_is_named_with_its_shape(golden: Recorded) -> None:
    rewritten(golden, cut("fp32", slice(8, None)))
    rows = len(numerics_of(answer()).positions)
    assert f"fp32 has the shape ({rows - 8}, 32) instead of ({rows}, 32)" in golden.refusal()


@pytest.mark.parametrize("key", ["completion", "provenance", "inputs", "tensors_sha256"])
def test_a_golden_that_lacks_a_part_is_an_error(key: str, golden: Recorded) -> None:
    document = json.loads(golden.json.read_text("utf-8"))
    del document[key]
    document["sha256"] = digest(document)
    golden.json.write_text(readable_json(document), "utf-8")
    assert f"has no '{key}'" in golden.refusal()


def test_numbers_that_do_not_belong_to_their_rows_are_not_written(golden: Recorded) -> None:
    before = golden.json.read_bytes(), golden.tensors.read_bytes()
    sound = numerics_of(answer())
    shifted = dataclasses.replace(sound, positions=sound.positions[: len(sound.positions) - 8])
    with pytest.raises(GoldenError, match="do not match the positions"):
        record(
            golden.root,
            golden.key,
            golden.case,
            dataclasses.replace(answer(), numerics=shifted),
            ENGINE,
        )
    assert (golden.json.read_bytes(), golden.tensors.read_bytes()) == before


def numerics_of(reference: Reference) -> ReferenceNumerics:
    assert reference.numerics is not None
    return reference.numerics


def test_a_golden_tells_where_it_comes_from(golden: Recorded) -> None:
    read = golden.load().provenance
    assert read["weights_sha256"] == "abc"
    assert read["versions"] == ENGINE["versions"]


# --- published answers ---------------------------------------------------------------------------


def published_model() -> ModelSpec:
    return model_spec(published=Published("a document", answers={"image/a": "巴"}))


@pytest.fixture
def empty(tmp_path: Path) -> GoldenStore:
    return GoldenStore([tmp_path], COMMAND)


CASE = Case("image/a", Capability.IMAGE, "图里有什么?")


def test_a_published_answer_stands_in_for_the_full_checkpoints_golden(empty: GoldenStore) -> None:
    found = Goldens(empty, GoldenKey(published_model(), "full", "abc"))(CASE)
    assert found.is_published
    assert (found.source, found.text) == ("published in a document", "巴")
    assert found.numerics is None


def test_a_published_answer_says_nothing_of_a_tiny_checkpoint(empty: GoldenStore) -> None:
    with pytest.raises(GoldenError, match="there is no golden"):
        Goldens(empty, GoldenKey(published_model(), "tiny", "abc"))(CASE)


def test_a_case_that_was_not_published_needs_its_golden(empty: GoldenStore) -> None:
    goldens = Goldens(empty, GoldenKey(published_model(), "full", "abc"))
    with pytest.raises(GoldenError, match="there is no golden"):
        goldens(dataclasses.replace(CASE, id="image/b"))


@pytest.mark.parametrize("sound", [True, False])
def test_a_recorded_golden_goes_before_a_published_answer(sound: bool, golden: Recorded) -> None:
    key = dataclasses.replace(golden.key, model=published_model())
    goldens = Goldens(GoldenStore([golden.root], COMMAND), key)
    if sound:
        assert not goldens(golden.case).is_published
    else:  # what is damaged is not passed over either
        golden.tensors.write_bytes(b"")
        with pytest.raises(GoldenError):
            goldens(golden.case)


def test_a_published_reference_is_named_in_the_verdict(judged: Judged, stub: Serve) -> None:
    outcome = judged(stub(), "-k", "text_matches and capital]", checkpoint="full")
    (row,) = outcome.rows
    assert row["evidence"]["reference"].startswith(
        "published in the MinerU2.5-2509-1.2B adaptation"
    )
    assert "published in the MinerU2.5-2509-1.2B adaptation" in row["reason"]


# --- as a user meets them ------------------------------------------------------------------------


@pytest.fixture
def own_golden(project: pytest.Pytester) -> Path:
    """The project's own copy of the golden of text/capital."""
    directory = project.path / "golden" / SLUG / "tiny" / "text"
    directory.mkdir(parents=True, exist_ok=True)
    for suffix in (".json", ".safetensors"):
        shutil.copy(GOLDENS / SLUG / "tiny" / "text" / f"capital{suffix}", directory)
    return directory / "capital.json"


ONE_CASE = ("-k", "text_matches and capital]", "conformance/test_mineru2_5.py")


def assert_is_shown(judged: Judged, stub: Serve, problem: str) -> None:
    """Asserts that a run ends in an error that shows the problem and the command, no traceback."""
    outcome = judged(stub(), *ONE_CASE)
    assert outcome.criteria("error") == {"baseline.text"}
    assert problem in outcome.text
    command = "pytest conformance/test_mineru2_5.py -m cpu_baseline --vlm-record"
    assert f"    {command} --vlm-checkpoint=tiny\n" in outcome.text
    assert "Traceback" not in outcome.text
    assert "\nE  " not in outcome.text


@pytest.mark.usefixtures("own_golden")
def test_the_projects_own_sound_golden_is_used(judged: Judged, stub: Serve) -> None:
    assert judged(stub(), *ONE_CASE).criteria("pass") == {"baseline.text"}


def test_a_damaged_golden_is_shown_without_a_traceback(
    own_golden: Path, judged: Judged, stub: Serve
) -> None:
    own_golden.write_text(own_golden.read_text("utf-8").replace("Paris", "Lyon"), "utf-8")
    # Even a server that answers what the damaged golden says is not judged by it.
    assert_is_shown(judged, stub, "was changed after it was recorded")


def test_a_truncated_tensor_file_is_shown_without_a_traceback(
    own_golden: Path, judged: Judged, stub: Serve
) -> None:
    tensors = own_golden.with_suffix(".safetensors")
    tensors.write_bytes(tensors.read_bytes()[:100])
    assert_is_shown(judged, stub, "does not belong to capital.json, or is damaged")


def test_a_golden_for_another_prompt_is_shown_without_a_traceback(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    path = project.path / "conformance" / "test_mineru2_5.py"
    own_prompt = 'prompts={"text/capital": "Capital of France?", '
    path.write_text(path.read_text("utf-8").replace("prompts={", own_prompt), "utf-8")
    # The served prompt is another one too, so the lengths would differ; the golden comes first.
    outcome = judged(stub(), "-k", "divergence and capital]", str(path.relative_to(project.path)))
    assert outcome.criteria("error") == {"baseline.divergence"}
    assert "now it is 'Capital of France?'" in outcome.text
    assert "Traceback" not in outcome.text


def test_a_case_without_a_golden_is_shown_without_a_traceback(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    own = project.path / "own-fixtures"
    own.mkdir()
    cases = {"cases": [{"id": "text/new-capital", "needs": "text", "prompt": "新的问题?"}]}
    (own / "cases.json").write_text(json.dumps(cases), "utf-8")
    (project.path / "pytest.ini").write_text("[pytest]\nvlm_fixtures_dir = own-fixtures\n")
    outcome = judged(stub(), "-k", "text_matches and new-capital", ONE_CASE[-1])
    assert outcome.criteria("error") == {"baseline.text"}
    assert f"there is no golden {SLUG}/tiny/text/new-capital.json" in outcome.text
    assert "Traceback" not in outcome.text


def test_an_unknown_model_has_no_golden_of_another(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    path = project.path / "conformance" / "test_mineru2_5.py"
    text = path.read_text("utf-8").replace('"OpenDataLab/MinerU2.5-2509-1.2B"', '"an-org/other"')
    path.write_text(text, "utf-8")
    outcome = judged(stub(Defect.UNKNOWN_MODEL_IS_ANSWERED.value), *ONE_CASE)
    assert outcome.criteria("error") == {"baseline.text"}
    assert "there is no golden an-org--other/tiny/text/capital.json" in outcome.text


def test_the_goldens_of_this_repository_belong_to_its_checkpoints() -> None:
    paths = sorted(GOLDENS.rglob("*.json"))
    assert paths
    images = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FIXTURES.rglob("*")
        if path.suffix in {".png", ".jpg", ".jpeg", ".webp"}
    }
    for path in paths:
        asked = json.loads(path.read_text("utf-8"))["inputs"]
        assert {image["sha256"] for image in asked["images"]} <= images
        assert path.with_suffix(".safetensors").is_file()

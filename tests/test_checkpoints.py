"""Where full weights are found, which revision they are of, and what is said when they are not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.models import model_spec

from pytest_ascend_vlm import Variant
from pytest_ascend_vlm.checkpoints.digest import weights_digest
from pytest_ascend_vlm.checkpoints.find import Checkpoint, Places, find_checkpoint
from pytest_ascend_vlm.errors import CheckpointError

MODEL = "组织/Model-2.5"
ONE, OTHER = "1" * 40, "a" * 40
HF_CACHE = ".cache/huggingface/hub"
HF_REPOSITORY = "models--组织--Model-2.5"
MODELSCOPE_CACHE = ".cache/modelscope"
MODELSCOPE_DIRECTORY = f"{MODELSCOPE_CACHE}/hub/models/组织/Model-2___5"
HF_COMMAND = "hf download '组织/Model-2.5'"
MODELSCOPE_COMMAND = "modelscope download --model '组织/Model-2.5'"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own, below a directory with a Chinese name."""
    for name in (
        *("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"),
        *("MODELSCOPE_CACHE", "VLLM_USE_MODELSCOPE"),
    ):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "用户"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def safetensors(content: bytes) -> bytes:
    """A file with one tensor."""
    tensor = {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + content


WEIGHTS = safetensors(b"weights")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234567\n"


def write(path: Path, weights: bytes = WEIGHTS) -> Path:
    """Writes a checkpoint with one file of weights."""
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}", "utf-8")
    (path / "model.safetensors").write_bytes(weights)
    return path


def write_snapshot(cache: Path, commit: str = ONE, main: str | None = None) -> Path:
    """Writes a snapshot as `hf download` does: links to blobs."""
    repository = cache / HF_REPOSITORY
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    files = {"config.json": b"{}", "model.safetensors": safetensors(commit.encode())}
    for name, content in files.items():
        blob = repository / "blobs" / f"{commit}-{name}"
        blob.write_bytes(content)
        (snapshot / name).symlink_to(Path("../../blobs") / blob.name)
    if main is not None:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(main, "utf-8")
    return snapshot


def note_revision(path: Path, file: str, commit: str) -> None:
    """Writes what `hf download --local-dir` notes of a file."""
    note = path / ".cache/huggingface/download" / f"{file}.metadata"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{commit}\n{'e' * 40}\n1700000000.0\n", "utf-8")


def find(revision: str | None = None, root: Path | None = None) -> Checkpoint:
    model = model_spec(model_id=MODEL, revision=revision)
    return find_checkpoint(model, "full", Places(weights_root=root))


def refusal(revision: str | None = None, root: Path | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        find(revision, root)
    return str(caught.value)


def refusal_in(places: Places) -> str:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(model_spec(model_id=MODEL), "full", places)
    return str(caught.value)


# --- where ---------------------------------------------------------------------------------------


def test_a_weights_root_is_the_only_place(home: Path, tmp_path: Path) -> None:
    write(home / MODELSCOPE_DIRECTORY)
    root = tmp_path / "权重"
    assert f"are not in {root / MODEL}.\n" in refusal(root=root)
    path = write(root / MODEL)
    assert find(root=root) == Checkpoint("full", path, weights_digest(path), None)


@pytest.mark.parametrize("named", [MODEL, "组织"])
def test_a_weights_root_at_the_model_itself_says_what_to_type(named: str, tmp_path: Path) -> None:
    path = write(tmp_path / "权重" / MODEL)
    said = refusal(root=tmp_path / "权重" / named)
    typed = f"--vlm-weights '{MODEL}={path}'"
    assert f"But {path} has a config.json. If that is the model, type {typed}\n" in said
    assert "config.json" not in refusal(root=tmp_path)


def test_weights_of_ones_own_are_the_only_place(home: Path, tmp_path: Path) -> None:
    write(home / MODELSCOPE_DIRECTORY)
    path = tmp_path / "mine"
    places = Places(weights_root=home, weights={MODEL: path, "other/model": home})
    said = refusal_in(places)
    assert f"are not in {path}.\nTo download them: {HF_COMMAND} --local-dir {path}" in said
    assert said.endswith("Or name another directory with --vlm-weights.")
    write(path)
    assert find_checkpoint(model_spec(model_id=MODEL), "full", places).path == path
    variant = Variant("w8a8", checkpoint="other/model", is_lossy=True)
    of_variant = model_spec(model_id=MODEL, variants=(variant,)).as_variant(variant)
    with pytest.raises(CheckpointError, match="of other/model on this machine cannot be used"):
        find_checkpoint(of_variant, "full", places)


def test_a_tiny_checkpoint_that_is_not_there_may_be_named_by_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = model_spec(model_id=MODEL, tiny="own/tiny")
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(model, "tiny", Places([tmp_path / "fixtures"]))
    assert f"nor a directory {tmp_path / 'own' / 'tiny'} with a config.json" in str(caught.value)
    assert "ModelSpec(tiny=...) is a name or a path" in str(caught.value)
    path = write(tmp_path / "own" / "tiny")
    assert find_checkpoint(model, "tiny", Places([tmp_path / "fixtures"])).path == path


@pytest.mark.parametrize(
    "directory",
    [
        "hub/models/组织/Model-2___5",
        "hub/组织/Model-2___5",
        "models/组织/Model-2___5",
        "组织/Model-2___5",
        "hub/models/组织/Model-2.5",
        "models/组织--Model-2.5/snapshots/master",
    ],
)
@pytest.mark.parametrize("variable", [True, False])
def test_every_layout_of_modelscope_is_found(
    directory: str, variable: bool, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = home / MODELSCOPE_CACHE
    if variable:
        cache = tmp_path / "缓存"
        monkeypatch.setenv("MODELSCOPE_CACHE", str(cache))
    path = write(cache / directory)
    assert find().path == path
    assert find().revision is None


def test_modelscopes_link_to_the_escaped_name_is_one_copy(home: Path) -> None:
    path = write(home / MODELSCOPE_DIRECTORY)
    path.with_name("Model-2.5").symlink_to(path)
    (path / "config.json").unlink()
    assert refusal().count("config.json is missing") == 1


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({}, HF_CACHE),
        ({"XDG_CACHE_HOME": "甲"}, "甲/huggingface/hub"),
        ({"HF_HOME": "乙"}, "乙/hub"),
        ({"HF_HOME": "乙", "HF_HUB_CACHE": "丙"}, "丙"),
        ({"HF_HUB_CACHE": "~/丁"}, "丁"),
    ],
)
def test_the_cache_of_hugging_face_is_where_its_variables_say(
    variables: dict[str, str], cache: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value if value.startswith("~") else str(home / value))
    path = write_snapshot(home / cache, main=ONE)
    assert find() == Checkpoint("full", path, weights_digest(path), ONE)


@pytest.mark.parametrize(
    ("value", "preferred"), [("True", "ms"), ("1", "ms"), ("false", "hf"), ("0", "hf"), ("", "hf")]
)
def test_the_hub_that_vllm_uses_goes_first(
    value: str, preferred: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", value)
    paths = {"hf": write_snapshot(home / HF_CACHE), "ms": write(home / MODELSCOPE_DIRECTORY)}
    assert find().path == paths[preferred]


def test_a_whole_copy_is_preferred_to_a_part_of_one(home: Path) -> None:
    snapshot = write_snapshot(home / HF_CACHE)
    (snapshot / "model.safetensors").unlink()  # what loading the tokenizer alone leaves
    path = write(home / MODELSCOPE_DIRECTORY)
    assert find().path == path


def test_a_missing_checkpoint_says_where_it_was_looked_for_and_what_to_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(ONE)
    places = (
        f"Hugging Face's cache ({home / HF_CACHE}) or ModelScope's cache ({home / '.cache'}/modelsc"
    )
    assert f"the weights of {MODEL} are not in {places}" in message
    commands = f"{HF_COMMAND} --revision {ONE}, or: {MODELSCOPE_COMMAND} --revision {ONE}."
    assert f"\nTo download them: {commands}" in message
    elsewhere = f"Weights elsewhere: --vlm-weights '{MODEL}=DIR', or --vlm-weights-root=DIR for"
    assert message.endswith(f"{elsewhere} DIR/{MODEL}.")
    into = f"'{tmp_path / '权重' / MODEL}'"
    commands = f"{HF_COMMAND} --local-dir {into}, or: {MODELSCOPE_COMMAND} --local_dir {into}."
    assert refusal(root=tmp_path / "权重").endswith(f"To download them: {commands}")
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "true")
    assert f"To download them: {MODELSCOPE_COMMAND}. Weights elsewhere" in refusal()


# --- which revision ------------------------------------------------------------------------------


def test_an_unpinned_model_takes_main(home: Path) -> None:
    write_snapshot(home / HF_CACHE, ONE)
    path = write_snapshot(home / HF_CACHE, OTHER, main=OTHER)
    assert (find().path, find().revision) == (path, OTHER)


def test_a_pinned_model_takes_its_snapshot(home: Path) -> None:
    path = write_snapshot(home / HF_CACHE, ONE)
    write_snapshot(home / HF_CACHE, OTHER, main=OTHER)
    assert (find(ONE).path, find(ONE).revision) == (path, ONE)


def test_the_pinned_revision_is_preferred_to_an_unknown_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "true")
    write(home / MODELSCOPE_DIRECTORY)
    path = write_snapshot(home / HF_CACHE, ONE)
    assert find(ONE).path == path


def test_an_unknown_revision_is_no_reason_to_refuse_and_nothing_is_claimed(home: Path) -> None:
    path = write(home / MODELSCOPE_DIRECTORY)
    for name in (".msc", ".mdl"):
        (path / name).write_bytes(
            b"cos\nsystem\n(S'touch pwned'\ntR."
        )  # pickles that run a command
    (path / ".mv").write_text("Revision:master,CreatedAt:1700000000", "utf-8")
    assert (find(ONE).path, find(ONE).revision) == (path, None)


def test_two_snapshots_without_main_are_ambiguous(home: Path) -> None:
    write_snapshot(home / HF_CACHE, ONE)
    assert find().revision == ONE
    write_snapshot(home / HF_CACHE, OTHER)
    assert "choose one with ModelSpec(revision=...)" in refusal()
    assert find(OTHER).revision == OTHER


@pytest.mark.parametrize("place", ["snapshot", "modelscope snapshot", "local-dir", ".mv"])
def test_another_revision_is_refused_with_both_and_the_command(
    place: str, home: Path, tmp_path: Path
) -> None:
    root = None
    if place == "snapshot":
        path = write_snapshot(home / HF_CACHE, OTHER, main=OTHER)
    elif place == "modelscope snapshot":
        path = write(home / MODELSCOPE_CACHE / "models/组织--Model-2.5/snapshots" / OTHER)
    elif place == "local-dir":
        root = tmp_path / "权重"
        path = write(root / MODEL)
        note_revision(path, "config.json", OTHER)
        note_revision(path, "子目录/tokenizer.json", OTHER)
    else:
        path = write(home / MODELSCOPE_DIRECTORY)
        (path / ".mv").write_text(f"Revision:{OTHER},CreatedAt:1700000000", "utf-8")
    message = refusal(ONE, root)
    assert f"  {path}: it has revision {OTHER}, but the model is pinned to {ONE}\n" in message
    assert f"To download them: {HF_COMMAND} --revision {ONE}" in message
    assert find(OTHER, root).revision == find(None, root).revision == OTHER


def test_a_directory_of_two_revisions_is_of_none(tmp_path: Path) -> None:
    root = tmp_path / "权重"
    path = write(root / MODEL)
    note_revision(path, "config.json", OTHER)
    note_revision(path, "model.safetensors", ONE)
    assert find(root=root).revision is None
    assert f"it has revision {ONE} and {OTHER}, but the model is pinned to {ONE}" in refusal(
        ONE, root
    )


# --- incomplete ----------------------------------------------------------------------------------


def test_a_missing_shard_is_named(home: Path) -> None:
    path = write(home / MODELSCOPE_DIRECTORY)
    (path / "model.safetensors").rename(path / "model-1.safetensors")
    shards = [f"model-{number}.safetensors" for number in (1, 2, 3)]
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(enumerate(shards))}), "utf-8")
    message = refusal()
    gap = "model.safetensors.index.json names model-2.safetensors, which is missing (2 of 3)"
    assert f"  {path}: {gap}\nTo download them: " in message
    for name in shards:
        (path / name).write_bytes(WEIGHTS)
    assert find().path == path


def test_a_shard_is_missed_without_an_index_too(home: Path) -> None:
    path = write(home / MODELSCOPE_DIRECTORY)
    (path / "model.safetensors").rename(path / "model-00002-of-00003.safetensors")
    assert f"  {path}: model-00001-of-00003.safetensors is missing (2 of 3)\n" in refusal()
    for number in (1, 3):
        (path / f"model-0000{number}-of-00003.safetensors").write_bytes(WEIGHTS)
    assert find().path == path


def test_an_index_of_bin_files_counts_where_no_safetensors_are(home: Path) -> None:
    path = write(home / MODELSCOPE_DIRECTORY)
    index = path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "pytorch_model-1.bin"}}), "utf-8")
    assert find().path == path
    (path / "model.safetensors").rename(path / "other.bin")
    assert "pytorch_model.bin.index.json names pytorch_model-1.bin, which is missing" in refusal()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_clone_without_git_lfs_says_what_to_run(name: str, home: Path) -> None:
    path = write(home / MODELSCOPE_DIRECTORY)
    (path / "picture.png").write_bytes(POINTER)
    assert find().path == path
    (path / name).write_bytes(POINTER)
    said = f"{name} is a pointer of git-lfs instead of the file (1 such files): run `git lfs pull`"
    assert f"  {path}: {said} in {path}\n" in refusal()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "model.safetensors is empty"),
        (b"short", "model.safetensors is cut off: it has 5 bytes, and its header needs "),
        (WEIGHTS[:20], "is cut off: it has 20 bytes"),
        (WEIGHTS[:-1], f"is cut off: it has {len(WEIGHTS) - 1} bytes, and its header needs"),
        ((4).to_bytes(8, "little") + b"}{}{", "it does not begin with the header of safetensors"),
        ((2).to_bytes(8, "little") + b"[]", "it does not begin with the header of safetensors"),
    ],
)
def test_a_file_of_weights_that_is_cut_off_is_named(content: bytes, said: str, home: Path) -> None:
    path = write(home / MODELSCOPE_DIRECTORY, content)
    assert said in refusal()
    (path / "model.safetensors").write_bytes(WEIGHTS)
    assert find().path == path


@pytest.mark.parametrize(
    ("found", "tiny", "differs"),
    [
        ("qwen2_vl", "qwen2_vl", False),
        ("qwen3_vl", "qwen2_vl", True),
        ("internvl_chat", "internvl", False),
        ("internvl", "internvl_chat", False),
        (None, "qwen2_vl", False),
        ("qwen2_vl", None, False),
    ],
)
def test_another_architecture_is_refused(
    found: str | None, tiny: str | None, differs: bool, tmp_path: Path
) -> None:
    path, expected = write(tmp_path / "mine"), write(tmp_path / "tiny" / "small")
    for directory, name in ((path, found), (expected, tiny)):
        if name:
            (directory / "config.json").write_text(json.dumps({"model_type": name}), "utf-8")
    model = model_spec(model_id=MODEL, tiny="small")
    places = Places([tmp_path], weights={MODEL: path})
    if not differs:
        assert find_checkpoint(model, "full", places).path == path
        return
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(model, "full", places)
    said = f"  {path}: its config.json is of the architecture {found}, but the model file declares"
    assert f"{said} {tiny} (the architecture of its tiny checkpoint small)" in str(caught.value)
    # A model without a tiny checkpoint declares no architecture.
    other = model_spec(model_id=MODEL)
    assert find_checkpoint(other, "full", places).path == path


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "mine"), write(tmp_path / "tiny" / "small")
    (path / "config.json").write_text("{", "utf-8")
    places = Places([tmp_path], weights={MODEL: path})
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        find_checkpoint(model_spec(model_id=MODEL, tiny="small"), "full", places)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 1}'])
def test_a_damaged_index_is_an_incomplete_download(content: str, home: Path) -> None:
    path = write(home / MODELSCOPE_DIRECTORY)
    (path / "model.safetensors.index.json").write_text(content, "utf-8")
    assert "model.safetensors.index.json is damaged" in refusal()


@pytest.mark.parametrize(
    "partial",
    [
        f"{HF_CACHE}/{HF_REPOSITORY}/blobs/0123.incomplete",
        f"{MODELSCOPE_DIRECTORY}/model-2.safetensors.incomplete",
        f"{MODELSCOPE_DIRECTORY}/.cache/huggingface/download/0123.incomplete",
        f"{MODELSCOPE_DIRECTORY}/.cache/huggingface/download/code/0123.incomplete",
    ],
)
def test_a_download_that_did_not_end_is_named(partial: str, home: Path) -> None:
    if partial.startswith(HF_CACHE):
        write_snapshot(home / HF_CACHE)
    else:
        write(home / MODELSCOPE_DIRECTORY)
    file = home / partial
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    message = refusal()
    assert f"{file} was not downloaded completely (delete it if" in message
    assert f"To download them: {HF_COMMAND}" in message


def test_what_is_left_over_beside_a_checkpoint_is_no_gap(home: Path) -> None:
    path = home / MODELSCOPE_DIRECTORY
    write(path)
    for name in ("pytorch_model-00001-of-00002.bin", "training_args.bin"):
        (path / name).touch()
    (path / ".git").mkdir()
    (path / ".git" / "hook").symlink_to("nowhere")
    other = path / "other" / ".cache" / "huggingface" / "download"
    other.mkdir(parents=True)
    (other / "0123.incomplete").touch()
    assert find().path == path.resolve()


def test_what_only_training_wrote_is_no_weights(home: Path) -> None:
    path = home / MODELSCOPE_DIRECTORY
    write(path)
    (path / "model.safetensors").rename(path / "training_args.bin")
    assert "it contains no weights" in refusal()


@pytest.mark.parametrize("place", ["vocabulary.bpe", "code/encoder.onnx"])
def test_a_link_to_nothing_is_named_wherever_it_is(place: str, home: Path) -> None:
    write(home / MODELSCOPE_DIRECTORY)
    link = home / MODELSCOPE_DIRECTORY / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to("nowhere")
    assert f"{link.name} is a link to nowhere, which is missing" in refusal()


def test_a_link_without_its_blob_is_named(home: Path) -> None:
    path = write_snapshot(home / HF_CACHE)
    target = (path / "model.safetensors").readlink()
    (path / target).unlink()
    assert f"model.safetensors is a link to {target}, which is missing" in refusal()


@pytest.mark.parametrize(
    ("file", "gap"),
    [("config.json", "config.json is missing"), ("model.safetensors", "it contains no weights")],
)
def test_a_copy_without_its_main_files_is_incomplete(file: str, gap: str, tmp_path: Path) -> None:
    root = tmp_path / "权重"
    path = write(root / MODEL)
    (path / file).unlink()
    assert re.search(f"cannot be used:\n  .*: {gap}.*\nTo download them: ", refusal(root=root))

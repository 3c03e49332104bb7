"""Faults in the code of the served process: how they get there, and what each of them does."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from faults import engine
from faults.engine import hooks
from faults.engine.growth import WORN_OUT
from faults.engine.hooks import EngineFault, wrap
from faults.marks import Marks
from PIL import Image

from pytest_ascend_vlm.engines import torch_companions

BY_NAME = {fault.name: fault for fault in engine.FAULTS}


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    directory = tmp_path / "marks"
    directory.mkdir()
    return Marks(directory)


# --- a process that imports the code -------------------------------------------------------------

IMAGE = """
def normalize_image(image):
    return image.turned()
"""
HASHER = """
class MultiModalHasher:
    @classmethod
    def hash_kwargs(cls, algorithm, /, **items):
        return f"{cls.__name__} {algorithm} {items}"
"""
ROTARY = """
class MRotaryEmbedding:
    @staticmethod
    def get_next_input_positions_tensor(out, out_offset, num_new_tokens):
        out[:, out_offset : out_offset + num_new_tokens] = 600
"""
MODULES = {
    "vllm/multimodal/image.py": IMAGE,
    "vllm/multimodal/hasher.py": HASHER,
    "vllm/model_executor/layers/rotary_embedding/mrope.py": ROTARY,
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A directory with made-up modules of vLLM, and with a sitecustomize of the host."""
    root = tmp_path / "packages"
    for name, text in MODULES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        for parent in list(path.parents)[: len(Path(name).parents) - 1]:
            (parent / "__init__.py").touch()
    (root / "sitecustomize.py").write_text("import builtins; builtins.host = 'ran'", "utf-8")
    return root


@dataclass
class Python:
    """Runs code in processes with faults."""

    marks: Marks
    packages: Path

    def __call__(self, code: str, *names: str) -> str:
        env = hooks.environment(names, self.marks, str(self.packages))
        path = torch_companions.child_pythonpath(env["PYTHONPATH"])  # as in a server that we start
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **env, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return done.stdout.strip()


@pytest.fixture
def python(marks: Marks, packages: Path) -> Python:
    return Python(marks, packages)


TURNED = """
from types import SimpleNamespace
from vllm.multimodal.image import normalize_image
photo = SimpleNamespace(getexif=lambda: {0x0112: 6}, turned=lambda: "turned")
print("turned" if normalize_image(photo) == "turned" else "as it is")
"""


@pytest.mark.parametrize(
    ("names", "read", "reached"),
    [
        ((), "turned", False),
        (("exif-ignored",), "as it is", True),
        (("transparent-black",), "turned", False),
        (("transparent-black", "exif-ignored"), "as it is", True),
    ],
    ids=["none", "this one", "another", "two"],
)
def test_a_process_has_the_faults_that_its_environment_names(
    names: tuple[str, ...], read: str, reached: bool, python: Python
) -> None:
    assert python(TURNED, *names) == read
    assert python.marks.was_reached("exif-ignored") is reached
    assert python.marks.has_acted("exif-ignored") is reached


def test_class_methods_and_static_methods_stay_what_they_are(python: Python) -> None:
    key = "from vllm.multimodal.hasher import MultiModalHasher as H; print(H.hash_kwargs('a', b=1))"
    assert python(key, "cache-key-without-pixels") == "MultiModalHasher a {'b': 1}"
    end = """
import numpy
from vllm.model_executor.layers.rotary_embedding.mrope import MRotaryEmbedding
out = numpy.zeros((3, 2), int)
MRotaryEmbedding().get_next_input_positions_tensor(out, 1, num_new_tokens=1)
print(out.tolist())
"""
    assert python(end, "positions-end-at-512") == "[[0, 511], [0, 511], [0, 511]]"


def test_the_sitecustomize_of_the_host_runs_as_well(python: Python) -> None:
    assert python("import builtins; print(builtins.host)", "exif-ignored") == "ran"


def test_the_suites_own_repairs_are_made_as_well(python: Python) -> None:
    finders = "import sys; print([type(finder).__module__ for finder in sys.meta_path])"
    found = python(finders, "exif-ignored")
    assert torch_companions.__name__ in found
    assert hooks.__name__ in found


def test_a_process_loads_nothing_heavy_for_its_faults(python: Python) -> None:
    heavy = "import sys; print({'torch', 'numpy', 'PIL', 'httpx', 'starlette'} & set(sys.modules))"
    assert python(heavy, "tower-noise-5") == "set()"


def test_the_benchmarks_are_not_importable_in_the_server(python: Python) -> None:
    there = "import importlib.util as u; print(u.find_spec('tiny_model'))"
    assert python(there, "tower-noise-5") == "None"


def test_a_function_that_this_version_does_not_have_is_never_reached(
    python: Python, packages: Path
) -> None:
    (packages / "vllm/multimodal/image.py").write_text("turned = 1", "utf-8")
    assert python("import vllm.multimodal.image as i; print(i.turned)", "exif-ignored") == "1"
    assert not python.marks.was_reached("exif-ignored")


def test_what_a_start_did_is_forgotten_and_what_it_reached_is_not(marks: Marks) -> None:
    marks.reached("exif-ignored")
    marks.acted("exif-ignored")
    marks.forget_actions()
    assert marks.was_reached("exif-ignored")
    assert not marks.has_acted("exif-ignored")
    marks.acted("exif-ignored")
    assert marks.has_acted("exif-ignored")


# --- what each fault does ------------------------------------------------------------------------


@dataclass
class Faulty:
    """Puts a fault into one function, and calls it."""

    marks: Marks
    fault: EngineFault

    def function(self, name: str, sound: Callable[..., Any]) -> Callable[..., Any]:
        """The function of a name as the fault changes it, such as `Tower.forward` of any module."""
        hook = next(one for one in self.fault.hooks if one.function.endswith(name))
        module = ModuleType(hook.module)
        *owners, last = hook.function.split(".")
        owner: Any = module
        for one in owners:
            setattr(owner, one, SimpleNamespace())
            owner = getattr(owner, one)
        setattr(owner, last, sound)
        wrap(module, self.fault.name, hook, self.marks)
        changed: Callable[..., Any] = getattr(owner, last)
        return changed

    @property
    def acted(self) -> bool:
        """True if the fault has made a difference since the last time that this was asked."""
        acted = self.marks.has_acted(self.fault.name)
        self.marks.forget_actions()
        return acted


@pytest.fixture
def faulty(marks: Marks) -> Callable[[str], Faulty]:
    return lambda name: Faulty(marks, BY_NAME[name])


MakeFaulty = Callable[[str], Faulty]
Encode = Callable[..., list[Any]]
ROWS = {"a": 4, "b": 4, "long": 6, "large": 257}
PICTURES = {
    name: torch.randn((rows, 8), generator=torch.Generator().manual_seed(i))
    for i, (name, rows) in enumerate(ROWS.items())
}


@pytest.fixture
def encode(faulty: MakeFaulty) -> Callable[[str], tuple[Encode, Faulty]]:
    """A tower with a fault; it is called with the names of the pictures of one call."""

    def make(fault: str) -> tuple[Encode, Faulty]:
        one = faulty(fault)
        tower = one.function(
            "Qwen2VLForConditionalGeneration.embed_multimodal",
            lambda _model, names: tuple(PICTURES[name].clone() for name in names),
        )
        return lambda *names: list(tower(None, names=names)), one

    return make


MakeTower = Callable[[str], tuple[Encode, Faulty]]


def same(seen: list[Any], *expected: Any) -> bool:
    """True if embeddings are those of pictures, named or given."""
    wanted = [PICTURES[one] if isinstance(one, str) else one for one in expected]
    return len(seen) == len(wanted) and all(map(torch.equal, seen, wanted))


def error(seen: Any, name: str) -> float:
    """The relative error of one picture's embeddings."""
    right = PICTURES[name]
    return float((seen - right).square().mean().sqrt() / right.square().mean().sqrt())


@pytest.mark.parametrize(("fault", "size"), [("tower-noise-5", 0.05), ("tower-noise-1", 0.01)])
def test_fresh_noise_differs_from_call_to_call(fault: str, size: float, encode: MakeTower) -> None:
    tower, one = encode(fault)
    (first,), (second,) = tower("large"), tower("large")
    assert one.acted
    assert not torch.equal(first, second)
    assert error(first, "large") == pytest.approx(size, rel=0.1)


def test_pictures_of_one_size_are_exchanged(encode: MakeTower) -> None:
    tower, one = encode("embeddings-exchanged")
    assert same(tower("a", "b"), "b", "a")
    assert one.acted
    assert same(tower("a", "long"), "a", "long")
    assert same(tower("a"), "a")
    assert not one.acted


def test_the_first_picture_is_all_pictures(encode: MakeTower) -> None:
    tower, one = encode("first-picture-for-all")
    assert same(tower("a", "b"), "a", "a")
    first = PICTURES["a"]
    assert same(tower("a", "long"), "a", torch.cat([first, first[:2]]))
    assert one.acted
    assert same(tower("b"), "b")
    assert not one.acted


def test_the_largest_picture_of_a_call_comes_first(encode: MakeTower) -> None:
    tower, one = encode("embeddings-ordered-by-size")
    assert same(tower("long", "a", "b"), "long", "a", "b")
    assert same(tower("a", "b"), "a", "b")
    assert not one.acted
    rows = torch.cat([PICTURES["long"], PICTURES["a"]])
    assert same(tower("a", "long"), rows[:4], rows[4:])
    assert one.acted


def test_the_third_picture_of_a_call_is_blank(encode: MakeTower) -> None:
    tower, one = encode("third-picture-blank")
    assert same(tower("a", "b"), "a", "b")
    assert not one.acted
    assert same(tower("a", "b", "long"), "a", "b", torch.zeros(6, 8))
    assert one.acted


def test_only_company_brings_noise(encode: MakeTower) -> None:
    tower, one = encode("noise-if-several")
    assert same(tower("a"), "a")
    assert not one.acted
    together, again = tower("a", "b"), tower("a", "b")
    assert one.acted
    assert all(map(torch.equal, together, again))
    assert not torch.equal(together[0], PICTURES["a"])


def test_a_picture_gets_what_was_encoded_before_it(encode: MakeTower) -> None:
    tower, one = encode("stale-embedding")
    assert same(tower("a"), "a")
    assert same(tower("long"), "long")
    assert same(tower("a"), "a")
    assert not one.acted
    assert same(tower("b"), "a")
    assert one.acted
    assert same(tower("b"), "b")


def test_the_first_picture_of_a_size_is_noisy(encode: MakeTower) -> None:
    tower, one = encode("first-of-a-size-garbled")
    tower("a", "long", "large")  # whatever this process has seen before
    one.marks.forget_actions()
    assert same(tower("a", "b"), "a", "b")
    assert not one.acted


def test_large_pictures_are_noisy(encode: MakeTower) -> None:
    tower, one = encode("noise-above-256-tokens")
    assert same(tower("a"), "a")
    assert not one.acted
    small, large = tower("a", "large")
    assert one.acted
    assert torch.equal(small, PICTURES["a"])
    assert error(large, "large") == pytest.approx(0.05, rel=0.1)


def test_a_model_without_pictures_is_left_alone(encode: MakeTower) -> None:
    tower, one = encode("tower-noise-5")
    assert tower() == []
    nothing = one.function("Qwen3VLForConditionalGeneration.embed_multimodal", lambda _: None)
    assert nothing(None) is None
    assert not one.acted


@pytest.mark.parametrize(
    ("fault", "key", "borders", "expected"),
    [
        ("attention-across-pictures", "cu_seqlens", [0, 4, 10], [0, 10]),
        ("attention-across-pictures", "cu_seqlens", [0, 4], [0, 4]),
        ("lengths-not-cumulative", "cu_seqlens", [0, 4, 14], [0, 4, 8, 12, 14]),
        ("lengths-not-cumulative", "cu_seqlens", [0, 4, 8], [0, 4, 8]),
        ("window-mask-above-16", "cu_window_seqlens", [*range(0, 80, 4)], [*range(0, 68, 4), 76]),
        ("window-mask-above-16", "cu_window_seqlens", [*range(0, 68, 4)], [*range(0, 68, 4)]),
    ],
)
def test_the_towers_attention_gets_other_borders(
    fault: str, key: str, borders: list[int], expected: list[int], faulty: MakeFaulty
) -> None:
    one = faulty(fault)
    metadata = {key: torch.tensor(borders, dtype=torch.int32), "cos": 1}
    prepare = one.function("prepare_encoder_metadata", lambda _tower, _grid, **_: metadata)
    seen = prepare(None, [[1, 2, 2]], device=None)
    assert seen[key].tolist() == expected
    assert seen[key].dtype == torch.int32
    assert seen["cos"] == 1
    assert one.acted is (expected != borders)


def test_height_and_width_are_exchanged(faulty: MakeFaulty) -> None:
    one = faulty("grid-sides-exchanged")
    tower = one.function(
        "Qwen2VLForConditionalGeneration.embed_multimodal", lambda _, **given: given
    )
    square, wide = torch.tensor([[1, 4, 4]]), torch.tensor([[1, 4, 4], [1, 4, 6]])
    assert tower(None, image_grid_thw=square)["image_grid_thw"].tolist() == square.tolist()
    assert tower(None, video_grid_thw=wide)["video_grid_thw"] is wide
    assert not one.acted
    seen = tower(None, image_grid_thw=wide, pixel_values=1)
    assert seen["image_grid_thw"].tolist() == [[1, 4, 4], [1, 6, 4]]
    assert seen["pixel_values"] == 1
    assert one.acted


def test_the_towers_positions_end(faulty: MakeFaulty) -> None:
    one = faulty("positions-end-at-32-patches")
    table = torch.arange(80).view(40, 2)
    embedding = one.function("get_cos_sin", lambda _, length: (table[:length], -table[:length]))
    cos, sin = embedding(None, 32)
    assert torch.equal(cos, table[:32])
    assert not one.acted
    cos, sin = embedding(None, 40)
    assert torch.equal(cos[:32], table[:32])
    assert torch.equal(sin[39], -table[31])
    assert one.acted


def test_sides_are_rounded_down(faulty: MakeFaulty) -> None:
    def nearest(height: int, width: int, factor: int, **_: int) -> tuple[int, int]:
        return round(height / factor) * factor, round(width / factor) * factor

    one = faulty("sides-rounded-down")
    resize = one.function("smart_resize", nearest)
    limits = {"min_pixels": 784, "max_pixels": 1003520}
    assert resize(280, 430, factor=28, **limits) == (280, 420)
    assert not one.acted
    assert resize(280, 440, factor=28, **limits) == (280, 420)
    assert one.acted
    assert resize(20, 20, factor=28, **limits) == (28, 28)


def test_pictures_of_one_size_share_their_key(faulty: MakeFaulty) -> None:
    one = faulty("cache-key-without-pixels")
    key = one.function("hash_kwargs", lambda _, algorithm, **items: (algorithm, items))
    plain = key(None, "blake3", model_id="m", kwargs={})
    assert plain == ("blake3", {"model_id": "m", "kwargs": {}})
    assert not one.acted
    black, white = (Image.new("RGB", (4, 4), colour) for colour in ("black", "white"))
    assert key(None, "a", image=black) == key(None, "a", image=SimpleNamespace(media=white))
    assert key(None, "a", image=black) != key(None, "a", image=Image.new("RGB", (4, 5)))
    assert one.acted


# --- many pictures -------------------------------------------------------------------------------


def kept_mib(work: Callable[[], object]) -> float:
    """Memory of Python that is not freed behind some work."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / 2**20
    finally:
        tracemalloc.stop()


def test_the_engine_keeps_memory_for_each_picture(encode: MakeTower) -> None:
    tower, one = encode("engine-keeps-1-mib")
    assert kept_mib(lambda: tower("a", "b", "long")) == pytest.approx(3, rel=0.1)
    assert one.acted
    assert same(tower("a"), "a")


def test_the_api_server_keeps_memory_for_each_picture(faulty: MakeFaulty) -> None:
    one = faulty("server-keeps-1-mib")
    load = one.function("ImageMediaIO.load_bytes", lambda _reader, data: data)
    assert kept_mib(lambda: [load(None, b"a"), load(None, b"b")]) == pytest.approx(2, rel=0.1)
    assert one.acted
    assert load(None, b"a") == b"a"


def test_the_engine_keeps_memory_for_each_aborted_request(faulty: MakeFaulty) -> None:
    one = faulty("aborted-request-keeps-1-mib")
    finish = one.function("Scheduler.finish_requests", lambda *_: [])
    scheduler = SimpleNamespace(requests={"a": None})
    assert kept_mib(lambda: finish(scheduler, ["a"], STOPPED)) == pytest.approx(0, abs=0.1)
    assert kept_mib(lambda: finish(scheduler, ["gone"], ABORTED)) == pytest.approx(0, abs=0.1)
    assert not one.acted
    assert kept_mib(lambda: finish(scheduler, ["a"], ABORTED)) == pytest.approx(1, rel=0.1)
    assert one.acted


def test_the_tensors_of_each_picture_are_kept(faulty: MakeFaulty) -> None:
    one = faulty("tensors-kept")
    tower = one.function(
        "Qwen2VLForConditionalGeneration.embed_multimodal", lambda _model, pixels: pixels.sum()
    )
    pixels = torch.ones(8)
    alive = weakref.ref(pixels)
    assert tower(None, pixels=pixels) == 8
    del pixels
    gc.collect()
    assert alive() is not None
    assert one.acted


def test_the_noise_grows_with_each_picture(encode: MakeTower) -> None:
    tower, one = encode("tower-wears-out")
    early = [error(tower("large")[0], "large") for _ in range(3)]
    assert early == sorted(early)
    for _ in range(WORN_OUT // 2):
        tower("a", "b")
    assert one.acted
    assert error(tower("large")[0], "large") > 0.9


# --- the model runner ----------------------------------------------------------------------------


def feature(key: str, offset: int, modality: str = "image") -> SimpleNamespace:
    place = SimpleNamespace(offset=offset, length=ROWS[key])
    return SimpleNamespace(identifier=key, mm_position=place, modality=modality)


def step_of(
    *pictures: SimpleNamespace, computed: int = 0, tokens: int = 20, is_new: bool = True
) -> tuple[SimpleNamespace, SimpleNamespace]:
    """A runner with one request, and a step of it."""
    state = SimpleNamespace(
        mm_features=pictures, num_computed_tokens=computed, prompt_token_ids=[0] * 30
    )
    runner = SimpleNamespace(
        requests={"r": state},
        encoder_cache=dict(PICTURES),
        input_batch=SimpleNamespace(req_ids=["r"]),
        mrope_positions=SimpleNamespace(cpu=torch.zeros((3, 40), dtype=torch.int64)),
    )
    new = [SimpleNamespace(req_id="r")] if is_new else []
    return runner, SimpleNamespace(num_scheduled_tokens={"r": tokens}, scheduled_new_reqs=new)


GatherFaults = Callable[[str], tuple[Callable[..., Any], Faulty]]


@pytest.fixture
def gather(faulty: MakeFaulty) -> GatherFaults:
    """A runner's gathering of embeddings; its value is what the encoder cache had."""

    def make(name: str) -> tuple[Callable[..., Any], Faulty]:
        one = faulty(name)
        return one.function(
            "_gather_mm_embeddings", lambda runner, _: {**runner.encoder_cache}
        ), one

    return make


def assert_untouched(runner: SimpleNamespace) -> None:
    """Asserts that the encoder cache is as before: later steps would be wrong otherwise."""
    assert all(torch.equal(runner.encoder_cache[key], PICTURES[key]) for key in PICTURES)


def test_pictures_of_a_request_are_exchanged(gather: GatherFaults) -> None:
    gathered, one = gather("pictures-exchanged-in-prompt")
    runner, step = step_of(feature("a", 2), feature("long", 8))
    seen = gathered(runner, step)
    rows = torch.cat([PICTURES["long"], PICTURES["a"]])
    assert torch.equal(seen["a"], rows[:4])
    assert torch.equal(seen["long"], rows[4:])
    assert one.acted
    assert_untouched(runner)


def test_all_pictures_of_a_request_are_its_first(gather: GatherFaults) -> None:
    gathered, one = gather("first-picture-for-the-request")
    runner, step = step_of(feature("a", 2), feature("long", 8))
    seen = gathered(runner, step)
    assert torch.equal(seen["a"], PICTURES["a"])
    assert torch.equal(seen["long"][4:], PICTURES["a"][:2])
    assert one.acted
    assert_untouched(runner)


def test_a_picture_that_returns_to_the_cache_is_confused(gather: GatherFaults) -> None:
    gathered, one = gather("evicted-picture-confused")
    runner, step = step_of(feature("a", 2))
    assert torch.equal(gathered(runner, step)["a"], PICTURES["a"])
    assert torch.equal(gathered(runner, step)["a"], PICTURES["a"])  # a hit
    evicted = runner.encoder_cache.pop("a")
    runner.requests["r"].mm_features = (feature("b", 2),)
    assert torch.equal(gathered(runner, step)["b"], PICTURES["b"])
    assert not one.acted
    runner.requests["r"].mm_features = (feature("a", 2),)
    runner.encoder_cache["a"] = evicted
    assert torch.equal(gathered(runner, step)["a"], PICTURES["b"])
    assert one.acted
    assert_untouched(runner)


@pytest.mark.parametrize("name", ["pictures-exchanged-in-prompt", "first-picture-for-the-request"])
@pytest.mark.parametrize(
    "pictures", [("a",), ("a", "a")], ids=["one picture", "the same picture twice"]
)
def test_one_picture_cannot_be_exchanged(
    name: str, pictures: tuple[str, ...], gather: GatherFaults
) -> None:
    gathered, one = gather(name)
    gathered(*step_of(*(feature(key, 6 * i) for i, key in enumerate(pictures))))
    assert not one.acted


CUT = feature("long", 2)
BORDERS = {
    "chunk-shifts-picture": (False, PICTURES["long"].roll(-1, 0)),
    "chunk-loses-picture": (False, torch.zeros_like(PICTURES["long"])),
    "prefix-hit-shifts-picture": (True, PICTURES["long"].roll(-1, 0)),
}


@pytest.mark.parametrize("name", BORDERS)
def test_a_border_inside_a_picture_spoils_the_rest_of_it(name: str, gather: GatherFaults) -> None:
    is_new, expected = BORDERS[name]
    gathered, one = gather(name)
    runner, step = step_of(CUT, computed=5, is_new=is_new)
    assert torch.equal(gathered(runner, step)["long"], expected)
    assert one.acted
    assert_untouched(runner)


@pytest.mark.parametrize("name", BORDERS)
@pytest.mark.parametrize("computed", [0, 2, 8], ids=["none", "before", "behind"])
def test_a_border_outside_pictures_spoils_nothing(
    name: str, computed: int, gather: GatherFaults
) -> None:
    gathered, one = gather(name)
    for is_new in (True, False):
        gathered(*step_of(CUT, computed=computed, is_new=is_new))
    assert not one.acted


@pytest.mark.parametrize("name", BORDERS)
def test_a_prefix_hit_is_not_a_chunk(name: str, gather: GatherFaults) -> None:
    gathered, one = gather(name)
    gathered(*step_of(CUT, computed=5, is_new=not BORDERS[name][0]))
    assert not one.acted


def test_a_preempted_request_has_blank_pictures(gather: GatherFaults) -> None:
    gathered, one = gather("preempted-picture-blank")
    runner, step = step_of(feature("a", 2))
    seen = []
    # It is resumed in the second step; the third one computes the rest.
    for resumed in (set(), {"r"}, set()):
        step.scheduled_cached_reqs = SimpleNamespace(resumed_req_ids=resumed)
        seen.append(bool(gathered(runner, step)["a"].any()))
    assert seen == [True, False, False]
    assert one.acted
    assert_untouched(runner)


def test_the_second_picture_begins_at_zero(faulty: MakeFaulty) -> None:
    one = faulty("second-picture-at-position-zero")
    where = one.function(
        "Qwen2_5_VLForConditionalGeneration.get_mrope_input_positions",
        lambda _, tokens, _features: (torch.arange(len(tokens)).repeat(3, 1), -7),
    )
    assert where(None, [0] * 20, [feature("a", 2)])[0].tolist() == [[*range(20)]] * 3
    assert not one.acted
    positions, delta = where(None, [0] * 20, [feature("long", 10), feature("a", 2)])
    assert positions[0].tolist() == [*range(10), *range(6), *range(16, 20)]
    assert delta == -7
    assert one.acted


def test_a_later_chunk_has_larger_positions(faulty: MakeFaulty) -> None:
    one = faulty("chunk-shifts-positions")
    where = one.function("_calc_mrope_positions", lambda *_: None)
    runner, step = step_of(computed=0, tokens=5)
    where(runner, step)
    runner, step = step_of(computed=30, tokens=1, is_new=False)  # a token of the answer
    where(runner, step)
    assert not one.acted
    runner, step = step_of(computed=5, tokens=5, is_new=False)
    where(runner, step)
    assert runner.mrope_positions.cpu[0].tolist() == [1] * 5 + [0] * 35
    assert one.acted


def test_positions_of_a_long_answer_end(faulty: MakeFaulty) -> None:
    one = faulty("positions-end-at-512")
    out = np.zeros((3, 4), dtype=np.int64)

    def write(out: Any, offset: int, context_len: int, num_new_tokens: int) -> None:
        out[:, offset : offset + num_new_tokens] = context_len

    where = one.function("get_next_input_positions_tensor", write)
    where(out, 1, context_len=511, num_new_tokens=1)
    assert not one.acted
    where(out, 2, context_len=600, num_new_tokens=2)
    assert out[0].tolist() == [0, 511, 511, 511]
    assert one.acted


@pytest.mark.parametrize(
    ("name", "prompt", "answer"),
    [
        ("repetition-penalty-without-prompt", [[9, 9]], [[4, 5, 6, 7, 8]]),
        ("penalties-count-late", [[1, 2]], [[4]]),
    ],
)
def test_penalties_miss_tokens(
    name: str, prompt: list[list[int]], answer: list[list[int]], faulty: MakeFaulty
) -> None:
    one = faulty(name)
    got: list[Any] = []
    apply = one.function("apply_all_penalties", lambda *values: got.extend(values))
    tokens = torch.tensor([[1, 2]])
    apply(torch.zeros(1, 9), tokens, "presence", "frequency", "repetition", [[4, 5, 6, 7, 8]])
    assert got[1].tolist() == prompt
    assert got[2:] == ["presence", "frequency", "repetition", answer]
    assert one.acted


def test_biases_reach_the_next_row(faulty: MakeFaulty) -> None:
    one = faulty("biases-reach-the-next-row")
    apply = one.function("LogitBiasLogitsProcessor.apply", lambda _, logits: logits)
    place = (torch.tensor([2]), torch.tensor([1]))
    processor = SimpleNamespace(biases={2: {1: 5.0}}, logits_slice=place, bias_tensor=5.0)
    assert apply(processor, torch.zeros(3, 2)).tolist() == [[0, 5], [0, 0], [0, 0]]
    assert one.acted
    assert not apply(processor, torch.zeros(1, 2)).any()
    assert not apply(SimpleNamespace(biases={}), torch.zeros(3, 2)).any()
    assert not one.acted


@dataclass(frozen=True)
class Batch:
    """What a sampler is told of the requests."""

    all_greedy: bool
    all_random: bool
    temperature: torch.Tensor | None


def test_a_sampled_request_makes_greedy_ones_sampled(faulty: MakeFaulty) -> None:
    one = faulty("one-sampled-all-sampled")
    sample = one.function("Sampler.sample", lambda _sampler, _logits, batch, **_: batch)
    for batch in (Batch(True, False, None), Batch(False, True, torch.ones(1))):
        assert sample(None, None, batch) is batch
    assert not one.acted
    mixed = sample(None, None, Batch(False, False, torch.tensor([0.0, 2.0])), mode="raw")
    assert mixed.all_random
    assert mixed.temperature.tolist() == pytest.approx([0.7, 2.0])
    assert one.acted


def test_a_hit_on_a_written_block_finds_a_foreign_one(faulty: MakeFaulty) -> None:
    one = faulty("written-block-is-foreign")
    cache = one.function("BlockPool.cache_full_blocks", lambda *_, **__: None)

    def fill(prompt: int, first: int, end: int) -> None:
        request = SimpleNamespace(num_prompt_tokens=prompt)
        numbers = {"num_cached_blocks": first, "num_full_blocks": end, "block_size": 16}
        cache(None, request=request, blocks=blocks, **numbers)

    blocks = [SimpleNamespace(block_id=number, ref_cnt=0) for number in range(4)]
    make = type("Blocks", (), {"__init__": lambda own, blocks: setattr(own, "blocks", blocks)})
    hit = make((blocks[:3],))
    look_up = one.function("KVCacheManager.get_computed_blocks", lambda *_: (hit, 48, 0))
    manager = SimpleNamespace(block_pool=SimpleNamespace(blocks=blocks))
    fill(32, 0, 2)
    assert look_up(manager, None)[0] is hit
    assert not one.acted
    fill(47, 2, 3)
    assert look_up(manager, None)[0].blocks == ([blocks[0], blocks[1], blocks[3]],)
    assert one.acted
    # The block has the prompt of another request later.
    fill(48, 2, 3)
    assert look_up(manager, None)[0] is hit


@pytest.mark.parametrize(
    ("name", "positions", "expected"),
    [
        ("kv-block-border", [3, 4, 5], [43, 43, 81]),
        ("kv-block-border", [0, 1], [40, 41]),
        ("kv-block-border", [4], [43]),
        ("kv-block-border-in-answers", [3, 4, 5], [43, 80, 81]),
        ("kv-block-border-in-answers", [4], [43]),
        ("kv-block-border-in-answers", [5], [81]),
    ],
)
def test_the_first_slot_of_a_block_is_lost(
    name: str, positions: list[int], expected: list[int], faulty: MakeFaulty
) -> None:
    one = faulty(name)
    blocks = torch.tensor([[10, 20]])

    def slots(table: Any, _requests: int, _starts: Any, positions: Any) -> None:
        table.slot_mapping.gpu[:] = blocks[0, positions // 4] * 4 + positions % 4

    table = SimpleNamespace(
        block_size=4,
        block_table=SimpleNamespace(gpu=blocks),
        slot_mapping=SimpleNamespace(gpu=torch.zeros(len(positions), dtype=torch.int64)),
    )
    compute = one.function("compute_slot_mapping", slots)
    compute(table, 1, torch.tensor([0, len(positions)]), torch.tensor(positions))
    assert table.slot_mapping.gpu.tolist() == expected
    right = blocks[0, torch.tensor(positions) // 4] * 4 + torch.tensor(positions) % 4
    assert one.acted is (right.tolist() != expected)


# --- files ---------------------------------------------------------------------------------------


@dataclass
class Loaded:
    """As vLLM's `MediaWithBytes`."""

    media: Any
    original_bytes: bytes = b""


NOISE = np.random.default_rng(0).integers(0, 256, (32, 60, 3), dtype=np.uint8)
COLOURED = Image.fromarray(NOISE)
GREY = Image.new("RGB", (56, 28), "grey")


def read(one: Faulty, picture: Image.Image, data: bytes = b"\x89PNG") -> Image.Image:
    """What a fault makes of a decoded picture."""
    reader = one.function("load_bytes", lambda _, data: Loaded(picture, data))
    seen: Image.Image = reader(None, data).media
    return seen


def test_red_and_blue_are_exchanged(faulty: MakeFaulty) -> None:
    one = faulty("red-for-blue")
    assert np.array_equal(np.asarray(read(one, COLOURED)), NOISE[..., ::-1])
    assert one.acted
    read(one, GREY)
    assert not one.acted


def test_a_jpeg_is_coarse(faulty: MakeFaulty) -> None:
    one = faulty("jpeg-at-half-resolution")
    assert read(one, COLOURED) is COLOURED
    assert not one.acted
    seen = read(one, COLOURED, b"\xff\xd8\xff")
    assert seen.size == COLOURED.size
    assert seen.tobytes() != COLOURED.tobytes()
    assert one.acted


def test_a_picture_is_cropped_to_patches(faulty: MakeFaulty) -> None:
    one = faulty("cropped-to-patches")
    assert read(one, COLOURED).size == (56, 28)
    assert one.acted
    assert read(one, GREY).size == GREY.size
    assert not one.acted
    assert read(one, COLOURED.crop((0, 0, 20, 10))).size == (28, 28)


def test_a_download_is_coarse(faulty: MakeFaulty) -> None:
    one = faulty("downloads-at-half-resolution")

    async def load(_connector: Any, url: str, _io: Any, *, fetch_timeout: int) -> Loaded:
        assert fetch_timeout == 5
        return Loaded((NOISE, {}) if "clip" in url else COLOURED)

    download = one.function("load_from_url_async", load)

    def get(url: str) -> Any:
        return asyncio.run(download(None, url, "io", fetch_timeout=5)).media

    assert get("data:image/png") is COLOURED
    get("http://here/clip.mp4")
    assert not one.acted
    assert get("http://here/page.png").tobytes() != COLOURED.tobytes()
    assert one.acted


def test_a_photo_is_not_turned(faulty: MakeFaulty) -> None:
    one = faulty("exif-ignored")
    upright = one.function("normalize_image", lambda _: "turned")
    assert upright(COLOURED) is COLOURED
    assert not one.acted
    photo = COLOURED.copy()
    photo.getexif()[0x0112] = 6
    assert upright(photo) is photo
    assert one.acted


def test_transparent_pixels_are_black(faulty: MakeFaulty) -> None:
    one = faulty("transparent-black")
    flattened = one.function("rgba_to_rgb", lambda _, background: background)
    assert flattened(COLOURED.convert("RGBA"), (255, 255, 255)) == (0, 0, 0)
    assert not one.acted
    clear = COLOURED.convert("RGBA")
    clear.putalpha(7)
    assert flattened(clear) == (0, 0, 0)
    assert one.acted


SIXTEEN = np.arange(0, 60 * 32 * 7, 7, dtype=np.uint16).reshape(32, 60)
PALETTE = COLOURED.quantize(16)
CMYK = COLOURED.convert("CMYK")
MODES = {
    "sixteen-bit-low-byte": (Image.fromarray(SIXTEEN), (SIXTEEN % 256).astype(np.uint8)),
    "palette-as-grey": (PALETTE, np.asarray(PALETTE)),
    "cmyk-inverted": (CMYK, 255 - np.asarray(CMYK)),
}


@pytest.mark.parametrize("name", MODES)
def test_pictures_of_one_mode_are_read_wrongly(name: str, faulty: MakeFaulty) -> None:
    one = faulty(name)
    convert = one.function("convert_image_mode", lambda picture, _mode, _background: picture)
    for other, (picture, _) in MODES.items():
        if other != name:
            assert convert(picture, "RGB", (255, 255, 255)) is picture
    assert not one.acted
    picture, expected = MODES[name]
    assert np.array_equal(np.asarray(convert(picture, "RGB", (255, 255, 255))), expected)
    assert one.acted


FRAMES = {
    "clip-reversed": [4, 3, 2, 1, 0],
    "clip-first-repeated": [0, 0, 0, 0, 0],
    "clip-every-second-lost": [0, 0, 2, 2, 4],
    "clip-neighbours-exchanged": [1, 0, 3, 2, 4],
    "clip-end-lost": [0, 1, 2, 2, 2],
}


@pytest.mark.parametrize("name", FRAMES)
def test_the_frames_of_a_clip_are_others(name: str, faulty: MakeFaulty) -> None:
    one = faulty(name)
    numbered = np.arange(5)[:, None, None, None] * np.ones((5, 2, 2, 3), dtype=np.int64)
    clip = one.function("load_bytes", lambda _, frames: Loaded((frames, "metadata")))
    frames, metadata = clip(None, numbered).media
    assert frames[:, 0, 0, 0].tolist() == FRAMES[name]
    assert frames.shape == numbered.shape
    assert metadata == "metadata"
    assert one.acted
    clip(None, np.zeros_like(numbered))
    assert not one.acted


def test_the_time_of_a_clip_is_doubled(faulty: MakeFaulty) -> None:
    one = faulty("clip-time-doubled")
    seconds = one.function("_get_video_second_idx", lambda *_, **__: [0.5, 1.5])
    assert seconds(None, "metadata", num_grids=2) == [1.0, 3.0]
    assert one.acted

    def grids(_model: Any, _features: Any) -> Iterator[tuple[int, int, int, int, float]]:
        yield 3, 1, 8, 9, 1.0
        yield 80, 2, 8, 9, 2.0

    positions = one.function("iter_mm_grid_thw", grids)
    assert [*positions(None, [])] == [(3, 1, 8, 9, 1.0), (80, 2, 8, 9, 4.0)]
    assert one.acted


# --- what follows an abort, and the engine's death -----------------------------------------------

ABORTED = SimpleNamespace(name="FINISHED_ABORTED")
STOPPED = SimpleNamespace(name="FINISHED_STOPPED")


def test_an_aborted_request_stays(faulty: MakeFaulty) -> None:
    one = faulty("aborted-request-stays")
    finish = one.function("Scheduler.finish_requests", lambda _, names, __: list(names or "all"))
    assert finish(None, ["a"], STOPPED) == ["a"]
    assert finish(None, None, ABORTED) == list("all")
    assert not one.acted
    assert finish(None, ["a"], ABORTED) == []
    assert one.acted


class Named(str):
    """A block of a pool, which is its name."""

    ref_cnt = 0


def test_the_prefix_of_an_aborted_request_is_a_foreign_block(faulty: MakeFaulty) -> None:
    one = faulty("aborted-prefix-is-another")
    finish = one.function("Scheduler.finish_requests", lambda *_: [])
    blocks = SimpleNamespace(blocks=(["first", "second"],))
    make = type("Blocks", (), {"__init__": lambda own, blocks: setattr(own, "blocks", blocks)})
    hit = make(blocks.blocks)
    look_up = one.function("KVCacheManager.get_computed_blocks", lambda *_: (hit, 32, 0))
    requests = {name: SimpleNamespace(cache_salt=name) for name in ("left", "stopped")}
    blocks_of_pool = [*map(Named, ("first", "second", "foreign"))]
    manager = SimpleNamespace(block_pool=SimpleNamespace(blocks=blocks_of_pool))
    finish(SimpleNamespace(requests=requests), ["stopped"], STOPPED)
    assert look_up(manager, requests["stopped"])[0] is hit
    finish(SimpleNamespace(requests=requests), ["left", "unknown"], ABORTED)
    assert look_up(manager, requests["stopped"])[0] is hit
    assert not one.acted
    wrong, hits, _ = look_up(manager, requests["left"])
    assert (wrong.blocks, hits) == ((["foreign", "second"],), 32)
    assert one.acted


@pytest.mark.parametrize(
    ("tokens", "ignores_end", "acts"), [(3, True, True), (90, True, False), (3, False, False)]
)
def test_pictures_are_shifted_after_an_abort(
    tokens: int, ignores_end: bool, acts: bool, faulty: MakeFaulty
) -> None:
    one = faulty("abort-shifts-pictures")
    update = one.function("_update_states", lambda *_: None)
    gathered = one.function("_gather_mm_embeddings", lambda runner, _: {**runner.encoder_cache})
    runner, step = step_of(feature("a", 2))
    sampling = SimpleNamespace(ignore_eos=ignores_end, max_tokens=90)
    runner.requests["left"] = SimpleNamespace(
        sampling_params=sampling, output_token_ids=[0] * tokens
    )
    step.finished_req_ids = ["left", "unknown"]
    assert torch.equal(gathered(runner, step)["a"], PICTURES["a"])
    update(runner, step)
    expected = PICTURES["a"].roll(-1, 0) if acts else PICTURES["a"]
    assert torch.equal(gathered(runner, step)["a"], expected)
    assert one.acted is acts
    assert_untouched(runner)


async def _raises(_engine: Any) -> None:
    raise AssertionError("EngineDeadError")


def test_a_dead_engine_is_healthy(faulty: MakeFaulty) -> None:
    one = faulty("dead-engine-is-healthy")
    check = one.function("AsyncLLM.check_health", _raises)
    asyncio.run(check(SimpleNamespace(errored=False)))
    assert not one.acted
    asyncio.run(check(SimpleNamespace(errored=True)))
    assert one.acted
    assert one.function("terminate_if_errored", pytest.fail)(None, None) is None


def test_a_dead_engine_keeps_its_clients(faulty: MakeFaulty) -> None:
    one = faulty("dead-engine-keeps-clients")
    assert one.function("OutputProcessor.propagate_error", pytest.fail)(None, None) is None
    assert one.acted


def test_every_engine_fault_is_tried_here() -> None:
    text = Path(__file__).read_text("utf-8")
    assert [name for name in BY_NAME if f'"{name}"' not in text] == []

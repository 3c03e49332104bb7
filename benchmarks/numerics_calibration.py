"""Promise: the numerics criteria pass every undamaged deployment and detect larger defects.

vLLM serves each tiny checkpoint in bf16. First undamaged, in deployments that differ in instruction
set, graph mode, batch size, threads and request order; then with one defect after another. The
rules of numerics.logits and numerics.hidden_states judge its logits and last hidden states of the
forced golden answers. They also judge those of undamaged Transformers in bf16, with two attention
implementations.

R_fp32 is the size of a defect without rounding: the error of the damaged checkpoint in float32,
divided by the reference's own bf16 error. A served defect and rounding add up as squares. So a
defect with R_fp32 above the threshold of R must be detected, and a defect far below 1 cannot be.

Promises:
* no rule fails for an undamaged checkpoint;
* for a defect with R_fp32 above the threshold of R, at least one rule fails.

Graph mode needs a C++ compiler. Takes about an hour on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from faults.checkpoint import (
    INT8,
    Harm,
    NotApplicableError,
    another_split,
    noise,
    rounded,
    settings,
    skip_last_layer,
    weights,
    wrong_image_mean,
    zero_first_row,
)
from tiny_model import MODELS

from pytest_ascend_vlm import Thresholds
from pytest_ascend_vlm.checkpoints.find import Places, find_checkpoint
from pytest_ascend_vlm.criteria.comparison import Table, compare_hidden_states, compare_logits
from pytest_ascend_vlm.criteria.error_statistics import ErrorStatistics
from pytest_ascend_vlm.criteria.numerics import HIDDEN_STATE_RULES, LOGIT_RULES, NumericsThresholds
from pytest_ascend_vlm.engines import logprobs, torch_companions
from pytest_ascend_vlm.engines.transformers.kept_logits import most_likely
from pytest_ascend_vlm.engines.transformers.model import Dtype, Encoder, TransformersModel
from pytest_ascend_vlm.golden.store import GoldenKey, GoldenStore
from pytest_ascend_vlm.observation.answers import Reference
from pytest_ascend_vlm.observation.numerics import FORCED_TOKENS, Forced, TokenScores
from pytest_ascend_vlm.spec.case import Case
from pytest_ascend_vlm.spec.case_files import load_cases

ROOT = Path(__file__).parent.parent
GROUPS = frozenset({"text", "image", "document"})
CHILD_ENV = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
PLAINLY = {"use_tqdm": False, "tokenization_kwargs": {"add_special_tokens": False}}
SUMMED_AT_ONCE = 16
"""Number of products per exact sum in "bf16 accumulation", as in one step of a matrix unit."""

FIGURES: dict[str, Callable[[ErrorStatistics, ErrorStatistics], float]] = {
    "R": lambda logits, _hidden: logits.error_ratio.value,
    "R 97.5 %": lambda logits, _hidden: logits.error_ratio.high,
    "K": lambda logits, _hidden: logits.kl_ratio.value,
    "K 97.5 %": lambda logits, _hidden: logits.kl_ratio.high,
    "max abs": lambda logits, _hidden: logits.max_abs_error,
    "cosine": lambda logits, _hidden: logits.cosine_similarity,
    "flips": lambda logits, _hidden: logits.unexcused_flips,
    "hidden R": lambda _logits, hidden: hidden.error_ratio.value,
}
SHORT = dict(zip(LOGIT_RULES, ("R", "K", "max", "cos", "flips"), strict=True))
RULES = (*SHORT.values(), *(f"hidden {SHORT[name]}" for name in HIDDEN_STATE_RULES))
BAR = Thresholds().error_ratio
INSTRUCTION_SETS = ("ALL", "AVX512_CORE_BF16")
"""The one of this machine, and one without matrix units, whose kernels round differently."""
BATCHES = tuple(
    {"max_num_seqs": seqs, "max_num_batched_tokens": tokens}
    for seqs, tokens in ((1, 4096), (2, 512), (4, 4096), (16, 512), (64, 4096))
)
"""Maximum requests and tokens per step; a longer prompt is split."""

Prompts = Sequence[Mapping[str, Any]]
Measured = tuple[ErrorStatistics, ErrorStatistics]
"""Error statistics of an engine's logits and hidden states against the reference."""


@dataclass(frozen=True)
class Defect:
    """A way to damage a model.

    Attributes:
        name: its name in the tables.
        harm: damages a copy of the checkpoint.
        patch: changes the arithmetic instead of the checkpoint. vLLM's arithmetic cannot be
            patched, so Transformers in bf16 is judged in this case.
    """

    name: str
    harm: Harm
    patch: Callable[[], contextlib.AbstractContextManager[None]] | None = None


@dataclass(frozen=True)
class Row:
    """The measurements of an undamaged engine or of a defect.

    Attributes:
        model: the tiny checkpoint.
        name: the engine or the defect.
        figures: by column; empty if the defect does not apply.
        failed: the names in RULES that failed.
        is_defect: True for a defect.
        effect: R_fp32 of a defect.
        note: the engine's deployment, or the reason why the defect does not apply.
    """

    model: str
    name: str
    figures: Mapping[str, float]
    failed: tuple[str, ...]
    is_defect: bool = False
    effect: float = 0.0
    note: str = ""

    @property
    def is_visible(self) -> bool:
        """True for a defect that is larger than the threshold of R."""
        return self.is_defect and self.effect > BAR

    @property
    def holds(self) -> bool:
        """True if the promise holds."""
        return bool(self.failed) or not self.is_visible if self.is_defect else not self.failed

    @property
    def conclusion(self) -> str:
        """The rules that failed, or the reason why none did."""
        found = ", ".join(self.failed)
        if not self.holds:
            return "MISSED" if self.is_defect else f"FALSE ALARM: {found}"
        if not self.figures:
            return f"not applicable: {self.note}"
        return found or ("invisible in principle" if self.is_defect else "-")


def unharmed(_checkpoint: Path) -> None:
    """Changes nothing."""


@contextlib.contextmanager
def eager_attention() -> Iterator[None]:
    """Makes Transformers compute attention in single steps (eager); not a defect."""
    from transformers import AutoModelForImageTextToText

    load = AutoModelForImageTextToText.from_pretrained

    def load_eager(checkpoint: Path, **arguments: Any) -> Any:
        return load(checkpoint, **{**arguments, "attn_implementation": "eager"})

    with mock.patch.object(
        AutoModelForImageTextToText, "from_pretrained", side_effect=load_eager
    ) as loaded:
        yield
    assert loaded.called


@contextlib.contextmanager
def summed_in_bf16() -> Iterator[None]:
    """Makes linear layers round their running sum to bf16 before they add the next products."""
    from torch.nn import functional

    exact = functional.linear

    def linear(values: Any, weight: Any, bias: Any = None) -> Any:
        pieces = (factor.float().split(SUMMED_AT_ONCE, -1) for factor in (values, weight))
        sums = itertools.starmap(exact, zip(*pieces, strict=True))
        total = functools.reduce(lambda running, more: running.bfloat16().float() + more, sums)
        return (total if bias is None else total + bias).to(values.dtype)

    with mock.patch.object(functional, "linear", linear):
        yield


DEFECTS = (
    Defect("RMSNorm eps x 1e4", settings("rms_norm_eps", lambda eps: eps * 1e4)),
    Defect("RoPE base x 1.01", settings("rope_theta", lambda base: base * 1.01)),
    Defect("mRoPE section", settings("mrope_section", another_split, "it has no mRoPE")),
    Defect("zeroed MLP row", weights(r"\.layers\.1\.mlp\.down_proj\.weight$", zero_first_row)),
    Defect("last layer skipped", skip_last_layer),
    Defect("W8 rounding", weights(r"weight$", rounded(INT8))),
    Defect("0.1 % noise", weights("", noise(0.001))),
    Defect("1 % noise", weights("", noise(0.01))),
    Defect("5 % noise", weights("", noise(0.05))),
    Defect(
        "ViT positions + 1",
        weights(
            r"pos_embed\.weight$|position_embeddings$",
            lambda table: table.roll(1, dims=-2),
            "the positions of its ViT are rotary",
        ),
    ),
    Defect("wrong image mean", wrong_image_mean),
    Defect("bf16 accumulation (Transformers)", unharmed, summed_in_bf16),
)


class Bench:
    """One tiny checkpoint, its golden answers, and the engines that are measured."""

    def __init__(self, name: str, work: Path) -> None:
        """Args: name: a key of MODELS; work: a directory for damaged copies."""
        import torch

        # vLLM's CPU worker replaces it by a function that does nothing.
        self._set_threads = torch.set_num_threads
        self._name, self._work = name, work
        self._spec = MODELS[name].spec
        self._checkpoint = find_checkpoint(self._spec, "tiny", Places([ROOT / "fixtures"]))
        self._goldens = self._answered()

    def rows(self, repeats: int, defects: Iterable[Defect]) -> Iterator[Row]:
        """Measures this model, undamaged and with each defect."""
        isa = os.environ["ONEDNN_MAX_CPU_ISA"]
        attentions: dict[str, Callable[[], contextlib.AbstractContextManager[None]]]
        attentions = {"SDPA": contextlib.nullcontext, "eager attention": eager_attention}
        for (name, patch), threads in itertools.product(attentions.items(), (1, 2)):
            self._set_threads(threads)
            with patch():
                seen = self._in_transformers(self._checkpoint.path, "bfloat16")
            yield self._row(f"Transformers, {name}", seen, note=f"{isa}, {threads=}")
        deployments = itertools.cycle(itertools.product(BATCHES, (1, 2)))
        for order, (batch, threads) in itertools.islice(enumerate(deployments), repeats):
            self._set_threads(threads)
            varied = {**batch, "enforce_eager": order % 5 != 4}
            seen = self._in_vllm(self._checkpoint.path, order, **varied)
            yield self._row("vLLM", seen, note=f"{isa}, {threads=}, {order=}, {varied}")
        yield from map(self._harmed, defects)

    def _answered(self) -> list[tuple[Case, Reference]]:
        store = GoldenStore([ROOT / "golden"], "python -m pytest conformance --vlm-record")
        key = GoldenKey(self._spec, "tiny", self._checkpoint.weights_sha256)
        cases = (self._spec.request(case) for case in load_cases([ROOT / "fixtures"]))
        asked = (case for case in cases if case.group in GROUPS and store.has(key, case))
        return [(case, store.load(key, case)) for case in asked]

    def _harmed(self, defect: Defect) -> Row:
        try:
            with self._copy(defect.harm) as checkpoint, (defect.patch or contextlib.nullcontext)():
                exact, _ = self._in_transformers(checkpoint, "float32")
                seen = (
                    self._in_transformers(checkpoint, "bfloat16")
                    if defect.patch
                    else self._in_vllm(checkpoint)
                )
        except NotApplicableError as reason:
            return Row(self._name, defect.name, {}, (), is_defect=True, note=str(reason))
        effect = exact.error_ratio.value
        if not effect > 0:
            sys.exit(f"{self._name}: {defect.name} does not reach the model; mend this benchmark.")
        return self._row(defect.name, seen, effect, is_defect=True)

    @contextlib.contextmanager
    def _copy(self, harm: Harm) -> Iterator[Path]:
        """A damaged copy of the checkpoint at a new path: vLLM caches processors by path."""
        with tempfile.TemporaryDirectory(dir=self._work) as directory:
            copy = Path(directory) / self._name
            shutil.copytree(self._checkpoint.path, copy)
            harm(copy)
            yield copy

    def _in_transformers(self, checkpoint: Path, dtype: Dtype) -> Measured:
        encoder = Encoder(checkpoint, trust_remote_code=False)
        model = TransformersModel(checkpoint, dtype, trust_remote_code=False)
        sequences = [encoder.with_answer(case, golden.text) for case, golden in self._goldens]
        numbers = [model.force(one, np.arange(len(one.token_ids))) for one in sequences]
        kept = [most_likely(one.logits, one.logits.shape[1]) for one in numbers]
        scores = [TokenScores(one.token_ids, one.logits, one.logits[:, -1], True) for one in kept]
        return self._compared(scores, [one.hidden for one in numbers], kept[0].token_ids.shape[1])

    def _in_vllm(self, checkpoint: Path, order: int = 0, **varied: Any) -> Measured:
        encoder = Encoder(checkpoint, trust_remote_code=False)
        prompts = [encoder.vllm_prompt(case, golden.text) for case, golden in self._goldens]
        shuffled = np.random.default_rng(order).permutation(len(prompts))
        prompts = [prompts[i] for i in shuffled]
        scores = vllm_scores(checkpoint, prompts, varied)
        hidden = vllm_hidden_states(checkpoint, prompts, varied)
        back = np.argsort(shuffled)
        return self._compared([scores[i] for i in back], [hidden[i] for i in back], FORCED_TOKENS)

    def _compared(
        self, scores: Sequence[TokenScores], hidden: Sequence[Table], width: int
    ) -> Measured:
        numerics = [golden.numerics for _, golden in self._goldens if golden.numerics]
        ids = [case.id for case, _ in self._goldens]
        forced = [Forced(id_, one, width) for id_, one in zip(ids, scores, strict=True)]
        return (
            ErrorStatistics(list(map(compare_logits, forced, numerics))),
            ErrorStatistics(list(map(compare_hidden_states, hidden, numerics, ids))),
        )

    def _row(self, name: str, seen: Measured, effect: float = 0.0, **about: Any) -> Row:
        bars = self._spec.thresholds
        judged = (
            (seen[0], LOGIT_RULES, NumericsThresholds.of_logits(bars)),
            (seen[1], HIDDEN_STATE_RULES, NumericsThresholds.of_hidden_states(bars)),
        )
        passed = [rule(one, held) for one, rules, held in judged for rule in rules.values()]
        failed = tuple(n for n, verdict in zip(RULES, passed, strict=True) if not verdict.passed)
        figures = {column: round(of(*seen), 6) for column, of in FIGURES.items()}
        return Row(self._name, name, figures, failed, effect=effect, **about)


def vllm_scores(checkpoint: Path, prompts: Prompts, varied: Mapping[str, Any]) -> list[TokenScores]:
    """Raw logits of the most likely tokens at every position."""
    from vllm import SamplingParams

    raw: dict[str, Any] = {"logprobs_mode": "raw_logits", "max_logprobs": FORCED_TOKENS}
    wanted = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=FORCED_TOKENS)
    replies = vllm_engine(checkpoint, **raw, **varied).generate(prompts, wanted, **PLAINLY)
    entries = [
        [{str(t): dataclasses.asdict(entry) for t, entry in row.items()} for row in positions[1:]]
        for positions in (reply.prompt_logprobs for reply in replies)
    ]
    return [logprobs.scores(positions) for positions in entries]


def vllm_hidden_states(
    checkpoint: Path, prompts: Prompts, varied: Mapping[str, Any]
) -> list[Table]:
    """The last hidden states of every position."""
    pooler = {"task": "token_embed", "use_activation": False}
    pooling: dict[str, Any] = {"runner": "pooling", "convert": "embed", "pooler_config": pooler}
    engine = vllm_engine(checkpoint, **pooling, **varied)
    states = engine.encode(prompts, pooling_task="token_embed", **PLAINLY)
    return [state.outputs.data.float().numpy() for state in states]


def vllm_engine(checkpoint: Path, *, enforce_eager: bool = True, **arguments: Any) -> Any:
    """A vLLM engine with a checkpoint, in this process."""
    from vllm import LLM

    return LLM(
        model=str(checkpoint),
        dtype="bfloat16",
        enforce_eager=enforce_eager,
        max_model_len=2048,
        enable_prefix_caching=False,
        use_tqdm_on_load=False,
        **arguments,
    )


def model_table(rows: Sequence[Row]) -> list[list[str]]:
    """The table of one model; the worst figures of an engine in several deployments."""
    lines = [[rows[0].model, "R_fp32", *FIGURES, "failed"]]
    for name in dict.fromkeys(row.name for row in rows):
        same = [row for row in rows if row.name == name]
        label = name if len(same) == 1 else f"{name}, worst of {len(same)}"
        effect = f"{same[0].effect:.2f}" if same[0].effect else "-"
        accused = [row.conclusion for row in same if not row.holds]
        shown = [worst(column, same) for column in FIGURES]
        lines.append([label, effect, *shown, *(accused or [same[0].conclusion])[:1]])
    return lines


def worst(column: str, rows: Sequence[Row]) -> str:
    """The worst value of a figure."""
    values = [row.figures[column] for row in rows if row.figures]
    if not values:
        return "-"
    return f"{min(values):.5f}" if column == "cosine" else f"{max(values):.4g}"


def summary_table(rows: Sequence[Row]) -> list[list[str]]:
    """The table of defects by rule: the number of models for which the rule failed."""
    lines = [["caught in", *RULES, "any", f"R_fp32 > {BAR}"]]
    for name in dict.fromkeys(row.name for row in rows if row.is_defect):
        told = [row for row in rows if row.name == name and row.figures]
        counts = [sum(rule in row.failed for row in told) for rule in RULES]
        counts += [sum(bool(row.failed) for row in told), sum(row.is_visible for row in told)]
        lines.append([name, *(f"{count} of {len(told)}" for count in counts)])
    return lines


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """Prints lines as columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip(), flush=True)


def measure(name: str, repeats: int, defects: Sequence[str], file: Path) -> None:
    """Measures one model in this process and writes its rows to a file."""
    rows = []
    for row in Bench(name, file.parent).rows(repeats, [d for d in DEFECTS if d.name in defects]):
        deployed = "" if row.is_defect else f" ({row.note})"
        print(f"{name}: {row.name}{deployed}: {row.conclusion}", flush=True)
        rows.append(dataclasses.asdict(row))
    file.write_text(json.dumps(rows), "utf-8")


def measure_in_children(name: str, repeats: int, defects: Sequence[str]) -> list[Row]:
    """Measures one model in child processes, so that all memory is freed."""
    rows: list[Row] = []
    # Half of the deployments, and every defect, with the first instruction set.
    shares = ((repeats - repeats // 2, defects), (repeats // 2, ()))
    for isa, (share, harmed) in zip(INSTRUCTION_SETS, shares, strict=True):
        with tempfile.TemporaryDirectory() as work:
            file = Path(work) / "rows.json"
            arguments = ["--models", name, "--repeats", str(share), "--rows", str(file)]
            command = [sys.executable, __file__, *arguments, "--defects", *harmed]
            env = {
                **os.environ,
                **CHILD_ENV,
                "PYTHONPATH": torch_companions.child_pythonpath(os.environ.get("PYTHONPATH")),
                "ONEDNN_MAX_CPU_ISA": isa,
                "VLLM_CACHE_ROOT": work,
            }
            subprocess.run(command, env=env, check=True)
            rows += [Row(**row) for row in json.loads(file.read_text("utf-8"))]
    return rows


def main() -> int:
    """Prints the tables and, as the last line, one JSON object."""
    names = [defect.name for defect in DEFECTS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=[*MODELS], metavar="NAME",
        help=f"tiny checkpoints, of {', '.join(MODELS)}; default: all",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=int, default=20, help="clean vLLM deployments of each; default: 20"
    )
    parser.add_argument(
        "--defects", nargs="*", choices=names, default=names, metavar="NAME",
        help=f"of {', '.join(map(repr, names)).replace('%', '%%')}; default: all",
    )  # fmt: skip
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rows:
        measure(options.models[0], options.repeats, options.defects, options.rows)
        return 0
    rows: list[Row] = []
    for name in options.models:
        found = measure_in_children(name, options.repeats, options.defects)
        print_table(model_table(found))
        rows += found
    print_table(summary_table(rows))
    holds = all(row.holds for row in rows)
    results = [{**dataclasses.asdict(row), "holds": row.holds} for row in rows]
    print(json.dumps({"benchmark": "numerics_calibration", "results": results, "holds": holds}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

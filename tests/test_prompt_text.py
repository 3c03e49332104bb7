"""serving.prompt_text: the text of a message is in the prompt as it was sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.replay_server import Behaviour, _less
from helpers.outcome import Judged, Serve
from helpers.paths import FIXTURES
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from pytest_ascend_vlm.checkpoints.tokens import TextTokenizer, text_tokenizer
from pytest_ascend_vlm.criteria.serving import judge_prompt_text
from pytest_ascend_vlm.observation.answers import Completion, Refusal
from pytest_ascend_vlm.suite.open_prompt import UNUSUAL

TINY = sorted(path.parent for path in (FIXTURES / "tiny").glob("*/tokenizer.json"))


def decode(token_ids: Sequence[int]) -> str:
    return "".join(map(chr, token_ids))


def reply(prompt: str) -> Completion:
    tokens = tuple(map(ord, prompt))
    one = Completion("text/open", "a", (1,), "length", None, None, 0.1)
    return dataclasses.replace(one, prompt_token_ids=tokens)


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("<|im_start|>one & two\n\nthree<|im_end|>", None),
        (
            "<|im_start|>one &amp; two\n\nthree<|im_end|>",
            "text: the prompt lacks 'one & two'; it ends with "
            "'|>one &amp; two\\n\\nthree<|im_end|>'",
        ),
        (
            "one & two\nthree",
            "text: every line is in the prompt, but not the line breaks; the prompt ends with "
            "'one & two\\nthree'",
        ),
    ],
)
def test_what_the_prompt_lacks_is_named(prompt: str, problem: str | None) -> None:
    verdict = judge_prompt_text({"text": reply(prompt)}, "one & two\n\nthree", decode)
    assert verdict.passed is (problem is None)
    assert verdict.details == (() if problem is None else (problem,))


def test_a_refused_text_does_not_pass() -> None:
    refused = Refusal(400, "no such character", is_json_error=True)
    assert not judge_prompt_text({"text": refused}, "one", decode).passed


@pytest.mark.parametrize("checkpoint", TINY, ids=lambda path: path.name)
def test_byte_tokenizers_keep_every_line(checkpoint: Path) -> None:
    tokenizer = text_tokenizer(checkpoint)
    assert tokenizer is not None
    assert tokenizer.kept(UNUSUAL.prompt) == UNUSUAL.prompt


def normalizing(normalizer: Any) -> TextTokenizer:
    """A tokenizer of bytes that normalizes a text first."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({one: i for i, one in enumerate(sorted(alphabet))}, []))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return TextTokenizer(tokenizer)


def test_lines_that_the_tokenizer_changes_are_left_out() -> None:
    lines = UNUSUAL.prompt.split("\n")
    kept = normalizing(normalizers.NFKC()).kept(UNUSUAL.prompt).split("\n")
    assert [line for line in lines if line not in kept] == [lines[1], lines[4], lines[5]]
    # Each line is kept, but not the breaks between them.
    assert not normalizing(normalizers.Replace("\n", " ")).kept(UNUSUAL.prompt)


def test_a_server_that_returns_no_prompt_is_not_judged(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Behaviour(reply=_less("prompt_token_ids"))), "-k", "prompt_text")
    (row,) = outcome.rows
    assert (row["status"], row["reason"]) == ("na", "the server returns no prompt_token_ids")


def test_without_a_tokenizer_nothing_is_judged(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_ascend_vlm.checkpoints.tokens.text_tokenizer", lambda _path: None)
    outcome = judged(stub(), "-k", "prompt_text")
    (row,) = outcome.rows
    assert row["status"] == "na"
    assert row["reason"].startswith("there is no tokenizer.json here")

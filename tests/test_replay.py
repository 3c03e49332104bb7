"""reference.replay: a golden that its own engine does not give judges nothing, and says so."""

from __future__ import annotations

import dataclasses

import pytest
from helpers.goldens import ENGINE
from helpers.models import model_spec
from helpers.paths import CHECKPOINT, FIXTURES, GOLDENS
from helpers.three_models import judge

from pytest_ascend_vlm.checkpoints.digest import weights_digest
from pytest_ascend_vlm.golden.recorder import record
from pytest_ascend_vlm.golden.store import GoldenKey, GoldenStore
from pytest_ascend_vlm.spec.case_files import load_cases

MODEL = "OpenDataLab/MinerU2.5-2509-1.2B"
CAPITAL = "text/capital"
REPLAY = ("conformance", "-m", "cpu_baseline", "-k", "TestMinerU25 and capital]")


def change(project: pytest.Pytester, answer: str, *, tokens_too: bool) -> None:
    """Lets the project's golden of one case have another answer, with digests that hold."""
    key = GoldenKey(model_spec(model_id=MODEL), "tiny", weights_digest(CHECKPOINT))
    (case,) = (case for case in load_cases((FIXTURES,)) if case.id == CAPITAL)
    golden = GoldenStore([GOLDENS], "").load(key, case)
    assert golden.token_ids is not None
    end = golden.token_ids[-1:]
    tokens = (*answer.encode(), *end) if tokens_too else golden.token_ids
    changed = dataclasses.replace(golden, text=answer, token_ids=tokens)
    record(project.path / "golden", key, case, changed, ENGINE)


@pytest.mark.catches("reference.replay")
@pytest.mark.parametrize("tokens_too", [False, True], ids=["its text", "its text and its tokens"])
def test_a_golden_that_was_changed_is_not_given_by_the_reference(
    tokens_too: bool,
    project: pytest.Pytester,
) -> None:
    change(project, "Lyon", tokens_too=tokens_too)
    done, document = judge(project.path, *REPLAY)
    assert document is not None, done.stdout + done.stderr
    (row,) = document["rows"]
    assert (row["criterion"], row["status"]) == ("reference.replay", "fail"), row["reason"]
    assert "near-tie" not in row["reason"]

"""docs/new-architecture.md: its tables agree with the trainer and the shipped checkpoints."""

from __future__ import annotations

import ast
import json
import re

import pytest
from helpers.paths import FIXTURES, REPOSITORY

PAGE = (REPOSITORY / "docs" / "new-architecture.md").read_text("utf-8")
CHECKPOINTS = sorted(
    path.parent.name
    for path in FIXTURES.glob("tiny/*/PROVENANCE.json")
    if "training_seconds" in path.read_text("utf-8")
)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_page_has_the_training_of_each_checkpoint(name: str) -> None:
    text = (FIXTURES / "tiny" / name / "PROVENANCE.json").read_text("utf-8")
    facts = json.loads(text)
    start = f"`{facts['warm_start']['checkpoint']}`" if "warm_start" in facts else "random weights"
    minutes = round(facts["training_seconds"] / 60)
    assert f"| `{name}` | {start} | {facts['steps']} | {minutes} |" in PAGE


def test_the_page_names_every_field_of_a_description() -> None:
    source = (FIXTURES / "generate" / "architectures.py").read_text("utf-8")
    (description,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "Architecture"
    )
    fields = {ast.unparse(node.target) for node in description.body if hasattr(node, "target")}
    table = PAGE.split("| field | is |")[1].partition("\n\n")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    named = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == fields


def test_the_page_names_options_that_the_trainer_has() -> None:
    source = (FIXTURES / "generate" / "train_tiny.py").read_text("utf-8")
    training = PAGE.split("## 3. Train it")[1].partition("## 5.")[0]
    named = set(re.findall(r"(--[a-z][a-z-]+)", training))
    assert named
    assert not [option for option in named if f'"{option}"' not in source]

"""A project with Qwen3-VL's model file, and what a server of its tiny checkpoint knows."""

from __future__ import annotations

import shutil

import pytest
from fakes.replay_server import Knowledge, read_goldens

from helpers.paths import FIXTURES, GOLDENS, REPOSITORY

SLUG = "Qwen--Qwen3-VL-8B-Instruct"
TINY = FIXTURES / "tiny" / "qwen3_vl"


def knowledge_of_tiny() -> Knowledge:
    """The answers of the server: the goldens of the tiny Qwen3-VL."""
    return read_goldens(GOLDENS / SLUG / "tiny", FIXTURES, TINY)


def with_model_file(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with Qwen3-VL's model file."""
    pytester.makefile(".ini", pytest="[pytest]\n")
    shutil.copy(REPOSITORY / "conformance" / "test_qwen3_vl.py", pytester.path)
    return pytester

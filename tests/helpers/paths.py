"""Paths of the repository that tests use."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
MODEL_FILE = REPOSITORY / "conformance" / "test_mineru2_5.py"
GOLDENS = REPOSITORY / "golden"
FIXTURES = REPOSITORY / "fixtures"
CHECKPOINT = FIXTURES / "tiny" / "qwen2_vl"
NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens
SLUG = "OpenDataLab--MinerU2.5-2509-1.2B"

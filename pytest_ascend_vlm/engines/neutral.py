"""Sampling parameters without effect, which every request sends."""

from __future__ import annotations

from collections.abc import Mapping

NEUTRAL: Mapping[str, float] = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What vLLM would otherwise take from the checkpoint's generation_config.json, and its penalties.

A server without `--generation-config vllm` applies the checkpoint's own values to a request that
omits them. A repetition penalty changes greedy answers too.
"""

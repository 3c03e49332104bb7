"""Answers of a reference that nobody ran, to be recorded as goldens."""

from __future__ import annotations

import numpy as np

from pytest_ascend_vlm.observation import Reference, ReferenceNumerics, TopLogprobs

ENGINE = {"processor": "AProcessor", "versions": {"torch": "2.13.0", "transformers": "5.19.0"}}


def answer(text: str = '巴黎。\n"|', case_id: str = "image/a") -> Reference:
    """What the reference might have said."""
    tokens = tuple(text.encode())
    rows = np.log(np.linspace(0.9, 0.01, 20))[None, :].repeat(len(tokens) + 1, axis=0)
    ids = np.arange(20)[None, :].repeat(len(tokens) + 1, axis=0)
    numerics = ReferenceNumerics(
        token_ids=tokens,
        fp32=TopLogprobs(ids, rows),
        bf16=TopLogprobs(ids, rows - 0.01),
        peak_logit=np.full(len(tokens) + 1, 20.0),
        logit_rmse=0.04,
    )
    return Reference(case_id, "by the reference", text, False, 36, (*tokens, 258), numerics)

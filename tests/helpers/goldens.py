"""Made-up answers of a reference, to be recorded as goldens."""

from __future__ import annotations

import numpy as np

from pytest_ascend_vlm.observation.answers import Reference
from pytest_ascend_vlm.observation.numerics import ReferenceHidden, ReferenceNumerics

ENGINE = {"processor": "AProcessor", "versions": {"torch": "2.13.0", "transformers": "5.19.0"}}
PROMPT_IDS = (257, 10, *[261] * 15, *range(300, 319))
PROMPT = len(PROMPT_IDS)


def answer(text: str = '巴黎。\n"|', case_id: str = "image/a") -> Reference:
    """A possible answer of the reference."""
    tokens = tuple(text.encode())
    return Reference(
        case_id, "by the reference", text, False, PROMPT_IDS, (*tokens, 258), numerics(tokens)
    )


def numerics(tokens: tuple[int, ...]) -> ReferenceNumerics:
    """The numbers of an answer, at every fifth position of the prompt and all of the answer's."""
    rows = np.concatenate(
        [np.arange(0, PROMPT - 1, 5), np.arange(PROMPT - 1, PROMPT + len(tokens))]
    )
    is_image = (rows >= 5) & (rows < 20)
    rounded = np.arange(20, 4, -0.5)[None, :].repeat(len(rows), axis=0)
    states = np.outer(np.arange(len(rows)) + 1, [1.0, -0.5, 0.25, 2.0]).astype(np.float32)
    return ReferenceNumerics(
        token_ids=tokens,
        positions=rows,
        is_image=is_image,
        top_tokens=np.arange(32)[None, :].repeat(len(rows), axis=0),
        fp32=rounded + 0.01,
        bf16=rounded,
        fp32_logsumexp=np.full(len(rows), 20.94),
        bf16_logsumexp=np.full(len(rows), 20.93),
        logit_rmse=0.04,
        hidden=ReferenceHidden(rows, is_image, states + np.float32(0.01), states),
    )

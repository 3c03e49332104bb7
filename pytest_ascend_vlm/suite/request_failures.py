"""The requests that a release of vLLM is known to get wrong."""

from __future__ import annotations

import dataclasses

from ..spec.model import ExpectedFailure
from ..spec.request_rows import BAD_INPUT, ODD_INPUT, REQUEST_ROWS

_UNTRACKED = "not tracked upstream yet"
_NEGATIVE = "https://github.com/vllm-project/vllm/pull/35231"


def _http_500(
    bad: str, reason: str, issue: str, seen_in: str, fixed_in: str = ""
) -> ExpectedFailure:
    return ExpectedFailure(
        criterion=f"{BAD_INPUT}[{bad}]",
        reason=reason,
        issue=issue,
        shows="HTTP 500 instead of a 4xx",
        seen_in=seen_in,
        fixed_in=fixed_in,
    )


_UNLIMITED = ExpectedFailure(
    criterion=f"{BAD_INPUT}[n-huge]",
    reason="vLLM 0.11 to 0.18 has no limit of `n`: one request for 20,000 answers keeps the "
    "engine busy for minutes",
    issue="https://github.com/vllm-project/vllm/pull/37952",
    shows="n-huge: HTTP 200 instead of a 4xx",
    seen_in=">=0.11,<0.19",
    fixed_in="0.19",
)

BAD_INPUT_FAILURES = (
    _http_500(
        "gigapixel-image",
        "vLLM up to 0.32 refuses an image beyond Pillow's own limit, but with HTTP 500",
        _UNTRACKED,
        ">=0.11,<0.33",
    ),
    *(
        _http_500(
            picture,
            "vLLM before 0.20 refuses an image that Pillow cannot read, but with HTTP 500",
            "https://github.com/vllm-project/vllm/pull/38253",
            ">=0.11,<0.20",
            "0.20",
        )
        for picture in ("truncated-image", "decompression-bomb")
    ),
    _http_500(
        "unreachable-url",
        "vLLM up to 0.32 refuses an image whose host does not answer, but with HTTP 500",
        "https://github.com/vllm-project/vllm/issues/21254",
        ">=0.11,<0.33",
    ),
    ExpectedFailure(
        criterion=f"{BAD_INPUT}[data-without-base64]",
        reason="vLLM 0.32 refuses a data URL without base64, but with HTTP 501",
        issue=_UNTRACKED,
        shows="HTTP 501 instead of a 4xx",
        seen_in="==0.32.*",
    ),
    # Which of them depends on how fast the host is.
    _UNLIMITED,
    dataclasses.replace(_UNLIMITED, shows="n-huge: no answer instead of a 4xx"),
    _http_500(
        "bad_words-empty",
        "vLLM 0.11 to 0.18 refuses an empty string in bad_words, but with HTTP 500",
        "https://github.com/vllm-project/vllm/pull/41572",
        ">=0.11,<0.19",
        "0.23",
    ),
    *(
        _http_500(
            body,
            "vLLM 0.11 to 0.23 refuses a body that is no JSON object, but with HTTP 500",
            "https://github.com/vllm-project/vllm/pull/51654",
            ">=0.11,<0.24",
            "0.32",
        )
        for body in ("json-list", "json-null")
    ),
    _http_500(
        "completion-of-negative-token",
        "vLLM 0.11 answers HTTP 500 to a token with a negative number",
        _NEGATIVE,
        "==0.11.*",
        "0.18",
    ),
    ExpectedFailure(
        criterion=f"{BAD_INPUT}[completion-of-negative-token]",
        reason="the engine of vLLM 0.13 ends when it computes a token with a negative number",
        issue=_NEGATIVE,
        shows="checks failed: the next good request\n",
        seen_in="==0.13.*",
        fixed_in="0.18",
    ),
    _http_500(
        "broken-embedding",
        "vLLM 0.11 refuses an image embedding that it cannot read, but with HTTP 500",
        _UNTRACKED,
        "==0.11.*",
        "0.13",
    ),
)

ODD_INPUT_FAILURES = tuple(
    ExpectedFailure(
        criterion=f"{ODD_INPUT}[{odd}]",
        reason="the engine of vLLM before 0.20 ends, if it counts positions by images (M-RoPE)",
        issue="https://github.com/vllm-project/vllm/security/advisories/GHSA-hpv8-x276-m59f",
        shows=f"checks failed: {odd}, the next good request\n",
        fixed_in="0.20",
    )
    for odd in REQUEST_ROWS[ODD_INPUT]
)

KNOWN_FAILURES = (*BAD_INPUT_FAILURES, *ODD_INPUT_FAILURES)

"""Which vLLM goes with which vLLM-Ascend."""

from __future__ import annotations

import re

_RELEASE = re.compile(r"(\d+\.\d+\.\d+)(?:rc\d+)?(?:\.post\d+)?", re.ASCII)


# The rows of vLLM-Ascend's compatibility matrix that differ from its own versioning policy.
_ODD_PAIRS = {
    "0.8.5rc1": ("0.8.5.post1",),
    "0.10.1rc1": ("0.10.1", "0.10.1.1"),
    "0.11.0rc0": ("0.11.0rc3",),
    "0.14.0rc1": ("0.14.1",),
}


def pair_problem(vllm_ascend: str | None, vllm: str | None) -> str | None:
    """Why a vLLM-Ascend and a vLLM do not go together; None where they do or nobody can tell.

    Each release of vLLM-Ascend goes with the vLLM of the same number. A development build goes
    with one commit of vLLM, which no version tells.
    """
    if vllm_ascend is None or vllm is None or ".dev" in vllm_ascend + vllm:
        return None
    ascends, plain = _public(vllm_ascend), _public(vllm)
    release = _RELEASE.fullmatch(ascends)
    if release is None:
        return None
    partners = _ODD_PAIRS.get(ascends, (release[1],))
    if plain in partners:
        return None
    return (
        f"vllm-ascend {vllm_ascend} goes with vllm {' or '.join(partners)}, but vllm {vllm} is "
        f"installed: pip install vllm=={partners[0]}, or the vllm-ascend made for vllm {plain} "
        "(the compatibility matrix is in vLLM-Ascend's versioning policy)."
    )


def _public(version: str) -> str:
    return version.removeprefix("v").partition("+")[0]

"""Checks that the versions of vLLM and vLLM-Ascend match."""

from __future__ import annotations

import re

_RELEASE = re.compile(r"(\d+\.\d+\.\d+)(?:rc\d+)?(?:\.post\d+)?", re.ASCII)


# Exceptions in vLLM-Ascend's compatibility matrix to the rule that the release numbers are equal.
_ODD_PAIRS = {
    "0.8.5rc1": ("0.8.5.post1",),
    "0.10.1rc1": ("0.10.1", "0.10.1.1"),
    "0.11.0rc0": ("0.11.0rc3",),
    "0.14.0rc1": ("0.14.1",),
}


def pair_problem(vllm_ascend: str | None, vllm: str | None) -> str | None:
    """Reason why a vLLM-Ascend and a vLLM do not match; None if they match or it is unknown.

    A release of vLLM-Ascend requires the vLLM with the same number. A development build requires
    one commit of vLLM, which the version string does not contain.
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
        f"vllm-ascend {vllm_ascend} requires vllm {' or '.join(partners)}, but vllm {vllm} is "
        f"installed: pip install vllm=={partners[0]}, or install the vllm-ascend made for vllm "
        f"{plain} (see the compatibility matrix in vLLM-Ascend's versioning policy)."
    )


def _public(version: str) -> str:
    return version.removeprefix("v").partition("+")[0]

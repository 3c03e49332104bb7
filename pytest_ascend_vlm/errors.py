"""The kinds of errors.

A `CriterionFailed` is a verdict about the model. A `VlmError` is a problem of the set-up: pytest
then reports an ERROR, never a failure of the model. Both are shown without a traceback, so each
message must be complete: what is wrong, and what to do next.
"""

from __future__ import annotations


class CriterionFailed(AssertionError):
    """The model does not meet a criterion; the message explains why."""


class NoAnswer(CriterionFailed):
    """The model's answer is degenerate: NaN, one repeated symbol, a loop, or empty."""


class WrongEnding(CriterionFailed):
    """A test hid a verdict that fails, or passed where it had to fail. Nothing excuses it."""


class VlmError(Exception):
    """Base class of errors that prevent a verdict."""


class ConfigurationError(VlmError):
    """An option, a model file or an installation is wrong."""


class CheckpointError(VlmError):
    """The weights of a model are missing or unusable."""


class GoldenError(VlmError):
    """A golden is missing, damaged, stale, or was recorded for other inputs."""


class ServerError(VlmError):
    """The engine under test did not start, died, or did not stop."""


class HostError(VlmError):
    """A host of a cluster died, or its test process ended before its tests."""


class PreconditionError(VlmError):
    """What a verdict needs is not given, so it would prove nothing."""


class PromptDiffers(PreconditionError):
    """The served prompt differs from the reference's; baseline.prompt judges that."""

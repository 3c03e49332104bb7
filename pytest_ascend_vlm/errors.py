"""What can go wrong, told apart.

A `CriterionFailed` is a verdict about the model. Every `VlmError` is about the set-up: the test
then is an ERROR, never a failure of the model. Both are shown as their message, without a
traceback, so each message must stand alone: what is wrong, and what to do next.
"""

from __future__ import annotations


class CriterionFailed(AssertionError):
    """The model does not meet a criterion; the message is the review a reader gets."""


class NoAnswer(CriterionFailed):
    """What the model answered is no answer: NaN, one symbol for ever, a loop, or nothing."""


class VlmError(Exception):
    """Base of everything that stops a test from reaching a verdict."""


class ConfigurationError(VlmError):
    """An option, a model file or an installation that cannot work as it is."""


class CheckpointError(VlmError):
    """The weights a model should run with are not where they should be."""


class GoldenError(VlmError):
    """A golden is missing, damaged, stale, or was recorded for other inputs."""


class ServerError(VlmError):
    """The engine under test did not start, died, or did not stop."""


class PreconditionError(VlmError):
    """The two sides of a comparison did not see the same input: comparing them proves nothing."""

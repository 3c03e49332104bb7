"""Checks endpoints and directories before the first test."""

from __future__ import annotations

from collections.abc import Container

from ..errors import ConfigurationError
from ..writing import unwritable_reason
from .run import Run


def require_setup(run: Run, fixtures: Container[str]) -> None:
    """Requires that the endpoints answer and that the log directory is writable.

    Args:
        run: the run.
        fixtures: names of the fixtures that the tests request.

    Raises:
        ConfigurationError: an endpoint does not answer, or the directory is not writable.
    """
    from ..engines.first_contact import Contact, require_answer

    options = run.options
    endpoints = {
        "server": ("--vlm-server-url", options.server_url),
        "performance": ("--vlm-compare-url", options.compare_url),
    }
    for fixture, (option, url) in endpoints.items():
        if url is not None and fixture in fixtures:
            require_answer(Contact(option, url, options.api_key))
    writes = run.starts_servers if "server" in fixtures else options.record
    if writes and (reason := unwritable_reason(options.log_dir)):
        raise ConfigurationError(
            f"cannot write logs to {options.log_dir} ({reason}); name another directory with "
            "--vlm-log-dir=DIR"
        )

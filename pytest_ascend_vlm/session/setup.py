"""What tests need that is not the model's, asked for before the first one."""

from __future__ import annotations

from collections.abc import Container

from ..errors import ConfigurationError
from ..writing import unwritable_reason
from .run import Run


def require_setup(run: Run, wanted: Container[str]) -> None:
    """Asks for an endpoint that answers, and for a directory that logs can be written to.

    Args:
        run: the run.
        wanted: names of the fixtures that its tests will take.

    Raises:
        ConfigurationError: one of them is missing; the message says what to type.
    """
    from ..engines.first_contact import Contact, require_answer

    options = run.options
    endpoints = {
        "server": ("--vlm-server-url", options.server_url),
        "performance": ("--vlm-compare-url", options.compare_url),
    }
    for fixture, (option, url) in endpoints.items():
        if url is not None and fixture in wanted:
            require_answer(Contact(option, url, options.api_key))
    writes = run.starts_servers if "server" in wanted else options.record
    if writes and (reason := unwritable_reason(options.log_dir)):
        raise ConfigurationError(
            f"nothing can be written to {options.log_dir} ({reason}); name another directory with "
            "--vlm-log-dir=DIR"
        )

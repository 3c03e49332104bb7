"""Checks endpoints and directories before the first test."""

from __future__ import annotations

from collections.abc import Container

from ..errors import ConfigurationError
from ..writing import unwritable_reason
from .endpoints import COMPARED, judged_server
from .run import JUDGED, Run


def require_setup(run: Run, fixtures: Container[str]) -> None:
    """Requires that the endpoints answer and that the log directory is writable.

    Args:
        run: the run.
        fixtures: names of the fixtures that the tests request.

    Raises:
        ConfigurationError: an endpoint does not answer, nothing shows which of its models is to be
            judged, or the directory is not writable.
    """
    options = run.options
    if options.server_url is not None and "device_slot" in fixtures:
        _require_judged(run, options.server_url)
    if options.compare_url is not None and "performance" in fixtures:
        run.listed_models(run.contact(COMPARED, options.compare_url))
    writes = run.starts_servers if "device_slot" in fixtures else options.record
    if writes and (reason := unwritable_reason(options.log_dir)):
        raise ConfigurationError(
            f"cannot write logs to {options.log_dir} ({reason}); name another directory with "
            "--vlm-log-dir=DIR"
        )


def _require_judged(run: Run, url: str) -> None:
    """Requires that the judged endpoint answers and serves the selected models."""
    run.listed_models(run.contact(JUDGED, url))
    for model_id in sorted(run.selected):
        judged_server(run, url, model_id)
    if run.remote is not None:
        run.remote.server_version = run.stated_version

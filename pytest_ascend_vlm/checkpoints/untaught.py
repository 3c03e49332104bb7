"""The cases and groups that a tiny checkpoint was not trained for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigurationError


def untaught(checkpoint: Path) -> Mapping[str, str]:
    """The cases and groups that a tiny checkpoint cannot answer: case id or group -> reason.

    Raises:
        ConfigurationError: if the checkpoint's `untaught.json` is not a map of texts.
    """
    path = checkpoint / "untaught.json"
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text("utf-8"))
        return {str(name): str(reason) for name, reason in document.items()}
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is not a JSON object that maps a case or group to a reason."
        ) from error

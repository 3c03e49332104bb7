"""What a tiny checkpoint was not taught."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigurationError


def untaught(checkpoint: Path) -> Mapping[str, str]:
    """What a tiny checkpoint cannot answer: case id or group -> the reason.

    Raises:
        ConfigurationError: the checkpoint's `untaught.json` is not of its form.
    """
    path = checkpoint / "untaught.json"
    if not path.is_file():
        return {}
    try:
        return {str(what): str(why) for what, why in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"{path} is not a map of case or group to reason.") from error

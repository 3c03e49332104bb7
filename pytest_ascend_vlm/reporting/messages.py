"""Reads gettext's catalogues, in which English texts are the keys."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources


@cache
def messages(name: str) -> Mapping[str, str]:
    """English text -> its translation, of the catalogue `locale/<name>.po`.

    Raises:
        FileNotFoundError: there is no such catalogue.
    """
    from babel.messages.pofile import read_po

    path = resources.files(__package__).joinpath(f"locale/{name}.po")
    with path.open("rb") as file:
        catalogue = read_po(file)
    return {str(one.id): str(one.string) for one in catalogue if one.id and one.string}

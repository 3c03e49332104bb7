"""Chooses the model name in requests to a server that the suite did not start."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..errors import ConfigurationError

OPTION = "--vlm-served-name"


@dataclass(frozen=True)
class ServedNames:
    """The names under which a server serves.

    Attributes:
        url: the server's URL.
        listed: the names in `/v1/models`; empty if the server lists none.
        wanted: the name that the user typed, or None.
    """

    url: str
    listed: tuple[str, ...]
    wanted: str | None

    def name_of(self, model_id: str, selected: Collection[str]) -> str:
        """The name of a model in requests.

        It is the typed name, else the model's id if the server lists it, else the only name that
        the server lists. A server that lists nothing gets the model's id.

        Args:
            model_id: the model's id.
            selected: ids of all models with a selected test.

        Raises:
            ConfigurationError: the typed name is not listed; or nothing shows which of the names,
                or of the selected models, is meant.
        """
        names = ", ".join(self.listed)
        if self.wanted is not None and self.listed and self.wanted not in self.listed:
            raise ConfigurationError(
                f"{OPTION}={self.wanted}: {self.url} serves no model of this name; it serves "
                f"{names}"
            )
        if self.wanted is None and (model_id in self.listed or not self.listed):
            return model_id
        if len(set(selected)) > 1:
            raise ConfigurationError(
                f"{self.url} serves {self.wanted or names}, but tests of {len(set(selected))} "
                f"models are selected ({', '.join(sorted(selected))}). One served name is one "
                "model: select the tests of one model by its file or with -k"
            )
        if self.wanted is not None:
            return self.wanted
        if len(self.listed) > 1:
            raise ConfigurationError(
                f"{self.url} serves several models: {names}; name the one to judge with "
                f"{OPTION}={self.listed[0]}"
            )
        return self.listed[0]

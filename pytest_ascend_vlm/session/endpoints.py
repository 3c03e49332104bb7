"""The endpoints of a run that the suite did not start: their addresses and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .run import JUDGED, Run

if TYPE_CHECKING:
    from ..engines.endpoint import RunningServer
    from ..engines.first_contact import Contact

COMPARED = "--vlm-compare-url"


def judged_server(run: Run, url: str, model_id: str) -> RunningServer:
    """The endpoint that is judged, under the name that it gives to a model.

    Raises:
        ConfigurationError: the endpoint does not answer, or the name is not clear.
    """
    return _server(run, run.contact(JUDGED, url), model_id, run.options.served_name)


def compared_server(run: Run, url: str, model_id: str, judged_name: str) -> RunningServer:
    """The endpoint that the judged one is compared with.

    Args:
        run: the run.
        url: its URL.
        model_id: the model's id.
        judged_name: the model's name in requests to the judged server; preferred here as well.

    Raises:
        ConfigurationError: the endpoint does not answer, or the name is not clear.
    """
    contact = run.contact(COMPARED, url)
    same = judged_name if judged_name in run.listed_models(contact) else None
    return _server(run, contact, model_id, same)


def _server(run: Run, contact: Contact, model_id: str, wanted: str | None) -> RunningServer:
    from ..engines.endpoint import Endpoint, RunningServer
    from ..engines.served_name import ServedNames

    names = ServedNames(contact.url, run.listed_models(contact), wanted)
    name = names.name_of(model_id, run.selected | {model_id})
    return RunningServer(Endpoint(contact.url, name, run.options.bearer))

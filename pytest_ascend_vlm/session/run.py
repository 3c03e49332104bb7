"""One test run: its options, platform and cases."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from ..errors import CheckpointError
from ..progress import Step
from ..versions import installed_vllm, is_version, unmet

if TYPE_CHECKING:
    from ..checkpoints.find import Checkpoint
    from ..engines.first_contact import Contact
    from ..platforms.base import Platform
    from ..platforms.endpoint import Remote
    from ..progress import ProgressCallback, StepCallback
    from ..spec.case import Case
    from ..spec.model import ModelSpec
    from .fleet import Fleet
    from .options import Options
    from .run_logs import RunLogs
    from .server_facts import ServerFacts

JUDGED = "--vlm-server-url"
"""The option that names the endpoint to judge."""

RUN = pytest.StashKey["Run"]()


class Run:
    """State that all models of a run share.

    Attributes:
        options: the options of the run.
        on_step: called with the step that the run is in.
        selected: ids of the models of which a selected test needs a server.
        fleet: the hosts of a cluster that judge the models; None before they are known, and in a
            run on this host.
        started: time of the start of the run, UTC.
        variables: the environment variables at that time; imported packages set some later.
    """

    def __init__(self, options: Options, on_step: StepCallback, name: str | None = None) -> None:
        """Sets up a run.

        Args:
            options: the options of the run.
            on_step: called with the step that the run is in.
            name: the run's name, if a worker of xdist is part of an existing run; otherwise None.
        """
        self.options = options
        self.on_step = on_step
        self.selected: frozenset[str] = frozenset()
        self.fleet: Fleet | None = None
        self.started = datetime.now(timezone.utc)
        self.variables = dict(os.environ)
        self._name = name
        self._server_facts: list[ServerFacts] = []
        self._checkpoints: dict[str, Checkpoint] = {}
        self._listed: dict[str, tuple[str, ...]] = {}
        self._unmet: dict[tuple[str, ...], str | None] = {}
        self._untaught: dict[str, Mapping[str, str]] = {}
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """The time since the start of the run."""
        return time.monotonic() - self._since

    @cached_property
    def platform(self) -> Platform:
        """The platform that models are served on."""
        from ..platforms import select_platform

        return self.remote or select_platform(self.options.platform)

    @cached_property
    def remote(self) -> Remote | None:
        """The endpoint that is judged; None if the suite starts the servers."""
        from ..platforms.endpoint import Remote

        url = self.options.server_url
        return None if url is None else Remote(url, self.options.server_device)

    @cached_property
    def logs(self) -> RunLogs:
        """The directory of the run's logs."""
        from .run_logs import RunLogs, new_name

        return RunLogs(self.options.log_dir, self._name or new_name())

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """All cases of the project and of the package."""
        from ..spec.case_files import load_cases

        return load_cases(self.options.fixture_roots)

    @property
    def is_spread(self) -> bool:
        """True if this process hands the tests to the hosts of a cluster, which judge the models.

        What this host lacks says nothing then.
        """
        return self.options.ray is not None

    @cached_property
    def unavailable_reason(self) -> str | None:
        """Reason why no server can run here, or None."""
        return None if self.is_spread else self.platform.unavailable_reason()

    @cached_property
    def stated_version(self) -> str | None:
        """What the judged endpoint states as its version; None if it states none."""
        from ..engines.first_contact import stated_version

        url = self.options.server_url
        return None if url is None else stated_version(self.contact(JUDGED, url))

    @cached_property
    def vllm_version(self) -> str | None:
        """The version of the vLLM that serves; None if it is unknown."""
        version = self.stated_version if self.options.server_url else installed_vllm()
        return version if version is not None and is_version(version) else None

    def lacks_packages_reason(self, model: ModelSpec) -> str | None:
        """Reason why nothing in this environment can load a model, or None; looked up once.

        An endpoint has packages of its own. So have the hosts of a cluster, which are asked later.
        """
        if self.is_spread:
            return self.fleet.lacks_packages_reason(model.model_id) if self.fleet else None
        requires = tuple(model.requires)
        if requires not in self._unmet:
            self._unmet[requires] = None if self.options.server_url else unmet(requires)
        return self._unmet[requires]

    @cached_property
    def visible_cards(self) -> int | None:
        """The number of visible cards; None on a platform without cards."""
        return None if self.is_spread else self.platform.visible_cards()

    @property
    def starts_servers(self) -> bool:
        """True if the suite starts servers in this run."""
        options = self.options
        served_here = options.server_url is None and not options.record and not self.is_spread
        return served_here and self.unavailable_reason is None

    def progress(self, phase: str) -> ProgressCallback:
        """A callback for the lines of a long operation.

        Args:
            phase: the name of the operation.
        """
        return lambda line: self.on_step(Step(phase, line))

    def contact(self, option: str, url: str) -> Contact:
        """The first contact with an endpoint.

        Args:
            option: the command line option that names the endpoint.
            url: its URL.
        """
        from ..engines.first_contact import Contact

        options = self.options
        return Contact(option, url, options.api_key, wait_seconds=options.server_wait)

    def listed_models(self, contact: Contact) -> tuple[str, ...]:
        """The names that an endpoint lists; it is contacted once.

        Raises:
            ConfigurationError: the endpoint does not answer, or rejects the API key.
        """
        from ..engines.first_contact import require_answer

        if contact.url not in self._listed:
            self._listed[contact.url] = require_answer(contact, self.progress("endpoint"))
        return self._listed[contact.url]

    def checkpoint(self, model: ModelSpec) -> Checkpoint:
        """Finds the checkpoint of a model and digests its weights, once.

        Raises:
            CheckpointError: the checkpoint is missing, incomplete, or of another revision or
                architecture.
        """
        from ..checkpoints.find import Places, find_checkpoint

        options = self.options
        if model.model_id not in self._checkpoints:
            places = Places(options.fixture_roots, options.weights_root, options.weights)
            found = find_checkpoint(model, options.checkpoint, places)
            self._checkpoints[model.model_id] = found
        return self._checkpoints[model.model_id]

    def untaught(self, model: ModelSpec) -> Mapping[str, str]:
        """The cases that a tiny checkpoint was not trained on: case id or group -> reason."""
        from ..checkpoints.untaught import untaught

        if self.options.checkpoint != "tiny":
            return {}
        if model.model_id not in self._untaught:
            try:
                self._untaught[model.model_id] = untaught(self.checkpoint(model).path)
            except CheckpointError:  # reported when the checkpoint is needed
                self._untaught[model.model_id] = {}
        return self._untaught[model.model_id]

    def record_server(self, facts: ServerFacts) -> None:
        """Stores the facts of a server that has ended, for the report."""
        self._server_facts.append(facts)

    def take_server_facts(self) -> list[ServerFacts]:
        """Returns the facts of the servers that have ended since the last call."""
        taken, self._server_facts = self._server_facts, []
        return taken

"""One model of a run: its checkpoint, cases, arguments and goldens, before anything is started."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ..criteria.criterion import Cases
from ..spec.case import Case
from ..spec.model import ModelSpec, Variant
from .commands import record_command
from .launch import LaunchArguments, launch_arguments
from .run import Run

if TYPE_CHECKING:
    from ..checkpoints.find import Checkpoint
    from ..engines.transformers.reference import TransformersReference
    from ..golden.store import GoldenKey, GoldenStore


class ModelSession:
    """One model, as this run judges it.

    Attributes:
        run: the run.
        model: the model.
    """

    def __init__(self, run: Run, model: ModelSpec) -> None:
        self.run = run
        self.model = model

    @property
    def lacks_checkpoint(self) -> bool:
        """Whether another model of the family stands for this one's architecture."""
        return self.run.options.checkpoint == "tiny" and self.model.tiny is None

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that it runs with.

        Raises:
            CheckpointError: it is not there, incomplete, or of another revision.
        """
        return self.run.checkpoint(self.model)

    @cached_property
    def arguments(self) -> LaunchArguments:
        """The arguments that its engines are launched with."""
        return launch_arguments(self.model, self.run.platform)

    def variant(self, variant: Variant) -> ModelSession:
        """The session of a variant."""
        return ModelSession(self.run, self.model.as_variant(variant))

    def declared_cases(self, cases: Cases) -> tuple[Case, ...]:
        """Those of the cases that the model's capabilities cover, whatever the checkpoint."""
        if self.lacks_checkpoint:
            return ()
        model = self.model
        asked = (model.request(case) for case in self.run.cases if case.needs in model.supports)
        return tuple(case for case in asked if cases.includes(case))

    def cases(self, cases: Cases) -> tuple[Case, ...]:
        """Those of the cases that this checkpoint can be asked."""
        declared = self.declared_cases(cases)
        return tuple(case for case in declared if self.untaught_reason(case) is None)

    def untaught_reason(self, case: Case) -> str | None:
        """Why a tiny checkpoint cannot answer a case, or None where it can."""
        reasons = self.run.untaught(self.model)
        return reasons.get(case.id, reasons.get(case.group))

    @property
    def first_request(self) -> Case:
        """An image request where the model takes images: a server that answers it is ready."""
        images = self.cases(Cases.IMAGE)
        return images[0] if images else self.cases(Cases.TEXT)[0]

    @property
    def lacks_cards_reason(self) -> str | None:
        """Why this host has too few cards for the model, or None."""
        visible, needed = self.run.visible_cards, self.model.devices
        if visible is None or needed <= visible:
            return None
        return f"{self.model.model_id} needs {needed} cards, {visible} are visible here"

    def variant_not_applicable_reason(self, variant: Variant) -> str | None:
        """Why this variant cannot be told from the model on this platform, or None."""
        options = self.run.options
        if options.server_url is not None:
            return None  # nothing is served here; that is no property of the model
        if variant.checkpoint:
            tiny = options.checkpoint == "tiny"
            return "there is no tiny checkpoint of its own weights" if tiny else None
        if self.variant(variant).arguments != self.arguments:
            return None
        return f"on the platform {self.run.platform.name} it is served as the model is"

    @cached_property
    def golden_key(self) -> GoldenKey:
        """Which goldens it is judged by."""
        from ..golden.store import GoldenKey

        options = self.run.options
        digest = self.checkpoint.weights_sha256 if options.server_url is None else None
        return GoldenKey(self.model, options.checkpoint, digest)

    def golden_store(self, test_path: str) -> GoldenStore:
        """The goldens.

        Args:
            test_path: the model file, as the command that records them names it.
        """
        from ..golden.store import GoldenStore

        options = self.run.options
        command = record_command(options, test_path, "cpu_baseline")
        return GoldenStore(options.golden_roots, command)

    def reference_engine(self) -> TransformersReference:
        """The reference engine; its weights are loaded when it is asked."""
        from ..engines.transformers.reference import TransformersReference

        return TransformersReference(
            self.checkpoint.path,
            trust_remote_code=self.model.trust_remote_code,
            on_progress=self.on_progress,
        )

    def on_progress(self, line: str) -> None:
        """Shows a line of progress, with the model's id."""
        self.run.on_progress(f"{self.model.model_id}: {line}")

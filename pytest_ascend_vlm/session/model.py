"""One model of a run: its checkpoint, cases, launch arguments and goldens; starts nothing."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..criteria.criterion import Cases
from ..errors import CheckpointError
from ..spec.case import Case
from ..spec.case_files import image_size
from ..spec.model import ModelSpec, Variant
from .commands import record_command
from .launch import LaunchArguments, launch_arguments
from .run import Run

if TYPE_CHECKING:
    from ..checkpoints.find import Checkpoint
    from ..checkpoints.tokens import TextTokenizer
    from ..engines.transformers.model import Encoder
    from ..engines.transformers.reference import TransformersReference
    from ..golden.store import GoldenKey, GoldenStore
    from ..observation.answers import TokenText


class ModelSession:
    """One model in a run.

    Attributes:
        run: the run.
        model: the model.
    """

    def __init__(self, run: Run, model: ModelSpec) -> None:
        self.run = run
        self.model = model

    @property
    def lacks_checkpoint(self) -> bool:
        """True if the run uses tiny checkpoints and the model has none.

        Another model of the family then covers the architecture.
        """
        return self.run.options.checkpoint == "tiny" and self.model.tiny is None

    @property
    def checkpoint(self) -> Checkpoint:
        """The model's checkpoint.

        Raises:
            CheckpointError: the checkpoint is missing, incomplete, or of another revision.
        """
        return self.run.checkpoint(self.model)

    @cached_property
    def arguments(self) -> LaunchArguments:
        """The arguments that the model's engines are launched with."""
        return launch_arguments(self.model, self.run.platform)

    def variant(self, variant: Variant) -> ModelSession:
        """A session of one of the model's variants."""
        return ModelSession(self.run, self.model.as_variant(variant))

    def declared_cases(self, cases: Cases) -> tuple[Case, ...]:
        """The cases of a group that the model's capabilities cover, for any checkpoint."""
        if self.lacks_checkpoint:
            return ()
        model = self.model
        own = (model.request(case) for case in self.run.cases if case.needs in model.supports)
        return tuple(case for case in own if cases.includes(case))

    def cases(self, cases: Cases, *, untaught: bool = False) -> tuple[Case, ...]:
        """The cases of a group that this checkpoint can be asked.

        Args:
            cases: the group.
            untaught: True for cases that a tiny checkpoint was not taught as well.
        """
        asked = (one for one in self.declared_cases(cases) if self.unasked_reason(one) is None)
        return tuple(case for case in asked if untaught or self.untaught_reason(case) is None)

    def unasked_reason(self, case: Case) -> str | None:
        """Reason why no criterion asks a case here, or None."""
        if case.full_only and self.run.options.checkpoint == "tiny":
            return f"{case.id} is for full checkpoints: {case.full_only}"
        images, limit = len(case.every_image), self.model.image_limit
        if limit is not None and images > limit:
            return f"{case.id} has {images} images, and the model is declared for {limit}"
        most = self.model.pixel_limit
        shrunk = [
            one.name for one in case.every_image if most and math.prod(image_size(one)) > most
        ]
        if shrunk:
            return (
                f"the model's max_pixels shrinks {shrunk[0]}, and its goldens have the whole image"
            )
        return None

    def untaught_reason(self, case: Case) -> str | None:
        """Reason why a tiny checkpoint cannot answer a case, or None."""
        reasons = self.run.untaught(self.model)
        return reasons.get(case.id, reasons.get(case.group))

    @property
    def first_request(self) -> Case:
        """The case that a new server must answer to be ready: an image case if there is one."""
        images = self.cases(Cases.IMAGE)
        return images[0] if images else self.cases(Cases.TEXT)[0]

    @property
    def lacks_cards_reason(self) -> str | None:
        """Reason why this host has too few cards for the model, or None."""
        visible, needed = self.run.visible_cards, self.model.devices
        if visible is None or needed <= visible:
            return None
        return f"{self.model.model_id} needs {needed} cards, but only {visible} are visible here"

    def variant_not_applicable_reason(self, variant: Variant) -> str | None:
        """Reason why a comparison of the variant with the model is meaningless here, or None."""
        options = self.run.options
        if options.server_url is not None:
            return None  # The variant is skipped then; it would apply to the model elsewhere.
        other, platform = self.variant(variant), self.run.platform
        if reason := self.run.lacks_packages_reason(other.model):
            return reason
        if variant.checkpoint:
            tiny = options.checkpoint == "tiny"
            return "the variant has weights of its own, and no tiny checkpoint" if tiny else None
        if other.arguments != self.arguments:
            return None
        if platform.environment(other.model) != platform.environment(self.model):
            return None
        return f"on the platform {platform.name} the variant is served like the model"

    @cached_property
    def golden_key(self) -> GoldenKey:
        """The key of the goldens that the model is judged by."""
        from ..golden.store import GoldenKey

        options = self.run.options
        digest = self.checkpoint.weights_sha256 if options.server_url is None else None
        return GoldenKey(self.model, options.checkpoint, digest)

    def golden_store(self, test_path: str) -> GoldenStore:
        """The store of goldens.

        Args:
            test_path: path of the model file, for the recording command in messages.
        """
        from ..golden.store import GoldenStore

        options = self.run.options
        command = record_command(options, test_path, "cpu_baseline", self.model.model_id)
        return GoldenStore(options.golden_roots, command)

    def reference_engine(self) -> TransformersReference:
        """Creates the reference engine; its weights are loaded on first use."""
        from ..engines.transformers.reference import TransformersReference

        return TransformersReference(
            self.checkpoint.path,
            trust_remote_code=self.model.trust_remote_code,
            on_progress=self.run.progress("reference engine"),
        )

    def encoder(self) -> Encoder:
        """Loads the checkpoint's processor, with the arguments that the server gives it.

        Raises:
            CheckpointError: the checkpoint is missing, incomplete, or of another revision.
            ConfigurationError: Transformers is not installed, or cannot load the processor.
        """
        from ..engines.transformers.model import Encoder

        return Encoder(
            self.checkpoint.path,
            trust_remote_code=self.model.trust_remote_code,
            arguments=self.model.serve.get("mm_processor_kwargs"),
        )

    @cached_property
    def text_tokenizer(self) -> TextTokenizer | None:
        """The checkpoint's tokenizer; None if it cannot be read, or is not on this host."""
        from ..checkpoints.tokens import text_tokenizer

        try:
            return text_tokenizer(self.checkpoint.path)
        except CheckpointError:
            return None

    def token_text(self, token: int) -> str:
        """The text of a token; its number if the checkpoint is not on this host."""
        return self._token_texts(token)

    @cached_property
    def _token_texts(self) -> TokenText:
        from ..checkpoints.tokens import token_texts

        return token_texts(self.text_tokenizer)

    def case_facts(self) -> dict[str, Any]:
        """Case id -> the facts of each of the model's cases, for the report."""
        from .case_facts import case_facts

        own = (self.model.request(case) for case in self.run.cases)
        return {case.id: case_facts(case, self.run.options.fixture_roots) for case in own}

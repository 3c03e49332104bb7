"""What the criteria of one model share: its answers, its goldens, the reference, the judge."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from ..criteria.verdict import Verdict
from ..errors import CriterionFailed, GoldenError, NoAnswer, PreconditionError
from ..spec.model import Case
from ..suite.criterion import NotApplicable
from .explain import explain

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..engines.transformers.reference import TransformersReference
    from ..golden.store import GoldenKey, GoldenStore
    from ..observation.answers import Completion, Forced, ReferenceNumerics, Refusal
    from ..observation.answers import Reference as ReferenceAnswer
    from ..suite.criterion import Criterion, Documentation
    from .recording import Countdown, Recording


class Answers:
    """The first greedy answer to each case; criteria share it instead of asking again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Completion | Refusal] = {}

    def __call__(self, case: Case) -> Completion:
        """The answer to a case.

        Raises:
            ServerError: the server refused it.
        """
        from ..observation.answers import require_answer

        return require_answer(case.id, self.ask(case))

    def ask(self, case: Case) -> Completion | Refusal:
        """The answer to a case, or the HTTP error that came instead."""
        from ..observation.answers import Completion

        known = self._known.get(case.id)
        if known is None:
            known = self._known[case.id] = self._client.ask(case)
        elif isinstance(known, Completion):
            # Every test that uses an answer guards it, not only the one that came first.
            self._client.completions.append(known)
        return known


class ForcedAnswers:
    """What the served model thinks of the references' answers; criteria share it."""

    def __init__(self, client: Client, goldens: Goldens) -> None:
        self._client = client
        self._goldens = goldens
        self._known: dict[str, Forced] = {}

    def __call__(self, case: Case) -> Forced:
        """What it thinks of the reference's answer to a case.

        Raises:
            PreconditionError: the server does not tell, or saw a prompt of another length.
            ServerError: it refused the request.
        """
        from ..criteria.baseline import require_same_forced_prompt

        if case.id not in self._known:
            reference, token_ids = self._goldens(case), self._goldens.numerics(case).token_ids
            forced = self._client.force(case, reference.text, token_ids)
            require_same_forced_prompt(forced, reference)
            self._known[case.id] = forced
        return self._known[case.id]


class Goldens:
    """The references of one model: recorded ones, else published ones."""

    def __init__(self, store: GoldenStore, key: GoldenKey) -> None:
        self._store = store
        self._key = key
        self._known: dict[str, ReferenceAnswer] = {}

    def __call__(self, case: Case) -> ReferenceAnswer:
        """The reference of a case.

        Raises:
            GoldenError: there is none that holds.
        """
        if case.id not in self._known:
            self._known[case.id] = self._find(case)
        return self._known[case.id]

    def numerics(self, case: Case) -> ReferenceNumerics:
        """The recorded numbers of a case.

        Raises:
            GoldenError: there is no golden that holds.
            PreconditionError: the reference is text only.
        """
        reference = self(case)
        if reference.numerics is None:
            raise PreconditionError(f"{case.id}: the reference is text only ({reference.source})")
        return reference.numerics

    def text_of(self, case: Case) -> str | None:
        """The reference's text of a case; None where there is no golden that holds."""
        with contextlib.suppress(GoldenError):
            return self(case).text
        return None

    def _find(self, case: Case) -> ReferenceAnswer:
        from ..observation.answers import Reference as ReferenceAnswer

        published = self._published().get(case.id)
        if published is None or self._store.has(self._key, case):
            return self._store.load(self._key, case)
        source = self._key.model.published.source if self._key.model.published else ""
        return ReferenceAnswer(case.id, f"published in {source}", published, is_published=True)

    def _published(self) -> dict[str, str]:
        """Published answers; they are the real checkpoint's, a tiny one has its own."""
        published = self._key.model.published
        return dict(published.answers) if published and self._key.checkpoint == "full" else {}


@dataclass(frozen=True)
class Task:
    """What the reference engine is to do in a run.

    Attributes:
        key: the model and checkpoint that answer.
        cases: those that they will be asked.
        golden_dir: where goldens are written.
        drafts_dir: where the halves of goldens wait that bf16 has made.
    """

    key: GoldenKey
    cases: tuple[Case, ...]
    golden_dir: Path
    drafts_dir: Path


@dataclass
class Reference:
    """The reference engine of one model.

    Attributes:
        load: makes the engine; called on first use.
        recording: whether goldens are written instead of replayed.
        task: what it is to do.
        say: shows a line of progress.
    """

    load: Callable[[], TransformersReference]
    recording: bool
    task: Task
    say: Callable[[str], None]

    def answer(self, case: Case) -> ReferenceAnswer:
        """The reference's answer to a case, without numerics: in bf16 alone."""
        self._engine.load("bfloat16")
        self.say(self._countdown.next(case))
        return self._engine.answer(case)

    def record(self, case: Case) -> Path:
        """Records the reference's answer to a case, unless its golden holds; returns its path."""
        return self._recording.record(case)

    def recorded(self, case: Case) -> ReferenceAnswer:
        """A case's golden as it is on disk, once it was recorded.

        Raises:
            GoldenError: it does not hold.
        """
        from ..golden.store import GoldenStore

        return GoldenStore([self.task.golden_dir], "the same command").load(self.task.key, case)

    def close(self) -> None:
        """Gives the engine's memory back."""
        if "_engine" in vars(self):
            self._engine.close()

    @cached_property
    def _engine(self) -> TransformersReference:
        return self.load()

    @cached_property
    def _countdown(self) -> Countdown:
        from .recording import answering

        return answering(self.task.cases)

    @cached_property
    def _recording(self) -> Recording:
        from .recording import Recording

        return Recording(self._engine, self.task, self.say)


@dataclass
class Judge:
    """Takes a test's verdict: keeps it for the report and fails the test if it does not hold.

    Attributes:
        criterion: the criterion being judged.
        documentation: what its failures explain themselves with.
        case_id: the case, where there is one.
        client: its completions pass the degeneration guard before any verdict counts.
        goldens: excuse what the reference does too; None without a client.
        cases: id -> case, of every case of the model that may have a golden.
        verdicts: the verdicts taken so far.
        recorded_path: the golden that was written instead of a verdict.
        doubts: what speaks against judging by it.
        reference_knows: False where the reference does not know what was asked; then there is no
            verdict either.
    """

    criterion: Criterion
    documentation: Documentation
    case_id: str | None
    client: Client | None
    goldens: Goldens | None
    cases: Mapping[str, Case]
    verdicts: list[Verdict] = field(default_factory=list)
    recorded_path: Path | None = None
    doubts: tuple[str, ...] = ()
    reference_knows: bool = True
    _guarded: int = 0

    def __post_init__(self) -> None:
        self._guarded = len(self.client.completions) if self.client else 0

    def __call__(self, verdict: Verdict) -> None:
        """Takes a verdict.

        Raises:
            CriterionFailed: it does not hold.
            NoAnswer: an answer of this test is degenerate.
        """
        for completion, problem in self._degenerate():
            raise NoAnswer(
                f"{self.criterion.id}: what came back for {completion.case_id} is no answer: "
                f"{problem}.\n"
                f"  got: {completion.text[:200]!r}\n"
                "What to try: compare eager with graph mode, then look at attention masks and "
                "the weights' data type. Nothing measured on such an answer means anything."
            )
        self.verdicts.append(verdict)
        if not verdict.passed:
            raise CriterionFailed(
                explain(self.criterion, self.documentation, self.case_id, verdict)
            )

    def cannot_run(self, reason: str) -> NoReturn:
        """Ends the test: the criterion applies, but what it asks for is not to be had here."""
        pytest.skip(reason)

    def not_applicable(self, reason: str) -> NoReturn:
        """Ends the test: the criterion cannot apply to this model as it is declared."""
        raise NotApplicable(reason)

    def recorded(self, path: Path, doubts: tuple[str, ...] = ()) -> None:
        """Notes that a golden was written, and what is doubtful about it; nothing is judged."""
        self.recorded_path, self.doubts = path, doubts

    def _degenerate(self) -> Iterator[tuple[Completion, str]]:
        from ..criteria.degeneration import degeneration

        if self.client is None:
            return
        fresh = self.client.completions[self._guarded :]
        self._guarded = len(self.client.completions)
        for completion in fresh:
            # Goldens are read only where one may excuse something.
            if degeneration(completion) and (
                problem := degeneration(completion, self._reference_text(completion.case_id))
            ):
                yield completion, problem

    def _reference_text(self, case_id: str) -> str | None:
        case = self.cases.get(case_id)
        return self.goldens.text_of(case) if self.goldens and case else None

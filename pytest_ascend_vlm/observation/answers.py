"""What engines report and criteria judge: completions, refusals, references.

Arrays are NumPy; log-probabilities are natural logarithms (nats).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import ServerError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TOP_LOGPROBS = 20
"""Tokens listed at each position of an answer (vLLM's default maximum)."""

LISTED_TOKENS = 32
"""Tokens whose logits a golden keeps at each position: those the reference finds most likely.

A budget: the whole vocabulary of a real model is 150,000 logits a position. Against the whole
vocabulary of the tiny checkpoints, 32 tokens move the error ratio R by at most 0.06.
"""

FORCED_TOKENS = 2 * LISTED_TOKENS
"""Tokens listed by the server at each forced position: enough to find the reference's among."""


@dataclass(frozen=True)
class Usage:
    """Token counts of one request; `cached_tokens` is None where the server does not tell."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int | None = None


@dataclass(frozen=True, eq=False)
class TopLogprobs:
    """The k most likely tokens at each of n positions.

    Attributes:
        token_ids: shape (n, k), int64; -1 where a position listed fewer than k.
        logprobs: shape (n, k), float64, nats; NaN where token_ids is -1.
    """

    token_ids: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.token_ids)

    def at(self, position: int) -> dict[int, float]:
        """Token id -> log-probability of the tokens listed at a position."""
        pairs = zip(self.token_ids[position], self.logprobs[position], strict=True)
        return {int(token): float(logprob) for token, logprob in pairs if token >= 0}


@dataclass(frozen=True, eq=False)
class Completion:
    """One answer of an engine.

    Attributes:
        case_id: the case that was asked.
        text: the answer.
        token_ids: its tokens, the end-of-sequence token included where the engine reports it;
            None where it reports no ids.
        finish_reason: "stop" or "length".
        usage: token counts; None in a stream that carries none.
        top: the most likely tokens at each position of the answer; None where not asked for.
        seconds: from sending the request to the last byte.
        first_token_seconds: TTFT of a streamed answer.
        prompt_token_ids: the prompt's tokens, those of images included; None where not reported.
    """

    case_id: str
    text: str
    token_ids: tuple[int, ...] | None
    finish_reason: str | None
    usage: Usage | None
    top: TopLogprobs | None
    seconds: float
    first_token_seconds: float | None = None
    prompt_token_ids: tuple[int, ...] | None = None

    @property
    def prompt_tokens(self) -> int | None:
        """Length of the prompt, counted rather than told; None where it is neither."""
        if self.prompt_token_ids is not None:
            return len(self.prompt_token_ids)
        return self.usage.prompt_tokens if self.usage else None


@dataclass(frozen=True)
class Refusal:
    """An HTTP answer that is not a completion.

    Attributes:
        status: the HTTP status; 0 where the server hung up instead.
        message: the body, shortened.
        is_json_error: whether the body is JSON with an `error` object, as OpenAI's API has it.
    """

    status: int
    message: str
    is_json_error: bool


def require_answer(case_id: str, answer: Completion | Refusal) -> Completion:
    """The answer itself.

    Raises:
        ServerError: it is a refusal.
    """
    if isinstance(answer, Refusal):
        raise ServerError(f"{case_id}: the server answered {answer.status}: {answer.message}")
    return answer


@dataclass(frozen=True, eq=False)
class Scores:
    """What an engine gives the tokens it lists, at n positions of a sequence.

    Row i is about what follows token i of the sequence.

    Attributes:
        token_ids: shape (n, k), int64; -1 where a row lists fewer than k.
        values: shape (n, k), float64: raw logits, or log-probabilities (nats), which are logits up
            to one constant a row; NaN where token_ids is -1.
        floor: shape (n,), float64; no token that a row does not list has more.
        are_logits: whether values are raw logits.
    """

    token_ids: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    floor: npt.NDArray[np.float64]
    are_logits: bool

    def __len__(self) -> int:
        return len(self.token_ids)

    def at(self, row: int) -> dict[int, float]:
        """Token id -> value of the tokens listed in a row."""
        pairs = zip(self.token_ids[row], self.values[row], strict=True)
        return {int(token): float(value) for token, value in pairs if token >= 0}


@dataclass(frozen=True, eq=False)
class Forced:
    """What an engine thinks of a given answer: the answer forced, token by token.

    Attributes:
        case_id: the case.
        scores: at every position of the prompt and the answer but the last.
        listed: how many of the most likely tokens each row lists.
    """

    case_id: str
    scores: Scores
    listed: int


@dataclass(frozen=True, eq=False)
class ReferenceHidden:
    """The reference's last hidden states at h positions of the prompt and its answer.

    Attributes:
        rows: shape (h,), int64; the positions, counted from the prompt's first token.
        is_image: shape (h,), bool; whether an image token is there.
        fp32: shape (h, width), float32, computed in float32.
        bf16: shape (h, width), float32, computed in bfloat16.
    """

    rows: npt.NDArray[np.int64]
    is_image: npt.NDArray[np.bool_]
    fp32: npt.NDArray[np.float32]
    bf16: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ReferenceNumerics:
    """The reference's own view of its answer, in fp32 and in bf16.

    There are m rows: some of the prompt's, then one for each of the answer's n tokens, and one for
    what follows the answer. Row i of the sequence is about what follows its token i.

    Attributes:
        token_ids: the answer as it is forced, n tokens, without an end-of-sequence token.
        rows: shape (m,), int64; which rows of the sequence these are, counted from the prompt's
            first token.
        is_image: shape (m,), bool; whether the row's own token is an image token.
        listed: shape (m, k), int64; the tokens that fp32 finds most likely, most likely first.
        fp32: shape (m, k), float64; their raw logits, computed in float32.
        bf16: shape (m, k), float64; the logits of the same tokens, computed in bfloat16.
        fp32_logsumexp: shape (m,), float64; over the whole vocabulary.
        bf16_logsumexp: the same in bfloat16.
        logit_rmse: root mean square of bf16 - fp32 over the answer's rows and the whole vocabulary.
        hidden: the last hidden states.
    """

    token_ids: tuple[int, ...]
    rows: npt.NDArray[np.int64]
    is_image: npt.NDArray[np.bool_]
    listed: npt.NDArray[np.int64]
    fp32: npt.NDArray[np.float64]
    bf16: npt.NDArray[np.float64]
    fp32_logsumexp: npt.NDArray[np.float64]
    bf16_logsumexp: npt.NDArray[np.float64]
    logit_rmse: float
    hidden: ReferenceHidden

    @property
    def first_answer_row(self) -> int:
        """Index of the row that is about the answer's first token."""
        return len(self.rows) - len(self.token_ids) - 1

    def logprobs_at(self, position: int) -> dict[int, float]:
        """Token -> fp32 log-probability (nats) at a position of the answer."""
        row = self.first_answer_row + position
        logprobs = self.fp32[row] - self.fp32_logsumexp[row]
        return dict(zip(self.listed[row].tolist(), logprobs.tolist(), strict=True))

    def peak_logit(self, position: int) -> float:
        """The largest fp32 logit at a position of the answer."""
        return float(self.fp32[self.first_answer_row + position].max())


@dataclass(frozen=True, eq=False)
class Reference:
    """What the answer should be.

    Attributes:
        case_id: the case.
        source: "recorded with ..." or "published in ...", as a verdict names it.
        text: the expected answer.
        is_published: True where only a document's text is known.
        prompt_tokens: length of the reference's prompt; None where published.
        token_ids: the greedy answer's tokens; None where published.
        numerics: None where published.
        provenance: what a golden says of where it comes from; empty where this is none.
    """

    case_id: str
    source: str
    text: str
    is_published: bool = False
    prompt_tokens: int | None = None
    token_ids: tuple[int, ...] | None = None
    numerics: ReferenceNumerics | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


MEMORY_SLACK_MIB = 256.0
"""How far above its level before a server device memory may stay and count as returned."""


@dataclass(frozen=True)
class Remains:
    """What a server that ended would have left behind.

    Attributes:
        outlived: its processes that did not end with it and had to be killed, in words.
        memory_before_mib: device memory in use before it started, None where that cannot be told.
        memory_after_mib: the same after it ended.
        seconds: from the order to end to the end of the last process.
    """

    outlived: tuple[str, ...]
    memory_before_mib: float | None
    memory_after_mib: float | None
    seconds: float


@dataclass(frozen=True)
class Timing:
    """How one streamed answer came.

    Attributes:
        case_id: the case that was asked.
        text: the answer.
        prompt_tokens: tokens of the prompt, images included; None where nobody counted them.
        output_tokens: tokens of the answer.
        ttft_seconds: from sending the request to the first token.
        seconds: from sending the request to the last token.
    """

    case_id: str
    text: str
    prompt_tokens: int | None
    output_tokens: int
    ttft_seconds: float
    seconds: float

    @property
    def tpot_seconds(self) -> float | None:
        """Mean time of each token after the first; None where there is none."""
        if self.output_tokens < 2:
            return None
        return (self.seconds - self.ttft_seconds) / (self.output_tokens - 1)


@dataclass(frozen=True)
class Load:
    """What a load generator saw.

    Attributes:
        generator: its name and version, "vllm bench serve 0.32.0".
        concurrency: how many requests were on the way at a time, at most.
        duration_seconds: from the first request to the last token.
        timings: of the requests that were answered.
        errors: of those that were not, one text each.
        goodput: requests a second that met the declared service levels; None without any.
        server_seconds: what the server says that a mean request spent in "queue", "prefill" and
            "decode"; empty where it does not tell.
    """

    generator: str
    concurrency: int
    duration_seconds: float
    timings: tuple[Timing, ...]
    errors: tuple[str, ...] = ()
    goodput: float | None = None
    server_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def output_throughput(self) -> float:
        """Tokens of all answers a second."""
        return sum(timing.output_tokens for timing in self.timings) / self.duration_seconds

    @property
    def request_throughput(self) -> float:
        """Answers a second."""
        return len(self.timings) / self.duration_seconds

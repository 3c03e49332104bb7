"""serving.*: does the endpoint keep the promises of the API?"""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..criteria import serving as rules
from ..criteria.criterion import Cases
from ..errors import PreconditionError, ServerError
from ..observation.answers import Completion, Refusal
from ..session.answers import Answers
from ..session.judge import Judge
from ..spec.case import Capability, Case, Sampling
from ..spec.model import ExpectedFailure, ModelSpec
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..engines.endpoint import Server

_LOSSLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG, uncompressed": ("png", {"compress_level": 0}),
    "BMP": ("bmp", {}),
    "TIFF": ("tiff", {}),
    "WebP, lossless": ("webp", {"lossless": True}),
}
_CUT_TOKENS = 5
_GIGAPIXEL = ExpectedFailure(
    criterion="serving.bad_input[gigapixel-image]",
    reason="vLLM up to 0.32 refuses an image beyond Pillow's own limit, but with HTTP 500",
    issue="not tracked upstream yet",
    shows="HTTP 500 instead of a 4xx",
)


class ServingCriteria(Criteria):
    """Criteria of the API; each docstring is the criterion's documentation."""

    @criterion("serving.ready")
    def test_ready_within_budget(self, server: Server, judge: Judge) -> None:
        """Every phase of the first start (process, weights, graphs, image) stays in its budget.

        A server counts as ready only once it answered an image: that is where an accelerator
        compiles its kernels, and where a start-up that only looked complete fails. A start that
        takes longer fails here, and the server is judged all the same; one that takes twice the
        budget is given up, which is an error of every criterion.

        If this fails: the phase named first is the one to look at. Weights: slow storage, try a
        local disk. Graphs: fewer capture sizes, or enforce_eager. First image: the largest image
        the profile run allocates for; lower max_pixels. If the machine is simply slower, raise
        ModelSpec(budgets=...).
        """
        budgets = {
            name.replace("_", " "): seconds
            for name, seconds in dataclasses.asdict(self.model.budgets).items()
        }
        seconds = server.first_start_seconds
        if not seconds:
            judge.cannot_run("the endpoint was started by someone else")
        judge(rules.judge_start(seconds, budgets, server.memory_mib))

    @criterion("serving.models")
    def test_models_are_listed(self, client: Client, judge: Judge) -> None:
        """`/v1/models` answers 200 and lists the name the model is served under.

        Clients discover models there, and every adaptation document starts with this request.

        If this fails: compare --served-model-name with the name in the message.
        """
        judge(rules.judge_models(client.models(), client.endpoint.served_name))

    @criterion("serving.text", cases=Cases.TEXT)
    def test_text_is_answered(self, case: Case, answers: Answers, judge: Judge) -> None:
        """A text request gets 200, a finish reason, a true usage and log-probabilities of its own.

        Usage adds up, and is the number of the tokens that the reply itself returns. Each greedy
        token is the first of its own list of log-probabilities, or ties with it.

        If this fails: an HTTP 5xx means the engine raised; its log has the traceback. A missing
        finish reason or wrong usage points at a proxy or at an incompatible vLLM version. Lists
        that belong to other tokens point at how sampled tokens and log-probabilities are gathered:
        chunked prefill, asynchronous scheduling, speculative decoding.
        """
        judge(rules.judge_answer(answers.ask(case)))

    @criterion("serving.image", needs=Capability.IMAGE, cases=Cases.IMAGE)
    def test_image_is_answered(
        self, case: Case, answers: Answers, client: Client, judge: Judge
    ) -> None:
        """An image request is answered as soundly as a text, and the image cost tokens.

        An image that costs no tokens never reached the model: its answer is invented from the
        text alone, and fluent enough to pass a quick look.

        If this fails: check the chat template's image placeholder and --limit-mm-per-prompt.
        """
        without_images = client.prompt_tokens(dataclasses.replace(case, images=()))
        judge(rules.judge_media(answers.ask(case), without_images, "image"))

    @criterion("serving.video", needs=Capability.VIDEO, cases=Cases.VIDEO)
    def test_video_is_answered(
        self, case: Case, answers: Answers, client: Client, judge: Judge
    ) -> None:
        """A clip sent as `video_url` is answered as soundly as a text, and cost tokens.

        What is said about it is not compared with the reference: the two sample frames differently.

        If this fails: check the chat template's video placeholder, --limit-mm-per-prompt, and that
        the host can decode the clip (OpenCV).
        """
        without_video = client.prompt_tokens(dataclasses.replace(case, videos=()))
        judge(rules.judge_media(answers.ask(case), without_video, "video"))

    @criterion("serving.encodings", needs=Capability.IMAGE)
    def test_encodings_agree(
        self, image_case: Case, answers: Answers, client: Client, judge: Judge, tmp_path: Path
    ) -> None:
        """Lossless encodings of one image (PNG, BMP, TIFF, WebP) give one answer.

        The pixels are equal, so any difference is a defect of decoding or colour conversion that
        users would meet as "it depends on the file".

        If this fails: compare the image libraries (Pillow, OpenCV) on both hosts, and look for
        colour channel order and alpha handling in the image loader.
        """
        first = answers(image_case)
        asked: dict[str, Completion | Refusal] = {"as it is": first}
        for label, path in _reencoded(image_case.images[0], tmp_path):
            asked[label] = client.ask(dataclasses.replace(image_case, images=(path,)))
        judge(rules.judge_encodings(asked))

    @criterion("serving.streaming", cases=Cases.TEXT)
    def test_stream_adds_up(
        self, case: Case, answers: Answers, client: Client, judge: Judge
    ) -> None:
        """The streamed deltas add up to the unstreamed answer, finish reason and usage included.

        Interactive clients stream; Chinese text shows whether characters are cut at token borders.

        If this fails: look for a detokenizer that emits incomplete UTF-8 sequences.
        """
        judge(rules.judge_stream(client.stream(case), answers(case)))

    @criterion("serving.limits", "robustness")
    def test_limits_are_obeyed(
        self, long_case: Case, answers: Answers, client: Client, judge: Judge
    ) -> None:
        """max_tokens, stop and n are obeyed.

        A limit that is ignored costs money and, in a loop, a card.

        If this fails: an ignored limit is usually a proxy that drops the field, or speculative
        decoding that overruns it.
        """
        whole = answers(long_case)
        stop = _a_word_within(whole)
        cut = Sampling(max_tokens=_CUT_TOKENS)
        until = Sampling(max_tokens=long_case.max_tokens, stop=stop)
        two = Sampling(max_tokens=_CUT_TOKENS, n=2, temperature=0.5, seed=1)
        several = client.ask_several(long_case, two)
        judge(
            rules.judge_limits(
                client.complete(long_case, cut),
                cut,
                client.complete(long_case, until),
                stop,
                () if isinstance(several, Refusal) else several,
            )
        )

    @criterion("serving.multi_image", "robustness", needs=Capability.IMAGE)
    def test_image_limit_holds(self, image_case: Case, client: Client, judge: Judge) -> None:
        """As many images as declared are answered; one more is refused with a 4xx.

        The limit is `serve={"limit_mm_per_prompt": {"image": N}}`. Beyond it an engine has not
        profiled its memory.

        If this fails: with N images refused, check that N images fit max_model_len; with N + 1
        answered, the limit does not reach the server.
        """
        limit = self.model.image_limit
        if limit is None:
            judge.not_applicable("no serve={'limit_mm_per_prompt': {'image': N}} is declared")
        few = Sampling(max_tokens=_CUT_TOKENS)
        image = image_case.images[0]
        within = client.ask(dataclasses.replace(image_case, images=(image,) * limit), few)
        beyond = client.ask(dataclasses.replace(image_case, images=(image,) * (limit + 1)), few)
        judge(rules.judge_image_limit(within, beyond, limit))

    @criterion("serving.unsupported", "robustness")
    def test_unsupported_is_refused(
        self, text_case: Case, image_case: Case, client: Client, judge: Judge
    ) -> None:
        """What the model declares unsupported is refused with a 4xx, and serving goes on.

        Answering a video request without looking at the video is worse than refusing it.

        If this fails: limit the modality to 0 with serve={"limit_mm_per_prompt": {"video": 0}}, or
        declare it supported.
        """
        probes = _unsupported_probes(self.model, image_case)
        if not probes:
            judge.not_applicable("the model declares nothing unsupported that can be asked for")
        few = Sampling(max_tokens=_CUT_TOKENS)
        refusals = {
            label: _first(client.send(chat, f"unsupported/{label}", few))
            for label, chat in probes.items()
        }
        judge(rules.judge_refusals(refusals, client.ask(text_case, few)))

    @criterion(
        "serving.bad_input", "robustness", needs=Capability.IMAGE, known_failures=(_GIGAPIXEL,)
    )
    @pytest.mark.parametrize(
        "bad",
        [
            "not-an-image",
            "truncated-image",
            "decompression-bomb",
            "gigapixel-image",
            "unknown-model",
            "too-long-prompt",
            "broken-json",
            "no-messages",
        ],
    )
    def test_bad_input_is_refused(
        self, bad: str, text_case: Case, image_case: Case, client: Client, judge: Judge
    ) -> None:
        """A bad request is refused with a 4xx and a JSON error, and the next good one is answered.

        One user's broken file must not be an outage for the others. A 5xx tells clients to retry
        what can never work.

        If this fails: with a 5xx, the server's log has the exception that should have been turned
        into a 4xx; with no answer afterwards, the engine died of one request.
        """
        few = Sampling(max_tokens=_CUT_TOKENS)
        client.complete(text_case, few)  # a server that is not there has refused nothing
        with client.disposable() as stranger:
            refusal = _or_lost(lambda: _send_bad_request(bad, stranger, text_case, image_case))
        good = _or_lost(lambda: client.ask(text_case, few))
        judge(rules.judge_refusals({bad: refusal}, good))


def _reencoded(image: Path, directory: Path) -> Iterator[tuple[str, Path]]:
    from PIL import Image

    with Image.open(image) as opened:
        pixels = opened.convert("RGB")
    for label, (suffix, options) in _LOSSLESS.items():
        path = directory / f"{label.split(',')[0].lower()}.{suffix}"
        pixels.save(path, **options)
        yield label, path


def _a_word_within(whole: Completion) -> str:
    """A stop string from the middle of an answer."""
    words = whole.text.split()
    if len(words) < 2:
        raise PreconditionError(
            f"{whole.case_id}: the answer {whole.text!r} has no second word to stop at, so the "
            "stop parameter cannot be judged."
        )
    return next((word for word in words[1:] if not words[0].startswith(word)), words[-1])


def _unsupported_probes(model: ModelSpec, image_case: Case) -> dict[str, list[dict[str, object]]]:
    """Unsupported capability -> a chat that asks for it."""
    from ..engines.messages import image_part, video_part

    data = image_case.images[0].read_bytes()
    parts = {
        Capability.VIDEO: video_part(data, "video/mp4"),
        Capability.IMAGE: image_part(data, "image/png"),
    }
    text = {"type": "text", "text": "What is shown?"}
    return {
        capability.value: [{"role": "user", "content": [parts[capability], text]}]
        for capability in model.unsupported
        if capability in parts
    }


def _send_bad_request(
    bad: str, client: Client, text_case: Case, image_case: Case
) -> Completion | Refusal:
    from ..engines.messages import image_part

    few = Sampling(max_tokens=_CUT_TOKENS)
    good_image = image_case.images[0].read_bytes()
    images = {
        "not-an-image": b"this is not an image",
        "truncated-image": good_image[: len(good_image) // 2],
        "decompression-bomb": _hollow_png(12_000, 12_000),
        "gigapixel-image": _hollow_png(60_000, 60_000),
    }
    if bad in images:
        text = {"type": "text", "text": image_case.prompt}
        content = [image_part(images[bad], "image/png"), text]
        return _first(client.send([{"role": "user", "content": content}], "bad image", few))
    if bad == "unknown-model":
        unknown = dataclasses.replace(client.endpoint, served_name="no-such-model")
        with client.disposable(unknown) as other:
            return other.ask(text_case)
    if bad == "too-long-prompt":
        return client.ask(dataclasses.replace(text_case, prompt="字 " * 200_000), few)
    if bad == "no-messages":
        return client.post(b'{"model": "%s"}' % client.endpoint.served_name.encode())
    return client.post(b'{"model": "%s", "messages": [' % client.endpoint.served_name.encode())


def _or_lost(ask: Callable[[], Completion | Refusal]) -> Completion | Refusal:
    """What came back; here a server that hangs up is an answer, and the wrong one."""
    try:
        return ask()
    except ServerError as error:
        return Refusal(0, str(error), is_json_error=False)


def _hollow_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b""))
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    for kind, data in chunks:
        file.write(struct.pack(">I", len(data)) + kind + data)
        file.write(struct.pack(">I", zlib.crc32(kind + data)))
    return file.getvalue()


def _first(answers: tuple[Completion, ...] | Refusal) -> Completion | Refusal:
    return answers if isinstance(answers, Refusal) else answers[0]

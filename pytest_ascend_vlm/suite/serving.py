"""Criteria serving.*: the endpoint conforms to the OpenAI API."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..criteria import pictures as picture_rules
from ..criteria import requests as request_rules
from ..criteria import serving as rules
from ..criteria.criterion import Cases
from ..errors import PreconditionError
from ..observation.answers import Completion, Refusal, first_reply, reply_or_refusal
from ..platforms.base import with_declared_limits
from ..session import picture_search, request_search
from ..session.answers import Answers
from ..session.judge import Judge
from ..session.pictures import PictureRequests, longest_prompt
from ..session.streams import streams
from ..spec.case import Capability, Case, Sampling
from ..spec.model import ModelSpec
from ..spec.request_rows import BAD_INPUT, ODD_INPUT
from ..spec.step import STRUCTURED, Step, single_step
from . import request_failures
from .base import Criteria
from .criterion import criterion
from .open_prompt import UNUSUAL, open_cases

if TYPE_CHECKING:
    from ..checkpoints.tokens import TextTokenizer
    from ..engines.client import Client
    from ..engines.endpoint import Server
    from ..engines.transformers.model import Encoder
    from ..observation.exchange import Exchange
    from ..session.request_runs import RequestRuns
    from ..session.run import Run

_CUT_TOKENS = 5
_LARGEST_TOKENS = 32
_GRACE_SECONDS = 60.0  # an answer after its budget is still an answer; it is late


class ServingCriteria(Criteria):
    """Criteria of start-up, of answers and of refusals."""

    @criterion("serving.ready")
    def test_ready_within_budget(self, server: Server, judge: Judge) -> None:
        """Every phase of the first start is within its budget.

        The phases are process, weights, graphs and first image. A server counts as ready only
        after it has answered an image request. At the first image an accelerator compiles kernels,
        and an incomplete start-up fails. If a phase exceeds its budget, this criterion fails and
        all others still run. If a phase takes twice its budget, the suite ends the server, and
        every criterion has an error.

        If this fails: look at the phase that the message names. Weights: storage may be slow, try a
        local disk. Graphs: use fewer capture sizes, or enforce_eager. First image: lower
        max_pixels, because the profile run allocates memory for the largest image. If the host is
        simply slower, raise ModelSpec(budgets=...).
        """
        budgets = {
            name.replace("_", " "): seconds
            for name, seconds in dataclasses.asdict(self.model.budgets).items()
        }
        seconds = server.first_start_seconds
        if not seconds:
            judge.cannot_run("the suite did not start this endpoint")
        judge(rules.judge_start(seconds, budgets, server.memory_mib))

    @criterion("serving.models")
    def test_models_are_listed(self, client: Client, judge: Judge) -> None:
        """`/v1/models` returns 200 and lists the served model name.

        Clients discover models there, and every adaptation document begins with this request.

        If this fails: compare --served-model-name with the name in the message.
        """
        judge(rules.judge_models(client.models(), client.endpoint.served_name))

    @criterion("serving.text", cases=Cases.TEXT)
    def test_text_is_answered(self, case: Case, answers: Answers, judge: Judge) -> None:
        """A text request gets 200, a finish reason, correct usage and matching log-probabilities.

        The token counts in usage add up, and they equal the number of token ids in the reply. Each
        greedy token has the highest log-probability in its list; ties are allowed. The entry of the
        token itself, beside the list, has the same number as in the list.

        If this fails: an HTTP 5xx means that the engine raised an exception; its log has the
        traceback. If the finish reason is missing or usage is wrong, suspect a proxy or an
        incompatible vLLM version. If a list belongs to another token, check how the engine gathers
        sampled tokens and log-probabilities: chunked prefill, asynchronous scheduling, speculative
        decoding.
        """
        judge(rules.judge_answer(answers.ask(case)))

    @criterion("serving.prompt_text")
    def test_prompt_text_is_what_was_sent(
        self,
        all_cases: tuple[Case, ...],
        client: Client,
        text_tokenizer: TextTokenizer | None,
        judge: Judge,
    ) -> None:
        """The text of a message is in the prompt, character by character.

        The text has full-width characters and punctuation, `<`, `&` and quotes, a tab, two blanks,
        an empty line, typographic characters and emoji. It is sent alone, and behind an image. The
        prompt's token ids, decoded by the checkpoint's tokenizer, contain it. Lines that the
        tokenizer itself changes are left out. No reference and no right answer are needed. A text
        that is changed on the way is still answered, but code, tables and Chinese punctuation are
        not what the user wrote.

        If this fails: the message has the lines that are missing. If other characters stand for
        them, look for a proxy or a middleware that escapes HTML or normalizes Unicode (NFKC). If
        blanks or line breaks are missing, look at the chat template.
        """
        text = text_tokenizer.kept(UNUSUAL.prompt) if text_tokenizer else ""
        if text_tokenizer is None or not text:
            judge.not_applicable("there is no tokenizer.json here that decodes a prompt's tokens")
        asked = (dataclasses.replace(case, prompt=text) for case in open_cases(all_cases))
        replies = {case.group: client.prompt(case) for case in asked}
        if any(
            isinstance(reply, Completion) and reply.prompt_token_ids is None
            for reply in replies.values()
        ):
            judge.not_applicable("the server returns no prompt_token_ids")
        judge(rules.judge_prompt_text(replies, text, text_tokenizer.decode))

    @criterion("serving.image", needs=Capability.IMAGE, cases=Cases.IMAGE)
    def test_image_is_answered(
        self, case: Case, answers: Answers, client: Client, judge: Judge
    ) -> None:
        """An image request passes the checks of serving.text, and the image adds prompt tokens.

        An image that adds no tokens never reached the model. The model then invents an answer from
        the text alone, and the answer may look right.

        If this fails: check the chat template's image placeholder and --limit-mm-per-prompt.
        """
        without_images = client.prompt_tokens(case.without_media())
        judge(rules.judge_media(answers.ask(case), without_images, "image"))

    @criterion("serving.video", needs=Capability.VIDEO, cases=Cases.VIDEO)
    def test_video_is_answered(
        self, case: Case, answers: Answers, client: Client, judge: Judge
    ) -> None:
        """A request with a `video_url` passes the checks of serving.text and adds prompt tokens.

        One of the clips is lossy, as users send them. Its answer is not compared with the
        reference, because its pixels depend on the decoder; the lossless clips are judged by
        numerics.clips.

        If this fails: check the chat template's video placeholder, --limit-mm-per-prompt, and that
        the host can decode the video (OpenCV).
        """
        without_video = client.prompt_tokens(case.without_media())
        judge(rules.judge_media(answers.ask(case), without_video, "video"))

    @criterion("serving.streaming", cases=Cases.TEXT)
    def test_stream_adds_up(
        self, case: Case, answers: Answers, client: Client, judge: Judge
    ) -> None:
        """The streamed deltas, joined, equal the unstreamed answer, and arrive while it is made.

        Finish reason and usage are equal too. So are the tokens that come with log-probabilities;
        their numbers differ by at most {stream_logprobs} nats. Interactive clients use streaming.
        Chinese text reveals characters that are cut at token boundaries.

        A stream that arrives at its end is no stream. So an answer of {stream_tokens} tokens is
        streamed once more, behind its end. The mean delay of its pieces is at most
        {stream_lateness} of the time in which the answer was made. That is the decode time of
        `/metrics`, or else the time beyond an answer of one token. The delay is 1/2 if all pieces
        arrive at the end. A busy host delays some streams, and a proxy that buffers delays all:
        the criterion fails if {stream_attempts} streams are late. If the client had no CPU
        meanwhile, the result is an error.

        If this fails: if texts differ, look for a detokenizer that emits incomplete UTF-8
        sequences. If log-probabilities are missing or differ, a proxy or a parser of the server
        drops or joins pieces. If pieces are late, ask the server without the proxy in between, or
        turn buffering off there (nginx: `proxy_buffering off`), compression too.
        """
        judge(rules.judge_stream(client.stream(case), answers(case), streams(client, case)))

    @criterion("serving.limits", "robustness")
    def test_limits_are_obeyed(
        self, long_case: Case, answers: Answers, client: Client, judge: Judge
    ) -> None:
        """The server obeys max_tokens, stop and n.

        With n=2, usage has to count the tokens of both answers. An ignored limit costs money, and
        an answer that never ends occupies a card.

        If this fails: usually a proxy drops the field, or speculative decoding exceeds the limit.
        """
        whole = answers(long_case)
        stop = _stop_word(whole)
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
    def test_image_limit_holds(
        self, image_cases: tuple[Case, ...], server: Server, client: Client, judge: Judge
    ) -> None:
        """A request with the declared number of images is answered; one more is refused with a 4xx.

        The images are different, as far as the suite has different ones. The number is N in
        `serve={"limit_mm_per_prompt": {"image": N}}`. The engine has not profiled its memory for
        more images. If a server that the suite did not start answers one more, the result is an
        error: the server may lack the argument.

        If this fails: if N images are refused, check that they fit into max_model_len. If N + 1
        images are answered, the limit does not reach the server.
        """
        limit = self.model.image_limit
        if limit is None:
            judge.not_applicable("no serve={'limit_mm_per_prompt': {'image': N}} is declared")
        few = Sampling(max_tokens=_CUT_TOKENS)
        within = client.ask(_with_images(image_cases, limit), few)
        beyond = client.ask(_with_images(image_cases, limit + 1), few)
        _require_limits(self.model, server, [beyond])
        judge(rules.judge_image_limit(within, beyond, limit))

    @criterion("serving.image_sizes", "robustness", needs=Capability.IMAGE)
    def test_image_sizes_get_right_replies(  # noqa: PLR0913, PLR0917  (it judges what all of these give)
        self,
        image_case: Case,
        client: Client,
        encoder: Encoder,
        vlm_run: Run,
        judge: Judge,
        tmp_path: Path,
    ) -> None:
        """A picture of any size, aspect ratio and colour mode gets the right reply.

        Hypothesis generates {pictures} pictures (`--vlm-examples=N`), the same in every run: with
        sides of one pixel, at the borders of patches and windows, thin, tall and square ones, in
        eight colour modes. A picture that the reference's processor accepts, and that
        max_model_len has room for, is answered. Its prompt has the token ids of the reference's.
        Any other picture is refused with a 4xx with a JSON error. No picture may cause a 5xx or a
        hang, or end the engine. After a wrong reply, at most {shrink_requests} more requests, for
        at most {shrink_seconds:g} s, look for the smallest picture that gets one. They stop as
        soon as a request gets no reply.

        If this fails: send the picture again with the command in the message. After a 5xx, the
        server's log has the exception. If the prompt has another length, compare min_pixels,
        max_pixels and patch size on both sides, then how the engine rounds sides to patches.
        """
        with client.disposable(timeout_seconds=self.model.budgets.first_image) as other:
            limit = longest_prompt(other, self.model)
            requests = PictureRequests(other, encoder, image_case, limit, tmp_path)
            found = picture_search.search(
                requests, requests.unchanged, encoder.patch_sides, vlm_run.options.examples
            )
            again = requests.saved(found.smallest.picture, vlm_run.logs) if found.smallest else ""
        judge(picture_rules.judge_image_sizes(found, again))

    @criterion("serving.largest_image", "robustness", needs=Capability.IMAGE)
    def test_largest_page_is_answered_twice(
        self,
        image_case: Case,
        client: Client,
        encoder: Encoder,
        judge: Judge,
        tmp_path: Path,
    ) -> None:
        """The largest page is answered in time, and the same way when it is sent again.

        It is an A4 page full of text, as large as max_model_len allows. If the processor shrinks
        large pages to a limit of its own, the page has 200 dpi, or more if that adds tokens. The
        first answer takes at most `Budgets.largest_image`. The prompt has the token ids of the
        reference's. The second request is cold as well, and its answer equals the first. Servers
        were reported whose first answer to a large picture is garbled, and whose second is right.

        If this fails: after HTTP 5xx or a lost connection, look for exhausted memory in the
        server's log, and lower max_pixels or max_model_len. If the answers differ, check the
        attention of the vision tower on long sequences and how the prompt is split into chunks.
        """
        budget = self.model.budgets.largest_image
        with client.disposable(timeout_seconds=budget + _GRACE_SECONDS) as other:
            limit = longest_prompt(other, self.model)
            requests = PictureRequests(other, encoder, image_case, limit, tmp_path)
            seen = requests.ask_largest_page(_LARGEST_TOKENS)
        judge(picture_rules.judge_largest_page(seen, budget))

    @criterion("serving.unsupported", "robustness")
    def test_unsupported_is_refused(
        self, text_case: Case, server: Server, client: Client, vlm_run: Run, judge: Judge
    ) -> None:
        """A request for an unsupported capability is refused with a 4xx, and the server goes on.

        An answer to a video request that ignores the video is worse than a refusal. If a server
        that the suite did not start gives another reply, the result is an error: it may lack the
        limit.

        If this fails: limit the modality to 0 with serve={"limit_mm_per_prompt": {"video": 0}}, or
        declare the capability supported.
        """
        probes = _unsupported_probes(self.model, vlm_run.cases)
        if not probes:
            judge.not_applicable("the model declares neither images nor videos unsupported")
        few = Sampling(max_tokens=_CUT_TOKENS)
        refusals = {}
        for label, chat in probes.items():
            # A server without the limit decodes the file, and may close the connection after that.
            with client.disposable() as other:
                refusals[label] = first_reply(other.send(chat, f"unsupported/{label}", few))
        _require_limits(self.model, server, refusals.values())
        good = reply_or_refusal(lambda: client.ask(text_case, few))
        judge(rules.judge_refusals(refusals, good))

    @criterion(
        BAD_INPUT,
        "robustness",
        needs=Capability.IMAGE,
        known_failures=request_failures.BAD_INPUT_FAILURES,
    )
    def test_bad_input_is_refused(
        self, row: str, text_case: Case, client: Client, request_runs: RequestRuns, judge: Judge
    ) -> None:
        """A bad request gets a 4xx with a JSON error, and the next good request is answered.

        One user's broken file must not stop the service for other users. After a 5xx, clients retry
        a request that can never succeed. Some rows are requests that a release of vLLM is known to
        get wrong; serving.any_request leaves them out. An expected failure in a model file that
        names another request of serving.any_request adds its row.

        If this fails: after a 5xx, the server's log has the exception that should have become a
        4xx. If the next good request is not answered, the bad request stopped the engine. If
        `n-huge` is answered, or not answered in time, one client can keep the engine busy: set
        VLLM_MAX_N_SEQUENCES, or limit `n` before the server.
        """
        exchange, good = _sent_between(single_step(row), text_case, client, request_runs)
        judge(rules.judge_refusals({row: exchange.refusal}, good))

    @criterion(
        ODD_INPUT,
        "robustness",
        needs=Capability.IMAGE,
        known_failures=request_failures.ODD_INPUT_FAILURES,
    )
    def test_odd_input_does_no_harm(
        self, row: str, text_case: Case, client: Client, request_runs: RequestRuns, judge: Judge
    ) -> None:
        """An odd request gets an answer or a 4xx, and the next good request is answered.

        Both rows have a text that spells the special tokens which stand for an image:
        `image-tokens-in-text` without an image, `image-and-image-tokens` beside one. An engine that
        looks for the image of each token ends, and the service with it, so one user stops it for
        all (CVE-2026-44222). If a release of vLLM is known to get such a request
        wrong, serving.any_request leaves it out.

        If this fails: the server's log has the exception. Until the engine is mended, reject texts
        that contain special tokens before they reach the server.
        """
        exchange, good = _sent_between(single_step(row), text_case, client, request_runs)
        judge(request_rules.judge_odd(exchange, good))

    @criterion("serving.any_request", "robustness", needs=Capability.IMAGE)
    def test_any_request_does_no_harm(
        self, request_runs: RequestRuns, vlm_run: Run, judge: Judge
    ) -> None:
        """Requests of all kinds, in any order, get right replies and change nothing for others.

        The requests are good, odd and bad ones: fields of the API at their limits and beyond,
        messages and images of all kinds, streams, broken bodies, and clients that leave before the
        answer or in its middle. Each kind is sent once, then in sequences that hypothesis generates
        (`--vlm-examples=N` gives N/6), the same in every run. Each reply is a well-formed answer,
        or a 4xx with a message, and comes within `Budgets.first_image`. After each sequence a good
        request with an image, which is computed again, gets the same tokens as before, and
        `/health` gets the same status. Requests that a release of vLLM is known to get wrong are
        rows of serving.bad_input or serving.odd_input instead. After a wrong reply, at most
        {shrink_requests} more requests look for the shortest sequence that gets one.

        If this fails: run the script in the message: it sends the shortest sequence again. After a
        5xx or a lost connection, the server's log has the exception. If the answer has changed,
        look for state that a request leaves behind: a slot of the batch that is not reset, blocks
        of an aborted request, a cache entry.
        """
        declared = (*self.model.expected_failures, *request_failures.KNOWN_FAILURES)
        known = {one.case for one in declared if one.may_occur(vlm_run.vllm_version)}
        if unstructured := vlm_run.platform.structured_outputs_problem:
            known |= STRUCTURED
        found = request_search.search(request_runs, known, vlm_run.options.examples)
        shortest = request_runs.shortest(found, vlm_run.logs)
        judge(request_rules.judge_any_request(found, shortest, unstructured))


def _sent_between(
    step: Step, case: Case, client: Client, request_runs: RequestRuns
) -> tuple[Exchange, Completion | Refusal]:
    """Sends a request between two good ones; returns its reply, and that to the second good one.

    If the second one is refused, the server is restarted for the next test.
    """
    few = Sampling(max_tokens=_CUT_TOKENS)
    client.complete(case, few)  # fails if the server was down before the request
    (exchange,) = request_runs.exchanges([step])
    good = reply_or_refusal(lambda: client.ask(case, few))
    if isinstance(good, Refusal):  # a dead engine may have a server for some seconds yet
        request_runs.restart()
    return exchange, good


def _with_images(cases: tuple[Case, ...], count: int) -> Case:
    """The first case with N images: those of all cases, and the same again if they are too few."""
    different = dict.fromkeys(image for case in cases for image in case.every_image)
    images = tuple(itertools.islice(itertools.cycle(different), count))
    return dataclasses.replace(cases[0], images=images)


def _stop_word(whole: Completion) -> str:
    """A stop string from the middle of an answer."""
    words = whole.text.split()
    if len(words) < 2:
        raise PreconditionError(
            f"{whole.case_id}: the answer {whole.text!r} has only one word, so the stop parameter "
            "cannot be judged."
        )
    return next((word for word in words[1:] if not words[0].startswith(word)), words[-1])


def _unsupported_probes(
    model: ModelSpec, cases: Iterable[Case]
) -> dict[str, list[dict[str, object]]]:
    """Unsupported capability -> a chat that needs it, with a file that a server could decode."""
    from ..engines.messages import messages

    asked = [case for case in cases if not case.earlier]
    chats = {
        Capability.VIDEO: next(case for case in asked if case.videos),
        Capability.IMAGE: next(case for case in asked if case.images),
    }
    return {
        capability.value: messages(chats[capability])
        for capability in model.unsupported
        if capability in chats
    }


def _require_limits(
    model: ModelSpec, server: Server, beyond: Iterable[Completion | Refusal]
) -> None:
    """Requires that a server that the suite did not start has the model's limits.

    Args:
        model: the model.
        server: its server.
        beyond: the replies to requests beyond the limits.

    Raises:
        PreconditionError: one of them is an answer or a 5xx. The suite cannot see whether this
            server was started with the limits.
    """
    if server.can_restart or all(isinstance(one, Refusal) and one.status < 500 for one in beyond):
        return
    limits = json.dumps(with_declared_limits(model).get("limit_mm_per_prompt", {}))
    raise PreconditionError(
        "the server does not refuse a request beyond the limits that the model file declares. It "
        f"was started without --limit-mm-per-prompt '{limits}', or ignores it. Start it with this "
        "argument (docs/own-server.md)."
    )

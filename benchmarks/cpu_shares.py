"""Measures the share of each stage in a request about one page, MinerU2.5-1.2B on this CPU.

The document claims for images of at most 768 px: preprocessing 15 %, vision encoder 60 %, text
decoding 20 %, post-processing 5 %. It does not state the number of answer tokens, on which all of
them depend. Therefore each stage is measured as a fixed time and a time per token. The output is
the shares at two numbers of tokens, and for each stage the number at which its share would be the
claimed one: if the claim is true, these numbers are equal.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cpu_rounds import CLOCKS, Cost, Rounds, say, with_interval
from mineru_geometry import (
    A4_200_DPI,
    DECODER,
    DECODER_LAYERS,
    LAYERS,
    LONGEST_SIDE,
    TINY,
    LayerTimer,
    TowerTimer,
    bf16_instructions,
    bounded,
    grid_of,
    new_tower,
    threads_here,
)

PREPROCESSING, VISION_ENCODER = "preprocessing", "vision encoder"
TEXT_DECODING, POST_PROCESSING = "text decoding", "post-processing"
CLAIMED_SHARES = {
    PREPROCESSING: 0.15,
    VISION_ENCODER: 0.60,
    TEXT_DECODING: 0.20,
    POST_PROCESSING: 0.05,
}
PREFILL, TOKEN, DETOKENISATION = "prefill", "decoded token", "detokenised token"

ANSWERS = (128, 512)
"""Numbers of answer tokens at which the shares are printed."""

BUILT_LAYERS = 4
"""Layers of the decoder that are built and timed."""

VOCABULARY = 151936
"""Tokens of Qwen2-0.5B, from which the model's decoder was trained."""

TEXT_TOKENS = 25
"""Tokens of a short question, with the chat template around it and the image."""

TIMED_TOKENS = 16


@dataclass(frozen=True)
class Stage:
    """The time of one stage of a request.

    Attributes:
        fixed: seconds whatever the answer.
        per_token: seconds for each token of the answer.
    """

    fixed: float
    per_token: float

    def seconds(self, tokens: float) -> float:
        """Seconds if the answer has this many tokens."""
        return self.fixed + tokens * self.per_token


Request = Mapping[str, Stage]
"""The stages of a request, by name."""


def whole(request: Request) -> Stage:
    """All stages together."""
    stages = request.values()
    return Stage(sum(one.fixed for one in stages), sum(one.per_token for one in stages))


def share_at(request: Request, name: str, tokens: float) -> float:
    """A stage's share of the request's time if the answer has this many tokens."""
    return request[name].seconds(tokens) / whole(request).seconds(tokens)


def tokens_for(request: Request, name: str, share: float) -> float:
    """The number of answer tokens at which a stage has this share; below 0 if it never has."""
    stage, total = request[name], whole(request)
    return (share * total.fixed - stage.fixed) / (stage.per_token - share * total.per_token)


def request_of(costs: Mapping[str, Cost], clock: str) -> Request:
    """The stages of one round; text decoding includes the prefill, not named in the claim."""
    seconds = {name: float(getattr(cost, clock)) for name, cost in costs.items()}
    return {
        PREPROCESSING: Stage(seconds[PREPROCESSING], 0.0),
        VISION_ENCODER: Stage(seconds[VISION_ENCODER], 0.0),
        TEXT_DECODING: Stage(seconds[PREFILL], seconds[TOKEN]),
        POST_PROCESSING: Stage(0.0, seconds[DETOKENISATION]),
    }


# --- stages --------------------------------------------------------------------------------------


def page_of_text() -> bytes:
    """An A4 page at 200 dpi that is full of text, as PNG."""
    from PIL import Image, ImageDraw

    page = Image.new("RGB", A4_200_DPI, "white")
    draw = ImageDraw.Draw(page)
    for line in range(150, A4_200_DPI[1] - 150, 45):
        draw.text((150, line), f"{line} the quick brown fox " * 3, fill="black", font_size=28)
    encoded = io.BytesIO()
    page.save(encoded, "png")
    return encoded.getvalue()


def preprocessing() -> Callable[[], object]:
    """The way of a page to pixel values: decoded, bounded as the document does, processed."""
    from PIL import Image
    from transformers import AutoImageProcessor

    encoded, processor = page_of_text(), AutoImageProcessor.from_pretrained(TINY)

    def preprocess() -> object:
        with Image.open(io.BytesIO(encoded)) as page:
            small = page.convert("RGB").resize(bounded(page.size), Image.Resampling.LANCZOS)
        return processor(small, return_tensors="pt")["image_grid_thw"][0].tolist()

    assert preprocess() == list(grid_of(bounded(A4_200_DPI)))
    return preprocess


def detokenisation() -> Callable[[], object]:
    """The text of an answer, token by token as a server streams it."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import DecodeStream

    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokens = tokenizer.encode("the quick brown fox " * 64).ids[: max(ANSWERS)]
    assert len(tokens) == max(ANSWERS)

    def detokenise() -> object:
        stream = DecodeStream(skip_special_tokens=True)
        return [stream.step(tokenizer, token) for token in tokens]

    return detokenise


class DecoderTimer:
    """Times a decoder of a few layers at the true widths, and extrapolates to all layers."""

    def __init__(self, image_tokens: int, dtype: Any) -> None:
        """Builds the decoder with random weights, and its cache in the middle of a long answer.

        The time of a token is linear in the number of tokens before it, so the mean over an answer
        is the time in its middle.
        """
        import torch

        self._decoder = new_decoder(dtype)
        width = DECODER["hidden_size"]
        self._prompt = torch.randn(1, image_tokens + TEXT_TOKENS, width).to(dtype)
        before = image_tokens + TEXT_TOKENS + max(ANSWERS) // 2 - TIMED_TOKENS // 2
        with torch.inference_mode():
            filled = self._decoder(inputs_embeds=torch.randn(1, before, width).to(dtype))
        self._cache = filled.past_key_values
        self._layers = LayerTimer(self._decoder.layers, DECODER_LAYERS)

    def prefill(self) -> Cost:
        """Cost of the prompt, up to the first token."""
        return self._layers.cost(lambda: self._next(inputs_embeds=self._prompt))

    def token(self) -> Cost:
        """Cost of one token of an answer, the mean over some."""
        several = self._layers.cost(self._decode)
        self._cache.crop(-TIMED_TOKENS)
        return Cost(0.0, 0.0).plus(1 / TIMED_TOKENS, several)

    def _decode(self) -> None:
        import torch

        token = torch.zeros(1, 1, dtype=torch.long)
        for _ in range(TIMED_TOKENS):
            token = self._next(input_ids=token, past_key_values=self._cache)

    def _next(self, **inputs: Any) -> Any:
        """The most probable next token; the output layer has the weights of the embedding."""
        import torch

        with torch.inference_mode():
            last = self._decoder(use_cache=True, **inputs).last_hidden_state[:, -1:]
            logits = torch.nn.functional.linear(last, self._decoder.embed_tokens.weight)
            return logits.argmax(-1)


def new_decoder(dtype: Any) -> Any:
    """A decoder of the true widths and vocabulary with a few layers and random weights."""
    import torch
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel

    torch.manual_seed(0)
    config = Qwen2VLTextConfig(
        **{**DECODER, "num_hidden_layers": BUILT_LAYERS}, vocab_size=VOCABULARY
    )
    config._attn_implementation = "sdpa"
    return Qwen2VLTextModel(config).to(dtype).eval()


# --- the part ------------------------------------------------------------------------------------


def measure_shares(rounds: int) -> dict[str, Any]:
    """Measures and prints the shares in float32, and in bf16 on a CPU with instructions for it.

    With all threads, a thread that waits for another one uses CPU time too. With one thread, the
    CPU time is that of the work alone.
    """
    import torch

    layers = f"1 of {LAYERS} vision layers and {BUILT_LAYERS} of {DECODER_LAYERS}"
    print(f"shares of a request about an A4 page of at most {LONGEST_SIDE} px, Transformers, SDPA,")
    print(f"{rounds} rounds; timed: {layers} decoder layers")
    types = [torch.float32, torch.bfloat16] if bf16_instructions() else [torch.float32]
    details = {}
    for dtype, threads in itertools.product(types, sorted({1, threads_here()})):
        setup = f"{dtype}, threads: {threads}"
        say(setup)
        torch.set_num_threads(threads)
        timed = stage_costs(dtype, rounds)
        print(f"{setup}; median wall time:")
        for name in timed.costs:
            print(f"  {name:20}{1000 * timed.median(name):12.3f} ms")
        for clock in CLOCKS:
            report_shares(timed, clock)
        details[setup] = timed.to_json()
    return {"costs": details}


def stage_costs(dtype: Any, rounds: int) -> Rounds:
    """The costs of all stages, with both models in this data type."""
    grid = grid_of(bounded(A4_200_DPI))
    tower = TowerTimer(new_tower(1, "sdpa").to(dtype))
    decoder = DecoderTimer(math.prod(grid) // 4, dtype)
    preprocess, detokenise = preprocessing(), detokenisation()
    ways: dict[str, Callable[[], Cost]] = {
        PREPROCESSING: lambda: Cost.of(preprocess),
        VISION_ENCODER: lambda: tower.cost(grid),
        PREFILL: decoder.prefill,
        TOKEN: decoder.token,
        DETOKENISATION: lambda: Cost(0.0, 0.0).plus(1 / max(ANSWERS), Cost.of(detokenise)),
    }
    Rounds(ways, 1)  # the first time also prepares kernels
    return Rounds(ways, rounds)


def report_shares(timed: Rounds, clock: str) -> None:
    """Prints each stage's share by one clock, and where it would be the claimed one."""
    requests = [
        request_of(dict(zip(timed.costs, costs, strict=True)), clock)
        for costs in zip(*timed.costs.values(), strict=True)
    ]
    headings = [f"{tokens} tokens" for tokens in ANSWERS]
    print(f"  share, {clock} time: claimed, " + ", ".join(headings) + "; as claimed at")
    for name, claimed in CLAIMED_SHARES.items():
        measured = [
            percent(with_interval([share_at(request, name, tokens) for request in requests]))
            for tokens in ANSWERS
        ]
        number = with_interval([tokens_for(request, name, claimed) for request in requests])
        line = "".join(f"{one:>26}" for one in measured)
        print(f"    {name:18}{claimed:5.0%}{line}   {as_tokens(number)}")


def percent(interval: tuple[float, float, float]) -> str:
    """A share and its interval."""
    return "{:.2f} % ({:.2f} to {:.2f})".format(*(100 * value for value in interval))


def as_tokens(interval: tuple[float, float, float]) -> str:
    """A number of tokens and its interval; an answer has no fewer than 0."""
    if interval[2] < 0:
        return "no number of tokens"
    return "{:.0f} tokens ({:.0f} to {:.0f})".format(*(max(0.0, value) for value in interval))

"""The parts of a served model that a diagnosis can suspect."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Part(enum.Enum):
    """A part of a served model; the value is its name in report.json."""

    MESSAGES = "messages"
    REPLY = "reply"
    PREPROCESSING = "preprocessing"
    PICTURE_BYTES = "picture bytes"
    TOWER = "vision tower"
    TOGETHER = "images encoded together"
    PLACES = "places of images"
    FRAMES = "frames of clips"
    CACHES = "caches"
    STATE = "state between requests"
    STEPS = "steps of a prompt"
    PREEMPTED = "preempted requests"
    DECODE = "decode path"
    END = "end of answers"
    OTHER_REQUEST = "another request's answer"
    PARAMETERS = "parameters"
    ABORTED = "aborted requests"
    SUPERVISION = "supervision of the engine"
    WEIGHTS = "weights"
    QUANTISATION = "quantisation"
    OUTPUT_ROW = "output layer"
    POOLED_ENGINE = "pooled engine"
    VARIANT = "variant"


TITLES = {
    Part.MESSAGES: "the messages: the chat template, or a proxy that changes messages",
    Part.REPLY: "the reply: the API server, or a proxy that changes replies",
    Part.PREPROCESSING: "the image processor: sizes, resizing, channels, mean and std",
    Part.PICTURE_BYTES: "the picture's bytes: how its file is sent, fetched or decoded",
    Part.TOWER: "the vision tower",
    Part.TOGETHER: "the vision tower, when it encodes several images at one time",
    Part.PLACES: "the places of images: their order, or the positions (mRoPE) of their tokens",
    Part.FRAMES: "the frames of a clip: how they are chosen, ordered and timed",
    Part.CACHES: "the prefix cache or the encoder cache: their keys, and what a hit returns",
    Part.STATE: "what a request leaves behind: memory, cache slots, reused buffers",
    Part.STEPS: "a prompt that is computed in several steps (chunked prefill)",
    Part.PREEMPTED: "a request that is preempted and computed again, because the KV cache is full",
    Part.DECODE: "the decode path: KV cache, block tables and positions of new tokens",
    Part.END: "the end of an answer: EOS, stop tokens, max_tokens, or what cuts the reply",
    Part.OTHER_REQUEST: "the assignment of answers to requests",
    Part.PARAMETERS: "the request's parameters: the sampler, or a proxy that drops them",
    Part.ABORTED: "what a request leaves behind if it is refused or its client leaves",
    Part.SUPERVISION: "the API server's watch over the engine: /health, open requests, exit code",
    Part.WEIGHTS: "the decoder's weights or constants: another file, epsilon, RoPE base, a kernel",
    Part.QUANTISATION: "a quantisation that is not declared",
    Part.OUTPUT_ROW: "one row of the output layer (lm_head)",
    Part.POOLED_ENGINE: "the offline engine that returns hidden states, not the server",
    Part.VARIANT: "the variant's own way to serve",
}
"""What each part is, as a noun phrase."""

NEXT = {
    Part.MESSAGES: "read the first differing token ids in baseline.prompt; compare the "
    "chat_template of both sides, and ask the server itself instead of the proxy",
    Part.REPLY: "send one request with logprobs to the server itself, past every proxy",
    Part.PREPROCESSING: "compare preprocessor_config.json and mm_processor_kwargs of both sides; "
    "run -k test_image_sizes_get_right_replies",
    Part.PICTURE_BYTES: "run -k test_formats_agree; send the same picture as PNG, past every proxy",
    Part.TOWER: "run -k test_operators_match_reference, which has Transformers on the same "
    "device; then serve with --vlm-serve enforce_eager=true",
    Part.TOGETHER: "serve with --vlm-serve max_num_seqs=1 and run -k test_images_together_agree",
    Part.PLACES: "run -k 'test_images_keep_their_order or test_image_logits_match_reference'",
    Part.FRAMES: "run -k 'test_frames_keep_order_and_time or test_prompt_matches_reference'",
    Part.CACHES: "serve with --vlm-serve enable_prefix_caching=false and "
    "--vlm-serve mm_processor_cache_gb=0, one at a time",
    Part.STATE: "run -m soak -k test_memory_levels_off, which names the process that grows; then "
    "serve with --vlm-serve mm_processor_cache_gb=0",
    Part.STEPS: "serve with --vlm-serve enable_chunked_prefill=false",
    Part.PREEMPTED: "serve with --vlm-serve async_scheduling=false, to see whether tokens in "
    "flight are the cause",
    Part.DECODE: "serve with --vlm-serve enforce_eager=true; then with another block size",
    Part.END: "compare eos_token_id in generation_config.json with the reference's, and read the "
    "finish_reason of a reply",
    Part.OTHER_REQUEST: "serve with --vlm-serve max_num_seqs=2 and run "
    "-k test_concurrent_runs_agree",
    Part.PARAMETERS: "send the parameter to the server itself, past every proxy; check "
    "--generation-config",
    Part.ABORTED: "run -k test_server_recovers; then serve with --vlm-serve "
    "enable_prefix_caching=false and --vlm-serve mm_processor_cache_gb=0, one at a time",
    Part.SUPERVISION: "run -k engine_shows, and read the server's log after the engine's end",
    Part.WEIGHTS: "compare the weights' digest with the publisher's; run "
    "-k 'test_operators_match_reference or test_float32_leaves_no_rounding'",
    Part.QUANTISATION: "look for a quantization in config.json and in the server's log",
    Part.OUTPUT_ROW: "compare the row of lm_head that numerics.tokens names with the checkpoint's",
    Part.POOLED_ENGINE: "trust the server's own numbers; report the offline engine's difference",
    Part.VARIANT: "read the engine's configuration line in the variant's log",
}
"""The next thing to do if a part is suspected."""


@dataclass(frozen=True)
class Suspect:
    """A part that the results of a model point to.

    Attributes:
        part: the part.
        because: the results that point to it, as one sentence.
    """

    part: Part
    because: str

    @property
    def next_step(self) -> str:
        """The next thing to do."""
        return NEXT[self.part]

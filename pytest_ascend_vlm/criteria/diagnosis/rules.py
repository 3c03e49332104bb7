"""The rules of a diagnosis: from the pattern of results to the parts that explain it.

The rules are a decision list: the first one that matches decides. Rules about what was asked come
before rules about what was computed, because an answer to another question says nothing about the
engine. Among the others, the one that explains fewer kinds of results comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .pattern import Pattern, Row, are_the_largest, evidence, number, with_image
from .suspects import Part, Suspect

Rule = Callable[[Pattern], tuple[Suspect, ...]]

_ANSWERS = ("baseline.text", "baseline.image")
_FORCED = ("numerics.logits", "baseline.logprobs")
_OF_PARAMETERS = (
    "determinism.seeded",
    "determinism.unsure",
    "parameters.choice",
    "parameters.end",
    "parameters.form",
    "parameters.greedy",
    "parameters.sampled",
    "parameters.tools",
    "serving.limits",
)
_OF_REPLIES = ("serving.text", "serving.image", "serving.video", "serving.limits")
"""They judge the fields beside the text: usage, finish reason, the entries of tokens."""
_OF_OTHER_PICTURES = ("serving.image_sizes", "serving.largest_image")
_FAR_BEHIND = 64
"""Tokens between an image's start and the first error, from which on the image is not its cause."""
_NEARLY_ALL = 0.8
"""Share of the cases with images that nearly all are wrong from."""
_ALONE = 3.0
"""One row of the output layer is off if its error is this many times that of the next token."""


def _suspects(because: str, *parts: Part) -> tuple[Suspect, ...]:
    return tuple(Suspect(part, because) for part in parts)


def usage(pattern: Pattern) -> tuple[Suspect, ...]:
    """The prompts are right, and only the number of tokens in `usage` is not."""
    wrong = pattern.failed("baseline.prompt")
    if wrong and all(_checks(row).get("prompt") == "holds" for row in wrong):
        because = f"{len(wrong)} prompts have the right tokens, but usage counts others"
        return _suspects(because, Part.REPLY)
    return ()


def prompts(pattern: Pattern) -> tuple[Suspect, ...]:
    """The prompts differ from the reference's."""
    # Without the tokens of a prompt nobody knows in what it differs.
    wrong = [row for row in pattern.failed("baseline.prompt") if evidence(row).get("differs")]
    if not wrong:
        return ()
    right = pattern.passed("baseline.prompt")
    count, asked = len(wrong), len(wrong) + len(right)
    if all(str(row["case"]).startswith("clip/") for row in wrong):
        because = f"{count} of {asked} prompts differ, and they are all those of clips"
        return _suspects(because, Part.FRAMES, Part.MESSAGES)
    if all(evidence(row).get("differs") == "images" for row in wrong):
        because = f"{count} of {asked} prompts have another number of image tokens, and equal texts"
        if pattern.failed("serving.formats"):
            return _suspects(because, Part.PICTURE_BYTES, Part.PREPROCESSING)
        return _suspects(because, Part.PREPROCESSING, Part.PICTURE_BYTES)
    ascii_text = [evidence(row).get("ascii", True) for row in wrong]
    if not any(ascii_text) and any(evidence(row).get("ascii", True) for row in right):
        because = f"{count} of {asked} prompts differ, and their texts are all beyond ASCII"
        return _suspects(because, Part.MESSAGES, Part.REPLY)
    because = f"{count} of {asked} prompts have other text tokens, so they ask something else"
    return _suspects(because, Part.MESSAGES, Part.PLACES)


def unusual_texts(pattern: Pattern) -> tuple[Suspect, ...]:
    """An unusual text is changed on its way into the prompt, and usual ones are not."""
    if not pattern.only("serving.prompt_text") or not pattern.holds("baseline.prompt"):
        return ()
    return _suspects("the prompt lacks a part of an unusual text", Part.MESSAGES)


def other_answers(pattern: Pattern) -> tuple[Suspect, ...]:
    """A case got the answer of another one."""
    judged = [*pattern.failed(*_ANSWERS), *pattern.passed(*_ANSWERS)]
    owner = {evidence(row)["expected"]: row["case"] for row in judged if _has_texts(row)}
    exchanged = [
        row
        for row in pattern.failed(*_ANSWERS)
        if _has_texts(row) and owner.get(evidence(row)["got"], row["case"]) != row["case"]
    ]
    if not exchanged:
        return ()
    first = exchanged[0]
    because = f"{first['case']} got the answer of {owner[evidence(first)['got']]}"
    if all(map(with_image, exchanged)) and not pattern.failed("baseline.text"):
        return _suspects(because, Part.CACHES, Part.TOGETHER)
    return _suspects(because, Part.OTHER_REQUEST, Part.CACHES)


def ends(pattern: Pattern) -> tuple[Suspect, ...]:
    """The answers are the reference's, but end before it or go on behind it."""
    wrong = [evidence(row) for row in pattern.failed(*_ANSWERS) if _has_texts(row)]
    pairs = [(str(texts["got"]), str(texts["expected"])) for texts in wrong]
    if not pairs or not all(
        got.startswith(expected) or expected.startswith(got) for got, expected in pairs
    ):
        return ()
    longer = sum(len(got) > len(expected) for got, expected in pairs)
    because = (
        f"{longer} answers go on behind the reference's end, and {len(pairs) - longer} end before "
        "it, with equal texts up to there"
    )
    return _suspects(because, Part.END, Part.REPLY)


def parameters(pattern: Pattern) -> tuple[Suspect, ...]:
    """The numbers are right, but a parameter of the request has no effect."""
    if not pattern.holds(*_FORCED) or pattern.failed("determinism.cold"):
        return ()
    repeated = [row for row in pattern.failed("determinism.repeat") if not with_image(row)]
    if repeated:
        because = (
            f"forced numbers are right, but {len(repeated)} texts of which the model is sure are "
            "not answered alike each time"
        )
        return _suspects(because, Part.DECODE, Part.PARAMETERS)
    if pattern.failed("determinism.unsure"):
        because = "forced numbers are right, but a greedy answer is not always the same"
        return _suspects(because, Part.PARAMETERS, Part.DECODE)
    # A bad value of a parameter that is dropped is answered.
    if pattern.failed(*_OF_PARAMETERS) and pattern.only(*_OF_PARAMETERS, "serving.bad_input"):
        names = ", ".join(sorted(pattern.failing()))
        because = f"greedy answers and numbers are right, and nothing but {names} fails"
        return _suspects(because, Part.PARAMETERS, Part.REPLY)
    return ()


def aftermath(pattern: Pattern) -> tuple[Suspect, ...]:
    """The server is right until a request or the engine goes wrong."""
    if pattern.only("recovery.request"):
        events = sorted(str(row["case"]) for row in pattern.failed("recovery.request"))
        because = f"the server is right until a request goes wrong: {', '.join(events)}"
        if all(event.startswith("url_") for event in events):
            return _suspects(because, Part.PICTURE_BYTES, Part.ABORTED)
        return _suspects(because, Part.ABORTED, Part.CACHES)
    if pattern.only("recovery.stopped_engine", "recovery.killed_engine"):
        return _suspects("the server hides what its engine does", Part.SUPERVISION)
    return ()


def crowd(pattern: Pattern) -> tuple[Suspect, ...]:
    """Answers are right until many requests are computed at once."""
    if not pattern.only("determinism.concurrent", "ladder.concurrent"):
        return ()
    because = "nothing but answers to several requests at once is wrong"
    return _suspects(because, Part.OTHER_REQUEST, Part.DECODE)


def mixed_crowd(pattern: Pattern) -> tuple[Suspect, ...]:
    """Answers are right until requests with other parameters are computed at once."""
    if not pattern.only("parameters.together"):
        return ()
    because = "answers are right alone, and wrong beside requests with other parameters"
    return _suspects(because, Part.PARAMETERS, Part.OTHER_REQUEST)


def reply(pattern: Pattern) -> tuple[Suspect, ...]:
    """The texts and the forced numbers are right; the numbers of the replies are not."""
    wrong = pattern.failed("numerics.answers")
    if not wrong or pattern.passed("numerics.answers") or pattern.failed(*_ANSWERS, *_FORCED):
        return ()
    because = "texts and forced numbers are right, but not the log-probabilities of any reply"
    return _suspects(because, Part.REPLY, Part.DECODE)


def streams(pattern: Pattern) -> tuple[Suspect, ...]:
    """The answers are right; their streams are not."""
    if not pattern.only("serving.streaming"):
        return ()
    return _suspects("answers are right, but not their streams", Part.REPLY)


def fields(pattern: Pattern) -> tuple[Suspect, ...]:
    """The answers are right; what the replies tell about them is not."""
    if not pattern.only(*_OF_REPLIES, "serving.streaming") or not pattern.holds(*_ANSWERS):
        return ()
    # A request that is refused is an error of the criteria that compare its answer.
    if pattern.errors(*_ANSWERS):
        return ()
    because = f"answers are right, and nothing but {', '.join(sorted(pattern.failing()))} fails"
    return _suspects(because, Part.REPLY)


def other_pictures(pattern: Pattern) -> tuple[Suspect, ...]:
    """The pictures of the cases are right, larger or odder ones are not."""
    if not pattern.only(*_OF_OTHER_PICTURES) or not pattern.holds(
        "baseline.image", "numerics.images"
    ):
        return ()
    if pattern.only("serving.largest_image"):
        because = "images are right, and nothing but the largest page is wrong"
        return _suspects(because, Part.TOWER, Part.STEPS)
    because = "the images of the cases are right, but not those of other sizes or colour modes"
    return _suspects(because, Part.PREPROCESSING, Part.PICTURE_BYTES)


def cold(pattern: Pattern) -> tuple[Suspect, ...]:
    """The same pixels, computed again, give other numbers."""
    if not pattern.failed("determinism.cold"):
        return ()
    because = "the same pixels, computed again, give other numbers"
    return _suspects(because, Part.TOWER, Part.PREPROCESSING)


def first_use(pattern: Pattern) -> tuple[Suspect, ...]:
    """An image gets another answer only the first time."""
    repeated = pattern.failed("determinism.repeat")
    if not repeated or not all(map(with_image, repeated)) or pattern.failed("numerics.images"):
        return ()
    because = "only repeated answers about images differ, though their forced numbers are right"
    return _suspects(because, Part.TOWER, Part.CACHES)


def texts_together(pattern: Pattern) -> tuple[Suspect, ...]:
    """Texts as well are right alone, and wrong together."""
    wrong = {name for row in pattern.failed("determinism.concurrent") for name in _differing(row)}
    texts = sorted(name for name in wrong if name.startswith("text/"))
    if not texts or pattern.failed(*_ANSWERS):
        return ()
    because = f"requests without an image are wrong among others, too: {', '.join(texts)}"
    return _suspects(because, Part.OTHER_REQUEST, Part.DECODE)


def together(pattern: Pattern) -> tuple[Suspect, ...]:
    """Images are right alone, and wrong together."""
    if not pattern.failed("determinism.batched_images") or pattern.failed("numerics.images"):
        return ()
    because = "each image is right alone, and wrong if it arrives with others"
    return _suspects(because, Part.TOGETHER, Part.CACHES)


def caches(pattern: Pattern) -> tuple[Suspect, ...]:
    """A hit in the prefix cache changes the answer."""
    wrong = pattern.failed("determinism.prefix_cache", "determinism.next_turn")
    if not wrong or pattern.failed("numerics.images"):
        return ()
    return _suspects("an answer changes with a hit in the cache", Part.CACHES, Part.STEPS)


def steps(pattern: Pattern) -> tuple[Suspect, ...]:
    """A prompt in steps gives other numbers than in one."""
    # determinism.preemption is judged in the same steps.
    if not pattern.failed("numerics.borders") or not pattern.only(
        "numerics.borders", "determinism.preemption"
    ):
        return ()
    because = "numbers are right in one step, and wrong where a step or a cached prefix ends"
    return _suspects(because, Part.STEPS, Part.CACHES)


def preempted(pattern: Pattern) -> tuple[Suspect, ...]:
    """Answers are wrong in a full KV cache alone."""
    if not pattern.only("determinism.preemption"):
        return ()
    because = "answers are right until the KV cache is full"
    return _suspects(because, Part.PREEMPTED, Part.STEPS)


def growth(pattern: Pattern) -> tuple[Suspect, ...]:
    """Something is wrong only over many images."""
    if not pattern.only("growth.memory", "growth.answers"):
        return ()
    if pattern.failed("growth.memory"):
        because = "answers are right, but memory grows with each image"
        return _suspects(because, Part.STATE, Part.CACHES)
    from ..growth import AGAIN  # it imports numpy, and this module is loaded at every start

    wrong = [name for row in pattern.failed("growth.answers") for name in _differing(row)]
    if all(name.endswith(AGAIN) for name in wrong):
        because = "only an image that is sent again after many others gets another answer"
        return _suspects(because, Part.CACHES, Part.STATE)
    because = "after many images the first questions get other answers, cold ones as well"
    return _suspects(because, Part.STATE, Part.CACHES)


def decode(pattern: Pattern) -> tuple[Suspect, ...]:
    """Forced numbers are right, generated answers are not."""
    if not pattern.holds(*_FORCED):
        return ()
    if pattern.failed("numerics.long_answer"):
        because = "answers of usual length are right, but the numbers of a long one are not"
        return _suspects(because, Part.DECODE, Part.WEIGHTS)
    wrong = pattern.failed("baseline.divergence")
    if not wrong or not pattern.failed(*_ANSWERS):
        return ()
    known = [number(row, "position") for row in wrong]
    positions = sorted({int(position) + 1 for position in known if position is not None})
    because = (
        f"forced numbers are right, but {len(wrong)} generated answers diverge, at the tokens "
        f"{', '.join(map(str, positions))}"
    )
    return _suspects(because, Part.DECODE, Part.END)


def frames(pattern: Pattern) -> tuple[Suspect, ...]:
    """Images are right, clips are not."""
    if not pattern.failed("baseline.frames", "numerics.clips") or not pattern.holds(
        "numerics.images"
    ):
        return ()
    return _suspects("single images are right, clips are not", Part.FRAMES, Part.PLACES)


def places(pattern: Pattern) -> tuple[Suspect, ...]:
    """Single images are right, several in one request are not."""
    wrong = pattern.failed("numerics.images")
    if not pattern.failed("baseline.order") or not all(
        str(row["case"]).startswith("order/") for row in wrong
    ):
        return ()
    because = "requests with one image are right, those with several are not"
    return _suspects(because, Part.PLACES, Part.MESSAGES)


def far_behind_images(pattern: Pattern) -> tuple[Suspect, ...]:
    """Nearly every error begins far behind the image's start."""
    wrong = pattern.failed("numerics.images")
    distances = [number(row, "onset_behind_image") for row in wrong]
    known = [one for one in distances if one is not None]
    # An image behind a long text may begin just there.
    far = [one for one in known if one >= _FAR_BEHIND]
    if not far or len(far) < _NEARLY_ALL * len(known):
        return ()
    because = (
        f"in {len(far)} of {len(wrong)} wrong cases with images, errors begin {min(far):g} or more "
        "tokens behind the first token of the image"
    )
    return _suspects(because, Part.DECODE, Part.TOWER)


def picture_files(pattern: Pattern) -> tuple[Suspect, ...]:
    """The same picture in another file, or from another place, is another picture."""
    files = ("serving.formats", "serving.urls", "serving.encodings")
    if pattern.failed("numerics.images"):
        # Without a right answer for an RGB PNG, the comparison with other files is an error.
        because = "the numbers of images are wrong, and differ by the format of their file"
        wrong = [*pattern.failed(*files), *pattern.errors(*files)]
    else:
        because = "RGB PNG files are right, but other files or another transport are not"
        wrong = pattern.failed(*files)
    return _suspects(because, Part.PICTURE_BYTES, Part.PREPROCESSING) if wrong else ()


def output_row(pattern: Pattern) -> tuple[Suspect, ...]:
    """One token alone is off everywhere."""
    for row in pattern.failed("numerics.tokens"):
        of_tokens = dict(evidence(row).get("errors", {})).values()
        errors = sorted((abs(one) for one in of_tokens if isinstance(one, float)), reverse=True)
        if len(errors) > 1 and errors[0] >= _ALONE * errors[1]:
            because = (
                f"one token is off by {errors[0]:.2g} roundings everywhere, and no other by more "
                f"than {errors[1]:.2g}"
            )
            return _suspects(because, Part.OUTPUT_ROW, Part.WEIGHTS)
    return ()


def images(pattern: Pattern) -> tuple[Suspect, ...]:
    """Texts are right, images are not."""
    wrong, right = pattern.failed("numerics.images"), pattern.passed("numerics.images")
    if not wrong or not pattern.texts_hold():
        return ()
    count, asked = len(wrong), len(wrong) + len(right)
    if count < _NEARLY_ALL * asked:
        tokens = pattern.image_tokens()
        sizes = ([tokens.get(row["case"], 0) for row in rows] for rows in (wrong, right))
        if are_the_largest(*sizes):
            because = f"texts are right, but not the {count} largest of {asked} cases with images"
            return _suspects(because, Part.TOWER, Part.PREPROCESSING)
        because = f"texts are right, but not {count} of {asked} cases with images, small and large"
        return _suspects(because, Part.PREPROCESSING, Part.TOWER)
    if len(pattern.failed("baseline.image")) > len(pattern.passed("baseline.image")):
        because = "texts are right, but neither numbers nor answers with images"
        return _suspects(because, Part.PLACES, Part.TOWER)
    because = "texts are right, and most answers about images, but not the numbers of images"
    return _suspects(because, Part.TOWER, Part.PREPROCESSING)


def weights(pattern: Pattern) -> tuple[Suspect, ...]:
    """Numbers are wrong with and without images."""
    if not pattern.texts_are_wrong() or not pattern.failed(*_FORCED, "numerics.tokens"):
        return ()
    because = "the numbers are wrong with and without images, in one pass over the same tokens"
    return _suspects(because, Part.WEIGHTS, Part.QUANTISATION)


def pooled_engine(pattern: Pattern) -> tuple[Suspect, ...]:
    """The server is right, the engine that returns hidden states is not."""
    if not pattern.only("numerics.hidden_states"):
        return ()
    return _suspects("the server's numbers are right", Part.POOLED_ENGINE)


def variant(pattern: Pattern) -> tuple[Suspect, ...]:
    """The model is right, a variant is not."""
    failing = sorted(pattern.failing())
    if not failing or not all(name.startswith("equivalence.") for name in failing):
        return ()
    names = ", ".join(name.removeprefix("equivalence.") for name in failing)
    return _suspects(f"the model is right as declared, and wrong as {names}", Part.VARIANT)


RULES: Sequence[Rule] = (
    usage,
    prompts,
    unusual_texts,
    other_answers,
    ends,
    parameters,
    aftermath,
    crowd,
    mixed_crowd,
    reply,
    streams,
    fields,
    other_pictures,
    cold,
    first_use,
    texts_together,
    together,
    caches,
    steps,
    preempted,
    growth,
    decode,
    frames,
    places,
    far_behind_images,
    picture_files,
    output_row,
    images,
    weights,
    pooled_engine,
    variant,
)


def _differing(row: Row) -> list[str]:
    return list(evidence(row).get("differing", ()))


def _has_texts(row: Row) -> bool:
    return {"got", "expected"} <= set(evidence(row))


def _checks(row: Row) -> dict[str, str]:
    return dict(evidence(row).get("checks", {}))

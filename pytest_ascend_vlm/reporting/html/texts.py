"""The fixed texts of the page; a renderer of both languages, because the page has a switch."""

from __future__ import annotations

from collections.abc import Sequence

from ..labels import GROUPS, NUMBERS, PARTS, STATUSES
from ..language import shown, translator
from ..phrase import Text, phrase
from .matter import VISIBLE

Languages = Sequence[str]
"""The languages of a page; the first one is shown if the reader's own is not among them."""

TITLE = phrase("VLM conformance report")

NO_SCRIPT = phrase(
    "This page needs JavaScript. The adaptation documents beside it (adaptation.*.md) do not."
)

_LABELS = (
    TITLE,
    phrase("Language"),
    phrase("Environment"),
    phrase("Models and groups of criteria"),
    phrase("model"),
    phrase("not applicable in this run"),
    phrase("smallest margin"),
    phrase(
        "Each field has the number of results by status, and the smallest margin to a threshold. "
        "Choose the numbers to see the results, or the margin to see its case."
    ),
    phrase("The results together point to:"),
    phrase("because"),
    phrase("next step"),
    phrase("Published figures beside the measured ones"),
    phrase("figure"),
    phrase("published"),
    phrase("conditions of the published figure"),
    phrase("measured in this run"),
    phrase("conditions of the measurement"),
    phrase("conditions equal?"),
    phrase("Results"),
    phrase("search"),
    phrase("criterion, case, prompt, answer, reason"),
    phrase("status"),
    phrase("group"),
    phrase("all models"),
    phrase("all groups"),
    phrase("reset the filter"),
    phrase("{shown} of {total} results match"),
    phrase("show {count} more"),
    phrase("criterion"),
    phrase("case"),
    phrase("measured"),
    phrase("threshold"),
    phrase("margin"),
    phrase("at least"),
    phrase("at most"),
    phrase("Back to all results"),
    phrase("previous"),
    phrase("next"),
    phrase("No result has this address."),
    phrase("Verdict"),
    phrase("finding"),
    phrase("reason"),
    phrase("duration of the test"),
    phrase("taken over from"),
    phrase("the error is shown in full at"),
    phrase("Request"),
    phrase("The file of this picture was not found when the page was made."),
    phrase("The picture was left out, so that the page stays small."),
    phrase("pixels"),
    phrase("pictures: {count}"),
    phrase("Answers"),
    phrase("served model"),
    phrase("reference"),
    phrase("ground truth"),
    phrase("accepted answers"),
    phrase("first run"),
    phrase("both texts are equal"),
    phrase("only here"),
    phrase("(empty)"),
    phrase("Candidates where the answers part"),
    phrase("token {position} of the answer"),
    phrase("the reference prefers its token by {margin} nats"),
    phrase("token"),
    phrase("log-probability"),
    phrase("Numerics along the sequence"),
    phrase("Numerics over the picture"),
    phrase("position"),
    phrase("part of the sequence"),
    phrase("error, root mean square"),
    phrase("bf16 rounding of the reference"),
    phrase("difference, nats"),
    phrase("{count} positions are not finite and are not drawn"),
    phrase("values as a table"),
    phrase("The colour is the error at a patch, in roundings of the reference in bf16."),
    phrase("Patches without colour were not compared."),
    phrase("patch {row}, {column}"),
    phrase("Point at a patch, or choose it with the arrow keys."),
    phrase("show the map"),
    phrase("Error by case, largest first"),
    phrase("error in bf16 roundings (R)"),
    phrase("Timing"),
    phrase("prompt tokens"),
    phrase("output tokens"),
    phrase("duration of the request"),
    phrase("output rate"),
    phrase("end of the answer"),
    phrase("request"),
    phrase("image tokens"),
    phrase("TTFT by image tokens"),
    phrase("requests at once"),
    phrase("requests per second"),
    phrase("Evidence"),
    phrase("Other criteria of this case"),
)


def texts(languages: Languages) -> dict[str, dict[str, str]]:
    """Language -> English text -> its translation, for all that the page's script shows."""
    named = (STATUSES, GROUPS, PARTS, NUMBERS)
    labels = (*_LABELS, VISIBLE, *(one for names in named for one in names.values()))
    return {name: {one.text: _of(name, one.text) for one in labels} for name in languages}


def _of(language: str, english: str) -> str:
    return translator(language)(english)


def said(text: Text, languages: Languages) -> dict[str, str]:
    """Language -> a text of the view."""
    return {name: shown(text, translator(name)) for name in languages}

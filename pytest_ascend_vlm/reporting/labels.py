"""The names that report.json uses, as phrases: statuses, groups, phases, capabilities, figures."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .phrase import Phrase, Text, phrase

STATUSES: Mapping[str, Phrase] = {
    "fail": phrase("failed"),
    "error": phrase("error"),
    "pass": phrase("passed"),
    "xfail": phrase("expected failure"),
    "skip": phrase("skipped"),
    "na": phrase("not applicable"),
    "recorded": phrase("recorded"),
}
"""Status of a row -> its name."""

GROUPS: Mapping[str, Phrase] = {
    "serving": phrase("serving and API"),
    "baseline": phrase("answers against the reference"),
    "document": phrase("reading of documents"),
    "tasks": phrase("questions about images"),
    "determinism": phrase("determinism"),
    "ladder": phrase("many requests at once"),
    "parameters": phrase("request parameters"),
    "performance": phrase("performance"),
    "grid": phrase("speed by image size and load"),
    "recovery": phrase("recovery from faults"),
    "growth": phrase("memory over many images"),
    "lifecycle": phrase("start and stop"),
    "dataset": phrase("data sets"),
    "numerics": phrase("numerics"),
    "equivalence": phrase("other ways to serve"),
    "reference": phrase("CPU reference"),
    "own": phrase("tests of the model file"),
}
"""Group of criteria -> its name."""

PHASES: Mapping[str, Phrase] = {
    "start": phrase("start of the process"),
    "weights": phrase("loading of the weights"),
    "graphs": phrase("compilation and graph capture"),
    "first image": phrase("first image request"),
}
"""Phase of a server's start -> its name."""

CAPABILITIES: Mapping[str, Phrase] = {
    "text": phrase("text"),
    "image": phrase("image understanding"),
    "video": phrase("video understanding"),
    "document": phrase("document parsing (OCR)"),
    "vqa": phrase("visual question answering"),
    "grounding": phrase("grounding (boxes)"),
}
"""Capability of a model -> its name."""

CATEGORIES: Mapping[str, Phrase] = {
    "tasks.scene_text": phrase("text in a scene (TextVQA)"),
    "tasks.document": phrase("question about a document (DocVQA)"),
    "tasks.chart": phrase("chart (ChartQA)"),
    "tasks.reasoning": phrase("visual reasoning"),
    "tasks.chinese": phrase("Chinese question"),
    "tasks.size": phrase("size of the image"),
    "tasks.order": phrase("order of images and texts"),
    "tasks.clip": phrase("video"),
    "tasks.grounding": phrase("grounding (boxes)"),
}
"""Criterion of a question -> its category."""

CONTENTS: Mapping[str, Phrase] = {
    "document/page": phrase("title, text and list"),
    "document/chinese": phrase("Chinese text"),
    "document/table": phrase("table"),
    "document/formula": phrase("formulas"),
    "document/code": phrase("source code"),
    "document/seal": phrase("contract with a seal"),
    "document/references": phrase("references and links"),
    "document/columns": phrase("two columns"),
}
"""Case of a page, without its number -> the kind of its content."""

NUMBERS: Mapping[str, Phrase] = {
    "served logits": phrase("served: logits"),
    "served hidden_states": phrase("served: hidden states"),
    "transformers logits": phrase("Transformers: logits"),
    "transformers hidden_states": phrase("Transformers: hidden states"),
}
"""Engine and kind of numbers -> the heading of their column."""

PARTS: Mapping[str, Phrase] = {
    "image": phrase("image tokens"),
    "prompt": phrase("text of the prompt"),
    "answer": phrase("answer"),
}
"""Part of a sequence -> its name."""

KINDS: Mapping[str, Phrase] = {"text": phrase("text"), "image": phrase("image")}
"""Kind of request -> its name."""

CHARTS: Mapping[str, Phrase] = {
    "latency": phrase("latency, one request at a time"),
    "latency-load": phrase("latency under load"),
    "concurrency": phrase("throughput and latency by concurrent requests"),
    "ttft-image-tokens": phrase("TTFT by image tokens"),
    "ttft": phrase("median TTFT by image size and requests at once"),
    "throughput": phrase("requests per second by image size and requests at once"),
}
"""Kind of a chart of speed -> what it shows."""

_FIGURE_WORDS: dict[str, Phrase] = {
    "text": phrase("text"),
    "image": phrase("image"),
    "load": phrase("load"),
    "ramp": phrase("rising rate"),
    "latency": phrase("latency"),
    "ttft": phrase("TTFT"),
    "tpot": phrase("TPOT"),
    "itl": phrase("ITL"),
    "workload": phrase("workload"),
    "user_throughput": phrase("throughput of a user"),
    "decode_throughput": phrase("decode throughput of a user"),
    "dataset": phrase("data set"),
    "transformers": phrase("Transformers"),
    "logits": phrase("logits"),
    "hidden_states": phrase("hidden states"),
    "max_abs_error": phrase("largest absolute error"),
    "mean_abs_error": phrase("mean absolute error"),
    "relative_error": phrase("relative error"),
    "cosine_similarity": phrase("cosine similarity"),
    "start": phrase("start until the API answers"),
    "weights_seconds": phrase("loading of the weights"),
    "weights_gib": phrase("device memory of the weights"),
    "seconds": phrase("mean duration of a request"),
    "prefill": phrase("image prefill"),
    "cpu": phrase("CPU usage"),
    "host memory": phrase("host memory"),
    "device memory": phrase("device memory"),
    "goodput": phrase("goodput"),
    "output_throughput": phrase("output throughput"),
    "request_throughput": phrase("request throughput"),
    "total_throughput": phrase("throughput of prompts and answers"),
    "server_ttft": phrase("TTFT in the server"),
    "server_latency": phrase("latency in the server"),
    "server_queue": phrase("queue in the server"),
    "server_prefill": phrase("prefill in the server"),
    "server_decode": phrase("decode in the server"),
}

_WITH_A_DECLARED_NAME = {"dataset", "workload"}
"""The next word of such a name is from the model file: a data set "mmmu_val", a workload "text"."""

STATISTICS: dict[str, Phrase] = {
    "value": phrase("value"),
    "mean": phrase("mean"),
    "median": phrase("median"),
    "p90": phrase("p90"),
    "p95": phrase("p95"),
    "p99": phrase("p99"),
    "peak": phrase("peak"),
}
"""Statistic of a figure -> its name."""


def named(names: Mapping[str, Phrase], key: str) -> Text:
    """The name of a key; the key itself if it has no name."""
    return names.get(key, key)


def figure_name(name: str) -> Text:
    """A figure's name: "load.c8.ttft" is "load · concurrency 8 · TTFT"."""
    category = next((one for one in CATEGORIES if name.startswith(f"{one}.")), "")
    words = name.removeprefix(f"{category}.").split(".")
    parts = [_figure_part(word) for word in words]
    if words[0] in _WITH_A_DECLARED_NAME:
        parts[1:2] = words[1:2]
    parts = [CATEGORIES[category], *parts] if category else parts
    shown: Text = parts[0]
    for part in parts[1:]:
        shown = phrase("{first} · {next}", first=shown, next=part)
    return shown


def _figure_part(part: str) -> Text:
    if level := re.fullmatch(r"c(\d+)", part):
        return phrase("concurrency {level}", level=level[1])
    return (_FIGURE_WORDS | STATISTICS).get(part, part.replace("_", " "))

"""Charts of the report: one SVG each, without scripts or anything from elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

Rows = Sequence[Mapping[str, Any]]
Point = tuple[float, ...]

_PARTS = ("image", "prompt", "answer")
_SINGLE_STREAM = "performance.single_stream"
_IMAGE_PREFILL = "performance.image_prefill"
_LOAD = "performance.load"


def charts(document: Mapping[str, Any]) -> dict[str, str]:
    """File name -> SVG, of every chart that a report has the numbers for."""
    return dict([*_error_charts(document), *_performance_charts(document)])


def error_chart_name(suite_class: str) -> str:
    """The file that shows a test class's error along a sequence."""
    return f"logits-error.{suite_class}.svg"


def performance_chart_names(rows: Rows) -> dict[str, str]:
    """Kind of chart -> file, of the performance charts of one test class's rows."""
    return {
        kind: f"{kind}.{rows[0]['suite_class']}.svg"
        for kind, (data, _) in _PERFORMANCE.items()
        if data(rows)
    }


def _error_charts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for row in document["rows"]:
        of_logits = row["criterion"] == "numerics.logits"
        series = (row.get("evidence") or {}).get("per_position")
        if of_logits and series:
            worst = max(series, key=_error_in_roundings)
            yield error_chart_name(row["suite_class"]), _error_chart(row["model"], worst)


def _error_in_roundings(case: Mapping[str, Any]) -> float:
    """Mean square error in bf16's own; infinite where a number is none."""
    if any(isinstance(value, str) for value in case["error"]):
        return float("inf")
    own = sum(value**2 for value in case["rounding"])
    return float(sum(value**2 for value in case["error"]) / own) if own else 0.0


def _error_chart(model: str, case: Mapping[str, Any]) -> str:
    """The error at each position, image tokens in their own colour, over bf16's own."""
    import pygal

    chart = pygal.XY(
        js=(),
        stroke=False,
        title=f"{model}: logits of {case['case']}, where they are furthest off",
        x_title="position in prompt and answer",
        y_title="root mean square error from fp32",
        legend_at_bottom=True,
        dots_size=2,
    )
    points = [
        (position, error, part)
        for position, error, part in zip(case["position"], case["error"], case["part"], strict=True)
        if not isinstance(error, str)  # NaN and infinity are named in JSON, and have no place here
    ]
    for part in _PARTS:
        chart.add(f"served: {part}", [(x, y) for x, y, of in points if of == part])
    pairs = zip(case["position"], case["rounding"], strict=True)
    rounding = [(position, error) for position, error in pairs if not isinstance(error, str)]
    chart.add("the reference's own bf16", rounding, stroke=True, show_dots=False)
    return _svg(chart)


def _performance_charts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(row["suite_class"] for row in document["rows"]):
        rows = [row for row in document["rows"] if row["suite_class"] == name]
        for kind, file in performance_chart_names(rows).items():
            data, draw = _PERFORMANCE[kind]
            yield file, draw(rows[0]["model"], data(rows))


def _latencies(criterion: str, rows: Rows) -> dict[str, list[float]]:
    """Case of the criterion -> seconds of each request."""
    found = {}
    for row, series in _each(rows, (criterion,), "series"):
        values = [value for value in series["values"] if _is_finite(value)]
        if series["name"] == "latency" and values:
            found[str(row["case"])] = values
    return found


def _latency_chart(title: str, model: str, latencies: Mapping[str, Sequence[float]]) -> str:
    """A box for each kind: quartiles, whiskers of 1.5 interquartile ranges, the others as dots."""
    import pygal

    chart = pygal.Box(
        **_look(model, title),
        box_mode="tukey",
        x_labels=[_printable(f"{kind} ({len(of)})") for kind, of in latencies.items()],
        x_title="what was sent (number of requests)",
        y_title="latency, s",
        show_legend=False,
        truncate_label=-1,
        range=(0, _beyond(value for of in latencies.values() for value in of)),
    )
    for kind, values in latencies.items():
        chart.add(kind, values)
    return _svg(chart)


def _sweep(rows: Rows) -> list[Point]:
    """(concurrency, median latency in s, output tokens per second), in order of concurrency."""
    of_load = [row.get("evidence") or {} for row in rows if row["criterion"] == _LOAD]
    names = ("concurrency", "median_latency_s", "output_throughput_tok_s")
    points = [_point(evidence.get("sweep") or {}, names) for evidence in of_load]
    return sorted(point for point in points if point)


def _concurrency_chart(model: str, sweep: Sequence[Point]) -> str:
    """Up is more throughput, right is a longer wait."""
    import pygal

    chart = pygal.XY(
        **_look(model, "throughput and latency by concurrent requests"),
        print_labels=True,
        dots_size=4,
        truncate_legend=-1,
        x_title="median latency, s",
        y_title="output throughput, tok/s",
        xrange=(0, _beyond(latency for _, latency, _ in sweep)),
        range=(0, _beyond(throughput for _, _, throughput in sweep)),
    )
    points = [{"value": (x, y), "label": f"{concurrency:g}"} for concurrency, x, y in sweep]
    chart.add("beside each point: the number of concurrent requests", points)
    return _svg(chart)


def _ttft(rows: Rows) -> dict[str, list[Point]]:
    """Criterion -> (image tokens, TTFT in s) of each request."""
    found: dict[str, list[Point]] = {}
    criteria = (_IMAGE_PREFILL, _SINGLE_STREAM)
    for row, request in _each(rows, criteria, "ttft_by_image_tokens"):
        if point := _point(request, ("image_tokens", "ttft_s")):
            found.setdefault(row["criterion"], []).append(point)
    return found


def _ttft_chart(model: str, ttft: Mapping[str, Sequence[Point]]) -> str:
    """A dot for each request."""
    import pygal

    every = [point for points in ttft.values() for point in points]
    chart = pygal.XY(
        **_look(model, "time to first token by size of the image"),
        stroke=False,
        dots_size=3,
        x_title="image tokens in the prompt",
        y_title="TTFT, s",
        xrange=(0, _beyond(tokens for tokens, _ in every)),
        range=(0, _beyond(seconds for _, seconds in every)),
    )
    for criterion, points in ttft.items():
        chart.add(criterion, points)
    return _svg(chart)


_PERFORMANCE: dict[str, tuple[Callable[[Rows], Any], Callable[[str, Any], str]]] = {
    # A server under load takes many times as long: two scales, so that both can be read.
    "latency": (
        partial(_latencies, _SINGLE_STREAM),
        partial(_latency_chart, "latency, one request at a time"),
    ),
    "latency-load": (
        partial(_latencies, _LOAD),
        partial(_latency_chart, "latency under load; c8: 8 requests at a time"),
    ),
    "concurrency": (_sweep, _concurrency_chart),
    "ttft-image-tokens": (_ttft, _ttft_chart),
}


def _each(
    rows: Rows, criteria: Sequence[str], evidence: str
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each item of a list in the evidence of these criteria, with its row."""
    for row in rows:
        if row["criterion"] in criteria:
            for item in (row.get("evidence") or {}).get(evidence, ()):
                yield row, item


def _look(model: str, title: str) -> dict[str, Any]:
    from pygal.style import Style

    return {
        "js": (),
        "style": Style(
            guide_stroke_color="#ccc", major_guide_stroke_color="#ccc", value_label_font_size=16
        ),
        "title": f"{_printable(model)}\n{title}",
        "legend_at_bottom": True,
    }


def _printable(text: str) -> str:
    """A text without the characters that XML has not."""
    return "".join(character for character in text if character.isprintable())


def _point(item: Mapping[str, Any], names: Sequence[str]) -> Point:
    """The numbers of these names; nothing where one of them is none."""
    values: list[Any] = [item.get(name) for name in names]
    return tuple(values) if all(map(_is_finite, values)) else ()


def _is_finite(value: Any) -> bool:
    """Whether it is a number with a place in a picture: NaN and infinity are named in JSON."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _beyond(values: Iterator[float]) -> float:
    """The end of an axis: some way beyond the largest value, for its label."""
    return max(values) * 1.1


def _svg(chart: Any) -> str:
    # pygal's settings are in a script, for tooltips; a picture needs none.
    return re.sub(r"<script.*?</script>", "", chart.render(is_unicode=True), flags=re.DOTALL)

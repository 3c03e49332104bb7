"""Charts of the report, as SVG files without scripts or external resources."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .heat_map import heat_map

Rows = Sequence[Mapping[str, Any]]
Point = tuple[float, ...]

_PARTS = ("image", "prompt", "answer")
_SINGLE_STREAM = "performance.single_stream"
_IMAGE_PREFILL = "performance.image_prefill"
_LOAD = "performance.load"
_GROWTH = "growth.memory"
_GRID = "grid.cliffs"
_GRID_TITLES = {
    "ttft": ("ttft_s", "median TTFT in s, by longer side in pixels and requests at once"),
    "throughput": (
        "request_throughput",
        "requests a second, by longer side in pixels and requests at once",
    ),
}


def charts(document: Mapping[str, Any]) -> dict[str, str]:
    """File name -> SVG of every chart that the report contains data for."""
    return dict(
        [
            *_error_charts(document),
            *_performance_charts(document),
            *_grid_charts(document),
            *_growth_charts(document),
        ]
    )


def error_chart_name(suite_class: str) -> str:
    """The file name of a test class's chart of the logits' error by position."""
    return f"logits-error.{suite_class}.svg"


def performance_chart_names(rows: Rows) -> dict[str, str]:
    """Kind of chart -> file name, for the performance charts of one test class's rows."""
    data = {
        "latency": _latencies(_SINGLE_STREAM, rows),
        "latency-load": _latencies(_LOAD, rows),
        "concurrency": _sweep(rows),
        "ttft-image-tokens": _ttft(rows),
    }
    return {kind: f"{kind}.{rows[0]['suite_class']}.svg" for kind, found in data.items() if found}


def growth_chart_name(rows: Rows) -> str | None:
    """The file name of the chart of memory of one test class's rows; None if it was not read."""
    return f"memory.{rows[0]['suite_class']}.svg" if _memory(rows) else None


def grid_chart_names(rows: Rows) -> dict[str, str]:
    """Quantity of a heat map -> file name, for the rows of one test class."""
    suite_class = rows[0]["suite_class"]
    return {name: f"grid-{name}.{suite_class}.svg" for name in _GRID_TITLES if _grids(rows)}


def _error_charts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for row in document["rows"]:
        of_logits = row["criterion"] == "numerics.logits"
        series = (row.get("evidence") or {}).get("per_position")
        if of_logits and series:
            worst = max(series, key=_error_ratio)
            yield error_chart_name(row["suite_class"]), _error_chart(row["model"], worst)


def _error_ratio(case: Mapping[str, Any]) -> float:
    """Mean square error divided by that of the reference's bf16; infinite if any value is NaN."""
    if any(isinstance(value, str) for value in case["error"]):
        return float("inf")
    own = sum(value**2 for value in case["rounding"])
    return float(sum(value**2 for value in case["error"]) / own) if own else 0.0


def _error_chart(model: str, case: Mapping[str, Any]) -> str:
    """The error by position, coloured by part of the sequence, with the reference's bf16 error."""
    import pygal

    of = _printable(case["case"])
    chart = pygal.XY(
        js=(),
        stroke=False,
        title=f"{_printable(model)}: error of the logits of {of}, the case with the largest error",
        x_title="position in prompt and answer",
        y_title="root mean square error from fp32",
        legend_at_bottom=True,
        dots_size=2,
    )
    points = [
        (position, error, part)
        for position, error, part in zip(case["position"], case["error"], case["part"], strict=True)
        if not isinstance(error, str)  # NaN and infinity are strings in JSON, and cannot be drawn
    ]
    for part in _PARTS:
        chart.add(f"served: {part}", [(x, y) for x, y, of in points if of == part])
    pairs = zip(case["position"], case["rounding"], strict=True)
    rounding = [(position, error) for position, error in pairs if not isinstance(error, str)]
    chart.add("the reference in bf16", rounding, stroke=True, show_dots=False)
    return _svg(chart)


def _performance_charts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for rows in _by_class(document):
        for kind, file in performance_chart_names(rows).items():
            yield file, _performance_chart(kind, rows)


def _by_class(document: Mapping[str, Any]) -> Iterator[Rows]:
    """The rows of each test class."""
    for name in dict.fromkeys(row["suite_class"] for row in document["rows"]):
        yield [row for row in document["rows"] if row["suite_class"] == name]


def _grid_charts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for rows in _by_class(document):
        for name, file in grid_chart_names(rows).items():
            quantity, title = _GRID_TITLES[name]
            grids = _grids(rows)
            levels = max((one["levels"] for one in grids.values()), key=len)
            values = {side: one[quantity] for side, one in grids.items()}
            title = f"{_printable(rows[0]['model'])}: {title}"
            yield file, heat_map(title, list(map(str, levels)), values)


def _grids(rows: Rows) -> dict[str, Mapping[str, Any]]:
    """Longer side of an image -> what was measured with it, smallest first."""
    found = [
        evidence["grid"]
        for row in rows
        if row["criterion"] == _GRID and "grid" in (evidence := row.get("evidence") or {})
    ]
    finite = [one for one in found if all(map(_is_finite, (*one["ttft_s"], *_rates(one))))]
    by_side = {max(one["width"], one["height"]): one for one in finite}
    return {str(side): by_side[side] for side in sorted(by_side)}


def _rates(grid: Mapping[str, Any]) -> Sequence[Any]:
    rates: Sequence[Any] = grid["request_throughput"]
    return rates


def _growth_charts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for rows in _by_class(document):
        if name := growth_chart_name(rows):
            yield name, _growth_chart(rows[0]["model"], _memory(rows))


def _memory(rows: Rows) -> dict[str, Sequence[Point]]:
    """Name of the memory -> (number of images, MiB), in their order."""
    return {
        series["name"]: points
        for _, series in _each(rows, (_GROWTH,), "series")
        if (points := [(n, v) for n, v in enumerate(series["values"], 1) if _is_finite(v)])
    }


def _growth_chart(model: str, memory: Mapping[str, Sequence[Point]]) -> str:
    """Memory over the number of images; a leak is a line that rises to the end."""
    import pygal

    every = [point for points in memory.values() for point in points]
    chart = pygal.XY(
        **_look(model, "memory of the server over many images"),
        stroke=False,
        dots_size=2,
        x_title="images",
        y_title="MiB",
        xrange=(0, _axis_end(number for number, _ in every)),
    )
    for name, points in memory.items():
        chart.add(name, points)
    return _svg(chart)


def _performance_chart(kind: str, rows: Rows) -> str:
    model = rows[0]["model"]
    if kind == "latency":
        title = "latency, one request at a time"
        return _latency_chart(title, model, _latencies(_SINGLE_STREAM, rows))
    if kind == "latency-load":
        # A chart of its own: latencies under load are many times as long, and need another scale.
        title = "latency under load; c8: 8 requests at a time"
        return _latency_chart(title, model, _latencies(_LOAD, rows))
    if kind == "concurrency":
        return _concurrency_chart(model, _sweep(rows))
    return _ttft_chart(model, _ttft(rows))


def _latencies(criterion: str, rows: Rows) -> dict[str, list[float]]:
    """Case of the criterion -> latency of each request in seconds."""
    found = {}
    for row, series in _each(rows, (criterion,), "series"):
        values = [value for value in series["values"] if _is_finite(value)]
        if series["name"] == "latency" and values:
            found[str(row["case"])] = values
    return found


def _latency_chart(title: str, model: str, latencies: Mapping[str, Sequence[float]]) -> str:
    """A box per kind: quartiles, whiskers of 1.5 interquartile ranges, and outliers as dots."""
    import pygal

    chart = pygal.Box(
        **_look(model, title),
        box_mode="tukey",
        x_labels=[_printable(f"{kind} ({len(values)})") for kind, values in latencies.items()],
        x_title="kind of request (number of requests)",
        y_title="latency, s",
        show_legend=False,
        truncate_label=-1,
        range=(0, _axis_end(value for values in latencies.values() for value in values)),
    )
    for kind, values in latencies.items():
        chart.add(kind, values)
    return _svg(chart)


def _sweep(rows: Rows) -> list[Point]:
    """(concurrency, median latency in s, output tokens per second), sorted by concurrency."""
    of_load = [row.get("evidence") or {} for row in rows if row["criterion"] == _LOAD]
    names = ("concurrency", "median_latency_s", "output_throughput_tok_s")
    points = [_point(evidence.get("sweep") or {}, names) for evidence in of_load]
    return sorted(point for point in points if point)


def _concurrency_chart(model: str, sweep: Sequence[Point]) -> str:
    """Throughput over median latency, one point per level of concurrency."""
    import pygal

    chart = pygal.XY(
        **_look(model, "throughput and latency by concurrent requests"),
        print_labels=True,
        dots_size=4,
        truncate_legend=-1,
        x_title="median latency, s",
        y_title="output throughput, tok/s",
        xrange=(0, _axis_end(latency for _, latency, _ in sweep)),
        range=(0, _axis_end(throughput for _, _, throughput in sweep)),
    )
    points = [{"value": (x, y), "label": f"{concurrency:g}"} for concurrency, x, y in sweep]
    chart.add("labels: number of concurrent requests", points)
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
    """TTFT over the image tokens of the prompt, one dot per request."""
    import pygal

    every = [point for points in ttft.values() for point in points]
    chart = pygal.XY(
        **_look(model, "time to first token by size of the image"),
        stroke=False,
        dots_size=3,
        x_title="image tokens in the prompt",
        y_title="TTFT, s",
        xrange=(0, _axis_end(tokens for tokens, _ in every)),
        range=(0, _axis_end(seconds for _, seconds in every)),
    )
    for criterion, points in ttft.items():
        chart.add(criterion, points)
    return _svg(chart)


def _each(
    rows: Rows, criteria: Sequence[str], evidence: str
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yields (row, item) for each item of a list in the evidence of the given criteria."""
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
    """A text without the characters that XML does not allow."""
    return "".join(character for character in text if character.isprintable())


def _point(item: Mapping[str, Any], names: Sequence[str]) -> Point:
    """The values of the given names; empty if one of them is missing, NaN or infinite."""
    values: list[Any] = [item.get(name) for name in names]
    return tuple(values) if all(map(_is_finite, values)) else ()


def _is_finite(value: Any) -> bool:
    """True for a finite number; NaN and infinity are strings in JSON."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _axis_end(values: Iterator[float]) -> float:
    """The upper end of an axis: 10 % above the largest value, so that its label fits."""
    return max(values) * 1.1


def _svg(chart: Any) -> str:
    # pygal embeds its tooltip settings as a script; a static picture needs none.
    return re.sub(r"<script.*?</script>", "", chart.render(is_unicode=True), flags=re.DOTALL)

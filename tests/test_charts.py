"""Charts of the report: pictures of its numbers, and nothing else."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from helpers.outcome import documents

from pytest_ascend_vlm import reporting
from pytest_ascend_vlm.reporting import Report, chart_files, write_document
from pytest_ascend_vlm.reporting.charts import charts
from pytest_ascend_vlm.reporting.labels import CHARTS
from pytest_ascend_vlm.reporting.language import LANGUAGES, translator
from pytest_ascend_vlm.reporting.markdown import render

HOSTILE = '</script><script>alert("模型")</script>&'
SVG = "{http://www.w3.org/2000/svg}"
RECEIPT = {
    "platform": "cpu",
    "checkpoint": "tiny",
    "simulated": False,
    "device": "某型 CPU | 2 cores",
    "versions": {},
    "seconds": 1.0,
    "argv": [],
}


def series(case: str, error: float) -> dict[str, Any]:
    return {
        "case": case,
        "position": [0, 5, 9],
        "part": ["prompt", "image", "answer"],
        "error": [error, error, error],
        "rounding": [0.04, 0.04, 0.05],
    }


def row(model: str = "an-org/a-model", **changes: Any) -> dict[str, Any]:
    return {
        "model": model,
        "suite_class": "TestA",
        "criterion": "numerics.logits",
        "case": "error_ratio",
        "status": "pass",
        "measured": 1.0,
        "threshold": 1.5,
        "sense": "at most",
        "unit": "bf16 roundings",
        "margin": 0.5,
        "reason": "",
        "told_at": None,
        "seconds": 0.1,
        "finding": "R = 1.00",
        "evidence": {
            "R": 1.0,
            "per_position": [series("document/页-01", 0.05), series("text/a", 0.2)],
        },
        **changes,
    }


def text_of(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())  # noqa: S314  (our own picture)


def test_the_case_that_is_furthest_off_is_shown() -> None:
    found = charts({"rows": [row()]})
    assert list(found) == ["logits-error.TestA.svg"]
    assert "text/a" in text_of(found["logits-error.TestA.svg"])
    assert "document" not in text_of(found["logits-error.TestA.svg"])


def test_every_position_is_a_point_of_its_part() -> None:
    root = ElementTree.fromstring(charts({"rows": [row()]})["logits-error.TestA.svg"])  # noqa: S314
    dots = [node for node in root.iter(f"{SVG}circle") if "dot" in node.get("class", "")]
    assert len(dots) == 3
    assert {"served: image", "served: prompt", "served: answer"} <= set(root.itertext())


def test_without_numbers_there_is_no_chart() -> None:
    assert charts({"rows": [row(evidence={}), row(criterion="numerics.hidden_states")]}) == {}


def test_a_case_with_numbers_that_are_none_is_shown_without_them() -> None:
    broken = {**series("text/b", 0.1), "error": ["nan", "inf", 0.1]}
    evidence = {"per_position": [series("text/a", 0.2), broken]}
    svg = charts({"rows": [row(evidence=evidence)]})["logits-error.TestA.svg"]
    assert "text/b" in text_of(svg)
    root = ElementTree.fromstring(svg)  # noqa: S314
    assert len([node for node in root.iter(f"{SVG}circle") if "dot" in node.get("class", "")]) == 1


def test_nothing_in_a_picture_can_run_or_reach_out() -> None:
    svg = charts({"rows": [row(HOSTILE)]})["logits-error.TestA.svg"]
    assert "<script" not in svg
    assert "alert" in text_of(svg)
    assert not [node for node in ElementTree.fromstring(svg).iter() if "href" in str(node.attrib)]  # noqa: S314


def test_the_verdicts_are_written_before_the_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(reporting, "rendered", broken)
    with pytest.raises(ZeroDivisionError):
        write_document({"rows": [row()]}, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text("utf-8")) == {"rows": [row()]}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_document_shows_it_beside_itself(language: str, tmp_path: Path) -> None:
    report = Report()
    report.take([("vlm_row", row())])
    written = write_document(report.document(RECEIPT), tmp_path)

    assert tmp_path / "logits-error.TestA.svg" in written.paths
    _, shown = documents(tmp_path, language)
    assert "](logits-error.TestA.svg)" in shown
    assert "| R | 1 (≤ 1.5) |" in shown


# --- performance ---------------------------------------------------------------------------------


def figure(name: str, value: Any, unit: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit}


def seconds(*values: Any, name: str = "latency") -> dict[str, Any]:
    return {"name": name, "unit": "s", "values": list(values)}


def single_stream(*values: Any, **changes: Any) -> dict[str, Any]:
    evidence = {
        "figures": [
            figure("text.latency.median", 0.0715, "s"),
            figure("text.latency.p90", 1.25, "s"),
            figure("cpu.mean", 93.12, "%"),
        ],
        "series": [seconds(*values), seconds(9.0, name="ttft")],
    }
    named = {"criterion": "performance.single_stream", "case": "text", "evidence": evidence}
    return row(**{**named, **changes})


def load(concurrency: int, throughput: Any, latency: Any) -> dict[str, Any]:
    evidence = {
        "figures": [figure(f"load.c{concurrency}.output_throughput", throughput, "tok/s")],
        "series": [seconds(latency, latency)],
        "sweep": {
            "concurrency": concurrency,
            "output_throughput_tok_s": throughput,
            "median_latency_s": latency,
        },
    }
    return row(criterion="performance.load", case=f"c{concurrency}", evidence=evidence)


def prefill(*points: tuple[int, Any]) -> dict[str, Any]:
    found = [{"image_tokens": tokens, "ttft_s": ttft} for tokens, ttft in points]
    evidence = {"ttft_by_image_tokens": found}
    return row(criterion="performance.image_prefill", case=None, evidence=evidence)


def nodes(svg: str, tag: str, of_class: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)  # noqa: S314  (our own picture)
    return [node for node in root.iter(SVG + tag) if of_class in node.get("class", "").split()]


def document(*rows: dict[str, Any], **receipt: Any) -> dict[str, Any]:
    report = Report()
    report.take(("vlm_row", one) for one in rows)
    return report.document({**RECEIPT, **receipt})


def table(text: str, first_cell: str) -> list[str]:
    """The cells of the table line that begins with this one."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first_cell} |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_latencies_are_a_box_for_each_kind_of_request() -> None:
    rows = [single_stream(0.3, 0.4, 0.5), single_stream(0.6, case="image"), load(8, 200, 1.5)]
    found = charts({"rows": rows})
    svg = found["latency.TestA.svg"]
    assert len(nodes(svg, "g", "box")) == 2
    assert {"text (3)", "image (1)", "latency, s"} <= set(ElementTree.fromstring(svg).itertext())  # noqa: S314
    assert len(nodes(found["latency-load.TestA.svg"], "g", "box")) == 1
    assert "c8 (2)" in text_of(found["latency-load.TestA.svg"])


def test_other_times_and_other_criteria_are_no_latencies() -> None:
    rows = [
        single_stream(evidence={"series": [seconds(0.1, name="tpot")]}),
        row(criterion="performance.cpu_use", evidence={"series": [seconds(0.1)]}),
    ]
    assert charts({"rows": rows}) == {}


def test_the_sweep_is_in_order_of_concurrency() -> None:
    rows = [load(8, 210.0, 1.25), load(1, 48.0, 0.5), load(2, 90.0, 0.625)]
    svg = charts({"rows": rows})["concurrency.TestA.svg"]
    assert [node.text for node in nodes(svg, "text", "label")] == ["1", "2", "8"]
    across = [float(node.get("cx", "nan")) for node in nodes(svg, "circle", "dot")]
    assert across == sorted(across)
    assert {"median latency, s", "output throughput, tok/s"} <= set(
        ElementTree.fromstring(svg).itertext()  # noqa: S314
    )


def test_the_sweep_starts_at_zero() -> None:
    svg = charts({"rows": [load(1, 48.0, 0.5), load(2, 90.0, 0.625)]})["concurrency.TestA.svg"]
    axes = [node.text for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314
    assert axes.count("0") == 2


def test_every_image_request_is_a_dot() -> None:
    of_image = {"ttft_by_image_tokens": [{"image_tokens": 64, "ttft_s": 0.1}]}
    rows = [prefill((16, 0.05), (144, 0.3)), single_stream(case="image", evidence=of_image)]
    svg = charts({"rows": rows})["ttft-image-tokens.TestA.svg"]
    assert len(nodes(svg, "circle", "dot")) == 3
    assert {"TTFT, s", "performance.image_prefill", "performance.single_stream"} <= set(
        ElementTree.fromstring(svg).itertext()  # noqa: S314
    )


def test_each_class_has_its_own_charts() -> None:
    rows = [single_stream(0.3), {**single_stream(0.3), "suite_class": "TestB"}]
    assert set(charts({"rows": rows})) == {"latency.TestA.svg", "latency.TestB.svg"}


@pytest.mark.parametrize("evidence", [{}, {"series": []}, {"series": [seconds()]}, {"sweep": {}}])
@pytest.mark.parametrize("criterion", ["single_stream", "image_prefill", "load", "regression"])
def test_without_measurements_there_is_no_chart(criterion: str, evidence: dict[str, Any]) -> None:
    measured = row(criterion=f"performance.{criterion}", evidence=evidence)
    failed = {name: value for name, value in measured.items() if name != "evidence"}
    assert charts({"rows": [measured, {**failed, "status": "error"}]}) == {}


def test_what_is_not_a_number_is_left_out_of_pictures() -> None:
    rows = [
        single_stream("nan", 0.5, "inf", float("nan")),
        load(1, "nan", 0.5),
        load(2, 90.0, 0.625),
        prefill((16, "inf"), (64, 0.1)),
    ]
    found = charts({"rows": rows})
    assert "text (1)" in text_of(found["latency.TestA.svg"])
    assert [node.text for node in nodes(found["concurrency.TestA.svg"], "text", "label")] == ["2"]
    assert len(nodes(found["ttft-image-tokens.TestA.svg"], "circle", "dot")) == 1
    assert charts({"rows": [single_stream("nan"), prefill((16, "-inf"))]}) == {}


def test_a_measurement_of_zero_can_be_drawn() -> None:
    rows = [single_stream(0.0), load(1, 0.0, 0.0), prefill((0, 0.0))]
    assert len(charts({"rows": rows})) == 4


@pytest.mark.parametrize("name", [HOSTILE, "某机构/文档识别大模型", "a\x00b\x1b\ud83d\nc"])
def test_performance_charts_can_name_any_model(name: str) -> None:
    rows = [single_stream(0.3, case=name), load(1, 48.0, 0.5), prefill((16, 0.05))]
    found = charts({"rows": [{**one, "model": name} for one in rows]})
    assert len(found) == 4
    for svg in found.values():
        assert "<script" not in svg
        assert "".join(filter(str.isprintable, name)) in text_of(svg)
        assert not [node for node in ElementTree.fromstring(svg).iter() if "href" in node.attrib]  # noqa: S314


# --- performance, in the documents ---------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_document_shows_every_performance_chart(language: str, tmp_path: Path) -> None:
    report = Report()
    rows = [single_stream(0.3), load(1, 48.0, 0.5), prefill((16, 0.05))]
    report.take(("vlm_row", one) for one in rows)
    written = write_document(report.document(RECEIPT), tmp_path)
    _, text = documents(tmp_path, language)
    pictures = [path for path in written.paths if path.suffix == ".svg"]
    assert len(pictures) == 4
    assert text.count("![") == 4
    assert all(f"]({picture.name})" in text for picture in pictures)


@pytest.mark.parametrize(
    ("language", "latency", "throughput", "cpu"),
    [
        ("en", "text · latency", "load · concurrency 8 · output throughput", "CPU usage"),
        ("zh", "文本 · 延迟", "负载 · 并发 8 · 输出吞吐", "CPU 占用"),
    ],
)
def test_figures_are_shown_in_words_with_units(
    language: str, latency: str, throughput: str, cpu: str
) -> None:
    text = render(document(single_stream(0.3), load(8, 12345.6, 1.5)), language)
    assert table(text, latency) == [latency, "–", "–", "71.5 ms", "1.25 s"]
    assert table(text, throughput) == [throughput, "12346 tok/s", "–", "–", "–"]
    assert table(text, cpu) == [cpu, "–", "93.1 %", "–", "–"]
    assert "p90" in text
    assert "p99" not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_figures_that_are_not_numbers_say_so(language: str) -> None:
    evidence = {"figures": [figure("new_thing.x", "nan", "s")]}
    text = render(document(single_stream(evidence=evidence)), language)
    assert table(text, "new thing · x") == ["new thing · x", "nan s"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("measured", [1.0, 1.5, 2.0, "nan"])
@pytest.mark.parametrize(
    ("sense", "threshold", "shown"),
    [("at most", 1.5, "≤ 1.5"), ("at least", 1.5, "≥ 1.5"), (None, None, "–")],
)
def test_a_threshold_has_its_sense_whatever_was_measured(
    measured: Any, sense: str | None, threshold: float | None, shown: str, language: str
) -> None:
    judged = {"measured": measured, "threshold": threshold, "sense": sense, "margin": None}
    text = render(document(single_stream(0.3, **judged)), language)
    assert table(text, r"performance.single\_stream\[text\]")[3] == shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_figures_name_their_device_and_are_no_npus(language: str) -> None:
    foreign = {"en": "not an NPU result", "zh": "不是 NPU 结果"}[language]

    def caption(**receipt: Any) -> str:
        text = render(document(single_stream(0.3), **receipt), language)
        (line,) = [line for line in text.splitlines() if line.startswith("**TestA**")]
        return line

    assert r"某型 CPU \| 2 cores" in caption()
    assert foreign in caption()
    assert foreign in caption(platform="npu", simulated=True)
    assert foreign not in caption(platform="npu", device="Ascend 910B4")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("status", ["skip", "na"])
def test_where_nothing_was_measured_the_document_says_so(status: str, language: str) -> None:
    skipped = {**single_stream(0.3), "status": status, "reason": "not asked for"}
    del skipped["evidence"]
    section = of_performance(render(document(row(), skipped), language))
    assert "not asked for" in section
    assert "**TestA**" not in section
    # What is not applicable cannot be measured by another run.
    assert ("-k TestA -m performance" in section) is (status == "skip")
    assert "-m performance" not in of_performance(render(document(single_stream(0.3)), language))


def of_performance(text: str) -> str:
    """The section of a document that has the measured speed."""
    (heading,) = {"## Performance\n", "## 性能数据\n"} & set(text.splitlines(keepends=True))
    return text.partition(heading)[2].partition("\n## ")[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_of_a_performance_row_changes_the_document(language: str) -> None:
    hostile = "| a |\n# 标题 <b>`"
    evidence = {"figures": [figure(hostile, hostile, hostile)]}
    changes = {"case": hostile, "unit": hostile, "finding": hostile, "evidence": evidence}
    lines = render(document(single_stream(**changes)), language).splitlines()
    plain = render(
        document(single_stream(**{**changes, "case": "x", "unit": "x", "finding": "x"})), language
    )
    assert [line.count(" | ") for line in lines] == [
        line.count(" | ") for line in plain.splitlines()
    ]
    assert not [line for line in lines if "标题" in line and line.startswith("#")]
    assert not [line for line in lines if "<b>" in line]


@pytest.fixture
def schema() -> dict[str, Any]:
    """The published schema of report.json."""
    text = resources.files(reporting).joinpath("report.schema.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_published_schema_describes_the_evidence(schema: dict[str, Any]) -> None:
    jsonschema.validate(
        document(single_stream(0.3, "nan"), load(8, 210.0, "inf"), prefill((16, 0.1))), schema
    )
    jsonschema.validate(document(growth("host", 2000.0)), schema)
    for wrong in (
        {"sweep": {"concurrency": 8}},
        {"figures": [{"name": "a", "value": 1}]},
        {"slope": {"value": 1}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document(single_stream(evidence=wrong)), schema)


# --- memory over many images ---------------------------------------------------------------------


def growth(memory: str, *values: Any, **changes: Any) -> dict[str, Any]:
    evidence = {
        "slope": {"low": 0.9, "value": 1.0, "high": 1.1},
        "series": [{"name": f"{memory} memory", "unit": "MiB", "values": list(values)}],
    }
    named = {"criterion": "growth.memory", "case": memory, "evidence": evidence}
    return row(**{**named, **changes})


def of_growth(text: str) -> str:
    """The section of a document about memory."""
    (heading,) = {"## Memory over many images\n", "## 长时间运行的内存\n"} & set(
        text.splitlines(keepends=True)
    )
    return text.partition(heading)[2].partition("\n## ")[0]


def test_memory_is_drawn_over_the_images() -> None:
    rows = [growth("host", 2000.0, 2001.5, "nan"), growth("device", 900.0, 900.0, 901.0)]
    drawn = charts(document(*rows, growth("host", "nan", suite_class="TestB")))
    assert [*drawn] == ["memory.TestA.svg"]
    assert len(nodes(drawn["memory.TestA.svg"], "circle", "dot")) == 5
    text = "".join(ElementTree.fromstring(drawn["memory.TestA.svg"]).itertext())  # noqa: S314
    assert "host memory" in text
    assert "device memory" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_document_shows_memory(language: str, tmp_path: Path) -> None:
    report = Report()
    answers = row(criterion="growth.answers", case=None, evidence={}, finding="18 of 18")
    report.take(("vlm_row", one) for one in (growth("host", 1.0, 2.0), answers))
    written = write_document(report.document(RECEIPT), tmp_path)
    _, text = documents(tmp_path, language)
    assert "memory.TestA.svg" in {path.name for path in written.paths}
    assert "](memory.TestA.svg)" in of_growth(text)
    assert r"| growth.memory\[host\] |" in of_growth(text)
    assert "18 of 18" in of_growth(text)
    assert "-m soak" not in of_growth(text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_a_soak_the_document_has_its_command(language: str) -> None:
    assert "-k TestA -m soak" in of_growth(render(document(row()), language))
    skipped = growth("host", status="skip", reason="not visible")
    del skipped["evidence"]
    section = of_growth(render(document(row(), skipped), language))
    assert "not visible" in section
    assert "-m soak" in section


# --- the grid ------------------------------------------------------------------------------------


def of_grid(side: int, **changes: Any) -> dict[str, Any]:
    found = {
        "width": side,
        "height": side // 2,
        "levels": [1, 2, 3],
        "ttft_s": [0.1, 0.2, 0.3],
        "request_throughput": [5.0, 6.0, 2.0],
        **changes,
    }
    return row(criterion="grid.cliffs", case=str(side), evidence={"grid": found})


@pytest.mark.parametrize(
    ("receipt", "told"),
    [
        ({"simulated": True, "platform": "npu"}, "SIMULATED NPU: not an NPU result. Tiny"),
        ({"checkpoint": "full"}, "Run on the platform CPU: not an NPU result."),
        ({"checkpoint": "full", "platform": "npu"}, ""),
    ],
)
def test_a_picture_that_is_shown_alone_says_that_it_is_no_npus(
    receipt: dict[str, Any], told: str
) -> None:
    drawn = chart_files.files(document(row(), single_stream(0.3), of_grid(448), **receipt))
    assert len(drawn) == 4
    for svg in drawn.values():
        marks = " ".join(text for _, _, text in _marks(svg))
        assert marks.startswith(told)
        assert bool(marks) == bool(told)


@pytest.mark.parametrize("levels", [[1], [1, 2]])
def test_the_words_of_a_narrow_picture_are_not_cut_off(levels: list[int]) -> None:
    values = [1.0] * len(levels)
    grid = of_grid(448, levels=levels, ttft_s=values, request_throughput=values)
    receipt = {"simulated": True, "platform": "npu"}
    for svg in chart_files.files(document(grid, **receipt)).values():
        root = ElementTree.fromstring(svg)  # noqa: S314  (our own picture)
        _, top, width, height = map(float, root.get("viewBox", "").split())
        assert len(_marks(svg)) == 2
        for left, bottom, text in _marks(svg):
            # A character of a sans-serif font is 0.6 of its size wide on average.
            assert left + 0.6 * 11 * len(text) <= width
            assert top + 11 <= bottom < 0 < top + height  # above the chart's own texts
        title = next(node for node in root.iter() if "longer side" in (node.text or ""))
        assert 8 + 0.6 * 14 * len(title.text or "") <= width


def _marks(svg: str) -> list[tuple[float, float, str]]:
    """Left end, base line and text of each line about the origin."""
    root = ElementTree.fromstring(svg)  # noqa: S314  (our own picture)
    return [
        (float(node.get("x", 0)), float(node.get("y", 0)), node.text or "")
        for node in root
        if node.get("fill") == "#b3141d"
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_document_shows_the_grid(language: str) -> None:
    rows = (of_grid(896), of_grid(448), of_grid(1344, ttft_s=[0.1, "nan", 0.3]))
    drawn = charts(document(*rows))
    assert [*drawn] == ["grid-ttft.TestA.svg", "grid-throughput.TestA.svg"]
    root = ElementTree.fromstring(drawn["grid-ttft.TestA.svg"])  # noqa: S314
    texts = [node.text for node in root.iter() if node.text]
    assert [text for text in texts if text in {"448", "896", "1344"}] == ["448", "896"]
    text = render(document(*rows), language)
    label = translator(language)(CHARTS["ttft"])
    assert f"![{label}](grid-ttft.TestA.svg)" in text
    assert f"| grid-ttft.TestA.svg | {label} |" in text
    assert "-k TestA -m grid" in render(document(row()), language)


def test_the_schema_has_the_grid(schema: dict[str, Any]) -> None:
    jsonschema.validate(document(of_grid(448)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document(of_grid(448, more=1)), schema)


# --- where the time goes -------------------------------------------------------------------------


def phases(**seconds: float) -> dict[str, Any]:
    figures = [
        {"name": f"image.{name}.mean", "value": value, "unit": "s"}
        for name, value in {"latency": 2.0, **seconds}.items()
    ]
    return single_stream(case="image", evidence={"figures": figures})


def test_the_document_tells_where_the_time_goes() -> None:
    told = phases(server_queue=0.1, server_prefill=1.2, server_decode=0.4)
    text = render(document(told), "en").partition("### Where the time goes")[2]
    outside, _, rest = text.partition("| 300 ms |")
    assert outside.endswith("outside the engine: image preprocessing, tokenizer, network ")
    assert rest.startswith(" 15.00% |")
    assert "vision tower and prefill | 1.2 s | 60.00% |" in text
    unknown = phases(server_prefill=1.2)
    assert "Where the time goes" not in render(document(unknown), "en")

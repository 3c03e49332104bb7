"""report.html: what it shows, its use in a browser, and that nothing a model says is markup."""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import re
import shutil
from collections.abc import Callable, Iterator
from importlib import resources, util
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from pytest_ascend_vlm.criteria.verdict import at_least
from pytest_ascend_vlm.reporting import Report, html, rendered
from pytest_ascend_vlm.reporting.directory import as_bytes
from pytest_ascend_vlm.reporting.html import difference as differences
from pytest_ascend_vlm.reporting.html import texts
from pytest_ascend_vlm.reporting.html.patches import patch_grid
from pytest_ascend_vlm.reporting.html.pictures import LEFT_OUT, NOT_FOUND, Pictures
from pytest_ascend_vlm.reporting.rows import Row as ReportRow
from pytest_ascend_vlm.reporting.view.environment import Origin, warning

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or util.find_spec("playwright") is None,
    reason="needs Chromium on the PATH and playwright (pip install pytest-ascend-vlm[dev])",
)
Json = dict[str, Any]
Open = Callable[..., Any]

SERVED, REFERENCE = "bridge 661 model\n年度数据", "bridge 664 model\n年度数据"
TOLD = "R = 1.07 at 10 positions, 2.07 at 24 of images"
HOSTILE = {
    "script": "</script><script>window.harmed = 1</script>",
    "data block": '</script><script type="application/json" id="data">{}</script>',
    "comment": "<!--<script>window.harmed = 1",
    "image": "<img src=x onerror='window.harmed = 1'>",
    "svg": "<svg><script>window.harmed = 1</script><set onbegin=alert(1)></svg>",
    "frame": "<iframe srcdoc='<script>parent.harmed = 1</script>'></iframe>",
    "address": "javascript:window.harmed=1",
    "attribute": "\"' onmouseover='window.harmed = 1' x='",
    "style": "</style><style>body { display: none }</style>",
    "refresh": '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/">',
    "base": "<base href='http://127.0.0.1:9/'><form action=http://127.0.0.1:9/>",
    "template": "{{ receipt }} {% raw %} ${window.harmed = 1} {position} $&",
    "prototype": "__proto__",
    "control": "a\x00b\x1b[31m\u2028\u2029\u202eright to left",
    "half a character": "\ud83d alone",
    "long": "长" * 100_000,
}


# --- a report ------------------------------------------------------------------------------------


def row(criterion: str, case: str | None = None, status: str = "pass", **more: Any) -> Json:
    """A row of a report; with a verdict if it was judged."""
    evidence = more.pop("evidence", {})
    passed = status == "pass"
    verdict = at_least(1.0 if passed else 0.9, 1.0, "rate", "the finding", (), evidence)
    judged = status in {"pass", "fail", "xfail"}
    reason = "" if passed else more.pop("reason", f"{criterion} says why")
    name = more.pop("model", "an-org/a-model")
    made = ReportRow(name, more.pop("suite_class", "TestIt"), criterion, case, status, reason, 0.5)
    return {**made.with_verdict(verdict if judged else None), **more}


def compared(served: str = SERVED, reference: str = REFERENCE) -> Json:
    """The evidence of an answer that is compared with the reference's."""
    return {
        "got": served,
        "expected": reference,
        "reference": "recorded on CPU",
        "exact_match": served == reference,
        "word_overlap": 0.5,
        "answer": {
            "prompt_tokens": 15,
            "output_tokens": 8,
            "seconds": 2.0,
            "finish_reason": "stop",
        },
        "parting": {
            "position": 3,
            "served": [["1", -0.25], ["4", -1.5]],
            "reference": [["4", -0.125], ["1", -2.25]],
            "margin": 2.125,
        },
    }


def sequence(case: str, tokens: int = 12) -> Json:
    """The error along a sequence: one token, an image's tokens, and two of the answer."""
    parts = ["prompt", *["image"] * tokens, "answer", "answer"]
    return {
        "case": case,
        "position": list(range(len(parts))),
        "part": parts,
        "error": [0.1 * (index + 1) for index in range(len(parts))],
        "rounding": [0.1] * len(parts),
        "image_runs": [[1, tokens]],
    }


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Json:
    """An image of 4 x 3 patches under ./fixtures, as report.json names it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fixtures" / "page.png"
    path.parent.mkdir()
    Image.new("RGB", (112, 84), "white").save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"file": "fixtures/page.png", "sha256": digest, "width": 112, "height": 84}


def report(picture: Json, *more: Json, **receipt: Any) -> Json:
    """The content of a report.json with a case of every kind."""
    case = "image/page"
    rows = [
        row("serving.ready"),
        row("baseline.image", case, "fail", evidence=compared()),
        row("document.characters", case, evidence={"got": "read", "truth": "read"}),
        row("tasks.chart", "chart/a", evidence={"got": "12", "accepted": ["12", "twelve"]}),
        row("numerics.logits", "error_ratio", evidence={"per_position": [sequence(case)]}),
        row("performance.single_stream", "text", evidence={
            "series": [{"name": "latency", "unit": "s", "values": [0.5, 0.25, "nan"]}]}),
        row("serving.video", "clip/a", "na"),
        row("lifecycle.stop", None, "xfail"),
        row("baseline.text", "text/a", suite_class="TestOther", model="an-org/other"),
        row("serving.ready", None, "na", suite_class="TestAbsent", model="an-org/absent"),
        *more,
    ]  # fmt: skip
    made = Report()
    messages = [{"role": "user", "text": "Read the page.", "images": 1}]
    facts = {"group": "image", "messages": messages, "images": [picture], "videos": []}
    model = {"model": "an-org/a-model", "suite_class": "TestIt", "cases": {case: facts}}
    made.take([("vlm_model", model), *(("vlm_row", one) for one in rows)])
    return made.document({
        "platform": "cpu", "checkpoint": "tiny", "simulated": False, "device": "a CPU",
        "versions": {"vllm": "0.32"}, "seconds": 1.5, "argv": ["conformance"], **receipt,
    })  # fmt: skip


def page_of(document: Json) -> str:
    (content,) = html.files(document, ("en", "zh")).values()
    return content


# --- the file ------------------------------------------------------------------------------------


def test_the_page_is_one_of_the_files_of_a_report(picture: Json) -> None:
    assert "report.html" in rendered(report(picture), ("en",))


def test_the_policy_allows_the_page_its_own_scripts_and_styles_and_nothing_else(
    picture: Json,
) -> None:
    page = page_of(report(picture))
    policy = markup.unescape(re.findall(r'Security-Policy" content="([^"]*)"', page)[0])
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == allowed["base-uri"] == allowed["form-action"] == "'none'"
    assert allowed["img-src"] == "data:"
    for tag in ("script", "style"):
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()) for one in found]
        assert allowed[f"{tag}-src"] == " ".join(f"'sha256-{one.decode()}'" for one in digests)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_a_picture_that_two_cases_use_is_there_once(picture: Json) -> None:
    pictures = Pictures()
    assert pictures.add(picture) == pictures.add({**picture, "file": "fixtures/copy.png"}) == 0
    (found,) = pictures.encoded(10_000)
    assert found.uri.startswith("data:image/")


def test_a_large_picture_gets_smaller_and_a_page_without_room_says_so(picture: Json) -> None:
    path = Path(picture["file"])
    Image.effect_noise((2000, 1000), 90).save(path)
    large = {**picture, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    pictures = Pictures()
    pictures.add(large)
    (found,) = pictures.encoded(15_000_000)
    assert len(found.uri) < path.stat().st_size / 4
    assert [one.uri for one in pictures.encoded(len(found.uri) - 1)] == [LEFT_OUT]


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"file": "../../etc/passwd"}])
def test_only_the_file_that_was_sent_is_shown(picture: Json, change: Json) -> None:
    pictures = Pictures()
    pictures.add(picture | change)
    assert [one.uri for one in pictures.encoded(10_000)] == [NOT_FOUND]


def test_the_page_of_a_file_that_is_no_picture_is_made(picture: Json) -> None:
    Path(picture["file"]).write_text("no picture")
    digest = hashlib.sha256(b"no picture").hexdigest()
    assert NOT_FOUND in page_of(report({**picture, "sha256": digest}))


def test_pictures_that_the_page_has_no_room_for_are_left_out(
    picture: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "_LARGEST", 1)
    page = page_of(report(picture))
    assert f'"uri":"{LEFT_OUT}"' in page
    assert not re.search("data:image/(png|jpeg);", page)


@pytest.mark.parametrize(
    ("served", "other"),
    [
        ("", "a"),
        ("a", ""),
        ("661", "664"),
        ("年度数据", "年数据"),
        ("a\nb", "b\na"),
        ("x" * 20, "y"),
    ],
)
def test_the_pieces_of_a_difference_are_the_texts(served: str, other: str) -> None:
    parts = differences.difference(served, other)
    assert "".join(text for kind, text in parts if kind != differences.ONLY_OTHER) == served
    assert "".join(text for kind, text in parts if kind != differences.ONLY_SERVED) == other
    assert any(kind != differences.EQUAL for kind, _ in parts)


@pytest.mark.parametrize(
    ("tokens", "width", "height", "grid"),
    [
        (140, 392, 280, (10, 14)),
        (256, 448, 448, (16, 16)),
        (1, 10, 10, (1, 1)),
        (6, 90, 60, (2, 3)),
        (141, 392, 280, None),  # a token for a thumbnail
        (1280, 448, 448, None),  # 4 tiles and a thumbnail
        (1792, 672, 448, None),  # 6 tiles and a thumbnail
        (256, 672, 448, None),  # squeezed into a square
    ],
)
def test_tokens_are_patches_only_if_they_have_the_shape_of_the_picture(
    tokens: int, width: int, height: int, grid: tuple[int, int] | None
) -> None:
    assert patch_grid(tokens, width, height) == grid


@pytest.mark.parametrize("size", [(392, 280), (333, 777), (1000, 30), (57, 61), (1654, 2339)])
@pytest.mark.parametrize("most", [1280, 64])
def test_the_patches_of_a_resized_picture_are_found(size: tuple[int, int], most: int) -> None:
    """Qwen's processor: the nearest multiples of a patch, or the floor at the largest area."""
    columns, rows = (max(1, round(side / 28)) for side in size)
    if columns * rows > most:
        scale = (size[0] * size[1] / (most * 28 * 28)) ** 0.5
        columns, rows = (max(1, int(side / scale / 28)) for side in size)
    assert patch_grid(columns * rows, *size) == (rows, columns)


@pytest.mark.parametrize(
    ("kind", "checkpoint", "sentences"),
    [
        ("npu", "full", 0), ("npu", "tiny", 1), ("cpu", "full", 1), ("cpu", "tiny", 2),
        ("simulated", "full", 1), ("reference", "full", 1), ("nothing", "full", 1),
        ("npu, nothing verified", "full", 1), ("endpoint", "full", 1), ("cuda", "full", 1),
    ],
)  # fmt: skip
def test_only_real_weights_on_an_npu_have_no_warning(
    kind: str, checkpoint: str, sentences: int
) -> None:
    origin = Origin(kind, kind, checkpoint, kind == "simulated", "a device")
    assert len(warning(origin)) == sentences


def test_a_report_that_calls_itself_an_npus_is_judged_by_its_rows(picture: Json) -> None:
    document = report(picture)
    document["receipt"]["origin"] = "npu"
    for content in rendered(document, ("en",)).values():
        assert b"hardware: NPU" not in as_bytes(content)
    assert "<title>Run on the platform CPU: not an NPU result." in page_of(document)


def test_every_text_of_the_script_is_in_its_texts() -> None:
    script = resources.files(html).joinpath("page.js").read_text("utf-8")
    script = re.sub(r'"\s*\+ "', "", script)  # a text over two lines
    used = set(re.findall(r'\bt\("([^"]+)"', script))
    assert len(used) > 40
    assert used <= texts.texts(("en",))["en"].keys()


def data_of(document: Json) -> Json:
    """The data of a report's page."""
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    (data,) = re.findall(pattern, page_of(document))
    return dict(json.loads(data))


def test_every_sentence_of_a_run_is_chinese_on_the_page(picture: Json) -> None:
    texts = json.loads((Path(__file__).parent / "logs/findings.json").read_text("utf-8"))
    rows = [
        row("serving.text", f"text/{n}", "fail", finding=text, reason=f"{text}\nas said")
        for n, text in enumerate(texts)
    ]
    known = data_of(report(picture, *rows))["sentences"]
    assert [text for text in texts if text not in known["zh"]] == []
    assert [text for text in texts if f"{text}\nas said" not in known["zh"]] == []
    assert known.keys() == {"zh"}


def test_a_sentence_of_many_rows_is_there_once(picture: Json) -> None:
    many = [row("serving.text", f"text/{n}", "fail", finding=TOLD, reason=TOLD) for n in range(300)]
    document = report(picture, *many)
    translation = data_of(document)["sentences"]["zh"][TOLD]
    assert page_of(document).count(translation) == 1


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a report's page; no address but the file's may be asked, and no script may fail."""
    contexts, problems = [], []

    def opened_page(document: Json, address: str = "", **options: Any) -> Any:
        path = tmp_path / "report.html"
        path.write_bytes(page_of(document).encode("utf-8", "replace"))
        context = browser.new_context(**{"locale": "en-US", **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("console", lambda message: problems.append(f"console: {message.text}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: problems.append(f"request: {request.url[:80]}")
                if not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
        page.goto(path.as_uri() + (f"#{quote(address, safe='')}" if address else ""))
        return page

    yield opened_page
    for context in contexts:
        context.close()
    assert problems == []


FAILED = "TestIt::baseline.image[image/page]"


NEXT_SCREEN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""A script that ends when the page has drawn what a new address shows."""


def follow(page: Any, selector: str) -> None:
    """Chooses a link, and waits for what it shows."""
    page.click(selector)
    page.evaluate(NEXT_SCREEN)


def expect_count(page: Any, selector: str, count: int) -> None:
    """Waits until the page has this many elements; a click takes effect a moment later."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_count(count)


@needs_browser
def test_a_click_opens_a_case_with_all_of_its_material(opened: Open, picture: Json) -> None:
    page = opened(report(picture))
    follow(page, "text=baseline.image[image/page]")
    text = page.inner_text("main")
    for shown in ("failed", "at least 1 rate", "-0.1", "the finding", "Read the page.",
                  "recorded on CPU", "token 4 of the answer", "2.125 nats", "-2.25", "4 tok/s",
                  "document.characters"):  # fmt: skip
        assert shown in text
    assert page.locator("ins").all_inner_texts() == ["1"]
    assert page.locator("del").all_inner_texts() == ["4"]
    assert page.evaluate("document.querySelector('img').naturalWidth") == 112
    assert page.evaluate("document.activeElement.tagName") == "H1"
    follow(page, "text=Back to all results")
    assert page.evaluate("document.activeElement.textContent") == "baseline.image[image/page]"


@needs_browser
def test_the_overview_has_the_diagnosis(opened: Open, picture: Json) -> None:
    page = opened(report(picture, row("baseline.divergence", "image/page", "fail")))
    page.wait_for_selector("text=The results together point to:")
    assert "the decode path: KV cache" in page.inner_text("ol")
    page.click("text=中文")
    page.wait_for_selector("text=综合所有结果")
    assert "解码路径：KV 缓存" in page.inner_text("ol")
    assert opened(report(picture)).locator("ol").count() == 0


def test_a_published_figure_is_beside_the_measured_one(picture: Json) -> None:
    document = report(picture)
    figure = {"value": 71.5, "unit": "ms", "workload": "128/128", "statistic": "latency.mean"}
    document["models"][0]["published"] = {"source": "a document", "figures": [figure]}
    (cells,) = data_of(document)["classes"][0]["published"]
    assert [cell["en"] for cell in cells[:4]] == [
        "workload · 128/128 · latency · mean", "71.5 ms", "–", "–",
    ]  # fmt: skip
    assert cells[4]["zh"].startswith("未测量；请运行 pytest")


@needs_browser
def test_a_published_value_is_not_broken(opened: Open, picture: Json) -> None:
    """The long cells beside it left "25.1" on one line and "4 req/s" on the next."""
    document = report(picture)
    load = {"workload": "128/128", "statistic": "request_throughput", "conditions": "x " * 200}
    figures = [{"value": 25.14, "unit": "req/s", **load}]
    document["models"][0]["published"] = {"source": "a document", "figures": figures}
    page = opened(document, viewport={"width": 1366, "height": 900})
    shown = page.get_by_text("25.14 req/s", exact=True)
    lines = "node => { const all = document.createRange(); all.selectNodeContents(node.lastChild);"
    assert shown.evaluate(f"{lines} return all.getClientRects().length; }}") == 1


@needs_browser
def test_the_address_of_a_row_opens_it(opened: Open, picture: Json) -> None:
    page = opened(report(picture), FAILED)
    assert page.inner_text("h1") == "baseline.image[image/page]"
    follow(page, "a:has-text('document.characters')")
    assert page.inner_text("h1") == "document.characters[image/page]"
    page.go_back()
    page.evaluate(NEXT_SCREEN)
    assert page.inner_text("h1") == "baseline.image[image/page]"


@needs_browser
@pytest.mark.parametrize("address", ["TestIt::nothing", "%", "constructor"])
def test_an_address_without_a_row_says_so(opened: Open, picture: Json, address: str) -> None:
    page = opened(report(picture), address)
    assert page.inner_text("h1") == "No result has this address."
    follow(page, "text=Back to all results")
    assert page.inner_text("h1") == "VLM conformance report"


@needs_browser
def test_two_rows_of_one_test_have_their_own_addresses(opened: Open, picture: Json) -> None:
    twice = [row("own.test", None, reason="", finding=text) for text in ("one", "two")]
    page = opened(report(picture, *twice), "TestIt::own.test~2")
    assert "two" in page.inner_text("dl")


@needs_browser
def test_the_evidence_of_a_test_of_the_user_may_be_anything(opened: Open, picture: Json) -> None:
    anything = {"per_position": 3, "series": [4], "texts": 5, "got": None, "answer": "six"}
    page = opened(report(picture, row("own.test", "text/own", evidence=anything)),
                  "TestIt::own.test[text/own]")  # fmt: skip
    assert page.inner_text("h1") == "own.test[text/own]"
    assert "series" in page.inner_text("main")


@needs_browser
def test_the_overview_has_counts_and_margins_by_model_and_group(
    opened: Open, picture: Json
) -> None:
    page = opened(report(picture))
    cells = page.locator(".groups tbody tr").first.locator("td").all_inner_texts()
    heads = page.locator(".groups thead th").all_inner_texts()[1:]
    of = dict(zip(heads, cells, strict=True))
    assert "✗ 1" in of["answers against the reference"]
    assert "-0.1 rate" in of["answers against the reference"]
    assert "✓ 1" in of["serving and API"]
    assert "an-org/absent" not in page.inner_text(".groups")
    follow(page, ".groups a:has-text('-0.1 rate')")
    assert page.inner_text("h1") == "baseline.image[image/page]"


@needs_browser
def test_filter_and_search_leave_what_matches(opened: Open, picture: Json) -> None:
    page = opened(report(picture))

    def found() -> list[str]:
        links: list[str] = page.locator("#found tbody a").all_inner_texts()
        return links

    whole = found()
    assert whole[0] == "baseline.image[image/page]"  # the failure is first
    assert "serving.video[clip/a]" not in whole  # not applicable: only if it is asked for
    page.check("input[value=na]")
    assert "serving.video[clip/a]" in found()
    page.uncheck("input[value=pass]")
    assert "serving.ready" in found()  # that of the absent model
    page.fill("input[name=words]", "年度数据 RECORDED")
    assert found() == []
    page.fill("input[name=words]", "661 MODEL")  # the answer of the served model
    assert found() == ["baseline.image[image/page]"]
    page.click("text=reset the filter")
    assert found() == whole
    page.select_option("select[name=class]", label="an-org/other")
    assert found() == ["baseline.text[text/a]"]
    page.click("text=reset the filter")
    page.select_option("select[name=group]", label="questions about images")
    assert found() == ["tasks.chart[chart/a]"]
    assert page.inner_text("#count") == "1 of 10 results match"
    page.click("text=reset the filter")
    page.locator(".groups tbody button").first.click()
    assert found() == ["serving.ready"]


@needs_browser
def test_many_results_are_shown_in_parts(opened: Open, picture: Json) -> None:
    page = opened(report(picture, *(row("baseline.text", f"text/{n}") for n in range(120))))
    expect_count(page, "#found tbody tr", 100)
    page.click("text=show 28 more")
    expect_count(page, "#found tbody tr", 128)


@needs_browser
def test_a_chart_shows_its_values(opened: Open, picture: Json) -> None:
    page = opened(report(picture), FAILED)
    page.locator(".u-over").hover(position={"x": 3, "y": 20})
    legend = page.inner_text(".u-legend")
    assert "text of the prompt" in legend
    assert "0.1" in legend
    page.click("text=values as a table")
    expect_count(page, "details table tbody tr", 15)
    timing = opened(report(picture), "TestIt::performance.single_stream[text]")
    timing.click("text=values as a table")
    assert timing.locator("details table tbody tr").all_inner_texts()[1].split() == ["2", "0.25"]


@needs_browser
def test_the_map_has_the_error_of_each_patch(opened: Open, picture: Json) -> None:
    page = opened(report(picture), FAILED)
    expect_count(page, ".patch", 12)
    page.locator(".patch").nth(5).hover()
    assert page.inner_text("output") == "patch 2, 2: 7"
    page.focus(".picture svg")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("output") == "patch 2, 3: 8"
    page.uncheck("text=show the map")
    assert not page.is_visible(".patch >> nth=0")


@needs_browser
def test_there_is_no_map_where_the_tokens_are_no_grid(opened: Open, picture: Json) -> None:
    other = row("numerics.logits", "error_ratio", evidence={
        "per_position": [sequence("image/page", tokens=13)]})  # fmt: skip
    document = report(picture)
    document["rows"][4] = other
    page = opened(document, FAILED)
    expect_count(page, ".patch", 0)
    assert "Numerics over the picture" not in page.inner_text("main")
    assert "Numerics along the sequence" in page.inner_text("main")


@needs_browser
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_a_model_says_is_text(opened: Open, picture: Json, text: str) -> None:
    evidence = {**compared(text, f"{text}!"), text: [text]}
    evidence["parting"]["served"] = [[text, -1.0]]
    document = report(
        picture,
        row("own.hostile", text, "fail", evidence=evidence, reason=text, finding=text, unit=text),
        device=text,
        versions={text: text},
    )
    document["rows"][1] |= {"evidence": evidence, "reason": text}
    document["models"][0]["cases"]["image/page"]["messages"][0] |= {"text": text, "role": text}
    written = text.encode("utf-8", "replace").decode()
    seen = " ".join(written.replace("\x00", "").split())[:60]
    for address in ("", FAILED, f"TestIt::own.hostile[{written}]"):
        page = opened(document, address)
        assert page.evaluate("window.harmed") is None
        expect_count(page, "main iframe, main script, main form[action], main base", 0)
        assert page.evaluate("getComputedStyle(document.body).display") == "block"
        expect_count(page, "main h1", 1)
        shown = page.evaluate("document.querySelector('main').textContent")
        assert seen in " ".join(shown.replace("\x00", "").split())
        assert page.is_visible(".warning")


@needs_browser
@pytest.mark.parametrize("address", ["", FAILED, "TestIt::nothing"])
def test_every_screen_says_that_this_is_no_npu(opened: Open, picture: Json, address: str) -> None:
    page = opened(report(picture), address, viewport={"width": 390, "height": 700})
    page.mouse.wheel(0, 3000)
    page.wait_for_timeout(200)
    box = page.locator(".warning").bounding_box()
    assert box["y"] == 0
    assert "not an NPU result" in page.inner_text(".warning")
    assert "Tiny checkpoint" in page.inner_text(".warning")
    assert "not an NPU result" in page.title()


@needs_browser
def test_real_weights_on_an_npu_have_no_warning_on_the_page(opened: Open, picture: Json) -> None:
    page = opened(report(picture, platform="npu", checkpoint="full"))
    expect_count(page, ".warning", 0)
    assert page.title() == "VLM conformance report"


@needs_browser
@pytest.mark.skipif(util.find_spec("pypdf") is None, reason="needs pypdf")
def test_each_sheet_of_paper_says_that_this_is_no_npu(
    opened: Open, picture: Json, tmp_path: Path
) -> None:
    from pypdf import PdfReader

    many = [row("baseline.text", f"text/{number}") for number in range(120)]
    page = opened(report(picture, *many), color_scheme="dark")
    page.pdf(path=tmp_path / "report.pdf")
    sheets = [sheet.extract_text() for sheet in PdfReader(tmp_path / "report.pdf").pages]
    assert len(sheets) > 1
    assert all("not an NPU result" in text for text in sheets)
    assert "reset the filter" not in "".join(sheets)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"


@needs_browser
def test_the_reader_chooses_the_language(opened: Open, picture: Json) -> None:
    page = opened(report(picture), locale="zh-CN")
    assert page.evaluate("document.documentElement.lang") == "zh"
    assert "不是 NPU 结果" in page.inner_text(".warning")
    assert page.inner_text("#results") == "结果"
    page.click("text=English")
    assert page.inner_text("#results") == "Results"
    assert "not an NPU result" in page.inner_text(".warning")
    assert page.evaluate("document.activeElement.textContent") == "English"


@needs_browser
def test_findings_reasons_and_units_are_in_the_readers_language(
    opened: Open, picture: Json
) -> None:
    reason = (
        f"numerics.images [size/a]: {TOLD}\n"
        "  measured 2.068 bf16 roundings, at most 2 is required (margin -0.068)\n"
        "  got: 'the answers do not diverge'"
    )
    told = {
        "finding": TOLD,
        "reason": reason,
        "unit": "bf16 roundings",
        "evidence": {"numbers": "raw logits of 32 tokens", "cold": "__proto__"},
    }
    # What a user's own test found is the user's.
    own = row("own.test_mine", "a", evidence={"numbers": "raw logits of 32 tokens"})
    document = report(picture, row("numerics.images", "size/a", "fail", **told), own)
    page = opened(document, "TestIt::numerics.images[size/a]", locale="zh-CN")
    words = page.inner_text("main")
    for shown in ("10 个位置的 R = 1.07", "倍 bf16 舍入误差", "测得 2.068", "__proto__",
                  "32 个 token 的原始 logits", "got: 'the answers do not diverge'"):  # fmt: skip
        assert shown in words
    for english in ("positions", "bf16 roundings", "measured 2.068", "raw logits"):
        assert english not in words
    assert page.get_attribute("pre", "lang") == "zh"
    page.click("text=English")
    words = page.inner_text("main")
    assert TOLD in words
    assert "bf16 roundings" in words
    assert page.get_attribute("pre", "lang") == "en"
    page = opened(document, "", locale="zh-CN")
    assert "倍 bf16 舍入误差" in page.inner_text(".groups")
    page.fill("[name=words]", "个位置的 R")
    expect_count(page, "#found tbody tr", 1)
    page = opened(document, "TestIt::own.test_mine[a]", locale="zh-CN")
    assert "raw logits of 32 tokens" in page.inner_text("main")


@needs_browser
@pytest.mark.parametrize("address", ["", FAILED])
def test_a_phone_shows_it_without_scrolling_sideways(
    opened: Open, picture: Json, address: str
) -> None:
    page = opened(report(picture), address, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@needs_browser
@pytest.mark.skipif(
    util.find_spec("axe_playwright_python") is None, reason="needs axe-playwright-python"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_has_no_serious_finding(opened: Open, picture: Json, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    grounds = set()
    for address in ("", FAILED, "TestIt::performance.single_stream[text]"):
        size = {"width": width, "height": 900}
        page = opened(report(picture), address, viewport=size, color_scheme=scheme)
        for summary in page.locator("summary").all():
            summary.click()
        found = Axe().run(page).response["violations"]
        serious = [one for one in found if one["impact"] in {"serious", "critical"}]
        assert not serious, json.dumps(serious, indent=1)[:3000]
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == {"rgb(255, 255, 255)" if scheme == "light" else "rgb(15, 19, 24)"}

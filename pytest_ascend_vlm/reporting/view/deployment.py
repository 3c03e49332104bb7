"""How the model was fetched and started: commands, variables, seconds and memory."""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from ..labels import PHASES, named
from ..phrase import Text, phrase
from ..sentences import sentence
from .container import docker_run
from .environment import Item
from .rows import Json, Rows, evidence, number, of
from .serve_arguments import purposes
from .serve_command import PORT, URL, ServeCommand, parse_serve_command


@dataclass(frozen=True)
class Variant:
    """Another way to serve the model.

    Attributes:
        name: its name in the model file.
        command: its command line as report.json has it.
        serve: the command in its parts.
    """

    name: str
    command: str
    serve: ServeCommand


@dataclass(frozen=True)
class Deployment:
    """The commands that fetch and serve the model.

    Attributes:
        container: the shell commands that start the container; empty if the image is unknown.
        download: the shell commands that fetch the weights.
        served_name: the model's name in requests.
        port_check: the shell command that shows who listens on the server's port.
        models_check: the shell command that asks the running server for its models.
        cards: logical ids of the cards that the server ran on; empty without cards.
        serve: the serve command in its parts, with the variables that the model file declares;
            None if the suite started no server.
        arguments: the arguments of the serve command, each with what it is for.
        serve_text: the deployment's command line as report.json has it; empty if there is none.
        suite_arguments: what the suite added to make internal values visible; a user leaves it
            out. Empty if it added nothing.
        variants: the other ways to serve the model that the model file declares and the suite
            judged. The servers that the suite starts for a measurement are not among them.
    """

    container: str
    download: str
    served_name: str
    port_check: str
    models_check: str
    cards: tuple[int, ...]
    serve: ServeCommand | None
    arguments: tuple[Item, ...]
    serve_text: str
    suite_arguments: str
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Check:
    """One check of the running service.

    Attributes:
        name: what was requested.
        passed: True if it holds, None if it was not judged.
        detail: the finding, or what went wrong.
    """

    name: Text
    passed: bool | None
    detail: Text


@dataclass(frozen=True)
class Start:
    """The start of the server.

    Attributes:
        checks: the basic checks: the API's two endpoints, with text and with an image.
        times: phase of the start -> seconds, and their sum.
        memory: memory of weights and KV cache, and of the whole server.
        log_lines: lines of the server's log that show its state.
    """

    checks: tuple[Check, ...]
    times: tuple[Item, ...]
    memory: tuple[Item, ...]
    log_lines: tuple[str, ...]


def deployment(receipt: Json, model: Json, rows: Rows) -> Deployment:
    """The deployment of a model."""
    line = str(model.get("serve_command") or "")
    name, revision = str(model["model"]), model.get("revision")
    pinned = ["--revision", str(revision)] if revision else []
    fetch = shlex.join(["modelscope", "download", "--model", name, *pinned])
    served = parse_serve_command(line)
    # A platform adds variables for its own host: the path of a library, the size of a cache.
    added = set(served.env if served else ()) - set(model.get("env") or ())
    cards = tuple(model.get("cards") or ())
    return Deployment(
        docker_run(receipt, len(cards)),
        f"pip install modelscope\n{fetch}\nexport VLLM_USE_MODELSCOPE=True",
        str(model.get("served_name") or name),
        f"ss -lntp | grep ':{PORT} ' || true",
        f"curl {URL}/models",
        cards,
        _without(served, added) if served else None,
        tuple(purposes(served)) if served else (),
        line,
        str(model.get("suite_arguments") or ""),
        tuple(_variants(model, rows, added)),
    )


def _variants(model: Json, rows: Rows, added: Container[str]) -> Iterable[Variant]:
    """The variants that a criterion judged; the suite's own servers have none of this name."""
    for name, facts in (model.get("variants") or {}).items():
        command = str(facts["serve_command"])
        served = parse_serve_command(command)
        if served and of(rows, f"equivalence.{name}"):
            yield Variant(name, command, _without(served, added))


def _without(served: ServeCommand, names: Container[str]) -> ServeCommand:
    """The command without these environment variables."""
    kept = {name: value for name, value in served.env.items() if name not in names}
    return replace(served, env=kept)


def start(model: Json, rows: Rows) -> Start:
    """The start of a model's server, and the basic checks of its API."""
    return Start(
        tuple(_checks(rows)),
        tuple(_times(model)),
        tuple(_memory(model, rows)),
        tuple(map(str, model.get("log_lines") or ())),
    )


def _checks(rows: Rows) -> Iterable[Check]:
    for name, criterion in (
        (phrase("GET /v1/models returns 200"), "serving.models"),
        (phrase("POST /v1/chat/completions returns 200 (text)"), "serving.text"),
        (phrase("POST /v1/chat/completions returns 200 (image)"), "serving.image"),
        (phrase("POST /v1/chat/completions returns 200 (video)"), "serving.video"),
        (phrase("streamed answers"), "serving.streaming"),
        (phrase("offline inference (LLM.chat)"), "serving.offline"),
    ):
        judged = [row for row in of(rows, criterion) if row["status"] not in {"na", "skip"}]
        if judged:
            bad = [row for row in judged if row["status"] != "pass"]
            shown = (bad or judged)[0]
            yield Check(name, not bad, sentence(str(shown["reason"] or shown.get("finding") or "")))


def _times(model: Json) -> Iterable[Item]:
    phases = model.get("phases_seconds") or {}
    for name, seconds in phases.items():
        yield Item(named(PHASES, name), phrase("{seconds:.2f} s", seconds=seconds))
    if phases:
        total = sum(phases.values())
        yield Item(phrase("whole start"), phrase("{seconds:.2f} s", seconds=total))
    own = number((model.get("memory") or {}).get("weights_seconds"))
    if own is not None:
        yield Item(
            phrase("loading of the weights, as vLLM states it"),
            phrase("{seconds:.2f} s", seconds=own),
        )


def _memory(model: Json, rows: Rows) -> Iterable[Item]:
    told = model.get("memory") or {}
    if (weights := number(told.get("weights_gib"))) is not None:
        yield Item(phrase("memory of the weights"), f"{weights:.2f} GiB")
    if (cache := number(told.get("kv_cache_gib"))) is not None:
        yield Item(phrase("memory of the KV cache"), f"{cache:.2f} GiB")
    if (tokens := number(told.get("kv_cache_tokens"))) is not None:
        yield Item(phrase("KV cache"), phrase("{count:,.0f} tokens", count=tokens))
    for row in of(rows, "serving.ready")[:1]:
        if (whole := number(evidence(row).get("memory_mib"))) is not None:
            yield Item(phrase("memory of the whole server"), f"{whole / 1024:.2f} GiB")

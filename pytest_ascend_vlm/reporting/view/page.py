"""The document of one model, section by section in the order of the field's documents."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from ...criteria.groups import needs_server
from ..phrase import Text, phrase
from ..sentences import sentence
from .agreement import Figure, agreement
from .answers import Comparisons, Repeats, cases_of, comparisons, repeats
from .bench_commands import bench_commands
from .card import card_items
from .conditions import setting_of
from .datasets import Score, datasets
from .deployment import Deployment, Start, deployment, start
from .environment import Item, Work, work_of_model
from .examples import Examples, examples
from .grid import Grid, grid
from .growth import Growth, growth
from .missing import Commands, Missing, commands
from .numerics import ErrorAnalysis, Numerics, error_analysis, numerics
from .published import Published, published
from .reading import Reading, Tasks, reading, tasks
from .rows import Json, Rows, counts, of
from .speed import Speed, speed
from .steps import Conclusion, Sections, Step, conclusion, steps
from .verdicts import (
    CriterionLine,
    Note,
    Problem,
    Suspect,
    Unsupported,
    criterion_lines,
    notes,
    problems,
    suspects,
    taken_over,
    unsupported,
)


@dataclass(frozen=True)
class Control:
    """One controlled comparison of the method.

    Attributes:
        name: what is compared.
        condition: what both sides have in common.
        purpose: what it shows.
    """

    name: Text
    condition: Text
    purpose: Text


@dataclass(frozen=True)
class Reference:
    """A page to read on.

    Attributes:
        name: its title.
        url: its address; empty for a document that is only named.
    """

    name: Text
    url: str


@dataclass(frozen=True)
class ModelPage:
    """One document: a model as one test class declares it.

    A section is `Missing` if the report has no evidence for it.

    Attributes:
        title: the model's id, with the test class if several classes declare this model.
        model: the model's id.
        suite_class: the test class.
        file_stem: the beginning of the names of its files, without a language.
        counts: status -> number of rows that judge the served model; of all rows if none does.
        taken_over: the earlier runs whose verdicts were taken over, one sentence each.
        work: what the run did for this model.
        card: the model table.
        deployment: download, variables, serve command, variants.
        examples: requests as code; None if the report has no cases.
        start: basic checks, seconds and memory of the start.
        method: the controlled comparisons.
        repeats: the same requests several times.
        text: text answers beside the reference's.
        image: answers about images beside the reference's.
        reading: the pages that were read.
        tasks: the questions about images.
        datasets: the scores of data sets.
        numerics: logits and hidden states against the reference.
        errors: where the error is.
        agreement: the figures of the community's section about the reference and the device.
        speed: latency, throughput, CPU usage.
        grid: speed by image size and number of requests.
        growth: memory and answers over many images.
        published: published figures beside the measured ones; None if the model file has none.
        criteria: all criteria with their worst case.
        suspects: the parts that the failures point to.
        problems: failures and errors.
        steps: the ten steps of the adaptation.
        conclusion: the conclusion.
        unsupported: what the model file declares as unsupported.
        notes: expected failures, and what was not judged.
        commands: name -> the command that repeats this part.
        references: pages to read on.
    """

    title: str
    model: str
    suite_class: str
    file_stem: str
    counts: Mapping[str, int]
    taken_over: tuple[Text, ...]
    work: Work
    card: tuple[Item, ...]
    deployment: Deployment
    examples: Examples | None
    start: Start
    method: tuple[Control, ...]
    repeats: Repeats | Missing
    text: Comparisons | Missing
    image: Comparisons | Missing
    reading: Reading | Missing
    tasks: Tasks | Missing
    datasets: tuple[Score, ...] | Missing
    numerics: Numerics | Missing
    errors: ErrorAnalysis | Missing
    agreement: tuple[Figure, ...]
    speed: Speed | Missing
    grid: Grid | Missing
    growth: Growth | Missing
    published: Published | None
    criteria: tuple[CriterionLine, ...]
    suspects: tuple[Suspect, ...]
    problems: tuple[Problem, ...]
    steps: tuple[Step, ...]
    conclusion: Conclusion
    unsupported: tuple[Unsupported, ...]
    notes: tuple[Note, ...]
    commands: tuple[Item, ...]
    references: tuple[Reference, ...]


def model_page(
    receipt: Json, model: Json, rows: Rows, *, is_alone: bool, charts: bool
) -> ModelPage:
    """The document of a model.

    Args:
        receipt: the receipt of the run.
        model: the facts of the model; only its name and class if its server never started.
        rows: the rows of its test class.
        is_alone: True if no other test class declares this model.
        charts: True if the page names the charts.
    """
    name, suite_class = str(model["model"]), str(model["suite_class"])
    run, cases = commands(receipt, suite_class), cases_of(model)
    found = _sections(model, rows, run, charts=charts)
    served, compared = deployment(receipt, model, rows), {"text": found.text, "image": found.image}
    return ModelPage(
        title=name if is_alone else f"{name} ({suite_class})",
        model=name,
        suite_class=suite_class,
        file_stem=_file_stem(name if is_alone else f"{name}.{suite_class}"),
        # Reference rows come from this CPU, wherever the model was served, so they do not count.
        counts=counts([r for r in rows if needs_server(r["criterion"])] or rows),
        taken_over=taken_over(rows),
        work=work_of_model(model),
        card=card_items(model),
        deployment=served,
        examples=examples(cases, rows, served.served_name, served.serve),
        start=start(model, rows),
        method=_method(found, rows),
        repeats=found.repeats,
        text=found.text,
        image=found.image,
        reading=found.reading,
        tasks=found.tasks,
        datasets=found.datasets,
        numerics=found.numerics,
        errors=error_analysis(rows, compared, run),
        agreement=agreement(rows, found.speed, run),
        speed=found.speed,
        grid=grid(rows, run, charts=charts),
        growth=growth(rows, run, charts=charts),
        published=published(model, rows, run, setting_of(receipt)),
        criteria=criterion_lines(rows),
        suspects=suspects(rows),
        problems=problems(rows),
        steps=steps(found, serves=served.serve is not None),
        conclusion=conclusion(found),
        unsupported=unsupported(model),
        notes=notes(rows),
        commands=(*_commands(receipt, run), *bench_commands(model, rows, served, receipt)),
        references=_references(name, model),
    )


def _sections(model: Json, rows: Rows, run: Commands, *, charts: bool) -> Sections:
    cases = cases_of(model)
    of_numbers = numerics(rows, str(model["suite_class"]), run, charts=charts)
    return Sections(
        model,
        rows,
        repeats(rows, cases, run),
        comparisons("baseline.text", rows, cases, run),
        comparisons("baseline.image", rows, cases, run),
        reading(rows, cases, run),
        tasks(rows, cases, run),
        of_numbers,
        datasets(rows, run),
        speed(rows, run, charts=charts),
    )


def _file_stem(name: str) -> str:
    """A name as the beginning of a file name: "org/model" is "org--model"."""
    return "adaptation." + re.sub(r"[^\w.-]", "-", name.replace("/", "--"))


def _method(found: Sections, rows: Rows) -> tuple[Control, ...]:
    greedy = phrase("temperature 0 (greedy), the same prompt, images and token limit")
    controls = []
    if not isinstance(found.repeats, Missing):
        runs = phrase("served model, {runs} runs", runs=found.repeats.runs)
        controls.append(Control(runs, greedy, phrase("equal requests get equal tokens")))
    near_greedy = [row for row in of(rows, "parameters.greedy") if row["case"] == "temperature"]
    if any(row["status"] == "pass" for row in near_greedy):
        controls.append(
            Control(
                phrase("near-greedy sampling, as applications use it"),
                phrase("temperature 0.01, top_p 0.001"),
                phrase("gives the greedy answer"),
            )
        )
    for section, name, purpose in (
        (found.text, phrase("text: served against reference"), phrase("language model")),
        (found.image, phrase("image: served against reference"), phrase("vision and language")),
    ):
        if not isinstance(section, Missing):
            controls.append(Control(name, greedy, purpose))
    if not isinstance(found.numerics, Missing):
        controls.append(
            Control(
                phrase("logits and hidden states against float32"),
                phrase("the reference's answer is forced token by token"),
                phrase("numerical error, position by position"),
            )
        )
    return tuple(controls)


def _commands(receipt: Json, run: Commands) -> tuple[Item, ...]:
    runs = receipt.get("runs") or [receipt]
    typed = [shlex.join(["pytest", *map(str, one["argv"])]) for one in runs]
    names = [phrase("run {number}", number=number) for number in range(1, len(runs) + 1)]
    return (
        *map(Item, names if len(runs) > 1 else [phrase("this run")], typed),
        Item(phrase("all criteria that always run"), run.run()),
        Item(phrase("performance"), run.run("performance")),
        Item(phrase("many requests at once"), run.run("ladder")),
        Item(phrase("speed by image size and load"), run.run("grid")),
        Item(phrase("memory over many images"), run.run("soak")),
        Item(phrase("data sets"), run.run("dataset")),
    )


def _references(name: str, model: Json) -> tuple[Reference, ...]:
    found = [
        Reference(phrase("model page on ModelScope"), f"https://modelscope.cn/models/{name}"),
        Reference(phrase("model page on Hugging Face"), f"https://huggingface.co/{name}"),
        Reference("vLLM-Ascend", "https://github.com/vllm-project/vllm-ascend"),
        Reference(phrase("documentation of vLLM-Ascend"), "https://docs.vllm.ai/projects/ascend/"),
    ]
    source = (model.get("published") or {}).get("source")
    return (*found, *([Reference(sentence(str(source)), "")] if source else []))

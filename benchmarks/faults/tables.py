"""Tables of a run in Markdown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .fault import Kind
from .outcome import Control, Result, diagnosed, rates


def tables(results: Sequence[Result], controls: Sequence[Control]) -> str:
    """All tables of a run, each below a sentence that says what it shows."""
    parts = []
    if results:
        parts += [
            "Faults that were detected, by kind:",
            rate_table(results),
            diagnosis_line(results),
            "Each fault, with the criteria that were red and their number of red cases. **Bold**: "
            "named by the fault. Behind ✗: named by the fault, and not red. Then the suspects of "
            "the diagnosis. **Bold**: the right one. Star: only the red rows are of this run; the "
            "diagnosis took the others from sound servers.",
            fault_table(results),
            "Each criterion that was red, with the faults that no other criterion showed:",
            criterion_table(results),
        ]
    if controls:
        parts += ["Runs on sound servers, and their false alarms:", control_table(controls)]
    return "\n\n".join(parts) + "\n"


def rate_table(results: Sequence[Result]) -> str:
    """Rates of detection by kind."""
    lines = [
        (
            rate.kind.value if rate.kind else "**all**",
            f"{rate.detected} of {rate.judged}",
            f"{rate.share:.0%}",
            f"{rate.as_named} of {rate.judged}",
        )
        for rate in rates(results)
    ]
    return table(("kind", "detected", "rate", "by every named criterion"), lines)


def diagnosis_line(results: Sequence[Result]) -> str:
    """The number of faults whose part was suspected, as a sentence."""
    judged = [one for one in results if one.seen.red]
    whole = [one for one in judged if one.seen.is_whole]
    return (
        f"Diagnosis: of {len(judged)} detected faults the right part was suspected first for "
        f"{diagnosed(judged, 1)}, and among the first two for {diagnosed(judged, 2)}. Of the "
        f"{len(whole)} without a star it was first for {diagnosed(whole, 1)}, and among the first "
        f"two for {diagnosed(whole, 2)}."
    )


def fault_table(results: Iterable[Result]) -> str:
    """Fault x criterion: one line a fault, kind by kind."""
    kinds = list(Kind)
    lines = [
        (
            f"`{one.fault.name}`",
            one.fault.kind.value,
            one.fault.place.value,
            one.model,
            one.fault.what,
            one.conclusion.value,
            one.seen.problem.partition("\n")[0] or _criteria(one),
            _diagnosis(one),
            f"{one.seen.date}{'' if one.seen.is_whole else ' *'}",
        )
        for one in sorted(results, key=lambda one: (kinds.index(one.fault.kind), one.fault.name))
    ]
    head = (
        "fault",
        "kind",
        "place",
        "model",
        "what is wrong",
        "outcome",
        "red criteria",
        "suspected",
        "judged on",
    )
    return table(head, lines)


def criterion_table(results: Iterable[Result]) -> str:
    """Criterion x fault: one line a criterion, the one that shows most faults first."""
    count: Counter[str] = Counter()
    alone: dict[str, list[str]] = defaultdict(list)
    for one in results:
        count.update(one.seen.red.keys())
        if len(one.seen.red) == 1:
            alone[next(iter(one.seen.red))].append(f"`{one.fault.name}`")
    lines = [
        (f"`{name}`", str(faults), ", ".join(alone[name]) or "–")
        for name, faults in sorted(count.items(), key=lambda item: (-item[1], item[0]))
    ]
    return table(("criterion", "faults", "alone"), lines)


def control_table(controls: Iterable[Control]) -> str:
    """False alarms: one line for each model and mode."""
    grouped: dict[tuple[str, str], list[Control]] = defaultdict(list)
    for control in controls:
        grouped[control.model, control.mode].append(control)
    lines = []
    for (model, mode), runs in grouped.items():
        red = sum((Counter(run.seen.red.keys()) for run in runs), Counter())
        problems = [run.seen.problem.partition("\n")[0] for run in runs if run.seen.problem]
        alarms = [f"`{name}` in {times}" for name, times in sorted(red.items())]
        lines.append((model, mode, str(len(runs)), ", ".join([*alarms, *problems]) or "none"))
    return table(("model", "served", "runs", "false alarms"), lines)


def line(name: str, conclusion: str, red: Mapping[str, int]) -> str:
    """A result as one line of the terminal."""
    found = ", ".join(f"{criterion} {cases}" for criterion, cases in sorted(red.items()))
    return f"{name}: {conclusion}; red: {found or '-'}"


def _criteria(result: Result) -> str:
    named, red = result.fault.caught_by, result.seen.red
    expected = [f"**`{name}`** {red[name]}" for name in named if name in red]
    others = [f"`{name}` {n}" for name, n in sorted(red.items()) if name not in named]
    green = [f"✗ `{name}`" for name in result.still_green]
    return ", ".join([*expected, *others, *green])


def _diagnosis(result: Result) -> str:
    """The suspects, the likelier one first; the right one is bold."""
    right, suspects = result.fault.suspect, result.seen.suspects
    return ", ".join(f"**{part}**" if part == right else part for part in suspects) or "–"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in rows)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")

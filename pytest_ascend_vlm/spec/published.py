"""Figures and answers that a document reports for a model, and limits on its speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ConfigurationError
from .field_types import require_types
from .number import is_finite


@dataclass(frozen=True)
class Figure:
    """A number that a document reports; a report shows it beside the measured one.

    It is never judged. It names the measured number by `workload` and `statistic`, or by `metric`.
    If the suite does not measure the number, `name` and `unmeasured` say what it is, and why not.

    Attributes:
        value: the number.
        unit: "ms", "tok/s", "%".
        workload: the name of a workload of the model.
        statistic: a statistic of its load: "latency.p99", "output_throughput".
            docs/performance.md lists them.
        metric: the report's name of a number that no workload has: "dataset.mmmu_val", "cpu.mean",
            "start". docs/performance.md lists them, too.
        name: the number in the words of the document.
        unmeasured: the reason why the suite does not measure it.
        device: the device, if it is not the document's. The document's versions and dtype are not
            those of this figure then.
        conditions: further conditions that the document states. A report does not compare them, so
            the conditions of the two numbers are not equal then.

    Raises:
        ConfigurationError: the figure names no measured number, or more than one.
    """

    value: float
    unit: str
    workload: str = ""
    statistic: str = ""
    metric: str = ""
    name: str = ""
    unmeasured: str = ""
    device: str = ""
    conditions: str = ""

    def __post_init__(self) -> None:
        require_types(self)
        ways = ((self.workload, self.statistic), (self.metric,), (self.name, self.unmeasured))
        used = [way for way in ways if any(way)]
        if len(used) != 1 or not all(used[0]):
            raise ConfigurationError(
                f"Figure({self.value}, {self.unit!r}) needs workload and statistic, or metric, or "
                'name and unmeasured: Figure(71.5, "ms", workload="128/128", '
                'statistic="latency.mean").'
            )


@dataclass(frozen=True)
class Limit:
    """A limit for a metric of the full checkpoint on one kind of device.

    Attributes:
        metric: the metric's name, "image.ttft.median"; docs/performance.md lists names and units.
        value: the maximum; for throughput and goodput, the minimum.
        device: a part of the device name in the report's receipt: "910B4". The limit applies to
            no other device.

    Raises:
        ConfigurationError: the value looks like a placeholder (a text, 0, 1, NaN, infinity), or the
            device is empty.
    """

    metric: str
    value: float
    device: str

    def __post_init__(self) -> None:
        if not is_finite(self.value) or self.value <= 0 or self.value == 1:
            raise ConfigurationError(
                f"Limit({self.metric!r}, {self.value!r}) looks like a placeholder: texts, 0, 1, "
                "NaN and infinity are refused. Declare the value that the device has to reach."
            )
        require_types(self)
        if not self.device.strip():
            raise ConfigurationError(f'Limit({self.metric!r}) has no device. Add device="910B4".')


@dataclass(frozen=True)
class Published:
    """Answers and figures that a document reports for the full checkpoint.

    Attributes:
        source: the document.
        device: the device of its figures, "Ascend 910 (64 GB)"; empty if it names none.
        versions: package -> version that served the model, {"vllm-ascend": "0.18.0rc1"}.
        dtype: the dtype of the served model; empty if the document does not state it.
        answers: case id -> the printed answer; it is the reference if no golden is recorded. A
            document may quote only the beginning of an answer, so only that part is compared.
        figures: the numbers in its tables.

    Raises:
        ConfigurationError: a field has the wrong type.
    """

    source: str
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    dtype: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()

    def __post_init__(self) -> None:
        require_types(self)

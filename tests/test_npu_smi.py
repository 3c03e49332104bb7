"""`npu-smi info` is read in every layout, and nothing but its own error comes of other text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm.platforms.cards import Card, CardProcess
from pytest_ascend_vlm.platforms.npu_smi import NpuSmiError, parse_npu_smi

TWO_CARDS = """
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.0                   Version: 24.1.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 4     910B3               | OK            | 91.5        41                0    / 0             |
| 0                         | 0000:81:00.0  | 12          0    / 0          21034/ 65536         |
+===========================+===============+====================================================+
| 5     910B3               | Warning       | 90.1        40                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          3388 / 65536         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 4       0                 | 71234         | VLLMWorker_TP            | 17600                   |
+===========================+===============+====================================================+
| No running processes found in NPU 5                                                            |
+===========================+===============+====================================================+
"""
TWO_DIES_WITH_PHYSICAL_IDS = """
| npu-smi 25.3.0                   Version: 25.3.0                                               |
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
| 3     Ascend910           | OK            | 170.2       50                0    / 0             |
| 0     6                   | 0000:91:00.0  | 0           0    / 0          3120 / 65536         |
| 3     Ascend910           | OK            | -           51                0    / 0             |
| 1     7                   | 0000:93:00.0  | 0           0    / 0          2880 / 65536         |
"""
WITHOUT_HBM = """
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
| 2048    310P3                 | OK              | NA           37                0     / 0             |
| 0       0                     | 0000:03:00.0    | 0            1700 / 44280                            |
| 2048    310P3                 | OK              | NA           37                0     / 0             |
| 1       1                     | 0000:03:00.0    | 0            1010 / 43693                            |
"""  # noqa: E501
PIDS_INSIDE_AND_OUTSIDE = """
| NPU   Name   | Health   | Power(W)  Temp(C)  Hugepages-Usage(page) | Extra |
| Chip         | Bus-Id   | AICore(%) Memory-Usage(MB) HBM-Usage(MB) | Extra |
| 0            | OK       | 90  41  0 / 0                            | -     |
| 0            | 0000:81:00.0 | 12  0 / 0  500/ 65536                | 300 / 900 |
| NPU  Chip | Process id | Process id in container | Process name | Process memory(MB) |
| 0    0    | 71234      | 17                      | 推理进程     | 400                |
"""
PIDS_INSIDE_LAST = """
| npu-smi 26.0.rc1                            Version: 26.0.rc1                                                    |
| NPU   Name                | Health        | Power(W)             Temp(C)                 Hugepages-Usage(page)   |
| Chip                      | Bus-Id        | AICore(%)            Memory-Usage(MB)        HBM-Usage(MB)           |
| 0     910B3               | OK            | 90.0                 44                      0    / 0                |
| 0                         | 0000:C1:00.0  | 0                    0    / 0                41842/ 65536            |
| NPU     Chip              | Process id    | Process name       | Process memory(MB)    | Process id in container |
| 0       0                 | 52754         | python3.1          | 150                   | NA                      |
| 0       0                 | 52755         |                    | 38000                 | 17                      |
"""  # noqa: E501
NAME_IN_ITS_OWN_COLUMN = """
| npu-smi 25.7.rc1                                 Version: 25.7.rc1                              |
| NPU ID | Name             | Health        | Power(W)    Temp(C)           Hugepages-Usage(page) |
|        |                  | Bus-Id        | NPU Util(%) Memory-Usage(MB)  HBM-Usage(MB)         |
| 0      | Ascend950PR      | Alarm         | 200.7       70                0     / 0             |
|        |                  | 0000:71:00.0  | 100         0    / 0          90600 / 114688        |
| 3      | Ascend950PR      | OK            | 190.7       60                0     / 0             |
|        |                  | NA            | 0           0    / 0          5240  / 114688        |
| NPU ID | Process id       | Process name  | Process memory(MB)            | Process id in container |
| 3      | 1001             | na            | 256                           | NA                      |
| 3      | 1002             | na            | 257                           | NA                      |
| No running processes found in NPU 0                                                             |
"""  # noqa: E501


def test_ids_need_not_start_at_zero_and_a_space_may_be_missing() -> None:
    assert parse_npu_smi(TWO_CARDS) == (
        Card(0, 4, 0, "910B3", "OK", 21034, 65536, (CardProcess(71234, "VLLMWorker_TP", 17600),)),
        Card(1, 5, 0, "910B3", "Warning", 3388, 65536),
    )


def test_two_dies_of_a_card_are_two_cards() -> None:
    assert parse_npu_smi(TWO_DIES_WITH_PHYSICAL_IDS) == (
        Card(0, 3, 0, "Ascend910", "OK", 3120, 65536),
        Card(1, 3, 1, "Ascend910", "OK", 2880, 65536),
    )


def test_a_card_without_hbm_has_its_ordinary_memory() -> None:
    assert parse_npu_smi(WITHOUT_HBM) == (
        Card(0, 2048, 0, "310P3", "OK", 1700, 44280),
        Card(1, 2048, 1, "310P3", "OK", 1010, 43693),
    )


def test_a_blank_name_and_further_columns_are_read() -> None:
    (card,) = parse_npu_smi(PIDS_INSIDE_AND_OUTSIDE)
    assert (card.name, card.memory_total_mib) == ("", 65536)
    assert card.processes == (CardProcess(71234, "推理进程", 400),)


def test_a_column_behind_the_memory_is_no_memory() -> None:
    (card,) = parse_npu_smi(PIDS_INSIDE_LAST)
    assert card.processes == (
        CardProcess(52754, "python3.1", 150),
        CardProcess(52755, "", 38000),
    )


def test_a_card_without_chips_has_its_name_in_a_column_of_its_own() -> None:
    assert parse_npu_smi(NAME_IN_ITS_OWN_COLUMN) == (
        Card(0, 0, 0, "Ascend950PR", "Alarm", 90600, 114688),
        Card(
            1,
            3,
            0,
            "Ascend950PR",
            "OK",
            5240,
            114688,
            (CardProcess(1001, "na", 256), CardProcess(1002, "na", 257)),
        ),
    )


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("dcmi module initialize failed. ret is -8005", "lsmod"),
        ("dcmi module initialize failed. ret is -8005", "another container uses the card"),
        ("dcmi model initialized failed, because the device is used. ret is -8020", "occupied"),
        ("error while loading shared libraries: libdrvdsmi_host.so", "LD_LIBRARY_PATH"),
        ("", "(nothing)"),
        ("bash: npu-smi: 找不到命令", "找不到命令"),
    ],
)
def test_an_error_text_becomes_advice(text: str, advice: str) -> None:
    with pytest.raises(NpuSmiError, match=r"npu-smi info shows no card") as caught:
        parse_npu_smi(text)
    assert advice in str(caught.value)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    _read_or_refused(text)


@given(
    st.lists(
        st.lists(st.sampled_from(["0", "0 910B4", "OK", "0000:81:00.0", "1/2", "NA", "٣", "", "a"]))
        | st.lists(st.text(max_size=5)),
        max_size=6,
    )
)
def test_any_table_is_read_or_refused(rows: list[list[str]]) -> None:
    _read_or_refused("\n".join(f"| {' | '.join(row)} |" for row in rows))


@given(st.integers(0, len(TWO_CARDS)), st.text(max_size=3))
def test_a_damaged_table_is_read_or_refused(at: int, inserted: str) -> None:
    _read_or_refused(TWO_CARDS[:at] + inserted + TWO_CARDS[at + 1 :])


def _read_or_refused(text: str) -> None:
    try:
        cards = parse_npu_smi(text)
    except NpuSmiError:
        return
    assert [card.index for card in cards] == list(range(len(cards)))

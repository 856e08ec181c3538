"""`tlfast doctor --bench`: the table of speeds, ratios and remarks."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict

import pytest

import tlfast
from tests.helpers.speeds import conditions, speeds, use_tiny_workload, use_usual
from tlfast.cli.formatting import describe_bench, speed_cells
from tlfast.commands import doctor_bench, usual_speeds
from tlfast.commands.doctor_bench import LOADER_BOUND, NO_REASON, judge_speeds
from tlfast.commands.doctor_reasons import Gpu
from tlfast.core import cache, processor
from tlfast.training.types import MEASURES

BUSY = "other programs used 1.0 of 2 cores"


def judge(measured, device="cpu", **changes):
    return judge_speeds(measured, conditions(**changes), device, "a network")


def test_ratios_are_those_to_the_usual_speed_of_all_cores(monkeypatch):
    use_usual(monkeypatch, "AVX2", 100.0)
    rows = {row.measure: row for row in judge(speeds(150.0)).speeds}
    assert {name: (row.usual, row.ratio, row.remark) for name, row in rows.items()} == {
        "decode_one": (100.0, 1.5, ""),
        **dict.fromkeys(("decode_all", "loader", "forward", "step"), (141.4, 1.06, "")),
    }


def test_only_a_speed_below_half_has_a_reason(monkeypatch):
    use_usual(monkeypatch, "AVX2", 100.0)
    result = judge(speeds(71.0, step=69.0), taken=1.0)
    remarks = {row.measure: row.remark for row in result.speeds}
    assert remarks["step"].startswith(BUSY) and set(remarks.values()) == {"", remarks["step"]}
    assert result.reasons == [remarks["step"]]  # said also where it does no harm


def test_a_slow_disk_is_no_reason_for_slow_training_steps(monkeypatch):
    use_usual(monkeypatch, "AVX2", 1000.0)
    remarks = {row.measure: row.remark for row in judge(speeds(1.0), disk=1.0).speeds}
    assert "TMPDIR" in remarks["decode_one"] and remarks["step"] == NO_REASON


@pytest.mark.parametrize(
    ("instructions", "torch_instructions", "said"),
    [("AMX", "AVX-512", "processor with AMX"), ("", "AVX-512", "processor with AVX-512"), ("", "", "another processor"), ("Apple", "other", "Apple processor")],
)
def test_a_kind_that_was_not_measured_is_said(monkeypatch, instructions, torch_instructions, said):
    use_usual(monkeypatch, "AVX2", 100.0)
    result = judge(speeds(1.0), instructions=instructions, torch_instructions=torch_instructions, taken=1.0)
    assert {(row.usual, row.ratio, row.remark) for row in result.speeds} == {(None, None, f"not measured yet: {said}")}
    assert any(reason.startswith(BUSY) for reason in result.reasons)


def test_on_a_gpu_only_decoding_is_compared_with_the_processor(monkeypatch):
    use_usual(monkeypatch, "AVX2", 100.0)
    remarks = {row.measure: (row.ratio, row.remark) for row in judge(speeds(150.0), "cuda").speeds}
    assert remarks["decode_one"] == (1.5, "") and remarks["decode_all"] == (1.06, "")
    assert {remarks[name] for name in ("loader", "forward", "step")} == {(None, "not measured yet: NVIDIA GPU")}


def test_reasons_of_the_gpu_come_first_on_a_gpu(monkeypatch):
    use_usual(monkeypatch, "cuda", 1000.0)
    rows = judge(speeds(100.0), "cuda", taken=1.0, gpu=Gpu(0.9, False, None)).speeds
    assert "used the GPU for 90%" in rows[-1].remark and rows[-1].usual == 1000.0  # of the whole device


@pytest.mark.parametrize(("device", "bound"), [("cuda", True), ("cpu", False)])
def test_a_gpu_that_waits_for_the_loader_is_said(device, bound):
    result = judge(speeds(500.0, loader=499.0), device)
    assert (result.speeds[2].remark == LOADER_BOUND) == bound == any(LOADER_BOUND in reason for reason in result.reasons)


def test_cells_of_the_table(monkeypatch):
    use_usual(monkeypatch, "AVX2", 1000.0)
    result = judge(speeds(1234.4))
    assert speed_cells(result.speeds[0]) == ("JPEG decoding, one thread", "1,234", "1,000", "1.23", "")
    assert describe_bench(result) == "speed on cpu, 2 cores with AVX2: a network"
    monkeypatch.setattr(usual_speeds, "USUAL_SPEEDS", ())
    assert speed_cells(judge(speeds(3.0)).speeds[0])[2:4] == ("-", "-")


def test_the_command_prints_the_table_and_leaves_nothing(cli, monkeypatch, tmp_path):
    use_tiny_workload(monkeypatch)
    use_usual(monkeypatch, "AVX2", 1e9)
    monkeypatch.setattr(processor, "find_instruction_set", lambda: "AVX2")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    outcome = cli("doctor", "--bench")
    lines = outcome.out.splitlines()
    assert outcome.code == 0 and not outcome.err and any(line.split() == ["measure", "images/s", "usual", "ratio", "remark"] for line in lines)
    assert all(any(measure.title in line and "0.00" in line for line in lines) for measure in MEASURES.values())
    assert not list((tmp_path / "temporary").iterdir()) and not cache.list_entries()


def test_json_and_python_have_the_same_values(cli, monkeypatch):
    use_tiny_workload(monkeypatch)
    printed = cli("doctor", "--bench", "--json").json
    returned = tlfast.doctor(bench=True, quiet=True)
    assert json.loads(json.dumps(returned)).keys() == printed.keys()
    for bench in (printed["bench"], returned["bench"]):
        assert [row["measure"] for row in bench["speeds"]] == list(MEASURES)
        assert bench["conditions"].keys() == asdict(conditions()).keys() and bench["conditions"]["scaling"] > 0
        assert bench["cores"] == bench["conditions"]["cores"] and isinstance(bench["reasons"], list)
    assert "bench" not in cli("doctor", "--json").json


def test_an_interruption_ends_with_130(cli, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor_bench, "inspect_limits", interrupt)
    outcome = cli("doctor", "--bench")
    assert outcome.code == 130 and "interrupted" in outcome.err


def test_the_frequency_is_the_highest_between_repetitions(monkeypatch):
    use_tiny_workload(monkeypatch)
    shares = iter([None, 0.5, 0.9])
    monkeypatch.setattr(processor, "read_frequency", lambda: next(shares, 0.1))
    assert doctor_bench.run_bench().conditions.frequency == 0.9
    monkeypatch.setattr(processor, "read_frequency", lambda: None)
    assert doctor_bench.run_bench().conditions.frequency is None


def test_stolen_time_is_a_share_of_the_time_between():
    assert doctor_bench._share_stolen((100, 10), (300, 60)) == 0.25
    assert doctor_bench._share_stolen(None, (300, 60)) is None and doctor_bench._share_stolen((5, 1), (5, 1)) is None

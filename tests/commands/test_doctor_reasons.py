"""Reasons for a slow machine, from invented states."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.speeds import conditions
from tlfast.commands import doctor_reasons
from tlfast.commands.doctor_reasons import Gpu, find_reasons, inspect_gpu, parse_gpu


def test_a_quiet_machine_has_no_reason():
    assert find_reasons(conditions()) == []
    assert find_reasons(conditions(taken=None, stolen=None, frequency=None, gpu=Gpu(0.0, False, None))) == []


@pytest.mark.parametrize(
    ("changes", "said", "concerns"),
    [
        ({"quota": 0.5}, "a control group allows 0.5 of 2 cores", "cpu"),
        ({"threads": 1, "thread_limits": {"OMP_NUM_THREADS": "1"}, "scaling": 1.0}, "torch uses 1 of 2 cores: unset OMP_NUM_THREADS=1", "cpu"),
        ({"debug_allocators": ["PYTHONMALLOC"]}, "a debug allocator is on: unset PYTHONMALLOC", "cpu disk"),
        ({"stolen": 0.25, "taken": 0.5}, "gave 25% of the time to others", "cpu"),
        ({"taken": 0.9}, "other programs used 0.9 of 2 cores", "cpu"),
        ({"taken": None, "load": 1.5}, "other programs use the cores (load average 1.5)", "cpu"),
        ({"frequency": 0.4}, "run at 40% of their highest frequency", "cpu"),
        ({"stolen": 0.25, "taken": 0.5, "scaling": 1.0}, "gave 25%", "cpu"),
        ({"cores": 64, "threads": 64, "scaling": 2.3}, "all 64 cores decode only 2.3 times as fast as one", "cpu"),
        ({"scaling": 1.1}, "all 2 cores decode only 1.1 times as fast as one", "cpu"),
        ({"instruction_limits": ["ATEN_CPU_CAPABILITY"], "torch_instructions": ""}, "unset ATEN_CPU_CAPABILITY", "cpu"),
        ({"torch_instructions": ""}, "torch uses no AVX2", "cpu"),
        ({"math_libraries": []}, "neither MKL nor oneDNN", "cpu"),
        ({"disk": 3.0}, "the temporary folder takes 3.0 MB/s: set TMPDIR", "disk"),
        ({"gpu": Gpu(0.5, False, 1.0)}, "other programs used the GPU for 50% of the time", "gpu"),
        ({"gpu": Gpu(0.0, True, None)}, "divided by MIG", "gpu"),
        ({"gpu": Gpu(0.0, False, 0.5)}, "power limit of the GPU is 50% of its default", "gpu"),
    ],
)
def test_each_state_is_one_reason(changes, said, concerns):
    (reason,) = find_reasons(conditions(**changes))
    assert said in reason.text and reason.concerns == tuple(concerns.split())


@pytest.mark.parametrize("instructions", ["ARM", "Apple"])
def test_arm_processors_need_no_avx2(instructions):
    assert find_reasons(conditions(instructions=instructions, torch_instructions="")) == []


def test_limits_come_before_other_programs():
    reasons = find_reasons(conditions(quota=1.0, taken=1.0, scaling=0.9))  # which explain why all cores are not faster than one
    assert [reason.text.split()[1] for reason in reasons] == ["control", "programs"]


def test_the_state_of_a_gpu_is_read_from_nvidia_smi(monkeypatch):
    asked = []

    def answer(command, **options):
        asked.append(command)
        return SimpleNamespace(stdout="3, [N/A], 350.00, 700.00\n")

    monkeypatch.setattr(doctor_reasons.subprocess, "run", answer)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-ab"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert inspect_gpu(torch.device("cuda", 0)) == Gpu(0.03, False, 0.5)
    assert asked[0][:2] == ["nvidia-smi", "--id=GPU-12-ab"]
    assert inspect_gpu(torch.device("cpu")) is None and len(asked) == 1


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 5), subprocess.CalledProcessError(9, "nvidia-smi")])
def test_a_gpu_without_nvidia_smi_is_unknown(monkeypatch, error):
    def fail(command, **options):
        raise error

    monkeypatch.setattr(doctor_reasons.subprocess, "run", fail)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace())
    for name, state in (("NVIDIA H200", None), ("NVIDIA H200 MIG 1g.18gb", Gpu(0.0, True, None))):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert inspect_gpu(torch.device("cuda", 0)) == state


def test_other_answers_of_nvidia_smi_are_unknown():
    assert parse_gpu("") is None and parse_gpu("No devices were found") is None
    assert parse_gpu("[N/A], Enabled, [N/A], [N/A]") == Gpu(0.0, True, None)


def test_the_disk_is_timed_in_the_given_folder_and_left_empty(tmp_path):
    assert doctor_reasons.time_disk(str(tmp_path)) > 0
    assert not list(tmp_path.iterdir())


def test_limits_name_only_variables_that_are_set(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    for name in doctor_reasons.INSTRUCTION_LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    limits = doctor_reasons.inspect_limits(["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
    assert limits["thread_limits"] == {"OMP_NUM_THREADS": "1"} and limits["instruction_limits"] == ["ONEDNN_MAX_CPU_ISA"] and limits["disk"] > 0

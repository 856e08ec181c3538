"""Facts about the processor, read from files as Linux writes them."""

from __future__ import annotations

import os
import platform
import sys

import pytest

from tlfast.core import processor, system


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("fpu sse2 avx", ""),
        ("fpu avx2", "AVX2"),
        ("avx2 avx512f avx512bw", "AVX-512"),
        ("avx2 avx512f amx_bf16 amx_tile", "AMX"),
        ("xavx2 avx512fx", ""),  # flags are whole words
    ],
)
def test_instruction_set_is_the_fastest_of_the_flags(tmp_path, monkeypatch, flags, name):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nmodel name : avx2 avx512f\nflags\t\t: {flags}\nbugs : avx2\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert processor.find_instruction_set() == name


@pytest.mark.parametrize(("system", "name"), [("darwin", "Apple"), ("linux", "ARM")])
def test_arm_processors_are_known_by_their_system(monkeypatch, system, name):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(sys, "platform", system)
    assert processor.find_instruction_set() == name


def test_quota_is_the_smallest_of_the_group_and_those_above(tmp_path, monkeypatch):
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/a/b\n")
    monkeypatch.setattr(processor, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(processor, "GROUPS", tmp_path)
    assert processor.read_quota() is None
    (group / "cpu.max").write_text("max 100000\n")
    assert processor.read_quota() is None
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    assert processor.read_quota() == 1.5


def test_memory_is_limited_by_the_groups(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "own").write_text("0::/a\n")
    monkeypatch.setattr(processor, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(processor, "GROUPS", tmp_path)
    assert processor.read_memory_limits() == []
    for name, text in {"memory.max": "3000000", "memory.current": "2500000", "memory.stat": "anon 1000000\ninactive_file 500000"}.items():
        (tmp_path / "a" / name).write_text(f"{text}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert processor.read_memory_limits() == [(3_000_000, 1_000_000)]
    assert system.total_memory_gib() == 3e6 / 2**30 and system.free_memory_gib() in (1e6 / 2**30, None)  # None without /proc
    (tmp_path / "a" / "memory.max").write_text("max\n")
    (tmp_path / "memory").mkdir()
    for name, text in {"memory.limit_in_bytes": "2000000", "memory.usage_in_bytes": "500000"}.items():
        (tmp_path / "memory" / name).write_text(f"{text}\n")
    assert processor.read_memory_limits() == [(2_000_000, 1_500_000)]


def test_quota_of_the_first_version_of_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "OWN_GROUP", tmp_path / "none")
    monkeypatch.setattr(processor, "GROUPS", tmp_path)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for quota, cores in (("-1", None), ("50000", 0.5)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
        assert processor.read_quota() == cores


def test_groups_of_the_first_version_below_a_job(tmp_path, monkeypatch):
    (tmp_path / "own").write_text("9:memory:/slurm/job_7\n4:cpu,cpuacct:/slurm/job_7\n0::/\n")
    monkeypatch.setattr(processor, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(processor, "GROUPS", tmp_path)
    values = {"memory/memory.limit_in_bytes": "9000000", "memory/memory.usage_in_bytes": "1000000", "memory/slurm/job_7/memory.limit_in_bytes": "2000000"}
    values |= {
        "memory/slurm/job_7/memory.usage_in_bytes": "500000",
        "cpu/slurm/job_7/cpu.cfs_quota_us": "150000",
        "cpu/slurm/job_7/cpu.cfs_period_us": "100000",
    }
    for name, text in values.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert sorted(processor.read_memory_limits()) == [(2_000_000, 1_500_000), (9_000_000, 8_000_000)]
    assert processor.read_quota() == 1.5


def test_frequency_is_that_of_the_fastest_core(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "PROCESSORS", tmp_path)
    assert processor.read_frequency() is None
    for core, now in ((0, 800_000), (1, 1_500_000)):
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{now}\n")
        (folder / "cpuinfo_max_freq").write_text("3000000\n")
    assert processor.read_frequency() == 0.5


def test_ticks_of_an_old_or_missing_file_are_unknown(tmp_path, monkeypatch):
    assert processor.parse_ticks("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2\n") == (36, 8)
    assert processor.parse_ticks("cpu  1 2 3 4\n") is None
    monkeypatch.setattr(processor, "STAT", tmp_path / "none")
    assert processor.read_ticks() is None


@pytest.mark.skipif(not processor.STAT.exists(), reason="there is no /proc/stat")
def test_the_use_of_the_cores_is_that_of_others(monkeypatch, tmp_path):
    stat, clock, own = tmp_path / "stat", [10.0], [3.0]
    ticks = os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(processor, "STAT", stat)
    monkeypatch.setattr(processor.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(processor.time, "process_time", lambda: own[0])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2})

    def write(first, ignored, second):
        stat.write_text(f"cpu 0 0 0 0 0 0 0 0 0 0\ncpu0 {first} 0 0 5 5 0 0 0 0 0\ncpu1 {ignored} 0 0 0 0 0 0 0 0 0\ncpu2 0 {second} 0 0 0 0 0 0 0 0\n")

    write(100 * ticks, 0, 50 * ticks)
    use = processor.CoreUse()
    clock[0], own[0] = 12.0, 6.0  # two seconds later; this process has used 1.5 cores
    write(102 * ticks, 2 * ticks, 52 * ticks)  # both of its cores were busy
    assert use.taken() == pytest.approx(0.5)
    clock[0] = 13.0
    assert use.taken() == 0.0
    assert use.taken() == 0.0  # at the same moment


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, []),
        ({"MALLOC_CHECK_": "0", "PYTHONMALLOC": "pymalloc", "LD_PRELOAD": "/lib/libjemalloc.so"}, []),
        ({"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "7"}, ["MALLOC_CHECK_", "MALLOC_PERTURB_"]),
        ({"PYTHONDEVMODE": "1", "PYTHONMALLOC": "debug"}, ["PYTHONDEVMODE", "PYTHONMALLOC"]),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=3", "LD_PRELOAD": "libc_malloc_debug.so.0"}, ["GLIBC_TUNABLES", "LD_PRELOAD"]),
    ],
)
def test_debug_allocators_are_found_in_the_environment(environment, found):
    assert processor.find_debug_allocators(environment) == found

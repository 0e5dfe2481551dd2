"""What a container, a batch job or a scope leaves of a machine's processors and memory: files as Linux has them."""

import os

import pytest

from lthcore.runs import limits, processes, sweep

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Writes files of /proc and /sys, of a machine of 8 processors and 32 GB of available memory."""
    for name, path in (("MEMINFO", "proc/meminfo"), ("GROUPS", "proc/self/cgroup"), ("MOUNTED", "sys/fs/cgroup")):
        monkeypatch.setattr(limits, name, tmp_path / path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)

    def write(files):
        for path, text in {"proc/meminfo": f"MemAvailable:  {32 * GB // 1024} kB\n", **files}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)

    write({})
    return write


V2, V1 = "sys/fs/cgroup/", "sys/fs/cgroup/cpu/"
QUOTAS = {  # files -> processors
    "none": ({}, 8),
    "a container, v2": ({V2 + "cpu.max": "200000 100000\n"}, 2),
    "one and a half": ({V2 + "cpu.max": "150000 100000\n"}, 2),
    "a tenth": ({V2 + "cpu.max": "10000 100000\n"}, 1),
    "no quota, v2": ({V2 + "cpu.max": "max 100000\n"}, 8),
    "more than there are": ({V2 + "cpu.max": "6400000 100000\n"}, 8),
    "a container, v1": ({V1 + "cpu.cfs_quota_us": "300000\n", V1 + "cpu.cfs_period_us": "100000\n"}, 3),
    "no quota, v1": ({V1 + "cpu.cfs_quota_us": "-1\n", V1 + "cpu.cfs_period_us": "100000\n"}, 8),
    "a batch job, v2": (
        {"proc/self/cgroup": "0::/slurm/job_7/step_0\n", V2 + "slurm/job_7/step_0/cpu.max": "max 100000\n",
         V2 + "slurm/job_7/cpu.max": "400000 100000\n"}, 4
    ),
    "a batch job, v1": (
        {"proc/self/cgroup": "5:memory:/x\n3:cpu,cpuacct:/job:7\n0::/\n", V1 + "job:7/cpu.cfs_quota_us": "500000\n",
         V1 + "job:7/cpu.cfs_period_us": "100000\n", V1 + "x/cpu.cfs_quota_us": "100000\n",
         V1 + "x/cpu.cfs_period_us": "100000\n"}, 5
    ),
    "out of its root": ({"proc/self/cgroup": "0::/../../etc\n"}, 8),
    "nonsense": (
        {"proc/self/cgroup": "\n:\nx:y\n0::\n", V2 + "cpu.max": "1 2 3\n", V1 + "cpu.cfs_quota_us": "many\n"}, 8
    ),
    "a period of 0": ({V2 + "cpu.max": "100000 0\n"}, 8),
}  # fmt: skip


@pytest.mark.parametrize("what", QUOTAS)
def test_a_quota_of_processors_is_respected(machine, what):
    files, expected = QUOTAS[what]
    machine(files)
    assert limits.processors() == sweep.default_workers("cpu") == expected


def test_affinity_is_respected(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 6}, raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert limits.processors() == 3
    machine({V2 + "cpu.max": "200000 100000\n"})
    assert limits.processors() == 2


M1 = "sys/fs/cgroup/memory/"
MEMORY = {  # files -> bytes that are available
    "none": ({}, 32 * GB // 1024 * 1024),
    "a container, v2": ({V2 + "memory.max": f"{8 * GB}\n", V2 + "memory.current": f"{3 * GB}\n"}, 5 * GB),
    "cached files": (
        {V2 + "memory.max": f"{8 * GB}\n", V2 + "memory.current": f"{7 * GB}\n",
         V2 + "memory.stat": f"anon 5\nfile {6 * GB}\ninactive_file {4 * GB}\n"}, 5 * GB
    ),
    "no limit, v2": ({V2 + "memory.max": "max\n", V2 + "memory.current": "5\n"}, 32 * GB // 1024 * 1024),
    "over its limit": ({V2 + "memory.max": f"{GB}\n", V2 + "memory.current": f"{2 * GB}\n"}, 0),
    "more than there is": ({V2 + "memory.max": f"{99 * GB}\n"}, 32 * GB // 1024 * 1024),
    "a container, v1": (
        {M1 + "memory.limit_in_bytes": f"{4 * GB}\n", M1 + "memory.usage_in_bytes": f"{2 * GB}\n",
         M1 + "memory.stat": f"inactive_file 7\ntotal_inactive_file {GB}\n"}, 3 * GB
    ),
    "no limit, v1": ({M1 + "memory.limit_in_bytes": "9223372036854771712\n"}, 32 * GB // 1024 * 1024),
    "a scope in a slice": (
        {"proc/self/cgroup": "0::/user.slice/run-1.scope\n", V2 + "user.slice/memory.max": f"{6 * GB}\n",
         V2 + "user.slice/memory.current": f"{GB}\n", V2 + "user.slice/run-1.scope/memory.max": "max\n"}, 5 * GB
    ),
    "a job, v1": (
        {"proc/self/cgroup": "9:name=systemd:/\n4:memory:/job/7\n", M1 + "job/7/memory.limit_in_bytes": f"{2 * GB}\n",
         M1 + "job/7/memory.usage_in_bytes": "0\n"}, 2 * GB
    ),
    "nonsense": ({V2 + "memory.max": "-5\n", V2 + "memory.stat": "x\ny z w\n"}, 32 * GB // 1024 * 1024),
}  # fmt: skip


@pytest.mark.parametrize("what", MEMORY)
def test_a_limit_of_memory_is_respected(machine, what):
    files, expected = MEMORY[what]
    machine(files)
    assert limits.free_memory() == expected


def test_a_system_that_says_nothing_limits_nothing(machine):
    limits.MEMINFO.unlink()
    assert limits.free_memory() is None and sweep.default_workers("cpu") == limits.processors() == 8


def test_a_small_container_gets_few_processes_and_many_are_refused_in_one_line(machine):
    machine({V2 + "memory.max": f"{4 * GB}\n", V2 + "memory.current": f"{GB // 10}\n"})
    workers = sweep.default_workers("cpu")
    assert workers == 2 and processes.memory(workers) == 3 * processes.MEMORY
    with pytest.raises(RuntimeError) as caught:
        processes.memory(8)
    assert len(str(caught.value).splitlines()) == 1 and "3.9 GB are available" in str(caught.value)
    machine({V2 + "memory.max": f"{GB}\n"})
    assert sweep.default_workers("cpu") == 1

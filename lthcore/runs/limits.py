"""Processors and memory that this process may use: the machine's, or less in a container. Standard library only.

A container, a batch job or a systemd scope is a control group of Linux. Version 2 keeps a group's limits in
``cpu.max`` and ``memory.max``, version 1 in ``cpu.cfs_quota_us`` and ``memory.limit_in_bytes``; those of the groups
above it hold as well.
"""

import contextlib
import math
import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUPS = Path("/proc/self/cgroup")  # which groups this process is in
MOUNTED = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # bytes: version 1 says a number of this size where there is no limit


def processors():
    """Number of processors that this process may use at once: int, at least 1."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13: affinity too
        allowed = os.process_cpu_count()
    else:
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [quota for folder in _groups("cpu") if (quota := _quota(folder)) is not None]
    return max(1, min([allowed or 1, *map(math.ceil, quotas)]))


@contextlib.contextmanager
def one_thread():
    """Within it torch computes on one thread: networks as small as these lose by more, above all on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def free_memory():
    """Bytes that are available: int, or None where the system does not say."""
    known = [_available(), *map(_left, _groups("memory"))]
    return min((free for free in known if free is not None), default=None)


def _groups(controller):
    """Folders of the groups whose limits hold for this process: its own and those above it."""
    roots = [MOUNTED, MOUNTED / controller]  # in a container its own group is what is mounted
    folders = dict.fromkeys(roots)
    for line in _text(GROUPS).splitlines():
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)  # version 2 names none
        if controllers and controller not in controllers.split(","):
            continue
        group = roots[bool(controllers)] / path.strip("/")
        folders |= dict.fromkeys(folder for folder in (group, *group.parents) if folder.is_relative_to(MOUNTED))
    return list(folders)


def _quota(folder):
    """Processors that a group may use, such as 1.5, or None."""
    values = _text(folder / "cpu.max").split()
    if len(values) != 2:
        values = [_text(folder / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    quota, period = map(_number, values)
    return quota / period if quota and period else None


def _left(folder):
    """Bytes that a group may still take, or None. Cached files count as used and are given up when memory is short."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        ceiling = _number(_text(folder / limit))
        if ceiling is not None and ceiling < UNLIMITED:
            reclaimable = dict(line.split()[:2] for line in _text(folder / "memory.stat").splitlines() if " " in line)
            taken = (_number(_text(folder / used)) or 0) - (_number(reclaimable.get(cached, "")) or 0)
            return max(0, ceiling - max(0, taken))
    return None


def _available():
    """Bytes that the machine has available, or None."""
    for line in _text(MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            kilobytes = _number(line.removeprefix("MemAvailable:").removesuffix("kB"))
            return None if kilobytes is None else 1024 * kilobytes
    return None


def _number(word):
    """A whole number from 0 on, or None for "max", "-1" and what is none."""
    word = word.strip()
    return int(word) if word.isascii() and word.isdecimal() else None


def _text(path):
    """What a file of the system says; nothing where there is none."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""

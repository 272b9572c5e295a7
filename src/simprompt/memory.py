"""Peak memory of this process since a mark."""

from __future__ import annotations

import contextlib
from pathlib import Path


def reset_peak() -> None:
    """Start a new measurement, where the system can forget its old peak (Linux)."""
    with contextlib.suppress(OSError):  # elsewhere the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_mb() -> float:
    """Largest resident memory in MB since `reset_peak`, or since the process began."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
        import sys
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def limit_mb() -> float:
    """Memory that this process may use at most, in MB: the machine's or its container's; NaN
    where the system does not say."""
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemTotal:"):
                limits.append(int(line.split()[1]) / 1024)
    except OSError:
        pass
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup 2, cgroup 1
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text(encoding="utf-8")) / 2**20)
    return min(limits, default=float("nan"))

"""Readings of a node: what its QEMU uses, and the temperature and power that a machine with that load would show."""

import asyncio
import os
import zlib
from pathlib import Path

from ..bmc.machine import Health

RECENT_SECONDS = 10.0
"""How old the sample before may be; otherwise a new one is taken, over `SHORT_SECONDS`."""
SHORT_SECONDS = 0.25
BETWEEN_SECONDS = 1.0
"""A load is the mean over at least so long where somebody asks often."""

INLET_CELSIUS = 22.0
IDLE_WATTS, WATTS_PER_CPU, WATTS_PER_GIB = 45.0, 12.0, 0.4

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
AFTER_NAME = {"utime": 11, "stime": 12}
"""Fields of /proc/PID/stat, counted from what follows the name (proc_pid_stat(5))."""


class Readings:
    """Of one node with so many CPUs and so much memory; `proc` is /proc."""

    def __init__(self, name: str, cpus: int, memory_mib: int, proc: Path = Path("/proc")) -> None:
        self._cpus, self._memory_mib, self._proc = max(1, cpus), memory_mib, proc
        self._place_celsius = zlib.crc32(name.encode()) % 16 / 10
        """The same machine is always a little warmer than its neighbour."""
        self._pid = 0
        self._sample = (0.0, 0.0)
        self._load = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def read(self, pid: int | None) -> Health:
        """The readings now; those of a machine that is off (no `pid`) are 0, except the inlet temperature."""
        try:
            async with self._one_at_a_time:
                load = await self._cpu_load(pid) if pid else 0.0
            used = self._memory_used(pid) if pid else 0
        except (FileNotFoundError, ProcessLookupError):
            pid, load, used = None, 0.0, 0
        return Health(
            cpu_load_percent=round(load, 1),
            memory_used_mib=used,
            inlet_celsius=round(INLET_CELSIUS + self._place_celsius + 4.0 * load / 100, 1),
            power_watts=round(self._watts(load), 1) if pid else 0.0,
        )

    def _watts(self, load: float) -> float:
        return IDLE_WATTS + WATTS_PER_CPU * self._cpus * load / 100 + WATTS_PER_GIB * self._memory_mib / 1024

    async def _cpu_load(self, pid: int) -> float:
        """Percent of all the node's CPUs, over the time since the last sample."""
        clock = asyncio.get_running_loop().time
        then, before = self._sample
        if pid != self._pid or clock() - then > RECENT_SECONDS:
            then, before = clock(), self._cpu_seconds(pid)
            await asyncio.sleep(SHORT_SECONDS)
        elif clock() - then < BETWEEN_SECONDS:
            return self._load
        now, used = clock(), self._cpu_seconds(pid)
        self._pid, self._sample = pid, (now, used)
        self._load = min(100.0, 100 * (used - before) / max(now - then, 0.01) / self._cpus)
        return self._load

    def _cpu_seconds(self, pid: int) -> float:
        text = (self._proc / str(pid) / "stat").read_text()
        words = text.rpartition(")")[2].split()
        return sum(int(words[index]) for index in AFTER_NAME.values()) / TICKS

    def _memory_used(self, pid: int) -> int:
        resident = int((self._proc / str(pid) / "statm").read_text().split()[1])
        return min(self._memory_mib, resident * PAGE >> 20)

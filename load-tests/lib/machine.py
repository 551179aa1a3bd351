"""Processes, their cores, their processor time and their memory, as Linux tells."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
# The proxy has a core for itself; what makes the load shares the others.
PROXY_CORES = CORES[:1]
LOAD_CORES = CORES[1:] or CORES


class Failure(Exception):
    """What ends a run: a wrong answer, a program that does not start."""


def pinned(cores: list[int], command: list[str]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cores)), *command]


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [place.getsockname()[1] for place in held]
    for place in held:
        place.close()
    return ports


class Process:
    """A program that runs until it is ended, with all its children."""

    def __init__(self, command: list[str], cores: list[int], directory: Path, output: str, **options) -> None:
        self.output = directory / output
        with self.output.open("wb") as out, (directory / f"{output}.err").open("wb") as err:
            self.child = subprocess.Popen(
                pinned(cores, command), stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=directory, **options
            )

    def running(self) -> bool:
        return self.child.poll() is None

    def said(self) -> str:
        """The end of what it wrote, for messages."""
        texts = (path.read_text(errors="replace")[-1500:] for path in (self.output, Path(f"{self.output}.err")))
        return "\n".join(text for text in texts if text.strip())

    def all(self) -> list[int]:
        """Its id and those of its descendants."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parents.setdefault(int(_stat(entry.name)[1]), []).append(int(entry.name))
                except OSError:
                    continue
        found = [self.child.pid]
        for pid in found:
            found += parents.get(pid, [])
        return found

    def cpu(self) -> float:
        """Processor time in seconds, user and system, of all its processes and their threads, also ended ones."""
        return sum(sum(map(int, _stat(str(pid))[11:13])) for pid in self.all()) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """The proportional set size of all its processes, in bytes: what is shared counts once."""
        return sum(_pss(pid) for pid in self.all())

    def end(self) -> None:
        """In order, or by force after some seconds."""
        if self.running():
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(8)
            except subprocess.TimeoutExpired:
                for pid in reversed(self.all()):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                self.child.wait()


def _stat(pid: str) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the second may hold spaces."""
    return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()


def _pss(pid: int) -> int:
    for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise Failure("this kernel does not tell the proportional set size")


def describe() -> dict[str, object]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        os.uname().machine,
    )
    return {
        "processor": model,
        "cores": len(CORES),
        "kernel": ".".join(os.uname().release.split(".")[:2]),
        "load": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def wait_until(condition, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"{what} took longer than {seconds:.0f} s")
        time.sleep(0.02)

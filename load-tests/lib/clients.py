"""What makes the load, and what came of it."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from machine import LOAD_CORES, Failure, pinned
from workloads import Variant

HERE = Path(__file__).resolve().parent
TOKENS = 1_000


@dataclass(frozen=True)
class Outcome:
    requests: int
    errors: int
    seconds: float
    """Of answers, or of bodies that were sent."""
    bytes: int
    """Microseconds."""
    p50: float
    p99: float
    p999: float
    first_error: str | None = None


@dataclass(frozen=True)
class Load:
    """Where the load comes from: our own client, a directory for what others need, and tokens."""

    program: str
    directory: Path
    tokens: list[str]

    def run(self, variant: Variant, port: int, seconds: float) -> Outcome:
        """Loads the port for that long, and returns what came of it."""
        address = f"127.0.0.1:{port}"
        count, time = str(variant.connections), f"{max(1, round(seconds))}"
        match variant.client:
            case "wrk":
                return self._wrk(variant, address, time)
            case "h2load":
                return self._h2load(variant, port, time)
            case "connections":
                return self._own("connections", address, count, time)
            case "handshakes":
                return self._own("handshakes", address, count, time, str(variant.options["kind"]))
            case "transfer":
                return self._own("transfer", address, count, time, str(variant.options["way"]), str(variant.size))
        raise Failure(f"there is no client {variant.client}")

    def _own(self, *arguments: str) -> Outcome:
        told = _run([self.program, *arguments])
        return Outcome(**json.loads(told.stdout))

    def _wrk(self, variant: Variant, address: str, time: str) -> Outcome:
        requests = self.directory / "requests"
        if variant.options.get("tokens"):
            lines = [f"{variant.path} {token}" for token in self.tokens]
        elif variant.routes:
            step = max(1, variant.routes // 100)
            lines = [f"/r/{index}/users/42" for index in range(0, variant.routes, step)]
        else:
            lines = [variant.path]
        requests.write_text("\n".join(lines) + "\n")
        script = str(HERE / "wrk.lua")
        command = ["wrk", "-t", "1", "-c", str(variant.connections), "-d", time, "--timeout", "10s", "-s", script]
        told = _run([*command, f"http://{address}"], REQUESTS=str(requests))
        return Outcome(**json.loads(told.stderr))

    def _h2load(self, variant: Variant, port: int, time: str) -> Outcome:
        times = self.directory / "times"
        times.unlink(missing_ok=True)
        command = ["h2load", "-t", "1", "-c", str(variant.connections), "-D", time, f"--log-file={times}"]
        command += ["--h1"] if variant.options.get("h1") else ["-m", str(variant.options["streams"])]
        scheme = "http"
        if variant.options.get("tls"):
            scheme = "https"
            command += ["--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--groups=X25519"]
        told = _run([*command, f"{scheme}://localhost:{port}{variant.path}", f"--connect-to=127.0.0.1:{port}"]).stdout
        counts = re.search(r"requests: (\d+) total.* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", told)
        good = re.search(r"status codes: (\d+) 2xx", told)
        took = re.search(r"finished in ([\d.]+)(m?s)", told)
        moved = re.search(r"\((\d+)\) total", told)
        if not (counts and good and took and moved):
            raise Failure(f"h2load says:\n{told}")
        latencies = sorted(int(line.split("\t")[2]) for line in times.read_text().splitlines())
        if not latencies:
            raise Failure(f"no request was answered; h2load says:\n{told}")
        at = lambda share: latencies[min(len(latencies) - 1, int(len(latencies) * share))]
        requests = int(good[1])
        return Outcome(
            requests=requests,
            errors=int(counts[3]) + int(counts[5]) + int(counts[2]) - requests,
            seconds=float(took[1]) / (1000 if took[2] == "ms" else 1),
            bytes=int(moved[1]),
            p50=at(0.5),
            p99=at(0.99),
            p999=at(0.999),
        )


class Held:
    """Connections that are used once and then do nothing."""

    def __init__(self, load: Load, port: int, count: int, tls: bool) -> None:
        command = pinned(LOAD_CORES, [load.program, "hold", f"127.0.0.1:{port}", str(count), *(["tls"] if tls else [])])
        self.count = count
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.child.stdout
        if self.child.stdout.readline() != "held\n":
            self.child.wait()
            raise Failure("the connections could not be opened")

    def let_go(self) -> None:
        """Fails when any of them is no longer open."""
        told, _ = self.child.communicate(timeout=60)
        still = json.loads(told)["open"]
        if still != self.count:
            raise Failure(f"only {still} of {self.count} connections stayed open")


def make_tokens(program: str, key: Path, issuer: str, audience: str) -> dict[str, list[str]]:
    """Tokens by what they are: `valid`, or what is wrong with them."""
    told = _run([program, "tokens", str(key), str(TOKENS), issuer, audience]).stdout
    tokens: dict[str, list[str]] = {}
    for line in told.splitlines():
        kind, token = line.split()
        tokens.setdefault(kind, []).append(token)
    return tokens


def _run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        pinned(LOAD_CORES, command),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
        check=False,
    )
    if ended.returncode != 0:
        raise Failure(f"{command[0]} failed:\n{ended.stdout}{ended.stderr}")
    return ended

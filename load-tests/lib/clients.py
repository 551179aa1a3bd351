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


# What wrk offers over TLS: the same to every server, as our own client does.
_ONE_CIPHER = """\
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = offered
[offered]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""


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

    def requests(self, variant: Variant, port: int, clients: int, count: int) -> Outcome:
        """So many requests in all, over connections that are kept."""
        return self._own("requests", f"127.0.0.1:{port}", str(clients), str(count), str(self._requests(variant)))

    def _own(self, *arguments: str) -> Outcome:
        told = _run([self.program, *arguments])
        return Outcome(**json.loads(told.stdout))

    def _requests(self, variant: Variant) -> Path:
        """A file with a line for each different request."""
        if variant.options.get("tokens"):
            lines = [f"{variant.path} {token}" for token in self.tokens]
        elif variant.routes:
            step = max(1, variant.routes // 100)
            lines = [f"/r/{index}/users/42" for index in range(0, variant.routes, step)]
        else:
            lines = [variant.path]
        file = self.directory / "requests"
        file.write_text("\n".join(lines) + "\n")
        return file

    def _wrk(self, variant: Variant, address: str, time: str) -> Outcome:
        script = str(HERE / "wrk.lua")
        command = ["wrk", "-t", "1", "-c", str(variant.connections), "-d", time, "--timeout", "10s", "-s", script]
        environment = {"REQUESTS": str(self._requests(variant))}
        scheme = "http"
        if variant.options.get("tls"):
            scheme = "https"
            (self.directory / "openssl.cnf").write_text(_ONE_CIPHER)
            environment["OPENSSL_CONF"] = str(self.directory / "openssl.cnf")
        told = _run([*command, f"{scheme}://{address}"], **environment)
        return Outcome(**json.loads(told.stderr))

    def _h2load(self, variant: Variant, port: int, time: str) -> Outcome:
        times = self.directory / "times"
        times.unlink(missing_ok=True)
        command = ["h2load", "-t", "1", "-c", str(variant.connections), "-D", time, f"--log-file={times}"]
        command += ["-m", str(variant.options["streams"]), f"--connect-to=127.0.0.1:{port}"]
        told = _run([*command, f"http://localhost:{port}{variant.path}"]).stdout
        counts = re.search(r"requests: (\d+) total.* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", told)
        codes = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", told)
        took = re.search(r"finished in ([\d.]+)(m?s)", told)
        moved = re.search(r"\((\d+)\) total", told)
        if not (counts and codes and took and moved):
            raise Failure(f"h2load says:\n{told}")
        latencies = sorted(int(line.split("\t")[2]) for line in times.read_text().splitlines())
        if not latencies:
            raise Failure(f"no request was answered; h2load says:\n{told}")
        at = lambda share: latencies[min(len(latencies) - 1, int(len(latencies) * share))]
        # Whatever failed is among `failed`, but for answers that say so themselves.
        return Outcome(
            requests=int(counts[2]),
            errors=int(counts[3]) + sum(map(int, codes.groups())),
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

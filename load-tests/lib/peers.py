"""The proxies: what they are called, how they are started, where their metrics are."""

import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from machine import PROXY_CORES, Failure, Process, free_ports, wait_until
from template import render
from workloads import Variant

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent
CERTS = ROOT / "certs"


@dataclass(frozen=True)
class Peer:
    name: str
    """Where the program is, in order of preference; the first that is there is taken."""
    programs: list[str]
    """Its arguments in a run, whose directory is given."""
    arguments: Callable[[Path], list[str]]
    """How it tells its version, and what of that is the number."""
    version: list[str]
    metrics: str
    """What is set in its environment."""
    environment: dict[str, str] = field(default_factory=dict)

    def program(self) -> str | None:
        return next((found for found in map(shutil.which, self.programs) if found), None)

    def tell_version(self) -> str:
        told = subprocess.run(
            [str(self.program()), *self.version], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        number = re.search(r"\d+\.\d+(\.\d+)?(-[\w.]+)?", told.stdout + told.stderr)
        return number[0] if number else "unknown"


def known(edgeward: str, cache: Path) -> dict[str, Peer]:
    """Those that there are. `cache` is where programs from Python's package index lie."""
    go = {"GOMAXPROCS": "1"}
    return {
        peer.name: peer
        for peer in [
            Peer(
                "edgeward",
                [edgeward],
                lambda directory: ["run", "-c", f"{directory}/edgeward.toml"],
                ["--version"],
                "/metrics",
            ),
            Peer(
                "nginx",
                ["nginx", "/usr/sbin/nginx"],
                lambda directory: ["-p", f"{directory}", "-e", f"{directory}/error.log", "-c", f"{directory}/nginx.conf"],
                ["-v"],
                "/metrics",
            ),
            Peer(
                "haproxy",
                ["haproxy", "/usr/sbin/haproxy"],
                lambda directory: ["-f", f"{directory}/haproxy.cfg", "-db"],
                ["-v"],
                "/metrics",
            ),
            Peer(
                "envoy",
                ["envoy", f"{cache}/envoy/envoy/_bin/envoy"],
                lambda directory: ["-c", f"{directory}/envoy.yaml", "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"],
                ["--version"],
                "/stats/prometheus",
            ),
            Peer(
                "traefik",
                ["traefik", f"{cache}/traefik/bin/traefik"],
                lambda directory: [f"--configFile={directory}/traefik.yaml"],
                ["version"],
                "/metrics",
                go,
            ),
            Peer(
                "caddy",
                ["caddy", f"{cache}/caddy/bin/caddy"],
                lambda directory: ["run", "--config", f"{directory}/Caddyfile", "--adapter", "caddyfile"],
                ["version"],
                "/metrics",
                go,
            ),
        ]
    }


@dataclass
class Proxy:
    """A proxy that runs."""

    peer: Peer
    process: Process
    directory: Path
    port: int
    admin: int

    def access_log(self) -> Path:
        # HAProxy's is its standard output.
        return self.process.output if self.peer.name == "haproxy" else self.directory / "access.log"


def start(peer: Peer, variant: Variant, directory: Path, values: dict[str, object], under: Sequence[str] = ()) -> Proxy:
    """Writes the configuration into the directory and starts the program, `under` another one if need be; returns when it
    takes connections."""
    directory.mkdir()
    port, admin = free_ports(2)
    values = values | {
        "dir": directory,
        "port": port,
        "admin": admin,
        "user": getpass.getuser(),
        "cert": CERTS / "localhost.pem",
        "key": CERTS / "localhost-key.pem",
        "pem": directory / "both.pem",
    }
    # The key of the repository's own certificate for tests, which HAProxy wants in one file with it.
    (directory / "both.pem").write_bytes(b"".join((CERTS / f"localhost{part}.pem").read_bytes() for part in ("", "-key")))
    for file in sorted((HERE / "peers" / peer.name).iterdir()):
        text = render(file.read_text(), variant.features, values, variant.routes)
        (directory / file.name).write_text(text)
    environment = os.environ | peer.environment | {"HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    command = [*under, str(peer.program()), *peer.arguments(directory)]
    process = Process(command, PROXY_CORES, directory, "out", env=environment)
    proxy = Proxy(peer, process, directory, port, admin)

    def listens() -> bool:
        if not process.running():
            raise Failure(f"{peer.name} ended:\n{process.said()}")
        try:
            socket.create_connection(("127.0.0.1", port), 2).close()
        except OSError:
            return False
        return True

    try:
        wait_until(listens, 120, f"the start of {peer.name}")
    except Failure:
        process.end()
        raise
    return proxy

"""load-tests/run: what it does is said there and in README.md."""

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import peers
import plot
import report
import verify
from clients import Held, Load, Outcome, make_tokens
from machine import LOAD_CORES, Failure, Process, describe, free_ports, wait_until
from report import Measurement
from workloads import MIB, WORKLOADS, Variant, Workload

ISSUER, AUDIENCE = "https://issuer.example.com/", "shop"
# So high that it refuses nobody; and one to see that it would.
LIMIT, LOW_LIMIT = 1_000_000, 20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="load-tests/run", description="Edgeward beside other proxies, under load.")
    parser.add_argument("workload", metavar="WORKLOAD", nargs="+", help=f"all, or of: {' '.join(WORKLOADS)}")
    parser.add_argument("--peers", default="nginx,haproxy,envoy,traefik,caddy", help="beside Edgeward; none: nobody")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of load for each proxy in each round")
    parser.add_argument("--connections", type=int, help="in place of the workload's own number")
    parser.add_argument("--results", type=Path, default=peers.HERE / "results", help="directory of WORKLOAD.json and .svg")
    parser.add_argument("--json", type=Path, help="the JSON goes into this file instead; for one workload")
    parser.add_argument("--edgeward", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--load", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--build", default="", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, required=True, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.workload == ["all"]:
        chosen.workload = list(WORKLOADS)
    if unknown := [name for name in chosen.workload if name not in WORKLOADS]:
        parser.error(f"there is no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    if chosen.rounds < 1:
        parser.error("there must be a round")
    if chosen.json and len(chosen.workload) != 1:
        parser.error("--json is for one workload")
    return chosen


@dataclass
class Stage:
    """What all proxies of a run share: the services, the load, the tokens, a directory."""

    directory: Path
    load: Load
    tokens: dict[str, list[str]]
    values: dict[str, object]
    seconds: float
    runs: int = 0

    def start(self, peer: peers.Peer, variant: Variant, limit: int) -> peers.Proxy:
        self.runs += 1
        place = self.directory / f"{self.runs}-{peer.name}"
        return peers.start(peer, variant, place, self.values | {"limit": limit})

    def measure(self, round_: int, peer: peers.Peer, workload: Workload, variant: Variant) -> Measurement:
        """A fresh process: looked at, loaded, looked at again."""
        proxy = self.start(peer, variant, LIMIT)
        try:
            verify.wait_until_ready(proxy, variant, self.tokens)
            verify.check(proxy, variant, self.tokens)
            if workload.unit == "connection":
                requests, measurement = self._idle(round_, proxy, variant)
            else:
                requests, measurement = self._loaded(round_, proxy, workload, variant)
            verify.check(proxy, variant, self.tokens)
            if not proxy.process.running():
                raise Failure(f"{peer.name} ended:\n{proxy.process.said()}")
        finally:
            proxy.process.end()
        if "log" in variant.features:
            verify.check_log(proxy, requests)
        shutil.rmtree(proxy.directory)
        return measurement

    def _loaded(self, round_: int, proxy: peers.Proxy, workload: Workload, variant: Variant) -> tuple[int, Measurement]:
        warm = self._run(proxy, variant, min(2.0, self.seconds))
        before = proxy.process.cpu()
        outcome = self._run(proxy, variant, self.seconds)
        spent = proxy.process.cpu() - before
        units = outcome.bytes / MIB if workload.unit == "mib" else outcome.requests
        if not variant.size and outcome.bytes < outcome.requests * len(verify.BODY):
            raise Failure(f"{proxy.peer.name}: {outcome.bytes} bytes are too few for {outcome.requests} answers")
        measurement = Measurement(
            round=round_,
            variant=variant.name,
            peer=proxy.peer.name,
            cost=spent * 1e6 / units,
            requests=outcome.requests,
            errors=outcome.errors,
            per_second=units / outcome.seconds,
            p50=outcome.p50 / 1000,
            p99=outcome.p99 / 1000,
            p999=outcome.p999 / 1000,
            memory=proxy.process.memory() / MIB,
        )
        return warm.requests + outcome.requests, measurement

    def _run(self, proxy: peers.Proxy, variant: Variant, seconds: float) -> Outcome:
        outcome = self.load.run(variant, proxy.port, seconds)
        if outcome.errors:
            detail = f": {outcome.first_error}" if outcome.first_error else ""
            raise Failure(
                f"{proxy.peer.name}, {variant.name}: {outcome.errors} requests failed, {outcome.requests} did not{detail}\n"
                f"{proxy.process.said()}"
            )
        if not outcome.requests:
            raise Failure(f"{proxy.peer.name}, {variant.name}: no request was answered in {seconds} s")
        return outcome

    def _idle(self, round_: int, proxy: peers.Proxy, variant: Variant) -> tuple[int, Measurement]:
        tls = bool(variant.options.get("tls"))
        # The first connections pay for what a process makes only once.
        Held(self.load, proxy.port, 50, tls).let_go()
        before = proxy.process.memory()
        held = Held(self.load, proxy.port, variant.connections, tls)
        after = proxy.process.memory()
        held.let_go()
        cost = (after - before) / 1024 / variant.connections
        count = variant.connections
        return 50 + count, Measurement(round_, variant.name, proxy.peer.name, cost, count, 0, 0, 0, 0, 0, after / MIB)


def key_files(directory: Path) -> dict[str, object]:
    """A pair of RSA keys: in PEM, and the public one as a set of keys."""
    private, public, keys = (directory / name for name in ("key.pem", "public.pem", "jwks.json"))
    openssl = ["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", private]
    subprocess.run(openssl, check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    told = subprocess.run(
        ["openssl", "rsa", "-in", private, "-noout", "-modulus"], check=True, capture_output=True, text=True
    ).stdout
    modulus = base64.urlsafe_b64encode(bytes.fromhex(told.strip().partition("=")[2])).rstrip(b"=").decode()
    key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "load", "n": modulus, "e": "AQAB"}
    keys.write_text(json.dumps({"keys": [key]}))
    return {"public_key": public, "jwks": keys}


def present(workload: Workload, wanted: list[str], known: dict[str, peers.Peer]) -> list[peers.Peer]:
    """Those of the wanted ones that are here and can do it; the others are named."""
    found = []
    for name in dict.fromkeys(["edgeward", *wanted]):
        if name not in known:
            raise Failure(f"nobody here knows a proxy called {name}; there are {', '.join(known)}")
        if name in workload.skipped:
            print(f"skipped: {name} ({workload.skipped[name]})")
        elif known[name].program() is None:
            print(f"skipped: {name} (not installed)")
        else:
            found.append(known[name])
    return found


def run(workload: Workload, stage: Stage, chosen: argparse.Namespace, known: dict[str, peers.Peer]) -> None:
    print(f"\n== {workload.name}: {workload.about}")
    wanted = [] if chosen.peers == "none" else [name for name in chosen.peers.split(",") if name]
    proxies = present(workload, wanted, known)
    variants = workload.variants
    if chosen.connections:
        variants = [replace(variant, connections=chosen.connections) for variant in variants]
    about = {
        "machine": describe(),
        "build": chosen.build,
        "versions": {peer.name: peer.tell_version() for peer in proxies},
        "seconds": chosen.seconds,
    }
    if "jwt" in variants[0].features:
        for peer in proxies:
            proxy = stage.start(peer, variants[0], LOW_LIMIT)
            try:
                verify.wait_until_ready(proxy, variants[0], stage.tokens)
                verify.check_limit(proxy, variants[0], stage.tokens, LOW_LIMIT)
            finally:
                proxy.process.end()
    measured: list[Measurement] = []
    for number in range(chosen.rounds):
        # Each begins as often as the others.
        turn = number % len(proxies)
        for peer in proxies[turn:] + proxies[:turn]:
            for variant in variants:
                measured.append(stage.measure(number + 1, peer, workload, variant))
                one = measured[-1]
                print(f"   round {number + 1}: {peer.name:9} {variant.name:15} {one.cost:9.2f}", file=sys.stderr, flush=True)
    order = {(variant.name, peer.name): at for at, (variant, peer) in enumerate((v, p) for v in variants for p in proxies)}
    rows = sorted(report.summarize(measured), key=lambda row: order[row.variant, row.peer])
    print(f"\n{report.table(workload, rows)}")

    told = json.dumps(report.as_json(workload, about, rows, measured), indent=1, ensure_ascii=False) + "\n"
    file = chosen.json or chosen.results / f"{workload.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(told)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    file.with_suffix(".svg").write_text(plot.svg(workload, f"{versions}; {chosen.rounds} rounds of {chosen.seconds:g} s", rows))
    print(f"\n{file}, {file.with_suffix('.svg')}")


def main() -> int:
    chosen = arguments()
    # Whatever ends this ends what it started.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit(1))
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, {chosen.build}")
    if float(str(machine["load"])) > 0.5:
        print(f"this machine is not quiet: its load is {machine['load']:.1f}; trust ratios, if anything")
    known = peers.known(chosen.edgeward, chosen.cache)
    with tempfile.TemporaryDirectory(prefix="edgeward-load-") as name:
        directory = Path(name)
        one, two = free_ports(2)
        command = [chosen.load, "origin", f"127.0.0.1:{one}", f"127.0.0.1:{two}"]
        services = Process(command, LOAD_CORES, directory, "services")
        try:
            keys = key_files(directory)
            values = {"one": one, "two": two, "issuer": ISSUER, "audience": AUDIENCE} | keys
            tokens = make_tokens(chosen.load, directory / "key.pem", ISSUER, AUDIENCE)
            wait_until(lambda: services.said().startswith("ready"), 10, "the start of the services")
            stage = Stage(directory, Load(chosen.load, directory, tokens["valid"]), tokens, values, chosen.seconds)
            for workload in chosen.workload:
                run(WORKLOADS[workload], stage, chosen, known)
        except Failure as failure:
            print(f"\nFAILED: {failure}", file=sys.stderr)
            return 1
        finally:
            services.end()
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())

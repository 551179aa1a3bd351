"""Proxies on a stage: started, looked at, loaded, ended."""

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import peers
import verify
from clients import Held, Load, Outcome, make_tokens
from machine import LOAD_CORES, Failure, Process, free_ports, wait_until
from report import Measurement
from workloads import MIB, Variant, Workload

ISSUER, AUDIENCE = "https://issuer.example.com/", "shop"
# So high that it refuses nobody; and one to see that it would.
LIMIT, LOW_LIMIT = 1_000_000, 20


@dataclass
class Stage:
    """What all proxies of a run share: the services, the load, the tokens, a directory."""

    directory: Path
    load: Load
    tokens: dict[str, list[str]]
    values: dict[str, object]
    seconds: float
    runs: int = 0

    def start(self, peer: peers.Peer, variant: Variant, limit: int = LIMIT, under: Sequence[str] = ()) -> peers.Proxy:
        self.runs += 1
        place = self.directory / f"{self.runs}-{peer.name}"
        return peers.start(peer, variant, place, self.values | {"limit": limit}, under)

    def try_limit(self, peer: peers.Peer, variant: Variant) -> None:
        """Fails unless the limit of the workload's configuration would refuse requests if it were low."""
        proxy = self.start(peer, variant, LOW_LIMIT)
        try:
            verify.wait_until_ready(proxy, variant, self.tokens)
            verify.check_limit(proxy, variant, self.tokens, LOW_LIMIT)
        finally:
            proxy.process.end()

    def measure(self, round_: int, peer: peers.Peer, workload: Workload, variant: Variant) -> Measurement:
        """A fresh process: looked at, loaded, looked at again."""
        proxy = self.start(peer, variant)
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


@contextlib.contextmanager
def stage(load: str, seconds: float) -> Iterator[Stage]:
    """With services that run; `load` is our own client. All of it goes in the end."""
    with tempfile.TemporaryDirectory(prefix="edgeward-load-") as name:
        directory = Path(name)
        one, two = free_ports(2)
        command = [load, "origin", f"127.0.0.1:{one}", f"127.0.0.1:{two}"]
        services = Process(command, LOAD_CORES, directory, "services")
        try:
            keys = key_files(directory)
            values = {"one": one, "two": two, "issuer": ISSUER, "audience": AUDIENCE} | keys
            tokens = make_tokens(load, directory / "key.pem", ISSUER, AUDIENCE)
            wait_until(lambda: services.said().startswith("ready"), 10, "the start of the services")
            yield Stage(directory, Load(load, directory, tokens["valid"]), tokens, values, seconds)
        finally:
            services.end()

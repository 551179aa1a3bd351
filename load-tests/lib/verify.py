"""Nobody is fast by doing less: what every proxy has to answer, before and after it is measured."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from machine import Failure, wait_until
from peers import CERTS, Proxy
from workloads import MIB, USUAL, Variant

BODY = b'{"data":"' + b"x" * (1024 - 11) + b'"}'


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def ask(proxy: Proxy, variant: Variant, path: str, *more: str) -> Answer:
    """One request by curl, over a connection of its own; a certificate is checked."""
    scheme = "https" if "tls" in variant.features else "http"
    version = "--http2-prior-knowledge" if "h2" in variant.features else "--http1.1"
    command = ["curl", "-sS", "-i", "--max-time", "20", version, "--cacert", str(CERTS / "ca.pem"), *more]
    command += ["--resolve", f"localhost:{proxy.port}:127.0.0.1", f"{scheme}://localhost:{proxy.port}{path}"]
    told = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if told.returncode != 0:
        raise Failure(f"{proxy.peer.name}, {path}: {told.stderr.decode(errors='replace').strip()}\n{proxy.process.said()}")
    rest = told.stdout
    while True:
        head, _, rest = rest.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        if status >= 200:
            break
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Answer(status, headers, rest)


def bearer(token: str) -> tuple[str, str]:
    return ("-H", f"Authorization: Bearer {token}")


def _usual(variant: Variant) -> str:
    return "/r/0/users/42" if variant.routes else USUAL


def wait_until_ready(proxy: Proxy, variant: Variant, tokens: dict[str, list[str]]) -> None:
    """Some take connections before they have read what their routes are."""
    signed = bearer(tokens["valid"][0]) if "jwt" in variant.features else ()

    def answers() -> bool:
        try:
            return ask(proxy, variant, _usual(variant), *signed).status == 200
        except Failure:
            if not proxy.process.running():
                raise
            return False

    wait_until(answers, 60, f"the first 200 of {proxy.peer.name}")


def check(proxy: Proxy, variant: Variant, tokens: dict[str, list[str]]) -> None:
    """Fails unless the proxy answers everything as it has to, and has metrics."""
    check_answers(proxy, variant, tokens)
    url = f"http://127.0.0.1:{proxy.admin}{proxy.peer.metrics}"
    told = subprocess.run(["curl", "-sSf", url], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if told.returncode != 0 or not told.stdout.strip():
        raise Failure(f"{proxy.peer.name}: no metrics: {told.stderr.strip()}")


def check_answers(proxy: Proxy, variant: Variant, tokens: dict[str, list[str]]) -> None:
    """Fails unless the proxy answers everything as it has to."""
    signed = bearer(tokens["valid"][0]) if "jwt" in variant.features else ()
    usual = _usual(variant)

    def expect(right: bool, what: str, answer: Answer) -> None:
        if not right:
            shown = f"{answer.status} {answer.headers} {answer.body[:300]!r}"
            raise Failure(f"{proxy.peer.name}, {variant.name}: {what}: {shown}")

    services = set()
    for _ in range(4):
        answer = ask(proxy, variant, usual, *signed)
        expect(answer.status == 200, "not a 200", answer)
        expect(answer.headers.get("content-type") == "application/json", "another type", answer)
        expect(answer.body == BODY, "another body", answer)
        services.add(answer.headers.get("x-origin"))
    expect(services == {"0", "1"}, f"not both services took their turn, but {services}", answer)

    answer = ask(proxy, variant, f"{'/r/0' if variant.routes else ''}/echo", *signed)
    told = answer.body.decode("latin-1").lower()
    expect(answer.status == 200, "not a 200", answer)
    # Envoy puts this machine's own address in place of a loopback one.
    expect(re.search(r"\r\nx-forwarded-for: [0-9.]+\r\n", told) is not None, "services learn no address", answer)
    expect("\r\nx-forwarded-proto: http" in told, "services do not learn the scheme", answer)
    expect("\r\nconnection: close\r\n" not in told, "connections to services are not kept", answer)
    expect(f"\r\nhost: localhost:{proxy.port}\r\n" in told, "services get another host", answer)

    if signed:
        expect("\r\nx-auth-subject: auth0|" in told, "services do not learn whose token it is", answer)
        _tokens(proxy, variant, tokens, expect)
    if variant.routes:
        last = ask(proxy, variant, f"/r/{variant.routes - 1}/users/42")
        expect(last.status == 200 and last.body == BODY, "not the last route", last)
        beyond = ask(proxy, variant, f"/r/{variant.routes}/users/42")
        expect(beyond.status == 404, "a path without a route is not a 404", beyond)
    if variant.path.startswith("/together/"):
        answer = ask(proxy, variant, variant.path)
        parts = json.loads(answer.body)
        expect(answer.headers.get("x-edgeward-completed") == "true", "not all of it", answer)
        expect([parts.get(name) for name in ("one", "two", "three")] == [json.loads(BODY)] * 3, "not three legs", answer)
    if variant.size:
        _bodies(proxy, variant, expect)


def _tokens(proxy: Proxy, variant: Variant, tokens: dict[str, list[str]], expect) -> None:
    answer = ask(proxy, variant, USUAL)
    expect(answer.status == 401, "a request without a token", answer)
    # RFC 6750 says 401 to each; proxies say 403 to some.
    for kind in ("expired", "issuer", "audience", "signature", "role"):
        answer = ask(proxy, variant, USUAL, *bearer(tokens[kind][0]))
        expect(answer.status == 403 if kind == "role" else answer.status in (401, 403), f"a token with a bad {kind}", answer)


def _bodies(proxy: Proxy, variant: Variant, expect) -> None:
    size = min(variant.size, 8 * MIB)
    answer = ask(proxy, variant, f"/bytes/{size}")
    expect(answer.status == 200 and answer.body == b"x" * size, "another body down", answer)
    file = proxy.directory / "upload"
    file.write_bytes(b"x" * size)
    answer = ask(proxy, variant, "/upload", "--data-binary", f"@{file}", "-H", "Expect:")
    expect(answer.status == 200 and json.loads(answer.body) == {"received": size}, "another body up", answer)


def check_limit(proxy: Proxy, variant: Variant, tokens: dict[str, list[str]], limit: int) -> None:
    """Fails unless a limit of so many requests a second refuses some of a burst of five times as many."""
    file: Path = proxy.directory / "burst"
    # One connection, as fast as it goes.
    url = f"http://localhost:{proxy.port}{USUAL}"
    file.write_text("".join(f'url = "{url}"\noutput = "/dev/null"\n' for _ in range(limit * 5)))
    command = ["curl", "-s", "-w", "%{http_code}\n", *bearer(tokens["valid"][0]), "--resolve"]
    command += [f"localhost:{proxy.port}:127.0.0.1", "-K", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False).stdout.split()
    if told.count("429") < limit or told.count("200") < limit // 2:
        seen = {status: told.count(status) for status in set(told)}
        raise Failure(f"{proxy.peer.name}: of {limit * 5} requests at once under a limit of {limit}/s it answered {seen}")


def check_log(proxy: Proxy, requests: int) -> None:
    """Fails unless there is a line for each request. Asked after the proxy has ended: it may keep lines for a while."""
    if not proxy.access_log().exists():
        raise Failure(f"{proxy.peer.name}: there is no access log")
    with proxy.access_log().open("rb") as file:
        lines = sum(piece.count(b"\n") for piece in iter(lambda: file.read(MIB), b""))
    # Requests that were under way when the load ended are not counted as answered, but may be logged.
    if lines < requests:
        raise Failure(f"{proxy.peer.name}: {requests} requests, but {lines} lines in the access log")

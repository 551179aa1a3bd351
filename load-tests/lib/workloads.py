"""What is measured. A workload is one or more variants, each of which every proxy runs as a fresh process."""

from dataclasses import dataclass, field

USUAL = "/api/users/42"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Variant:
    name: str
    """What the configurations are told: see peers/README.md."""
    features: frozenset[str]
    """Which client makes the load: wrk, h2load, connections, handshakes, transfer or hold."""
    client: str
    """What differs from client to client: see clients.py."""
    options: dict[str, object] = field(default_factory=dict)
    path: str = USUAL
    """Body and direction of a transfer."""
    size: int = 0
    routes: int = 0
    connections: int = 64


@dataclass(frozen=True)
class Workload:
    name: str
    about: str
    variants: list[Variant]
    """What the figure of a proxy is: request, mib or connection."""
    unit: str = "request"
    """Whether the variants are there to be compared with the first of them."""
    compared: bool = False
    """Peers that cannot do it, and why."""
    skipped: dict[str, str] = field(default_factory=dict)


def _features(*words: str, log: bool = True) -> frozenset[str]:
    found = set(words)
    if log:
        found.add("log")
    if not found & {"tls", "h2"}:
        found.add("h1")
    if not found & {"jwt", "routes"}:
        found.add("open")
    return frozenset(found)


def _transfer(name: str, way: str, size: int, connections: int) -> Variant:
    path = f"/bytes/{size}" if way == "get" else "/upload"
    return Variant(name, _features(), "transfer", {"way": way}, path, size=size, connections=connections)


_NO_TOKENS = "verifies no tokens"
_NO_LEGS = "puts no answers together"

WORKLOADS = {
    workload.name: workload
    for workload in [
        Workload("plain", "keep-alive, 1 KiB of JSON, 64 connections", [Variant("plain", _features(), "wrk")]),
        Workload(
            "connections",
            "a new connection for each request, 32 at once",
            [Variant("connections", _features(), "connections", connections=32)],
        ),
        Workload(
            "jwt",
            "RS256, 1,000 tokens: signature, issuer, audience, expiry, role; a limit for each address; 64 connections",
            [Variant("jwt", _features("jwt"), "wrk", {"tokens": True})],
            skipped=dict.fromkeys(("nginx", "traefik", "caddy"), _NO_TOKENS),
        ),
        Workload(
            "aggregate",
            "one answer of three services' (1 KiB each), beside a plain one; 64 connections",
            [
                Variant("plain", _features("aggregate"), "wrk"),
                Variant("three legs", _features("aggregate"), "wrk", path="/together/42"),
            ],
            compared=True,
            skipped=dict.fromkeys(("nginx", "haproxy", "envoy", "traefik", "caddy"), _NO_LEGS),
        ),
        Workload(
            "tls",
            "TLS 1.3, ECDSA P-256, X25519, AES-128-GCM: a handshake for each request, full or resumed (32 at once), "
            "and keep-alive (64 connections)",
            [
                Variant("full handshakes", _features("tls"), "handshakes", {"kind": "full"}, connections=32),
                Variant("resumed", _features("tls"), "handshakes", {"kind": "resumed"}, connections=32),
                Variant("keep-alive", _features("tls"), "wrk", {"tls": True}),
            ],
        ),
        Workload(
            "h2",
            "HTTP/2 in cleartext, 32 streams on each of 8 connections, services by HTTP/1.1",
            [Variant("h2", _features("h2"), "h2load", {"streams": 32}, connections=8)],
        ),
        Workload(
            "large",
            "bodies of 1 MiB (8 connections) and 100 MiB (2), down and up",
            [
                _transfer("1 MiB down", "get", MIB, 8),
                _transfer("1 MiB up", "post", MIB, 8),
                _transfer("100 MiB down", "get", 100 * MIB, 2),
                _transfer("100 MiB up", "post", 100 * MIB, 2),
            ],
            unit="mib",
        ),
        Workload(
            "idle",
            "10,000 connections that do nothing after one request each: memory",
            [
                Variant("cleartext", _features(), "hold", connections=10_000),
                Variant("tls", _features("tls"), "hold", {"tls": True}, connections=10_000),
            ],
            unit="connection",
        ),
        Workload(
            "routes",
            "keep-alive, one route of 10, 1,000 and 10,000; 64 connections, 100 of the routes in turn",
            [
                Variant(f"{count:,} routes", _features("routes"), "wrk", path="/r/0/users/42", routes=count)
                for count in (10, 1_000, 10_000)
            ],
            compared=True,
            skipped={"caddy": "would have a pool of services for each route"},
        ),
        Workload(
            "log",
            "plain without and with an access log",
            [
                Variant("without", _features(log=False), "wrk"),
                Variant("with", _features(), "wrk"),
            ],
            compared=True,
        ),
    ]
}

"""Many slow connections at once, of every kind, held for as long as the gateway lets them.

    python3 load-tests/lib/held.py PLAIN TLS ADMIN PID COUNT [KIND...]

PLAIN, TLS and ADMIN are ports of 127.0.0.1, PID is the gateway's. A fifth of COUNT each are, or all of the named kinds:
  heads    drip a request head, a byte every two seconds
  bodies   drip a request body likewise
  readers  ask for a large answer and take 64 bytes of it every two seconds
  tls      send the beginning of a TLS handshake, and no more
  http2    open a stream whose body never comes

Prints what they cost: resident memory before and with all of them, the times of requests of others meanwhile, and when
the last was ended. Exits with 1 when a bound is passed: 200 MiB for 10,000 of them, a failed request of others, or
connections that are left after 120 seconds: an HTTP/2 connection whose stream was ended after 20 s idles for 75 s more.
"""

import os
import selectors
import socket
import sys
import time
import urllib.request

plain, tls, admin, pid, count = (int(argument) for argument in sys.argv[1:6])
KINDS = sys.argv[6:] or ["heads", "bodies", "readers", "tls", "http2"]
BYTES_MAX = 200 * 1024 * 1024 * count // 10_000


def resident():
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def connected():
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    names = ('edgeward_connections_open{listener="plain"}', 'edgeward_connections_open{listener="tls"}')
    return sum(int(line.split()[-1]) for line in lines if line.startswith(names))


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


# POST /, without END_STREAM.
BLOCK = bytes([0x83, 0x86, 0x84, 0x41, 9]) + b"localhost"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, BLOCK)
BEGIN = {
    "heads": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Drip: ",
    "bodies": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    "readers": b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "http2": HTTP2,
}


def open_one(kind):
    connection = socket.socket()
    if kind == "readers":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", tls if kind == "tls" else plain))
    connection.setblocking(False)
    connection.send(BEGIN[kind])
    return connection


def ask(times):
    began = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{plain}/", timeout=30) as answer:
        answer.read()
    times.append(time.monotonic() - began)


def p99(times):
    return 1000 * sorted(times)[min(len(times) - 1, len(times) * 99 // 100)]


quiet = []
for _ in range(100):
    ask(quiet)
before = resident()

held, ended = [], {}
began = time.monotonic()
for number in range(count):
    kind = KINDS[number % len(KINDS)]
    held.append((kind, open_one(kind)))
opened = time.monotonic() - began
most, with_them, last_round = 0, [], 0.0
alive = list(held)
peak = 0
while time.monotonic() - began < 180:
    now = time.monotonic()
    if now - last_round >= 2:
        last_round = now
        still = []
        for kind, connection in alive:
            try:
                if kind in ("heads", "bodies"):
                    connection.send(b"x")
                taken = connection.recv(64)
                closed = taken == b""
            except BlockingIOError:
                closed = False
            except OSError:
                closed = True
            if closed:
                ended[kind] = now - began
                connection.close()
            else:
                still.append((kind, connection))
        alive = still
    ask(with_them)
    open_now = connected()
    peak = max(peak, open_now)
    most = max(most, resident())
    if open_now <= 1 or time.monotonic() - began - opened > 120:
        break
    time.sleep(0.05)
left = connected()
for _, connection in alive:
    connection.close()

print(f"{count} connections opened in {opened:.1f} s, at most {peak} open at once")
print(f"memory: {before / 2**20:.1f} MiB before, at most {most / 2**20:.1f} MiB with them: "
      f"{(most - before) / 2**20:.1f} MiB, {(most - before) / count / 1024:.1f} KiB each")
print(f"requests of others: p99 {p99(quiet):.1f} ms before, {p99(with_them):.1f} ms of {len(with_them)} meanwhile")
print(f"the last was ended {time.monotonic() - began:.0f} s after the first came; {left} are left")
failed = []
if most - before > BYTES_MAX:
    failed.append(f"more than {BYTES_MAX / 2**20:.0f} MiB")
if left > 1:
    failed.append(f"{left} connections are left")
if failed:
    print("; ".join(failed), file=sys.stderr)
    sys.exit(1)

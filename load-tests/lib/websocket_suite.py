"""Autobahn's WebSocket cases against one or several servers, and what they come to.

The suite (autobahntestsuite, from PyPI) is a program for Python 2, which is no longer to be had. Its cases are small classes
that say what is sent and what has to come back; those are taken as published and run here, on a client of our own that does
exactly what a case asks, also when that is wrong. Texts of Python 2 are bytes: here they are texts of Latin-1, which are the same.

    websocket_suite.py CASES_DIRECTORY NAME=ws://HOST:PORT/PATH … [--only PREFIX] [--without 9,12]

Prints what each case came to by each of the servers, and fails where two of them differ.
"""

import argparse
import asyncio
import base64
import collections
import json
import os
import pathlib
import re
import struct
import sys
import time
import types

OPEN, CLOSING, CLOSED = 3, 2, 0
AT_ONCE = 24


class Suite:
    """The cases as published, brought into Python 3."""

    # Nothing here opens a connection, and these are about compression, which is between the ends, and an endless stream.
    WITHOUT = {"case12_x_x", "case9_9_1"}

    def __init__(self, directory):
        directory = pathlib.Path(directory)
        names = re.findall(r"^from (case\w+) import \*", (directory / "__init__.py").read_text("latin-1"), re.M)
        protocol = types.SimpleNamespace(STATE_OPEN=OPEN, STATE_CLOSING=CLOSING, STATE_CLOSED=CLOSED)
        self.scope = {"WebSocketProtocol": protocol, "binascii": types.SimpleNamespace(b2a_hex=hexed, hexlify=hexed), "xrange": range, "Utf8Validator": Utf8Validator}
        for name in ["case", *(name for name in names if name not in self.WITHOUT)]:
            source = (directory / f"{name}.py").read_text("latin-1")
            source = re.sub(r"^#.*coding.*$", "", source, flags=re.M)
            source = re.sub(r"^(from|import) (?!array|pickle).*$", "", source, flags=re.M)
            # Only of the suite's tests of itself.
            source = re.sub(r"^(\s*)print\b.*$", r"\1pass", source, flags=re.M)
            source = source.split("if __name__ ==")[0].replace(") / self.p", ") // self.p").replace("(object, Case, )", "(Case,)")
            self.scope["__name__"] = name
            exec(compile(source, f"{name}.py", "exec"), self.scope)

    def cases(self):
        found = {}
        for name, value in self.scope.items():
            numbers = re.fullmatch(r"Case((?:\d+_)+\d+)", name)
            if numbers and isinstance(value, type):
                found[tuple(map(int, numbers[1].split("_")))] = value
            elif isinstance(value, list) and name.startswith("Case") and name.endswith("_X"):
                for case in value:
                    found[tuple(map(int, case.__name__[4:].split("_")))] = case
        return {".".join(map(str, number)): found[number] for number in sorted(found)}


class Utf8Validator:
    """Whether a text is whole and valid: what the suite asks its own library."""

    def reset(self):
        pass

    def validate(self, text):
        try:
            raw(text).decode("utf-8")
        except UnicodeDecodeError:
            return False, False
        return True, True


def hexed(text):
    return text.encode("latin-1").hex()


def raw(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


class Client:
    """One connection, as a case sees it: `self.p`."""

    CLOSE_STATUS_CODE_NORMAL = 1000
    CLOSE_STATUS_CODE_GOING_AWAY = 1001
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = 1002
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1007

    def __init__(self, url):
        self.url = url
        self.state = CLOSED
        self.factory = types.SimpleNamespace(isServer=False)
        self.connectionWasOpen = self.closedByMe = self.failedByMe = self.droppedByMe = self.wasClean = False
        self.remoteCloseCode = self.localCloseReason = None
        self.createWirelog = True
        self.autoFragmentSize = 0
        self.txFrameStats = collections.Counter()
        self.timers = []
        self.queue = asyncio.Queue()
        self.message = None

    # --- what cases ask for

    def enableWirelog(self, enable):
        self.createWirelog = enable

    def sendFrame(self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        payload = raw(payload)
        if payload_len is not None:
            payload = (payload * (payload_len // max(len(payload), 1) + 1))[:payload_len]
        self.txFrameStats[opcode] += 1
        key = os.urandom(4)
        frame = self.head(opcode, fin, rsv, len(payload), key) + masked(payload, key)
        self.write(frame, chopsize)

    @staticmethod
    def head(opcode, fin, rsv, length, key):
        first = (0x80 if fin else 0) | rsv << 4 | opcode
        if length < 126:
            sizes = struct.pack("!BB", first, 0x80 | length)
        elif length < 1 << 16:
            sizes = struct.pack("!BBH", first, 0x80 | 126, length)
        else:
            sizes = struct.pack("!BBQ", first, 0x80 | 127, length)
        return sizes + key

    def sendMessage(self, payload, isBinary=False, fragmentSize=None, sync=False, doNotCompress=False):
        payload, opcode = raw(payload), 2 if isBinary else 1
        size = fragmentSize or self.autoFragmentSize or max(len(payload), 1)
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        for number, piece in enumerate(pieces):
            self.sendFrame(0 if number else opcode, piece, fin=number == len(pieces) - 1)

    def beginMessage(self, isBinary=False, doNotCompress=False):
        self.next_opcode = 2 if isBinary else 1

    def beginMessageFrame(self, length):
        self.frame_key, self.frame_at = os.urandom(4), 0
        self.write(self.head(self.next_opcode, False, 0, length, self.frame_key))
        self.next_opcode = 0

    def sendMessageFrameData(self, payload, sync=False):
        payload = raw(payload)
        at = self.frame_at % 4
        key = self.frame_key[at:] + self.frame_key[:at]
        self.frame_at += len(payload)
        self.write(masked(payload, key))

    def endMessage(self):
        self.sendFrame(0, "", fin=True)

    def sendClose(self, code=None, reason=None):
        self.sendCloseFrame(code, reason)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        if self.state != OPEN:
            return
        self.state = CLOSING
        self.closedByMe = not isReply
        self.localCloseReason = reasonUtf8
        payload = struct.pack("!H", code) + raw(reasonUtf8 or "") if code is not None else b""
        self.sendFrame(8, payload)
        # Who does not answer that is left.
        self.later(1 if not isReply else 2, self.drop)

    def killAfter(self, delay):
        self.later(delay, self.fail)

    def closeAfter(self, delay):
        self.later(delay, self.sendClose)

    def continueLater(self, delay, fun, tag=None):
        self.later(delay, fun)

    # --- the connection

    def later(self, delay, fun):
        run = lambda: fun() if self.state != CLOSED else None
        self.timers.append(asyncio.get_running_loop().call_later(delay, run))

    def fail(self):
        self.failedByMe = True
        self.drop()

    def drop(self):
        if self.state != CLOSED:
            self.droppedByMe = True
            self.state = CLOSED
            self.writer.transport.abort()

    def write(self, data, chopsize=None):
        self.queue.put_nowait((data, chopsize))

    async def send(self):
        while True:
            data, chopsize = await self.queue.get()
            pieces = [data[at : at + chopsize] for at in range(0, len(data), chopsize)] if chopsize else [data]
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                if chopsize:
                    await asyncio.sleep(0)

    async def run(self, case_class):
        case = case_class(self)
        host, port, path = re.fullmatch(r"ws://([^:/]+):(\d+)(/.*)", self.url).groups()
        self.reader, self.writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        sender = None
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
            if not head.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(head.split(b"\r\n")[0].decode("latin-1"))
            self.state, self.connectionWasOpen = OPEN, True
            sender = asyncio.create_task(self.send())
            case.onOpen()
            while await self.frame(case):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, OSError):
            pass
        finally:
            if sender:
                sender.cancel()
            self.state = CLOSED
            for timer in self.timers:
                timer.cancel()
            self.writer.close()
        case.onConnectionLost(self.failedByMe)
        return {
            "behavior": case.behavior,
            "close": case.behaviorClose,
            "code": self.remoteCloseCode,
            "received": len(case.received),
        }

    async def frame(self, case):
        first, second = await self.reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        payload = await self.reader.readexactly(length)
        fin, rsv, opcode = first & 0x80, first & 0x70, first & 0x0F
        if rsv or second & 0x80 or opcode not in (0, 1, 2, 8, 9, 10):
            raise ConnectionError("a frame that no server may send")
        if opcode == 8:
            return self.closed(payload)
        if self.state == CLOSING and opcode in (0, 1, 2) and not self.closedByMe:
            return True
        if opcode == 9:
            if self.state == OPEN:
                self.sendFrame(10, payload)
            case.onPing(payload.decode("latin-1"))
        elif opcode == 10:
            case.onPong(payload.decode("latin-1"))
        else:
            if (opcode == 0) == (self.message is None):
                raise ConnectionError("a continuation of nothing, or none where one is due")
            if opcode:
                self.message = (opcode, bytearray())
            self.message[1].extend(payload)
            if fin:
                (kind, whole), self.message = self.message, None
                if kind == 1:
                    whole.decode("utf-8")
                case.onMessage(whole.decode("latin-1"), kind == 2)
        return True

    def closed(self, payload):
        if len(payload) >= 2:
            (self.remoteCloseCode,) = struct.unpack("!H", payload[:2])
        self.wasClean = True
        if self.state == OPEN:
            self.sendCloseFrame(self.remoteCloseCode, None, isReply=True)
        # Next comes the end of the connection.
        return True


def masked(payload, key):
    if not payload:
        return b""
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
    return number.to_bytes(len(payload), "little")


async def run_all(cases, servers, at_once):
    gate = asyncio.Semaphore(at_once)

    async def one(name, case, server):
        async with gate:
            try:
                return name, server, await asyncio.wait_for(Client(servers[server]).run(case), 120)
            except asyncio.TimeoutError:
                return name, server, {"behavior": "TIMEOUT", "close": "TIMEOUT", "code": None, "received": 0}

    work = [one(name, case, server) for name, case in cases.items() for server in servers]
    results = collections.defaultdict(dict)
    for name, server, result in await asyncio.gather(*work):
        results[name][server] = result
    return results


def differing(results):
    return [name for name, by_server in results.items() if len({json.dumps(result) for result in by_server.values()}) > 1]


def failing(results):
    return [name for name, by_server in results.items() if any(result["behavior"] == "FAILED" for result in by_server.values())]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("servers", nargs="+", metavar="NAME=URL")
    parser.add_argument("--only", default="")
    parser.add_argument("--without", default="")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    servers = dict(server.split("=", 1) for server in arguments.servers)
    without = tuple(f"{number}." for number in arguments.without.split(",") if number)
    cases = Suite(arguments.directory).cases()
    cases = {name: case for name, case in cases.items() if name.startswith(arguments.only) and not name.startswith(without or "-")}
    if not cases:
        sys.exit("no case is left")
    began = time.monotonic()
    results = asyncio.run(run_all(cases, servers, AT_ONCE))
    # A busy machine answers late: what differs or fails is asked again, one after the other.
    for _ in range(2):
        again = sorted({*differing(results), *failing(results)})
        results.update(asyncio.run(run_all({name: cases[name] for name in again}, servers, 1)) if again else {})
    for server in servers:
        counted = collections.Counter(result[server]["behavior"] for result in results.values())
        closed = collections.Counter(result[server]["close"] for result in results.values())
        print(f"{server}: {len(results)} cases: {dict(counted)}; closes: {dict(closed)}")
    for name in differing(results):
        print(f"differs: {name}: {results[name]}")
    print(f"{time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    if failing(results):
        print(f"failed: {' '.join(failing(results))}")
    sys.exit(1 if differing(results) else 0)


if __name__ == "__main__":
    main()

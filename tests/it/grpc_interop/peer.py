"""Both ends of gRPC's interoperability cases, with gRPC's own implementation (Debian's python3-grpcio).

The cases are those of the gRPC project (its interop-test-descriptions). Prints the port of its service, then reads lines
"TARGET" or "TARGET CA-FILE" (with TLS), runs all cases against that target, and prints a line for each: its name and "ok", or
what is wrong; "done" after the last. Messages are encoded by hand: there are few, and so no compiler is needed.
"""

import sys
import threading
from concurrent import futures

import grpc

SERVICE = "grpc.testing.TestService"
ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
# Longest that a call may take: only a failure does.
PATIENCE = 20


# --- messages ---------------------------------------------------------------------------------------------------------

def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode(*fields):
    """A message of fields (number, integer or bytes)."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def decode(message):
    """Fields of a message: number -> values."""
    fields, at = {}, 0

    def number():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = number()
        if key & 7 == 0:
            value = number()
        elif key & 7 == 2:
            length = number()
            value = message[at:at + length]
            assert len(value) == length, "a message that is cut off"
            at += length
        else:
            raise ValueError(f"wire type {key & 7}")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def first(fields, number, default):
    return fields.get(number, [default])[0]


def payload(size):
    return encode((2, bytes(size)))


def body_of(message, number=1):
    """The body of the payload in field `number`."""
    return first(decode(first(decode(message), number, b"")), 2, b"")


def simple_request(size, body, *more):
    return encode((2, size), (3, payload(body)), *more)


def output_request(sizes, body=None, *more):
    fields = [(2, encode((1, size))) for size in sizes]
    if body is not None:
        fields.append((3, payload(body)))
    return encode(*fields, *more)


# --- the service ------------------------------------------------------------------------------------------------------

class Service(grpc.GenericRpcHandler):
    def __init__(self):
        self.ended_early = threading.Semaphore(0)
        self.compressed = []

    def service(self, details):
        one, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return {
            f"/{SERVICE}/EmptyCall": one(lambda request, context: b""),
            f"/{SERVICE}/UnaryCall": one(self.unary),
            f"/{SERVICE}/StreamingInputCall": grpc.stream_unary_rpc_method_handler(self.streaming_input),
            f"/{SERVICE}/StreamingOutputCall": grpc.unary_stream_rpc_method_handler(self.streaming_output),
            f"/{SERVICE}/FullDuplexCall": stream(self.full_duplex),
        }.get(details.method)

    def echo_metadata(self, context):
        for key, value in context.invocation_metadata():
            if key == ECHO_INITIAL:
                context.send_initial_metadata([(key, value)])
            elif key == ECHO_TRAILING:
                context.set_trailing_metadata([(key, value)])
            elif key == "grpc-encoding":
                self.compressed.append(value)

    def status(self, fields, context):
        if 7 in fields:
            status = decode(fields[7][0])
            code = next(code for code in grpc.StatusCode if code.value[0] == first(status, 1, 0))
            context.abort(code, first(status, 2, b"").decode())

    def unary(self, request, context):
        fields = decode(request)
        self.echo_metadata(context)
        self.status(fields, context)
        if 6 in fields:
            context.set_compression(grpc.Compression.Gzip)
        return encode((1, payload(first(fields, 2, 0))))

    def streaming_input(self, requests, context):
        context.add_callback(lambda: self.note_end(context))
        return encode((1, sum(len(body_of(request)) for request in requests)))

    def streaming_output(self, request, context):
        for parameters in decode(request).get(2, []):
            yield encode((1, payload(first(decode(parameters), 1, 0))))

    def full_duplex(self, requests, context):
        self.echo_metadata(context)
        context.add_callback(lambda: self.note_end(context))
        for request in requests:
            self.status(decode(request), context)
            yield from self.streaming_output(request, context)

    def note_end(self, context):
        if context.code() is None:
            self.ended_early.release()


# --- the cases --------------------------------------------------------------------------------------------------------

class Cases:
    def __init__(self, channel, service):
        self.channel, self.service = channel, service

    def unary(self, request, method="UnaryCall", service=SERVICE, **more):
        return self.channel.unary_unary(f"/{service}/{method}").with_call(request, timeout=PATIENCE, **more)

    def duplex(self, requests, timeout=PATIENCE, **more):
        return self.channel.stream_stream(f"/{SERVICE}/FullDuplexCall")(requests, timeout=timeout, **more)

    def fails(self, code, call):
        try:
            call()
        except grpc.RpcError as error:
            equal(error.code(), code, error.details())
            return error
        raise AssertionError(f"{code} was expected")

    def empty_unary(self):
        equal(self.unary(b"", "EmptyCall")[0], b"")

    def large_unary(self):
        answer, _ = self.unary(simple_request(314159, 271828))
        equal(body_of(answer), bytes(314159))

    def client_streaming(self):
        requests = (encode((1, payload(size))) for size in (27182, 8, 1828, 45904))
        answer = self.channel.stream_unary(f"/{SERVICE}/StreamingInputCall")(requests, timeout=PATIENCE)
        equal(first(decode(answer), 1, 0), 74922)

    def server_streaming(self):
        sizes = [31415, 9, 2653, 58979]
        call = self.channel.unary_stream(f"/{SERVICE}/StreamingOutputCall")
        equal([len(body_of(answer)) for answer in call(output_request(sizes), timeout=PATIENCE)], sizes)

    def ping_pong(self):
        requests = Requests()
        answers = self.duplex(requests)
        for size, body in ((31415, 27182), (9, 8), (2653, 1828), (58979, 45904)):
            requests.send(output_request([size], body))
            equal(len(body_of(next(answers))), size)
        requests.end()
        equal(list(answers), [])
        equal(answers.code(), grpc.StatusCode.OK)

    def empty_stream(self):
        answers = self.duplex(iter(()))
        equal(list(answers), [])
        equal(answers.code(), grpc.StatusCode.OK)

    def custom_metadata(self):
        sent = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\xab\xab\xab"))
        _, call = self.unary(simple_request(314159, 271828), metadata=sent)
        stream = self.duplex(iter([output_request([314159], 271828)]), metadata=sent)
        equal([len(body_of(answer)) for answer in stream], [314159])
        for call in (call, stream):
            equal(dict(call.initial_metadata()).get(ECHO_INITIAL), "test_initial_metadata_value")
            equal(dict(call.trailing_metadata()).get(ECHO_TRAILING), b"\xab\xab\xab")

    def status_with(self, message):
        status = (7, encode((1, 2), (2, message.encode())))
        for call in (
            lambda: self.unary(encode(status)),
            lambda: list(self.duplex(iter([encode(status)]))),
        ):
            equal(self.fails(grpc.StatusCode.UNKNOWN, call).details(), message)

    def status_code_and_message(self):
        self.status_with("test status message")

    def special_status_message(self):
        self.status_with("\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n")

    def unimplemented_method(self):
        self.fails(grpc.StatusCode.UNIMPLEMENTED, lambda: self.unary(b"", "UnimplementedCall"))

    def unimplemented_service(self):
        call = lambda: self.unary(b"", "UnimplementedCall", "grpc.testing.UnimplementedService")
        self.fails(grpc.StatusCode.UNIMPLEMENTED, call)

    def cancel_after_begin(self):
        requests = Requests()
        call = self.channel.stream_unary(f"/{SERVICE}/StreamingInputCall").future(requests, timeout=PATIENCE)
        call.cancel()
        requests.end()
        equal(call.code(), grpc.StatusCode.CANCELLED)

    def cancel_after_first_response(self):
        requests = Requests()
        answers = self.duplex(requests)
        requests.send(output_request([31415], 27182))
        equal(len(body_of(next(answers))), 31415)
        answers.cancel()
        requests.end()
        self.fails(grpc.StatusCode.CANCELLED, lambda: next(answers))
        # The service hears of it, too.
        assert self.service.ended_early.acquire(timeout=PATIENCE), "the service was not told"

    def timeout_on_sleeping_server(self):
        requests = Requests()
        answers = self.duplex(requests, timeout=0.001)
        requests.send(output_request([], 27182))
        self.fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: next(answers))
        requests.end()

    def compressed_unary(self):
        """Of the cases beyond the fourteen: messages that are compressed by both sides."""
        answer, _ = self.unary(simple_request(314159, 271828, (6, encode((1, 1)))), compression=grpc.Compression.Gzip)
        equal(body_of(answer), bytes(314159))


NAMES = [
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
    "custom_metadata", "status_code_and_message", "special_status_message", "unimplemented_method",
    "unimplemented_service", "cancel_after_begin", "cancel_after_first_response", "timeout_on_sleeping_server",
    "compressed_unary",
]


class Requests:
    """Messages that are sent one by one."""

    def __init__(self):
        self.ready = threading.Condition()
        self.waiting, self.over = [], False

    def send(self, message):
        with self.ready:
            self.waiting.append(message)
            self.ready.notify()

    def end(self):
        with self.ready:
            self.over = True
            self.ready.notify()

    def __iter__(self):
        return self

    def __next__(self):
        with self.ready:
            self.ready.wait_for(lambda: self.waiting or self.over)
            if self.waiting:
                return self.waiting.pop(0)
            raise StopIteration


def equal(found, expected, why=""):
    if found != expected:
        raise AssertionError(f"{found!r:.200} instead of {expected!r:.200} {why}")


def main():
    service = Service()
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    for line in sys.stdin:
        target, *authority = line.split()
        if authority:
            with open(authority[0], "rb") as file:
                credentials = grpc.ssl_channel_credentials(file.read())
            channel = grpc.secure_channel(target, credentials, [("grpc.ssl_target_name_override", "localhost")])
        else:
            channel = grpc.insecure_channel(target)
        cases = Cases(channel, service)
        for name in NAMES:
            try:
                getattr(cases, name)()
                print(name, "ok", flush=True)
            except Exception as error:
                print(name, repr(error).replace("\n", " "), flush=True)
        channel.close()
        print("done", flush=True)
    server.stop(0)


main()

"""A client of TestService on grpcio (C-core).

    client.py --port N --case NAME[,NAME...] [--ca FILE [--cert FILE --key FILE] [--server_name NAME]] [--lookahead N]

It speaks TLS if it has an authority, and has a certificate of its own if it is given one. Streams have a window of 64 KiB
to begin with, or of as many bytes as `--lookahead` says.

Runs each case once and writes `ok NAME`; the first expectation that fails ends it with a message and exit code 1.
"""

import argparse
import concurrent.futures
import os
import queue
import sys
import time

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from stubs import ECHO_INITIAL, ECHO_STATUS, ECHO_TRAILING, FILL, empty_pb2, messages_pb2, test_pb2_grpc

REQUEST_SIZES = [27182, 8, 1828, 45904]
RESPONSE_SIZES = [31415, 9, 2653, 58979]
LONG_STREAM = [500] * 8000
# Bounds every call that should succeed, so that a hanging server is a failure and not a hanging test.
TIMEOUT = 20


def check(what, actual, expected):
    if actual != expected:
        sys.exit(f"FAILED: {what}: expected {expected!r}, got {actual!r}")


def failure(what, call):
    """Runs `call`, which must fail, and returns its error."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    sys.exit(f"FAILED: {what}: the call succeeded")


def payload(size):
    return messages_pb2.Payload(body=bytes(size))


def output_request(*sizes, body=0, **fields):
    parameters = [messages_pb2.ResponseParameters(size=size) for size in sizes]
    return messages_pb2.StreamingOutputCallRequest(response_parameters=parameters, payload=payload(body), **fields)


class Requests:
    """A request stream that the case feeds message by message; iterating it again gives what is left."""

    def __init__(self):
        self.queue = queue.SimpleQueue()

    def send(self, message):
        self.queue.put(message)

    def finish(self):
        self.queue.put(None)

    def __iter__(self):
        return iter(self.queue.get, None)


def empty(stub):
    check("the response", stub.EmptyCall(empty_pb2.Empty(), timeout=TIMEOUT), empty_pb2.Empty())


def unary(stub, compression=None):
    request = messages_pb2.SimpleRequest(response_size=314159, payload=payload(271828))
    response = stub.UnaryCall(request, timeout=TIMEOUT, compression=compression)
    check("the response's payload", response.payload, payload(314159))


def server_streaming(stub):
    call = stub.StreamingOutputCall(output_request(*RESPONSE_SIZES), timeout=TIMEOUT)
    check("the response sizes", [len(response.payload.body) for response in call], RESPONSE_SIZES)


def long_stream(stub):
    """Says how much has come of a stream that the server is closing behind."""
    call = stub.StreamingOutputCall(output_request(*LONG_STREAM), timeout=TIMEOUT)
    arrived = 0
    try:
        for response in call:
            check("a response size", len(response.payload.body), LONG_STREAM[arrived])
            arrived += 1
    except grpc.RpcError as error:
        sys.exit(f"FAILED: {arrived} of {len(LONG_STREAM)} responses: {error}")
    check("responses", arrived, len(LONG_STREAM))


def client_streaming(stub, compression=None):
    requests = (messages_pb2.StreamingInputCallRequest(payload=payload(size)) for size in REQUEST_SIZES)
    response = stub.StreamingInputCall(requests, timeout=TIMEOUT, compression=compression)
    check("the sum of sizes", response.aggregated_payload_size, sum(REQUEST_SIZES))


def bidi(stub):
    requests = Requests()
    call = stub.FullDuplexCall(iter(requests), timeout=TIMEOUT)
    for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES):
        requests.send(output_request(response_size, body=request_size))
        check("a response size", len(next(call).payload.body), response_size)
    requests.finish()
    check("responses after the half-close", list(call), [])
    check("responses of an empty stream", list(stub.FullDuplexCall(iter([]), timeout=TIMEOUT)), [])


def metadata(stub):
    sent = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\xab\xab\xab"))
    request = messages_pb2.SimpleRequest(response_size=1)
    _, call = stub.UnaryCall.with_call(request, metadata=sent, timeout=TIMEOUT)
    check_metadata("unary", call)
    call = stub.FullDuplexCall(iter([output_request(1)]), metadata=sent, timeout=TIMEOUT)
    list(call)
    check_metadata("bidi", call)


def check_metadata(kind, call):
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    check(f"{kind}: the header", initial.get(ECHO_INITIAL), "test_initial_metadata_value")
    check(f"{kind}: the trailer", trailing.get(ECHO_TRAILING), b"\xab\xab\xab")


def heads(stub):
    """Looks at where the metadata of a reply is: in its head and its trailers, of calls of each kind that end well, and of
    those that the server ends at once with an error."""
    wanted = status_pb2.Status(code=9, message="as was asked").SerializeToString()
    unary, one = messages_pb2.SimpleRequest(response_size=1), [output_request(1)]
    for fails in (False, True):
        sent = [(ECHO_INITIAL, "head"), (ECHO_TRAILING, b"trailer")] + [(ECHO_STATUS, wanted)] * fails
        options = {"metadata": sent, "timeout": TIMEOUT}
        kinds = {
            "unary": lambda: stub.UnaryCall.with_call(unary, **options)[1],
            "server streaming": lambda: stub.StreamingOutputCall(output_request(), **options),
            "client streaming": lambda: stub.StreamingInputCall.with_call(iter([]), **options)[1],
            "bidi": lambda: stub.FullDuplexCall(iter(one if fails else []), **options),
        }
        for kind, begin in kinds.items():
            try:
                call = begin()
                if kind in ("server streaming", "bidi"):
                    check(f"{kind}: the replies", list(call), [])
            except grpc.RpcError as error:
                call = error
            code = grpc.StatusCode.FAILED_PRECONDITION if fails else grpc.StatusCode.OK
            check(f"{kind}: the code", call.code(), code)
            initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
            found = [initial.get(ECHO_INITIAL), trailing.get(ECHO_TRAILING)]
            check(f"{kind}, fails: {fails}", found, ["head", b"trailer"])
            check(f"{kind}, in both", (ECHO_TRAILING in initial, ECHO_INITIAL in trailing), (False, False))


def status(stub):
    messages = [
        "test status message",
        "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n",
        "100% of %41",
    ]
    for message in messages:
        wanted = messages_pb2.EchoStatus(code=2, message=message)
        request = messages_pb2.SimpleRequest(response_status=wanted)
        error = failure("unary", lambda: stub.UnaryCall(request, timeout=TIMEOUT))
        check("unary: code and message", (error.code(), error.details()), (grpc.StatusCode.UNKNOWN, message))
        requests = iter([output_request(response_status=wanted)])
        error = failure("bidi", lambda: list(stub.FullDuplexCall(requests, timeout=TIMEOUT)))
        check("bidi: code and message", (error.code(), error.details()), (grpc.StatusCode.UNKNOWN, message))


def unimplemented(stub):
    error = failure("method", lambda: stub.UnimplementedCall(empty_pb2.Empty(), timeout=TIMEOUT))
    check("an unknown method", error.code(), grpc.StatusCode.UNIMPLEMENTED)
    other = test_pb2_grpc.UnimplementedServiceStub(stub.channel)
    error = failure("service", lambda: other.UnimplementedCall(empty_pb2.Empty(), timeout=TIMEOUT))
    check("an unknown service", error.code(), grpc.StatusCode.UNIMPLEMENTED)


def details(stub):
    info = error_details_pb2.ErrorInfo(reason="TOO_COLD", domain="example.test", metadata={"degrees": "-4"})
    violation = error_details_pb2.BadRequest.FieldViolation(field="size", description="größer als erlaubt")
    sent = status_pb2.Status(code=9, message="the details say more: 50% ☺")
    for detail in (info, error_details_pb2.BadRequest(field_violations=[violation])):
        packed = any_pb2.Any()
        packed.Pack(detail)
        sent.details.append(packed)
    header = ((ECHO_STATUS, sent.SerializeToString()),)
    request = messages_pb2.SimpleRequest()
    error = failure("unary", lambda: stub.UnaryCall(request, metadata=header, timeout=TIMEOUT))
    # from_call also fails when code or message differ between the details and the plain trailers.
    check("unary: the status with its details", rpc_status.from_call(error), sent)
    requests = iter([output_request(1)])
    error = failure("bidi", lambda: list(stub.FullDuplexCall(requests, metadata=header, timeout=TIMEOUT)))
    check("bidi: the status with its details", rpc_status.from_call(error), sent)


def deadline(stub):
    started = time.monotonic()
    requests = Requests()
    requests.send(output_request(body=27182))
    error = failure("bidi", lambda: list(stub.FullDuplexCall(iter(requests), timeout=0.3)))
    requests.finish()
    check("a server that does not answer", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    slow = output_request(body=1)
    slow.response_parameters.add(size=1, interval_us=60_000_000)
    error = failure("server stream", lambda: list(stub.StreamingOutputCall(slow, timeout=0.3)))
    check("a server that sleeps", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    check("both within ten seconds", time.monotonic() - started < 10, True)


def cancel(stub):
    requests = Requests()
    call = stub.StreamingInputCall.future(iter(requests), timeout=TIMEOUT)
    call.cancel()
    check("cancelled after begin", call.code(), grpc.StatusCode.CANCELLED)
    requests.finish()

    requests = Requests()
    call = stub.FullDuplexCall(iter(requests), timeout=TIMEOUT)
    requests.send(output_request(31415, body=27182))
    check("the first response", len(next(call).payload.body), 31415)
    call.cancel()
    failure("cancelled after the first response", lambda: next(call))
    check("cancelled after the first response", call.code(), grpc.StatusCode.CANCELLED)
    requests.finish()

    # The channel must be usable afterwards.
    unary(stub)


def compressed(stub):
    unary(stub, compression=grpc.Compression.Gzip)
    client_streaming(stub, compression=grpc.Compression.Gzip)
    # The library inflates without saying that it did; what arrives must be right either way.
    gzip = messages_pb2.BoolValue(value=True)
    request = messages_pb2.SimpleRequest(response_size=314159, response_compressed=gzip)
    check("a compressed response", stub.UnaryCall(request, timeout=TIMEOUT).payload, payload(314159))
    request = output_request(31415, 92653)
    request.response_parameters[0].compressed.value = True
    call = stub.StreamingOutputCall(request, timeout=TIMEOUT)
    check("a mixed stream", [len(response.payload.body) for response in call], [31415, 92653])


def deflate(stub):
    unary(stub, compression=grpc.Compression.Deflate)
    client_streaming(stub, compression=grpc.Compression.Deflate)


def client_compressed_unary(stub):
    """First asks the server to refuse a message that is not compressed, which shows that it looks."""

    def call(expected, compression=None):
        request = messages_pb2.SimpleRequest(
            response_size=1,
            payload=payload(271828),
            expect_compressed=messages_pb2.BoolValue(value=expected),
        )
        return stub.UnaryCall(request, timeout=TIMEOUT, compression=compression)

    error = failure("the probe", lambda: call(True))
    check("the probe", error.code(), grpc.StatusCode.INVALID_ARGUMENT)
    call(True, grpc.Compression.Gzip)
    call(False)


def beside(stub, count, work):
    """Runs `work` 50 at a time, with a number each, beside a call that must outlive all of it."""
    requests = Requests()
    neighbour = stub.FullDuplexCall(iter(requests), timeout=3 * TIMEOUT)
    requests.send(output_request(1))
    next(neighbour)
    with concurrent.futures.ThreadPoolExecutor(50) as workers:
        list(workers.map(work, range(count)))
    requests.send(output_request(1))
    next(neighbour)
    requests.finish()
    check("the neighbour", list(neighbour), [])


def given_up(stub):
    def give_up(number):
        requests = Requests()
        call = stub.FullDuplexCall(iter(requests), timeout=0.005 if number % 2 else TIMEOUT)
        if number % 2 == 0:
            if number % 4:
                time.sleep(0.005)
            call.cancel()
        error = failure("a call given up", lambda: list(call))
        requests.finish()
        wanted = grpc.StatusCode.DEADLINE_EXCEEDED if number % 2 else grpc.StatusCode.CANCELLED
        check("a call given up", error.code(), wanted)

    beside(stub, 3000, give_up)


def refused(stub):
    identity = bytes
    method = stub.channel.stream_unary("/grpc.testing.TestService/NoSuchUpload", identity, identity)

    def upload(_):
        error = failure("an upload", lambda: method((bytes(8192) for _ in range(20)), timeout=TIMEOUT))
        check("an upload", error.code(), grpc.StatusCode.UNIMPLEMENTED)

    beside(stub, 1000, upload)


def large_metadata(stub):
    """Has more sent than a header list may hold, in both directions, beside a stream that goes on.

    What it expects is what our server does with C-core, which announces 16 KiB and by chance refuses from 8 KiB on.
    """
    requests = Requests()
    neighbour = stub.FullDuplexCall(iter(requests), timeout=TIMEOUT)
    exhausted, not_found = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.NOT_FOUND
    for size in (4_000, 20_000, 40_000, 200_000):
        for place in ("request", "initial", "trailing", "details"):
            what = f"{place} {size}"
            sent = (("filling", "f" * size),) if place == "request" else ((FILL, what),)
            code, message = grpc.StatusCode.OK, ""
            try:
                stub.UnaryCall(messages_pb2.SimpleRequest(), metadata=sent, timeout=TIMEOUT)
            except grpc.RpcError as error:
                code, message = error.code(), error.details()
                if place == "details":
                    has_details = rpc_status.from_call(error) is not None
                    check(f"{what}: it has its details", has_details, size < 16_000)
                    check(f"{what}: the message", message[:13], "no such thing")
            print(f"{what}: {code.name} {message[:400]}", flush=True)
            expected = not_found if place == "details" else exhausted if size > 16_000 else grpc.StatusCode.OK
            check(what, code, expected)
            requests.send(output_request(1, body=1))
            check(f"the neighbour, after {what}", len(next(neighbour).payload.body), 1)
    requests.finish()


CASES = {
    case.__name__: case
    for case in (
        empty,
        unary,
        server_streaming,
        client_streaming,
        bidi,
        metadata,
        heads,
        status,
        unimplemented,
        details,
        deadline,
        cancel,
        compressed,
        deflate,
        client_compressed_unary,
        long_stream,
        given_up,
        refused,
        large_metadata,
    )
}


def read(path):
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def connect(arguments):
    address = f"127.0.0.1:{arguments.port}"
    options = []
    if arguments.lookahead:
        # Without the estimate, which would make it more.
        options += [("grpc.http2.lookahead_bytes", arguments.lookahead), ("grpc.http2.bdp_probe", 0)]
    if arguments.ca is None:
        return grpc.insecure_channel(address, options)
    authority, key, certificate = read(arguments.ca), read(arguments.key), read(arguments.cert)
    if arguments.server_name:
        options.append(("grpc.ssl_target_name_override", arguments.server_name))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, key, certificate), options)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--case", required=True, help=", ".join(CASES))
    for flag in ("--ca", "--cert", "--key", "--server_name"):
        parser.add_argument(flag)
    parser.add_argument("--lookahead", type=int)
    arguments = parser.parse_args()
    with connect(arguments) as channel:
        stub = test_pb2_grpc.TestServiceStub(channel)
        stub.channel = channel
        for name in arguments.case.split(","):
            if name not in CASES:
                sys.exit(f"FAILED: no case is called {name!r}")
            try:
                CASES[name](stub)
            except grpc.RpcError as error:
                sys.exit(f"FAILED: {name}: {error}")
            print(f"ok {name}", flush=True)
        # All has been said. The threads of C-core sometimes keep the interpreter from ending, or
        # the channel from closing.
        os._exit(0)


if __name__ == "__main__":
    main()

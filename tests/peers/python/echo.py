"""The services of tests/proto/schema on grpcio (C-core), with messages that use what the files have.

    echo.py client HOST:PORT
    echo.py server

The client calls each service with a message and writes `ok NAME` if the reply is the same, in its bytes too. The server
listens on 127.0.0.1, writes `port N` when it is ready, replies with what it was sent if that is the message, in its bytes
too, and stops when its standard input ends.
"""

import concurrent.futures
import os
import sys

import grpc

sys.path.append(os.environ["TRUNKLINE_STUBS"])

from schema import edition_2023_pb2, edition_2024_pb2, legacy_pb2  # noqa: E402


def legacy():
    message = legacy_pb2.Everything(name="legacy", number=0, raw=b"\x00\xff", colour=legacy_pb2.RED)
    message.packed.extend([1, -2, 300])
    message.expanded.extend([1, -2, 300])
    message.single.member = "single"
    message.single.inner.name = "inner"
    message.many.add(member=1)
    message.many.add(member=2)
    message.chosen.ratio = 0.25
    message.counts["a"] = -1
    message.children[7].name = "child"
    return message


def edition_2023():
    part = edition_2023_pb2.Everything.Part
    message = edition_2023_pb2.Everything(
        explicit="",
        required=3,
        with_default=0,
        expanded=[1, 2],
        packed=[-1, 1],
        prefixed=part(text="prefixed"),
        delimited=part(text="delimited", next=part(text="next")),
        parts=[part(text="one"), part()],
        chosen=part(text="chosen"),
        closed=edition_2023_pb2.GREEN,
        open=edition_2023_pb2.SOMETHING,
        legacy=legacy(),
        data=b"\x01\x02",
    )
    message.map["key"].text = "value"
    message.when.seconds = 5
    message.when.nanos = 6
    return message


def edition_2024():
    message = edition_2024_pb2.Everything(
        text="text", explicit=0, packed=[1, 2, 3], older=edition_2023(), kind=edition_2024_pb2.Everything.KIND_KNOWN
    )
    message.inside.text = "inside"
    message.inside.squares[3] = 9
    message.left.right.left.right.end = "end"
    return message


MESSAGES = {
    "schema.legacy.Legacy": legacy,
    "schema.edition2023.Edition2023": edition_2023,
    "schema.edition2024.Edition2024": edition_2024,
}


def difference(expected, found):
    """What is wrong with these bytes, or nothing."""
    message = type(expected).FromString(found)
    if message != expected:
        return f"expected {expected}, got {message}"
    if found != expected.SerializeToString(deterministic=True):
        return f"expected the bytes {expected.SerializeToString(deterministic=True)}, got {found}"
    return None


def client(address):
    with grpc.insecure_channel(address) as channel:
        for name, make in MESSAGES.items():
            message = make()
            # Without a deserializer the reply is its bytes.
            call = channel.unary_unary(f"/{name}/Echo", request_serializer=type(message).SerializeToString)
            wrong = difference(message, call(message, timeout=20))
            if wrong:
                sys.exit(f"FAILED: {name}: {wrong}")
            print(f"ok {name}", flush=True)


def handler(message):
    def echo(request, context):
        wrong = difference(message, request)
        if wrong:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, wrong)
        return request

    return grpc.unary_unary_rpc_method_handler(echo)


def server():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor())
    for name, make in MESSAGES.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Echo": handler(make())}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"port {port}", flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(sys.argv[2])
    else:
        server()

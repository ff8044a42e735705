"""TestService on grpcio (C-core).

    server.py [--port N] [--max_concurrent_streams N] [--cert FILE --key FILE [--client_ca FILE]]

Listens on 127.0.0.1, over TLS if it has a certificate, and takes only clients of the authority if there is one. It writes `port N` when it is ready. Writes `cancelled PATH` when a call ends before its handler
does. Stops when its standard input ends.
"""

import argparse
import concurrent.futures
import os
import sys
import threading

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from stubs import ECHO_INITIAL, ECHO_STATUS, ECHO_TRAILING, FILL, empty_pb2, messages_pb2, test_pb2_grpc


def say(line):
    print(line, flush=True)


class Watched:
    """Follows one call, and reports when it is given up: the test reads that from the server's output."""

    def __init__(self, context, method):
        self.path = f"/grpc.testing.TestService/{method}"
        self.context = context
        self.finished = False
        self.gone = threading.Event()
        # Fails when the call has ended already.
        if not context.add_callback(self.ended):
            self.ended()

    def ended(self):
        self.gone.set()
        if not self.finished:
            say(f"cancelled {self.path}")

    def sleep(self, seconds):
        if self.gone.wait(seconds):
            raise grpc.RpcError("the call was given up")

    def requests(self, requests):
        """Iterates the requests.

        Those of a call that is given up can end as if the client had finished, just before the library says what
        happened, hence the pause before their end counts.
        """
        yield from requests
        self.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        # Reading from a call that was given up raises RpcError, and its response generator is closed. Any other
        # exception is a status that the handler chose.
        self.finished = kind is None or not issubclass(kind, (grpc.RpcError, GeneratorExit))


def echo_metadata(context):
    trailing = []
    for key, value in context.invocation_metadata():
        if key == ECHO_INITIAL:
            context.send_initial_metadata(((key, value),))
        elif key == ECHO_TRAILING:
            trailing.append((key, value))
        elif key == FILL:
            place, size = value.split()
            filling = "f" * int(size)
            if place == "initial":
                context.send_initial_metadata((("filling", filling),))
            elif place == "trailing":
                trailing.append(("filling", filling))
            else:
                detail = any_pb2.Any()
                detail.Pack(error_details_pb2.DebugInfo(detail=filling))
                large = status_pb2.Status(code=5, message="no such thing", details=[detail])
                context.abort_with_status(rpc_status.to_status(large))
    context.set_trailing_metadata(tuple(trailing))


def echo_status(context, wanted):
    """Ends the call when the request asks for a status."""
    for key, value in context.invocation_metadata():
        if key == ECHO_STATUS:
            status = rpc_status.to_status(status_pb2.Status.FromString(value))
            # What the status brings takes the place of all trailing metadata.
            trailing = status.trailing_metadata + (context.trailing_metadata() or ())
            context.abort_with_status(status._replace(trailing_metadata=trailing))
    if wanted.code:
        context.abort(next(code for code in grpc.StatusCode if code.value[0] == wanted.code), wanted.message)


def echo(context):
    """For methods whose requests have no room for a status."""
    echo_metadata(context)
    echo_status(context, messages_pb2.EchoStatus())


def payload(context, kind, size):
    if kind != messages_pb2.COMPRESSABLE or size < 0:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no payload of type {kind} and size {size}")
    return messages_pb2.Payload(type=kind, body=bytes(size))


def responses(request, context, call):
    """One response for each of the request's parameters.

    A stream that asks for compression anywhere is a gzip stream, in which the other messages opt out.
    """
    if any(parameters.compressed.value for parameters in request.response_parameters):
        context.set_compression(grpc.Compression.Gzip)
    for parameters in request.response_parameters:
        if parameters.interval_us:
            call.sleep(parameters.interval_us / 1e6)
        if not parameters.compressed.value:
            context.disable_next_message_compression()
        response = messages_pb2.StreamingOutputCallResponse(
            payload=payload(context, request.response_type, parameters.size)
        )
        if parameters.fill_peer_socket_address.value:
            response.peer_socket_address = context.peer()
        yield response


class TestService(test_pb2_grpc.TestServiceServicer):
    def EmptyCall(self, request, context):
        return empty_pb2.Empty()

    def UnaryCall(self, request, context):
        with Watched(context, "UnaryCall"):
            if request.response_compressed.value:
                context.set_compression(grpc.Compression.Gzip)
            echo_metadata(context)
            echo_status(context, request.response_status)
            body = payload(context, request.response_type, request.response_size)
            server_id = str(os.getpid()) if request.fill_server_id else ""
            return messages_pb2.SimpleResponse(payload=body, server_id=server_id)

    def StreamingOutputCall(self, request, context):
        with Watched(context, "StreamingOutputCall") as call:
            echo(context)
            yield from responses(request, context, call)

    def StreamingInputCall(self, requests, context):
        with Watched(context, "StreamingInputCall") as call:
            echo(context)
            total = sum(len(request.payload.body) for request in call.requests(requests))
            return messages_pb2.StreamingInputCallResponse(aggregated_payload_size=total)

    def FullDuplexCall(self, requests, context):
        with Watched(context, "FullDuplexCall") as call:
            echo_metadata(context)
            for request in call.requests(requests):
                echo_status(context, request.response_status)
                yield from responses(request, context, call)

    def HalfDuplexCall(self, requests, context):
        with Watched(context, "HalfDuplexCall") as call:
            for request in list(call.requests(requests)):
                yield from responses(request, context, call)


def read(path):
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max_concurrent_streams", type=int)
    for flag in ("--cert", "--key", "--client_ca"):
        parser.add_argument(flag)
    arguments = parser.parse_args()
    # A call holds a thread for as long as it lives.
    threads = concurrent.futures.ThreadPoolExecutor(max_workers=64)
    streams = arguments.max_concurrent_streams
    server = grpc.server(threads, options=[("grpc.max_concurrent_streams", streams)] if streams else [])
    test_pb2_grpc.add_TestServiceServicer_to_server(TestService(), server)
    address = f"127.0.0.1:{arguments.port}"
    if arguments.cert:
        pair = (read(arguments.key), read(arguments.cert))
        authority = read(arguments.client_ca)
        credentials = grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)
        port = server.add_secure_port(address, credentials)
    else:
        port = server.add_insecure_port(address)
    server.start()
    say(f"port {port}")
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()

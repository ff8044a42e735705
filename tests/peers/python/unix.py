"""A client on grpcio (C-core) of a Unix socket, and of a list of addresses.

    unix.py --target TARGET [--calls N]

Calls N times at once without an authority of its own, and N times with one; writes how the calls ended.
"""

import argparse
import collections
import os

import grpc

from stubs import empty_pb2, test_pb2_grpc


def call(target, options, calls):
    channel = grpc.insecure_channel(target, options=options)
    stub = test_pb2_grpc.TestServiceStub(channel)
    ended = collections.Counter()
    for future in [stub.EmptyCall.future(empty_pb2.Empty(), timeout=30) for _ in range(calls)]:
        error = future.exception()
        ended["OK" if error is None else f"{error.code().name}: {error.details()}"] += 1
    return dict(ended)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--calls", type=int, default=1)
    arguments = parser.parse_args()
    for name, options in [("own", []), ("set", [("grpc.default_authority", "localhost")])]:
        print(f"{name}: {call(arguments.target, options, arguments.calls)}", flush=True)
    # grpcio may wait for ever for its own threads.
    os._exit(0)


main()

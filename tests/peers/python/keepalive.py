"""Two clients on grpcio (C-core) with a stream open that nobody uses: one asks three times a second whether the server is
there, one has C-core's own settings.

    keepalive.py --port N

Writes how the stream of the first ended, and whether that of the second is still open then and answers.
"""

import argparse
import os
import queue

import grpc

from stubs import messages_pb2, test_pb2_grpc

OFTEN = [
    ("grpc.keepalive_time_ms", 300),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def open_stream(port, options):
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
    requests = queue.Queue()
    replies = test_pb2_grpc.TestServiceStub(channel).FullDuplexCall(iter(requests.get, None), timeout=30)
    request = messages_pb2.StreamingOutputCallRequest(response_parameters=[{"size": 1}])
    requests.put(request)
    next(replies)
    return channel, requests, replies, request


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    _kept, requests, replies, request = open_stream(port, [])
    _channel, _requests, pressed, _request = open_stream(port, OFTEN)
    try:
        next(pressed)
    except grpc.RpcError as error:
        print(f"often: {error.code().name}: {error.details()}", flush=True)
    requests.put(request)
    next(replies)
    requests.put(None)
    print("default: open", flush=True)
    # grpcio may wait for ever for its own threads.
    os._exit(0)


main()

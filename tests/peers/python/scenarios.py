"""Calls on grpcio (C-core) under service configs.

    scenarios.py --jobs JSON

A job makes `calls` calls one after another, to the paths `/test.Scenario/0` and so on, on a channel of its own with the
service config `config`; `connected`: once the channel is connected. The request is `messages` messages of `size` bytes; in
a stream both ways, the first one, and the others after a response. All jobs run at the same time. Writes
`done NAME MILLISECONDS CODE...` with the codes of the calls, or, for a job without calls, `config NAME accepted` or
`rejected`, and what was said.
"""

import argparse
import concurrent.futures
import json
import os
import queue
import time

import grpc


def requests(job):
    return [bytes(job["size"]) for _ in range(job["messages"])]


def unary(channel, path, job, **options):
    channel.unary_unary(path)(requests(job)[0], **options)


def client_streaming(channel, path, job, **options):
    channel.stream_unary(path)(iter(requests(job)), **options)


def server_streaming(channel, path, job, **options):
    for _ in channel.unary_stream(path)(requests(job)[0], **options):
        pass


def bidi(channel, path, job, **options):
    first, *others = requests(job)
    sent = queue.SimpleQueue()
    sent.put(first)
    responses = channel.stream_stream(path)(iter(sent.get, None), **options)
    next(responses)
    for request in [*others, None]:
        sent.put(request)
    for _ in responses:
        pass


KINDS = {"unary": unary, "client_streaming": client_streaming, "server_streaming": server_streaming, "bidi": bidi}


def call(channel, path, job, **options):
    try:
        KINDS[job["kind"]](channel, path, job, timeout=job["timeout"] / 1000, **options)
    except grpc.RpcError as error:
        return error
    return None


def open_channel(job):
    options = [
        ("grpc.service_config", job["config"]),
        ("grpc.enable_retries", int(job["retries"])),
        # Jobs share no connections.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.insecure_channel(job["target"], options=options)


def run(job):
    with open_channel(job) as channel:
        if job["connected"]:
            grpc.channel_ready_future(channel).result(timeout=20)
        began = time.monotonic()
        errors = [call(channel, f"/test.Scenario/{number}", job) for number in range(job["calls"])]
        millis = int((time.monotonic() - began) * 1000)
    codes = [str(error.code().value[0] if error else 0) for error in errors]
    return f"done {job['name']} {millis} {' '.join(codes)}"


def try_config(job):
    """Nothing listens at the target: a channel that has taken the config fails for that."""
    with open_channel(job) as channel:
        error = call(channel, "/test.Scenario/0", job, wait_for_ready=False)
    rejected = error is not None and "Failed to create channel" in error.details()
    return f"config {job['name']} {'rejected' if rejected else 'accepted'} {error and error.details()!r}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=json.loads, required=True)
    jobs = parser.parse_args().jobs
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        for line in pool.map(lambda job: run(job) if job["calls"] else try_config(job), jobs):
            print(line, flush=True)
    # grpcio may wait for ever for its own threads.
    os._exit(0)


main()

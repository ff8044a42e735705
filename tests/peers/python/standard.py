"""A client of the standard services, health and reflection, on the Python packages of gRPC.

    standard.py --port N --case NAME[,NAME...]
    standard.py --port N --probe SERVICE

Runs each case once and writes `ok NAME`; the first expectation that fails ends it with a message and exit code 1.

With --probe it is what Kubernetes and grpc_health_probe do: one Check within a second. The exit code is 0 if the service
is SERVING, and else 1.
"""

import argparse
import os
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

# Bounds every call that should succeed, so that a hanging server is a failure and not a hanging test.
TIMEOUT = 20
GREETER = "helloworld.Greeter"
Status = health_pb2.HealthCheckResponse.ServingStatus


def check(what, actual, expected):
    if actual != expected:
        sys.exit(f"FAILED: {what}: expected {expected!r}, got {actual!r}")


def named(service):
    return health_pb2.HealthCheckRequest(service=service)


def greet(channel, name):
    """Calls a server of which nothing is known but what it tells itself. What it is told as a name, it becomes."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName(GREETER).FindMethodByName("SayHello")
    request = GetMessageClass(method.input_type)
    reply = GetMessageClass(method.output_type)
    call = channel.unary_unary(
        f"/{GREETER}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=reply.FromString,
    )
    return call(request(name=name), timeout=TIMEOUT).message


def health_check(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ["", GREETER]:
        check(f"the status of {service!r}", stub.Check(named(service), timeout=TIMEOUT).status, Status.SERVING)
    try:
        stub.Check(named("nobody"), timeout=TIMEOUT)
    except grpc.RpcError as error:
        check("the code for an unknown service", error.code(), grpc.StatusCode.NOT_FOUND)
    else:
        sys.exit("FAILED: an unknown service has a status")


def health_list(channel):
    statuses = health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest(), timeout=TIMEOUT).statuses
    check("the server is listed", statuses[""].status, Status.SERVING)
    check("the service is listed", statuses[GREETER].status, Status.SERVING)


def health_watch(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    greeter = stub.Watch(named(GREETER), timeout=TIMEOUT)
    nobody = stub.Watch(named("nobody"), timeout=TIMEOUT)
    check("the first status", next(greeter).status, Status.SERVING)
    check("the first status of nobody", next(nobody).status, Status.SERVICE_UNKNOWN)
    for name, status in [("not serving", Status.NOT_SERVING), ("serving", Status.SERVING)]:
        greet(channel, name)
        check("the next status", next(greeter).status, status)
    greeter.cancel()
    nobody.cancel()


def reflection_list(channel):
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        GREETER,
        "routeguide.RouteGuide",
    ]
    check("the services", list(services), expected)


def reflection_call(channel):
    check("the reply", greet(channel, "Python"), "Hello, Python!")
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindMethodByName("routeguide.RouteGuide.RouteChat")
    check("streams", (method.client_streaming, method.server_streaming), (True, True))
    point = pool.FindMessageTypeByName("routeguide.Point")
    check("a field", point.fields_by_name["latitude"].number, 1)
    try:
        pool.FindMessageTypeByName("routeguide.Nothing")
    except KeyError:
        return
    sys.exit("FAILED: a message that is not there is found")


def reflection_same_names(channel):
    """Two crates bring a service.proto and a common.proto each."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    users = pool.FindServiceByName("users.UserService")
    orders = pool.FindServiceByName("orders.OrderService")
    number = users.methods_by_name["GetUser"].input_type.fields_by_name["id"].message_type
    check("an import of users", number.full_name, "users.Id")
    text = orders.methods_by_name["GetOrder"].input_type.fields_by_name["key"].message_type
    check("an import of orders", text.full_name, "orders.Key")
    check("the files of orders", (orders.file.name, text.file.name), ("service.proto", "common.proto"))
    check(
        "the files of users",
        (users.file.name, number.file.name),
        ("users/service.proto", "users/common.proto"),
    )


CASES = [health_check, health_list, health_watch, reflection_list, reflection_call, reflection_same_names]


def probe(channel, service):
    try:
        status = health_pb2_grpc.HealthStub(channel).Check(named(service), timeout=1).status
    except grpc.RpcError as error:
        return f"{service!r}: {error.code().name}: {error.details()}"
    return f"{service!r}: {Status.Name(status)}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", required=True)
    parser.add_argument("--case", default="")
    parser.add_argument("--probe")
    arguments = parser.parse_args()
    cases = {case.__name__: case for case in CASES}
    with grpc.insecure_channel(f"127.0.0.1:{arguments.port}") as channel:
        if arguments.probe is not None:
            said = probe(channel, arguments.probe)
            print(said, flush=True)
            os._exit(0 if said.endswith(": SERVING") else 1)
        for name in filter(None, arguments.case.split(",")):
            if name not in cases:
                sys.exit(f"FAILED: there is no case {name}")
            try:
                cases[name](channel)
            except grpc.RpcError as error:
                sys.exit(f"FAILED: {name}: {error}")
            print(f"ok {name}", flush=True)
        # All has been said. The threads of C-core sometimes keep the interpreter from ending, or the channel from closing.
        os._exit(0)


if __name__ == "__main__":
    main()

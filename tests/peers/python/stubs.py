"""Makes the generated modules importable beside the gRPC library.

The .proto files of the interoperability tests live in the package `grpc`, as does the library; their modules are
reached by adding the directory of the generated ones, TRUNKLINE_STUBS, to that package's search path.
"""

import os

import grpc

grpc.__path__.append(os.path.join(os.environ["TRUNKLINE_STUBS"], "grpc"))

from grpc.testing import empty_pb2, messages_pb2, test_pb2_grpc  # noqa: E402, F401

# What the servers of these tests understand beyond the official contract: a serialized google.rpc.Status in this
# request header is the status, with its details, that ends the call.
ECHO_STATUS = "x-trunkline-echo-status-bin"
# With a value such as `trailing 40000` it asks for as many bytes in the head of the reply (`initial`), in its trailers,
# or in the details of a NOT_FOUND.
FILL = "x-trunkline-fill"
ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"

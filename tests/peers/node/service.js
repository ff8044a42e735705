// What server and client share: the service from its .proto files, and google.rpc.Status, which the gRPC library for
// Node does not know.

'use strict';

const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const definition = loader.loadSync('grpc/testing/test.proto', {
  includeDirs: [process.env.TRUNKLINE_PROTOS],
  keepCase: true,
  defaults: true,
  enums: Number,
});

const rpc = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
`).root;

module.exports = {
  testing: grpc.loadPackageDefinition(definition).grpc.testing,
  Status: rpc.lookupType('google.rpc.Status'),
  ErrorInfo: rpc.lookupType('google.rpc.ErrorInfo'),
  ECHO_INITIAL: 'x-grpc-test-echo-initial',
  ECHO_TRAILING: 'x-grpc-test-echo-trailing-bin',
  // Beyond the official contract: a serialized google.rpc.Status in this request header is the status, with its
  // details, that ends the call.
  ECHO_STATUS: 'x-trunkline-echo-status-bin',
  DETAILS: 'grpc-status-details-bin',
};

#!/bin/sh
# Writes proto/*.go anew, which are committed so that building needs nothing but Go.
# Needs on PATH: protoc, protoc-gen-go and protoc-gen-go-grpc.
set -eu
cd "$(dirname "$0")"
protoc --proto_path=../../proto \
    --go_out=proto --go_opt=paths=source_relative,Mbench.proto=grpc-go-bench/proto \
    --go-grpc_out=proto --go-grpc_opt=paths=source_relative,Mbench.proto=grpc-go-bench/proto \
    bench.proto

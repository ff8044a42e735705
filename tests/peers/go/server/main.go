// Command server is TestService on grpc-go with gzip, which the official program lacks.
//
//	server [--port N] [--max_concurrent_streams N]
//
// It listens on 127.0.0.1 and writes `port N` when it is ready. It writes `cancelled PATH` when a call ends before its
// handler does. It stops when its standard input ends.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"trunkline/peers/watch"
)

type testService struct {
	pb.UnimplementedTestServiceServer
}

func (testService) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) {
	return new(pb.Empty), nil
}

func (testService) UnaryCall(ctx context.Context, request *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if err := expectCompressed(ctx, request.GetExpectCompressed()); err != nil {
		return nil, err
	}
	if err := sendCompressed(ctx, request.GetResponseCompressed().GetValue()); err != nil {
		return nil, err
	}
	if err := echoMetadata(ctx); err != nil {
		return nil, err
	}
	if err := echoStatus(ctx, request.GetResponseStatus()); err != nil {
		return nil, err
	}
	body, err := payload(request.GetResponseType(), request.GetResponseSize())
	if err != nil {
		return nil, err
	}
	response := &pb.SimpleResponse{Payload: body}
	if request.GetFillServerId() {
		response.ServerId = fmt.Sprint(os.Getpid())
	}
	return response, nil
}

func (testService) StreamingOutputCall(
	request *pb.StreamingOutputCallRequest,
	stream grpc.ServerStreamingServer[pb.StreamingOutputCallResponse],
) error {
	if err := echo(stream.Context()); err != nil {
		return err
	}
	return respond(stream, request)
}

func (testService) StreamingInputCall(
	stream grpc.ClientStreamingServer[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse],
) error {
	if err := echo(stream.Context()); err != nil {
		return err
	}
	total := 0
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(total)})
		}
		if err != nil {
			return err
		}
		if err := expectCompressed(stream.Context(), request.GetExpectCompressed()); err != nil {
			return err
		}
		total += len(request.GetPayload().GetBody())
	}
}

func (testService) FullDuplexCall(
	stream grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse],
) error {
	if err := echoMetadata(stream.Context()); err != nil {
		return err
	}
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := echoStatus(stream.Context(), request.GetResponseStatus()); err != nil {
			return err
		}
		if err := respond(stream, request); err != nil {
			return err
		}
	}
}

func (testService) HalfDuplexCall(
	stream grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse],
) error {
	var requests []*pb.StreamingOutputCallRequest
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		requests = append(requests, request)
	}
	for _, request := range requests {
		if err := respond(stream, request); err != nil {
			return err
		}
	}
	return nil
}

type responses interface {
	Context() context.Context
	Send(*pb.StreamingOutputCallResponse) error
}

// respond sends one response for each of the request's parameters. grpc-go compresses all messages of a stream or
// none, so that a stream which asks for compression anywhere is compressed throughout.
func respond(stream responses, request *pb.StreamingOutputCallRequest) error {
	for _, parameters := range request.GetResponseParameters() {
		if parameters.GetCompressed().GetValue() {
			if err := sendCompressed(stream.Context(), true); err != nil {
				return err
			}
			break
		}
	}
	for _, parameters := range request.GetResponseParameters() {
		select {
		case <-time.After(time.Duration(parameters.GetIntervalUs()) * time.Microsecond):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		body, err := payload(request.GetResponseType(), parameters.GetSize())
		if err != nil {
			return err
		}
		response := &pb.StreamingOutputCallResponse{Payload: body}
		if parameters.GetFillPeerSocketAddress().GetValue() {
			from, _ := peer.FromContext(stream.Context())
			response.PeerSocketAddress = from.Addr.String()
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
	return nil
}

func expectCompressed(ctx context.Context, expected *pb.BoolValue) error {
	if expected.GetValue() && !watch.From(ctx).Compressed() {
		return status.Error(codes.InvalidArgument, "the message was to be compressed")
	}
	return nil
}

// sendCompressed also says no: grpc-go answers in the encoding of the request unless it is told otherwise.
func sendCompressed(ctx context.Context, compressed bool) error {
	if compressed {
		return grpc.SetSendCompressor(ctx, "gzip")
	}
	return grpc.SetSendCompressor(ctx, "identity")
}

func echoMetadata(ctx context.Context) error {
	received, _ := metadata.FromIncomingContext(ctx)
	if values := received.Get(watch.EchoInitial); len(values) > 0 {
		if err := grpc.SendHeader(ctx, metadata.MD{watch.EchoInitial: values}); err != nil {
			return err
		}
	}
	if values := received.Get(watch.EchoTrailing); len(values) > 0 {
		return grpc.SetTrailer(ctx, metadata.MD{watch.EchoTrailing: values})
	}
	return fill(ctx, received.Get(watch.Fill))
}

// fill sends as much metadata as it is asked for.
func fill(ctx context.Context, wanted []string) error {
	for _, value := range wanted {
		var place string
		var size int
		if _, err := fmt.Sscanf(value, "%s %d", &place, &size); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		filling := metadata.Pairs("filling", strings.Repeat("f", size))
		switch place {
		case "initial":
			return grpc.SendHeader(ctx, filling)
		case "trailing":
			return grpc.SetTrailer(ctx, filling)
		}
		detail := &errdetails.DebugInfo{Detail: strings.Repeat("f", size)}
		large, err := status.New(codes.NotFound, "no such thing").WithDetails(detail)
		if err != nil {
			return err
		}
		return large.Err()
	}
	return nil
}

// echo is for methods whose requests have no room for a status.
func echo(ctx context.Context) error {
	if err := echoMetadata(ctx); err != nil {
		return err
	}
	return echoStatus(ctx, nil)
}

// echoStatus ends the call when the request asks for a status.
func echoStatus(ctx context.Context, wanted *pb.EchoStatus) error {
	received, _ := metadata.FromIncomingContext(ctx)
	for _, value := range received.Get(watch.EchoStatus) {
		parsed := new(spb.Status)
		if err := proto.Unmarshal([]byte(value), parsed); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		return status.ErrorProto(parsed)
	}
	// A nil error when the code is 0.
	return status.Error(codes.Code(wanted.GetCode()), wanted.GetMessage())
}

func payload(kind pb.PayloadType, size int32) (*pb.Payload, error) {
	if kind != pb.PayloadType_COMPRESSABLE || size < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "no payload of type %d and size %d", kind, size)
	}
	return &pb.Payload{Type: kind, Body: make([]byte, size)}, nil
}

func reportUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	response, err := next(ctx, request)
	report(ctx, info.FullMethod)
	return response, err
}

func reportStream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	err := next(service, stream)
	report(stream.Context(), info.FullMethod)
	return err
}

// report runs at the end of a handler, when the context is done only if the call was given up.
func report(ctx context.Context, path string) {
	if ctx.Err() != nil {
		fmt.Printf("cancelled %s\n", path)
	}
}

func main() {
	port := flag.Int("port", 0, "the port to listen on; 0 takes a free one")
	streams := flag.Uint("max_concurrent_streams", 0, "how many streams a connection takes; 0 for any number")
	flag.Parse()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.MaxConcurrentStreams(uint32(*streams)),
		grpc.StatsHandler(watch.Handler{}),
		grpc.UnaryInterceptor(reportUnary),
		grpc.StreamInterceptor(reportStream),
	)
	pb.RegisterTestServiceServer(server, testService{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Printf("port %d\n", listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}

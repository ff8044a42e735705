// Command client is a client of TestService on grpc-go, with gzip, which the official program lacks.
//
//	client --port N --case NAME[,NAME...] [--ca FILE]
//
// It speaks TLS if it has an authority.
//
// It runs each case once and writes `ok NAME`; the first expectation that fails ends it with a message and exit code 1.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"trunkline/peers/watch"
)

// timeout bounds every call that should succeed, so that a hanging server is a failure and not a hanging test.
const timeout = 20 * time.Second

var (
	requestSizes  = []int{27182, 8, 1828, 45904}
	responseSizes = []int{31415, 9, 2653, 58979}
)

// suite is what every case works with.
type suite struct {
	channel *grpc.ClientConn
	service pb.TestServiceClient
	ctx     context.Context
}

var cases = map[string]func(suite){
	"empty":                       suite.empty,
	"unary":                       func(s suite) { s.unary() },
	"server_streaming":            suite.serverStreaming,
	"long_stream":                 suite.longStream,
	"client_streaming":            func(s suite) { s.clientStreaming() },
	"bidi":                        func(s suite) { s.bidi() },
	"metadata":                    suite.metadata,
	"heads":                       suite.heads,
	"status":                      suite.status,
	"unimplemented":               suite.unimplemented,
	"details":                     suite.details,
	"deadline":                    suite.deadline,
	"cancel":                      suite.cancel,
	"compressed":                  suite.compressed,
	"client_compressed_unary":     suite.clientCompressedUnary,
	"client_compressed_streaming": suite.clientCompressedStreaming,
	"server_compressed_unary":     suite.serverCompressedUnary,
	"server_compressed_streaming": suite.serverCompressedStreaming,
	"given_up":                    suite.givenUp,
	"refused":                     suite.refused,
	"large_metadata":              suite.largeMetadata,
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "FAILED: "+format+"\n", arguments...)
	os.Exit(1)
}

func check(what string, actual, expected any) {
	if !reflect.DeepEqual(actual, expected) {
		fail("%s: expected %v, got %v", what, expected, actual)
	}
}

func must(what string, err error) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func checkCode(what string, err error, code codes.Code) {
	if status.Code(err) != code {
		fail("%s: expected %v, got %v", what, code, err)
	}
}

// payload gives nil for no bytes, so that a message can be empty altogether.
func payload(size int) *pb.Payload {
	if size == 0 {
		return nil
	}
	return &pb.Payload{Body: make([]byte, size)}
}

func outputRequest(body int, sizes ...int) *pb.StreamingOutputCallRequest {
	request := &pb.StreamingOutputCallRequest{Payload: payload(body)}
	for _, size := range sizes {
		request.ResponseParameters = append(request.ResponseParameters, &pb.ResponseParameters{Size: int32(size)})
	}
	return request
}

func (s suite) empty() {
	_, err := s.service.EmptyCall(s.ctx, new(pb.Empty))
	must("EmptyCall", err)
}

func (s suite) unary(options ...grpc.CallOption) {
	request := &pb.SimpleRequest{ResponseSize: 314159, Payload: payload(271828)}
	response, err := s.service.UnaryCall(s.ctx, request, options...)
	must("UnaryCall", err)
	check("the response's payload", response.GetPayload().GetBody(), make([]byte, 314159))
}

func (s suite) serverStreaming() {
	stream, err := s.service.StreamingOutputCall(s.ctx, outputRequest(0, responseSizes...))
	must("StreamingOutputCall", err)
	var sizes []int
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			break
		}
		must("a response", err)
		sizes = append(sizes, len(response.GetPayload().GetBody()))
	}
	check("the response sizes", sizes, responseSizes)
}

// longStream says how much has come of a stream that the server is closing behind.
func (s suite) longStream() {
	const count, size = 8000, 500
	sizes := make([]int, count)
	for index := range sizes {
		sizes[index] = size
	}
	stream, err := s.service.StreamingOutputCall(s.ctx, outputRequest(0, sizes...))
	must("StreamingOutputCall", err)
	for arrived := 0; ; arrived++ {
		response, err := stream.Recv()
		if err == io.EOF {
			check("responses", arrived, count)
			return
		}
		must(fmt.Sprintf("%d of %d responses", arrived, count), err)
		check("a response size", len(response.GetPayload().GetBody()), size)
	}
}

func (s suite) clientStreaming(options ...grpc.CallOption) {
	stream, err := s.service.StreamingInputCall(s.ctx, options...)
	must("StreamingInputCall", err)
	total := 0
	for _, size := range requestSizes {
		total += size
		must("a request", stream.Send(&pb.StreamingInputCallRequest{Payload: payload(size)}))
	}
	response, err := stream.CloseAndRecv()
	must("the response", err)
	check("the sum of sizes", int(response.GetAggregatedPayloadSize()), total)
}

func (s suite) bidi(options ...grpc.CallOption) {
	stream, err := s.service.FullDuplexCall(s.ctx, options...)
	must("FullDuplexCall", err)
	for index, size := range requestSizes {
		must("a request", stream.Send(outputRequest(size, responseSizes[index])))
		response, err := stream.Recv()
		must("a response", err)
		check("a response size", len(response.GetPayload().GetBody()), responseSizes[index])
	}
	must("the half-close", stream.CloseSend())
	_, err = stream.Recv()
	check("the end", err, io.EOF)

	stream, err = s.service.FullDuplexCall(s.ctx, options...)
	must("FullDuplexCall", err)
	must("the half-close of an empty stream", stream.CloseSend())
	_, err = stream.Recv()
	check("the end of an empty stream", err, io.EOF)
}

func (s suite) metadata() {
	initial, binary := "test_initial_metadata_value", "\xab\xab\xab"
	ctx := metadata.AppendToOutgoingContext(s.ctx, watch.EchoInitial, initial, watch.EchoTrailing, binary)
	var header, trailer metadata.MD
	_, err := s.service.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: 1}, grpc.Header(&header), grpc.Trailer(&trailer))
	must("UnaryCall", err)
	check("unary: the header", header.Get(watch.EchoInitial), []string{initial})
	check("unary: the trailer", trailer.Get(watch.EchoTrailing), []string{binary})

	stream, err := s.service.FullDuplexCall(ctx)
	must("FullDuplexCall", err)
	must("a request", stream.Send(outputRequest(0, 1)))
	_, err = stream.Recv()
	must("a response", err)
	must("the half-close", stream.CloseSend())
	_, err = stream.Recv()
	check("the end", err, io.EOF)
	header, err = stream.Header()
	must("the header", err)
	check("bidi: the header", header.Get(watch.EchoInitial), []string{initial})
	check("bidi: the trailer", stream.Trailer().Get(watch.EchoTrailing), []string{binary})
}

// heads looks at where the metadata of a reply is: in its header and its trailer, of calls of each kind that end well, and of
// those that the server ends at once with an error.
func (s suite) heads() {
	wanted, err := proto.Marshal(&spb.Status{Code: 9, Message: "as was asked"})
	must("encoding a status", err)
	for _, fails := range []bool{false, true} {
		ctx := metadata.AppendToOutgoingContext(s.ctx, watch.EchoInitial, "head", watch.EchoTrailing, "trailer")
		if fails {
			ctx = metadata.AppendToOutgoingContext(ctx, watch.EchoStatus, string(wanted))
		}
		ended := func(kind string, err error, header, trailer metadata.MD) {
			if fails {
				checkCode(kind, err, codes.FailedPrecondition)
			} else if err != io.EOF {
				must(kind, err)
			}
			kind = fmt.Sprintf("%s, fails: %v", kind, fails)
			check(kind+": the header", header.Get(watch.EchoInitial), []string{"head"})
			check(kind+": the trailer", trailer.Get(watch.EchoTrailing), []string{"trailer"})
			check(kind+": in both", len(header.Get(watch.EchoTrailing))+len(trailer.Get(watch.EchoInitial)), 0)
		}
		var header, trailer metadata.MD
		_, err := s.service.UnaryCall(ctx, &pb.SimpleRequest{ResponseSize: 1}, grpc.Header(&header), grpc.Trailer(&trailer))
		ended("unary", err, header, trailer)

		output, err := s.service.StreamingOutputCall(ctx, outputRequest(0))
		must("StreamingOutputCall", err)
		_, err = output.Recv()
		header, headerErr := output.Header()
		must("the header", headerErr)
		ended("server streaming", err, header, output.Trailer())

		input, err := s.service.StreamingInputCall(ctx)
		must("StreamingInputCall", err)
		_, err = input.CloseAndRecv()
		header, headerErr = input.Header()
		must("the header", headerErr)
		ended("client streaming", err, header, input.Trailer())

		both, err := s.service.FullDuplexCall(ctx)
		must("FullDuplexCall", err)
		if fails {
			must("a request", both.Send(outputRequest(0, 1)))
		}
		must("the half-close", both.CloseSend())
		_, err = both.Recv()
		header, headerErr = both.Header()
		must("the header", headerErr)
		ended("bidi", err, header, both.Trailer())
	}
}

func (s suite) status() {
	for _, message := range []string{
		"test status message",
		"\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n",
		"100% of %41",
	} {
		wanted := &pb.EchoStatus{Code: 2, Message: message}
		_, err := s.service.UnaryCall(s.ctx, &pb.SimpleRequest{ResponseStatus: wanted})
		checkCode("unary", err, codes.Unknown)
		check("unary: the message", status.Convert(err).Message(), message)
		stream, err := s.service.FullDuplexCall(s.ctx)
		must("FullDuplexCall", err)
		must("a request", stream.Send(&pb.StreamingOutputCallRequest{ResponseStatus: wanted}))
		_, err = stream.Recv()
		checkCode("bidi", err, codes.Unknown)
		check("bidi: the message", status.Convert(err).Message(), message)
	}
}

func (s suite) unimplemented() {
	_, err := s.service.UnimplementedCall(s.ctx, new(pb.Empty))
	checkCode("an unknown method", err, codes.Unimplemented)
	_, err = pb.NewUnimplementedServiceClient(s.channel).UnimplementedCall(s.ctx, new(pb.Empty))
	checkCode("an unknown service", err, codes.Unimplemented)
}

func (s suite) details() {
	sent := &spb.Status{Code: 9, Message: "the details say more: 50% ☺"}
	for _, detail := range []proto.Message{
		&errdetails.ErrorInfo{Reason: "TOO_COLD", Domain: "example.test", Metadata: map[string]string{"degrees": "-4"}},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "size", Description: "größer als erlaubt"},
		}},
	} {
		packed, err := anypb.New(detail)
		must("packing a detail", err)
		sent.Details = append(sent.Details, packed)
	}
	encoded, err := proto.Marshal(sent)
	must("encoding a status", err)
	ctx := metadata.AppendToOutgoingContext(s.ctx, watch.EchoStatus, string(encoded))

	_, err = s.service.UnaryCall(ctx, new(pb.SimpleRequest))
	if received := status.Convert(err).Proto(); !proto.Equal(received, sent) {
		fail("unary: expected %v, got %v", sent, received)
	}
	stream, err := s.service.FullDuplexCall(ctx)
	must("FullDuplexCall", err)
	must("a request", stream.Send(outputRequest(0, 1)))
	_, err = stream.Recv()
	if received := status.Convert(err).Proto(); !proto.Equal(received, sent) {
		fail("bidi: expected %v, got %v", sent, received)
	}
}

func (s suite) deadline() {
	started := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, 300*time.Millisecond)
	defer cancel()
	stream, err := s.service.FullDuplexCall(ctx)
	must("FullDuplexCall", err)
	must("a request", stream.Send(outputRequest(27182)))
	_, err = stream.Recv()
	checkCode("a server that does not answer", err, codes.DeadlineExceeded)

	ctx, cancel = context.WithTimeout(s.ctx, 300*time.Millisecond)
	defer cancel()
	slow := outputRequest(1, 1)
	slow.ResponseParameters[0].IntervalUs = 60_000_000
	output, err := s.service.StreamingOutputCall(ctx, slow)
	must("StreamingOutputCall", err)
	_, err = output.Recv()
	checkCode("a server that sleeps", err, codes.DeadlineExceeded)
	check("both within ten seconds", time.Since(started) < 10*time.Second, true)
}

func (s suite) cancel() {
	ctx, cancel := context.WithCancel(s.ctx)
	input, err := s.service.StreamingInputCall(ctx)
	must("StreamingInputCall", err)
	cancel()
	_, err = input.CloseAndRecv()
	checkCode("cancelled after begin", err, codes.Canceled)

	ctx, cancel = context.WithCancel(s.ctx)
	stream, err := s.service.FullDuplexCall(ctx)
	must("FullDuplexCall", err)
	must("a request", stream.Send(outputRequest(27182, 31415)))
	_, err = stream.Recv()
	must("the first response", err)
	cancel()
	_, err = stream.Recv()
	checkCode("cancelled after the first response", err, codes.Canceled)

	// The channel must be usable afterwards.
	s.unary()
}

// compressed asks nothing of the server but that it understands gzip.
func (s suite) compressed() {
	gzipped := grpc.UseCompressor(gzip.Name)
	s.unary(gzipped)
	s.clientStreaming(gzipped)
	s.bidi(gzipped)
}

// clientCompressedUnary first asks the server to refuse a message that is not compressed, which shows that it looks.
func (s suite) clientCompressedUnary() {
	request := func(expected bool) *pb.SimpleRequest {
		return &pb.SimpleRequest{
			ResponseSize:     314159,
			Payload:          payload(271828),
			ExpectCompressed: &pb.BoolValue{Value: expected},
		}
	}
	_, err := s.service.UnaryCall(s.ctx, request(true))
	checkCode("the probe", err, codes.InvalidArgument)
	_, err = s.service.UnaryCall(s.ctx, request(true), grpc.UseCompressor(gzip.Name))
	must("a compressed request", err)
	_, err = s.service.UnaryCall(s.ctx, request(false))
	must("a plain request", err)
}

// clientCompressedStreaming ends its stream with an empty message, the only one that grpc-go leaves uncompressed.
func (s suite) clientCompressedStreaming() {
	request := &pb.StreamingInputCallRequest{Payload: payload(27182), ExpectCompressed: &pb.BoolValue{Value: true}}
	stream, err := s.service.StreamingInputCall(s.ctx)
	must("StreamingInputCall", err)
	must("the probe's request", stream.Send(request))
	_, err = stream.CloseAndRecv()
	checkCode("the probe", err, codes.InvalidArgument)

	stream, err = s.service.StreamingInputCall(s.ctx, grpc.UseCompressor(gzip.Name))
	must("StreamingInputCall", err)
	must("a compressed request", stream.Send(request))
	must("a second one", stream.Send(request))
	must("an empty request", stream.Send(new(pb.StreamingInputCallRequest)))
	response, err := stream.CloseAndRecv()
	must("the response", err)
	check("the sum of sizes", int(response.GetAggregatedPayloadSize()), 2*27182)
}

func (s suite) serverCompressedUnary() {
	for _, compressed := range []bool{true, false} {
		ctx, call := watch.Begin(s.ctx)
		response, err := s.service.UnaryCall(ctx, &pb.SimpleRequest{
			ResponseSize:       314159,
			Payload:            payload(271828),
			ResponseCompressed: &pb.BoolValue{Value: compressed},
		})
		must("UnaryCall", err)
		check("the response's payload", response.GetPayload().GetBody(), make([]byte, 314159))
		check("whether the response was compressed", call.Compressed(), compressed)
	}
}

func (s suite) serverCompressedStreaming() {
	request := outputRequest(0, 31415, 92653)
	for index, parameters := range request.ResponseParameters {
		parameters.Compressed = &pb.BoolValue{Value: index == 0}
	}
	ctx, call := watch.Begin(s.ctx)
	stream, err := s.service.StreamingOutputCall(ctx, request)
	must("StreamingOutputCall", err)
	for _, parameters := range request.ResponseParameters {
		response, err := stream.Recv()
		must("a response", err)
		check("a response size", len(response.GetPayload().GetBody()), int(parameters.Size))
		check("whether a response was compressed", call.Compressed(), parameters.Compressed.Value)
	}
	_, err = stream.Recv()
	check("the end", err, io.EOF)
}

// beside runs work 50 at a time, with a number each, beside a call that must outlive all of it.
func (s suite) beside(count int, work func(int)) {
	ctx, stop := context.WithTimeout(context.Background(), 3*timeout)
	defer stop()
	neighbour, err := s.service.FullDuplexCall(ctx)
	must("FullDuplexCall", err)
	exchange := func(when string) {
		must("a request "+when, neighbour.Send(outputRequest(1, 1)))
		_, err := neighbour.Recv()
		must("a response "+when, err)
	}
	exchange("before")
	const atOnce = 50
	var workers sync.WaitGroup
	for first := range atOnce {
		workers.Go(func() {
			for i := first; i < count; i += atOnce {
				work(i)
			}
		})
	}
	workers.Wait()
	exchange("after")
	must("the half-close", neighbour.CloseSend())
	if _, err := neighbour.Recv(); err != io.EOF {
		fail("the neighbour: %v", err)
	}
}

func (s suite) givenUp() {
	s.beside(6000, func(i int) {
		ctx, cancel := context.WithTimeout(s.ctx, 5*time.Millisecond)
		code := codes.DeadlineExceeded
		if i%2 == 0 {
			ctx, cancel = context.WithCancel(s.ctx)
			code = codes.Canceled
			if i%4 == 0 {
				time.AfterFunc(5*time.Millisecond, cancel)
			}
		}
		defer cancel()
		stream, err := s.service.FullDuplexCall(ctx)
		if err == nil {
			if i%4 == 2 {
				cancel()
			}
			_, err = stream.Recv()
		}
		checkCode("a call given up", err, code)
	})
}

func (s suite) refused() {
	s.beside(4000, func(int) {
		description := &grpc.StreamDesc{ClientStreams: true}
		stream, err := s.channel.NewStream(s.ctx, description, "/grpc.testing.TestService/NoSuchUpload")
		must("a stream", err)
		for range 20 {
			if stream.SendMsg(&pb.StreamingInputCallRequest{Payload: payload(8192)}) != nil {
				break
			}
		}
		checkCode("an upload", stream.RecvMsg(new(pb.Empty)), codes.Unimplemented)
	})
}

// largeMetadata has more sent than a header list may hold, in both directions, beside a stream that goes on. What it
// expects is what our server does with a client that announces no limit.
func (s suite) largeMetadata() {
	neighbour, err := s.service.FullDuplexCall(s.ctx)
	must("FullDuplexCall", err)
	for _, size := range []int{10_000, 20_000, 40_000, 200_000} {
		for _, place := range []string{"request", "initial", "trailing", "details"} {
			what := fmt.Sprintf("%s %d", place, size)
			ctx := metadata.AppendToOutgoingContext(s.ctx, watch.Fill, what)
			if place == "request" {
				ctx = metadata.AppendToOutgoingContext(s.ctx, "filling", strings.Repeat("f", size))
			}
			var header, trailer metadata.MD
			_, err := s.service.UnaryCall(ctx, &pb.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
			fmt.Printf("%s: %.400v\n", what, err)
			limit, beyond := 65_536, codes.ResourceExhausted
			switch {
			case place == "details":
				checkCode(what, err, codes.NotFound)
				check(what+": it has its details", len(status.Convert(err).Details()) == 1, size < limit)
				check(what+": the message", strings.HasPrefix(status.Convert(err).Message(), "no such thing"), true)
			case place == "request" && size > 32_768:
				// grpc-go itself says so.
				checkCode(what, err, codes.Internal)
			case place == "request" && size > 16_384 || size > limit:
				checkCode(what, err, beyond)
			default:
				checkCode(what, err, codes.OK)
				lengths := len(strings.Join(append(header.Get("filling"), trailer.Get("filling")...), ""))
				check(what+": what came", lengths, map[bool]int{true: 0, false: size}[place == "request"])
			}
			must("a request of the neighbour", neighbour.Send(outputRequest(1, 1)))
			_, err = neighbour.Recv()
			must("a response to the neighbour, after "+what, err)
		}
	}
}

func main() {
	port := flag.Int("port", 0, "the server's port")
	names := flag.String("case", "", "names, separated by commas")
	authority := flag.String("ca", "", "a file with the authority of the server's certificate")
	flag.Parse()
	credential := insecure.NewCredentials()
	if *authority != "" {
		secure, err := credentials.NewClientTLSFromFile(*authority, "")
		must("the authority", err)
		credential = secure
	}
	channel, err := grpc.NewClient(
		fmt.Sprintf("127.0.0.1:%d", *port),
		grpc.WithTransportCredentials(credential),
		grpc.WithStatsHandler(watch.Handler{}),
	)
	must("the channel", err)
	defer channel.Close()
	for _, name := range strings.Split(*names, ",") {
		run, known := cases[name]
		if !known {
			fail("no case is called %q", name)
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		run(suite{channel: channel, service: pb.NewTestServiceClient(channel), ctx: ctx})
		cancel()
		fmt.Printf("ok %s\n", name)
	}
}

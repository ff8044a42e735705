// Command zstd is TestService on connect-go, which speaks gRPC and compresses every message, with the zstd of klauspost: it
// writes no bytes for an empty message, as most Go programs with zstd do.
//
//	zstd [--port N]            a server: listens on 127.0.0.1, writes `port N` when it is ready, and stops when its
//	                           standard input ends
//	zstd --port N --case NAME  a client: runs a case, or several with commas, once and writes `ok NAME`; what fails ends it
//	                           with a message and exit code 1
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

const (
	name    = "zstd"
	service = "/grpc.testing.TestService/"
	timeout = 20 * time.Second
)

type decompressor struct{ *zstd.Decoder }

func (d decompressor) Close() error { return d.Decoder.Reset(nil) }

func newDecompressor() connect.Decompressor {
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		log.Fatal(err)
	}
	return decompressor{decoder}
}

func newCompressor() connect.Compressor {
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		log.Fatal(err)
	}
	return encoder
}

func emptyCall(context.Context, *connect.Request[pb.Empty]) (*connect.Response[pb.Empty], error) {
	return connect.NewResponse(new(pb.Empty)), nil
}

// fullDuplexCall replies to each request with a message as large as the request's payload, which may be none.
func fullDuplexCall(
	_ context.Context,
	stream *connect.BidiStream[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse],
) error {
	for {
		request, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		response := new(pb.StreamingOutputCallResponse)
		if size := len(request.GetPayload().GetBody()); size > 0 {
			response.Payload = &pb.Payload{Body: make([]byte, size)}
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

func serve(port int) {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		log.Fatal(err)
	}
	compression := connect.WithCompression(name, newDecompressor, newCompressor)
	mux := http.NewServeMux()
	mux.Handle(service+"EmptyCall", connect.NewUnaryHandler(service+"EmptyCall", emptyCall, compression))
	mux.Handle(service+"FullDuplexCall", connect.NewBidiStreamHandler(service+"FullDuplexCall", fullDuplexCall, compression))
	server := &http.Server{Handler: h2c.NewHandler(mux, new(http2.Server))}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Close()
	}()
	fmt.Printf("port %d\n", listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "FAILED: "+format+"\n", arguments...)
	os.Exit(1)
}

type suite struct {
	client  *http.Client
	url     string
	options []connect.ClientOption
}

func (s suite) empty(ctx context.Context) {
	client := connect.NewClient[pb.Empty, pb.Empty](s.client, s.url+"EmptyCall", s.options...)
	if _, err := client.CallUnary(ctx, connect.NewRequest(new(pb.Empty))); err != nil {
		fail("EmptyCall: %v", err)
	}
}

// emptyStream sends requests of which the second is empty, and asks for a reply to each: the last has a payload of no bytes.
func (s suite) emptyStream(ctx context.Context) {
	client := connect.NewClient[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse](
		s.client, s.url+"FullDuplexCall", s.options...)
	stream := client.CallBidiStream(ctx)
	full := &pb.StreamingOutputCallRequest{
		ResponseParameters: []*pb.ResponseParameters{{Size: 1000}},
		Payload:            &pb.Payload{Body: make([]byte, 1000)},
	}
	for _, request := range []*pb.StreamingOutputCallRequest{full, new(pb.StreamingOutputCallRequest), full} {
		if err := stream.Send(request); err != nil {
			fail("a request: %v", err)
		}
	}
	if err := stream.CloseRequest(); err != nil {
		fail("the half-close: %v", err)
	}
	for range 2 {
		response, err := stream.Receive()
		if err != nil {
			fail("a response: %v", err)
		}
		if size := len(response.GetPayload().GetBody()); size != 1000 {
			fail("a response of %d bytes", size)
		}
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		fail("the end: %v", err)
	}
}

func main() {
	port := flag.Int("port", 0, "the port to listen on, where 0 takes a free one, or to call")
	names := flag.String("case", "", "for a client: names, separated by commas")
	flag.Parse()
	if *names == "" {
		serve(*port)
		return
	}
	dial := func(_ context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
		return net.Dial(network, address)
	}
	s := suite{
		client: &http.Client{Transport: &http2.Transport{AllowHTTP: true, DialTLSContext: dial}},
		url:    fmt.Sprintf("http://127.0.0.1:%d%s", *port, service),
		options: []connect.ClientOption{
			connect.WithGRPC(),
			connect.WithAcceptCompression(name, newDecompressor, newCompressor),
			connect.WithSendCompression(name),
		},
	}
	cases := map[string]func(context.Context){"empty": s.empty, "empty_stream": s.emptyStream}
	for _, name := range strings.Split(*names, ",") {
		run, known := cases[name]
		if !known {
			fail("no case is called %q", name)
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		run(ctx)
		cancel()
		fmt.Printf("ok %s\n", name)
	}
}

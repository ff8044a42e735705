// grpc-go, as its guides have one write it: with its defaults, the receive limit apart.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "grpc-go-bench/proto"
)

const receiveLimit = 64 << 20

type service struct {
	pb.UnimplementedBenchServer
}

func (service) Unary(_ context.Context, request *pb.Request) (*pb.Reply, error) {
	if millis := request.GetSleepMillis(); millis > 0 {
		time.Sleep(time.Duration(millis) * time.Millisecond)
	}
	if millis := request.GetSpinMillis(); millis > 0 {
		for end := time.Now().Add(time.Duration(millis) * time.Millisecond); time.Now().Before(end); {
		}
	}
	if millis := request.GetBlockMillis(); millis > 0 {
		// time.Sleep gives the thread to others; a system call is what blocks it.
		left := syscall.NsecToTimespec(int64(millis) * int64(time.Millisecond))
		for errors.Is(syscall.Nanosleep(&left, &left), syscall.EINTR) {
		}
	}
	return &pb.Reply{Payload: request.GetPayload()}, nil
}

func (service) ServerStream(request *pb.Request, replies grpc.ServerStreamingServer[pb.Reply]) error {
	for range request.GetReplies() {
		if err := replies.Send(&pb.Reply{Payload: request.GetPayload()}); err != nil {
			return err
		}
	}
	return nil
}

func (service) ClientStream(requests grpc.ClientStreamingServer[pb.Request, pb.Reply]) error {
	reply := &pb.Reply{}
	for {
		request, err := requests.Recv()
		if err == io.EOF {
			return requests.SendAndClose(reply)
		}
		if err != nil {
			return err
		}
		reply.Payload = request.GetPayload()
		reply.Requests++
	}
}

func (service) Bidi(stream grpc.BidiStreamingServer[pb.Request, pb.Reply]) error {
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.Reply{Payload: request.GetPayload()}); err != nil {
			return err
		}
	}
}

func main() {
	log.SetFlags(0)
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch mode {
	case "server":
		options := flag.NewFlagSet("server", flag.ExitOnError)
		port := options.Uint("port", 0, "where to listen; 0: anywhere")
		parse(options, "port")
		serve(*port)
	case "client":
		options := flag.NewFlagSet("client", flag.ExitOnError)
		target := options.String("target", "", "whom to call")
		calls := options.Int64("calls", 0, "how many calls to make")
		inFlight := options.Int("in-flight", 0, "how many of them at a time")
		payload := options.Int("payload", 16, "bytes of a request")
		parse(options, "target", "calls", "in-flight")
		client(*target, *calls, *inFlight, *payload)
	default:
		refuse("neither server nor client")
	}
}

func parse(options *flag.FlagSet, needed ...string) {
	// On an error it says which and exits with 2.
	_ = options.Parse(os.Args[2:])
	if options.NArg() > 0 {
		refuse(options.Arg(0) + ": not understood")
	}
	given := map[string]bool{}
	options.Visit(func(option *flag.Flag) { given[option.Name] = true })
	for _, name := range needed {
		if !given[name] {
			refuse("--" + name + " is missing")
		}
	}
}

func refuse(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(2)
}

func serve(port uint) {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening %s\n", listener.Addr())
	server := grpc.NewServer(grpc.MaxRecvMsgSize(receiveLimit))
	pb.RegisterBenchServer(server, service{})
	log.Fatal(server.Serve(listener))
}

func client(target string, calls int64, inFlight int, payload int) {
	connection, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(receiveLimit)))
	if err != nil {
		log.Fatal(err)
	}
	stub, stdin := pb.NewBenchClient(connection), bufio.NewReader(os.Stdin)
	call(stub, calls/10, inFlight, payload)
	sayAndWait("begin", stdin)
	call(stub, calls, inFlight, payload)
	sayAndWait("end", stdin)
}

// Makes the calls, each goroutine its next as soon as it has the reply to the last.
func call(stub pb.BenchClient, calls int64, inFlight int, payload int) {
	var begun atomic.Int64
	var tasks sync.WaitGroup
	for range inFlight {
		tasks.Go(func() {
			for begun.Add(1) <= calls {
				request := &pb.Request{Payload: bytes.Repeat([]byte{7}, payload)}
				reply, err := stub.Unary(context.Background(), request)
				if err != nil {
					log.Fatal(err)
				}
				if len(reply.GetPayload()) != payload {
					log.Fatalf("%d bytes of payload instead of %d", len(reply.GetPayload()), payload)
				}
			}
		})
	}
	tasks.Wait()
}

// Says how far the client is, and waits until that has been noted.
func sayAndWait(word string, stdin *bufio.Reader) {
	fmt.Println(word)
	if _, err := stdin.ReadString('\n'); err != nil && err != io.EOF {
		log.Fatal(err)
	}
}

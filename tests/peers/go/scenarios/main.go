// Command scenarios makes calls on grpc-go under service configs.
//
//	scenarios --jobs JSON
//
// A job makes `calls` calls one after another, to the paths `/test.Scenario/0` and so on, on a channel of its own with the
// service config `config`; `connected`: once the channel is connected. The request is `messages` messages of `size` bytes; in
// a stream both ways, the first one, and the others after a response. All jobs run at the same time. Writes
// `done NAME MILLISECONDS CODE...` with the codes of the calls, or, for a job without calls, `config NAME accepted` or
// `rejected`, and what was said.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"strings"
	"time"

	"google.golang.org/grpc"
	// Balancers that grpc-go knows only if they are imported.
	_ "google.golang.org/grpc/balancer/leastrequest"
	_ "google.golang.org/grpc/balancer/ringhash"
	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds"
)

type job struct {
	Name, Target, Config, Kind string
	Calls, Messages, Size      int
	Timeout                    int
	Retries, Connected         bool
}

// raw is a codec whose messages are bytes.
type raw struct{}

func (raw) Marshal(message any) ([]byte, error) { return message.([]byte), nil }

func (raw) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = data
	return nil
}

func (raw) Name() string { return "raw" }

func (j job) dial() (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(j.Config),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})),
	}
	if !j.Retries {
		options = append(options, grpc.WithDisableRetry())
	}
	return grpc.NewClient("passthrough:///"+j.Target, options...)
}

func (j job) call(channel *grpc.ClientConn, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(j.Timeout)*time.Millisecond)
	defer cancel()
	request := make([]byte, j.Size)
	var response []byte
	if j.Kind == "unary" {
		return channel.Invoke(ctx, path, request, &response)
	}
	description := &grpc.StreamDesc{
		ClientStreams: j.Kind != "server_streaming",
		ServerStreams: j.Kind != "client_streaming",
	}
	stream, err := channel.NewStream(ctx, description, path)
	if err != nil {
		return err
	}
	for sent := range j.Messages {
		if sent == 1 && j.Kind == "bidi" {
			if err := stream.RecvMsg(&response); err != nil {
				return err
			}
		}
		// The call has ended if the message is not taken; receiving tells how.
		if err := stream.SendMsg(request); err != nil {
			break
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		err := stream.RecvMsg(&response)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !description.ServerStreams:
			return nil
		}
	}
}

func (j job) run() string {
	channel, err := j.dial()
	if err != nil {
		return fmt.Sprintf("config %s rejected %q", j.Name, err)
	}
	defer channel.Close()
	if j.Calls == 0 {
		return fmt.Sprintf("config %s accepted", j.Name)
	}
	if j.Connected {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		channel.Connect()
		for state := channel.GetState(); state != connectivity.Ready; state = channel.GetState() {
			if !channel.WaitForStateChange(ctx, state) {
				return fmt.Sprintf("failed %s: not connected", j.Name)
			}
		}
	}
	began := time.Now()
	var codes []string
	for number := range j.Calls {
		err := j.call(channel, fmt.Sprintf("/test.Scenario/%d", number))
		codes = append(codes, fmt.Sprint(uint32(status.Code(err))))
	}
	millis := time.Since(began).Milliseconds()
	return fmt.Sprintf("done %s %d %s", j.Name, millis, strings.Join(codes, " "))
}

func main() {
	text := flag.String("jobs", "", "a list of jobs in JSON")
	flag.Parse()
	var jobs []job
	if err := json.Unmarshal([]byte(*text), &jobs); err != nil {
		log.Fatal(err)
	}
	lines := make(chan string)
	for _, j := range jobs {
		go func() { lines <- j.run() }()
	}
	for range jobs {
		fmt.Println(<-lines)
	}
}

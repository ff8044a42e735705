// Package watch shows what grpc-go keeps from handlers and callers: whether a message came compressed.
package watch

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// Names of the headers that TestService answers.
const (
	EchoInitial  = "x-grpc-test-echo-initial"
	EchoTrailing = "x-grpc-test-echo-trailing-bin"
	// EchoStatus is beyond the official contract: a serialized google.rpc.Status in this request header is the status,
	// with its details, that ends the call.
	EchoStatus = "x-trunkline-echo-status-bin"
	// Fill, with a value such as `trailing 40000`, asks for as many bytes in the head of the reply (`initial`), in its
	// trailers, or in the details of a NOT_FOUND.
	Fill = "x-trunkline-fill"
)

type key struct{}

// Call is what is known of one call.
type Call struct {
	compressed atomic.Bool
}

// Compressed says whether the message received last was compressed. A message that gzip leaves at exactly its size
// would be missed; the payloads of these tests are zeros and shrink.
func (c *Call) Compressed() bool { return c.compressed.Load() }

// Begin gives the context of a client's call, and the call.
func Begin(ctx context.Context) (context.Context, *Call) {
	call := new(Call)
	return context.WithValue(ctx, key{}, call), call
}

// From gives the call that a server's handler serves.
func From(ctx context.Context) *Call { return ctx.Value(key{}).(*Call) }

// Handler is a stats handler for servers and clients.
type Handler struct{}

func (Handler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	if ctx.Value(key{}) == nil {
		ctx, _ = Begin(ctx)
	}
	return ctx
}

// HandleRPC runs before the message is handed to the handler or the caller.
func (Handler) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if payload, ok := event.(*stats.InPayload); ok {
		From(ctx).compressed.Store(payload.CompressedLength != payload.Length)
	}
}

func (Handler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (Handler) HandleConn(context.Context, stats.ConnStats) {}

// Package rpc is the one place where gRPC is dialled and served: codec,
// keep-alive, message limits, TLS and the panic barrier are set here and nowhere
// else, so that every connection between components behaves alike.
package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	// MaxMessageBytes limits one message in either direction.
	MaxMessageBytes = 64 << 20
	// DefaultTimeout bounds a unary call whose context has no deadline.
	DefaultTimeout = 30 * time.Second

	keepAliveTime    = 10 * time.Second // ping after this much silence
	keepAliveTimeout = 3 * time.Second  // and give the connection up after this much more
	streamWindow     = 2 << 20          // static windows: no estimation pings
	connWindow       = 8 << 20
	handshakeTimeout = 5 * time.Second
	maxStreams       = 1024 // per connection; calls beyond it wait at the client
)

// ServerOptions configure NewServer.
type ServerOptions struct {
	TLS    *tls.Config  // nil = plain text
	Logger *slog.Logger // nil = discard
}

// NewServer returns a gRPC server. Register services, then Serve. A panic in a
// handler is logged with its stack and answered with codes.Internal. Stop returns
// when all handlers have.
func NewServer(opts ServerOptions) *grpc.Server {
	logger := opts.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	so := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.SharedWriteBuffer(true),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepAliveTime, Timeout: keepAliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepAliveTime / 2, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(unaryBarrier(logger)),
		grpc.ChainStreamInterceptor(streamBarrier(logger)),
	}
	if opts.TLS != nil {
		so = append(so, grpc.Creds(credentials.NewTLS(opts.TLS)))
	}
	return grpc.NewServer(so...)
}

// DialOptions configure Dial.
type DialOptions struct {
	TLS *tls.Config // nil = plain text
	// Dialer replaces TCP, for tests; nil = TCP.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
}

// Dial returns a connection to host:port. It does not wait: the connection is
// made by the first call, and made again with back-off (50 ms to 2 s) when it
// breaks. Unary calls without a deadline get DefaultTimeout.
func Dial(addr string, opts DialOptions) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if opts.TLS != nil {
		creds = credentials.NewTLS(opts.TLS)
	}
	do := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(newCodec()),
			grpc.MaxCallRecvMsgSize(MaxMessageBytes),
			grpc.MaxCallSendMsgSize(MaxMessageBytes),
		),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithSharedWriteBuffer(true),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepAliveTime, Timeout: keepAliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: handshakeTimeout,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithChainUnaryInterceptor(defaultDeadline),
	}
	if opts.Dialer != nil {
		do = append(do, grpc.WithContextDialer(opts.Dialer))
	}
	// passthrough: addresses are host:port as PD gave them; the dialler resolves.
	conn, err := grpc.NewClient("passthrough:///"+addr, do...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return conn, nil
}

func defaultDeadline(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

func unaryBarrier(logger *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		defer func() {
			if p := recover(); p != nil {
				err = panicError(logger, info.FullMethod, p)
			}
		}()
		return handler(ctx, req)
	}
}

func streamBarrier(logger *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = panicError(logger, info.FullMethod, p)
			}
		}()
		return handler(srv, ss)
	}
}

func panicError(logger *slog.Logger, method string, p any) error {
	logger.Error("panic in rpc handler", "method", method, "panic", p, "stack", string(debug.Stack()))
	return status.Error(codes.Internal, "internal error")
}

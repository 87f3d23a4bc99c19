package meta

import (
	"context"
	"fmt"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZapLogger carries etcd's log over to slog. Etcd is chatty: its information
// is our debugging, its warnings, most of them about connections to members that
// start or stop, our information. Where etcd would end the process
// (zap's Fatal) it panics instead, so that Open can turn it into an error; later,
// a panic ends the process as etcd wants. stops is told the reason when etcd stops
// by itself: it says so nowhere else.
func newZapLogger(logger *slog.Logger, stops func(reason string)) *zap.Logger {
	return zap.New(&slogCore{logger: logger.With("component", "etcd"), stops: stops}, zap.WithFatalHook(panicHook{}))
}

const (
	// stopMessage is what etcd logs when it stops by itself, with the error.
	stopMessage = "server error"
	// memberRemoved is part of that error when the member was removed.
	memberRemoved = "removed from the cluster"
)

type panicHook struct{}

func (panicHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	panic(etcdFatal(describe(e.Entry, fields)))
}

// etcdFatal is the value of the panic in place of a Fatal.
type etcdFatal string

func (e etcdFatal) Error() string { return string(e) }

type slogCore struct {
	logger *slog.Logger
	fields []zapcore.Field
	stops  func(reason string)
}

func (c *slogCore) Enabled(l zapcore.Level) bool {
	return c.logger.Enabled(context.Background(), slogLevel(l))
}

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{logger: c.logger, stops: c.stops, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// expected are complaints of etcd about the way it is used here: it serves no
// clients of its own, and on its first start it has no schema version yet.
var expected = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
	"Failed to detect schema version":                                                      true,
	"failed to update storage version":                                                     true,
	// Close tries again after handOver.
	"leadership transfer failed": true,
	// Promotion is tried until it succeeds.
	"rejecting promote learner: learner is not ready": true,
	// We do not ask it to be strict; see etcdConfig.
	"data-dir used by this member must be removed": true,
}

// repeated is what etcd says of a member that is away, again and again, after it
// said once that the peer became inactive.
var repeated = map[string]bool{
	"lost TCP streaming connection with remote peer":             true,
	"closed TCP streaming connection with remote peer":           true,
	"failed to find remote peer in cluster":                      true,
	"prober detected unhealthy status":                           true,
	"failed to reach the peer URL":                               true,
	"failed to get version":                                      true,
	"failed to unmarshal response":                               true,
	"dropped internal Raft message since sending buffer is full": true,
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if expected[e.Message] {
		return ce
	}
	if repeated[e.Message] {
		e.Level = zapcore.DebugLevel
	}
	if c.Enabled(e.Level) || e.Message == stopMessage {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if e.Message == stopMessage {
		c.stops(describe(e, fields))
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	c.logger.LogAttrs(context.Background(), slogLevel(e.Level), e.Message, attrs...)
	return nil
}

func (c *slogCore) Sync() error { return nil }

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// describe renders an entry with the error among its fields.
func describe(e zapcore.Entry, fields []zapcore.Field) string {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	if err, ok := enc.Fields["error"]; ok {
		return fmt.Sprintf("%s: %v", e.Message, err)
	}
	return e.Message
}

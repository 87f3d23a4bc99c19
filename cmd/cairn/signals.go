package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// What a process was told by a signal; the cause of its context's end.
var (
	// errInterrupted: Ctrl-C. Stop now, in order.
	errInterrupted = errors.New("interrupted")
	// errTerminated: SIGTERM, from a service manager or an operator. Hand over what
	// others can take, then stop.
	errTerminated = errors.New("terminated")
)

// withSignals returns a context that the first signal ends. Later signals are
// swallowed until stop; draining listens to them.
func withSignals(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case sig := <-signals:
			if sig == os.Interrupt {
				cancel(errInterrupted)
			} else {
				cancel(errTerminated)
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(context.Canceled)
	}
}

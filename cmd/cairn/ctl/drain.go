package ctl

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/proto/pdpb"
)

func (c *ctl) drainCommand() *cobra.Command {
	var wait, force bool
	var every time.Duration
	cmd := &cobra.Command{
		Use: "drain STORE", Short: "Move everything off a store, so that its node can be removed", Args: exactly("STORE"),
		Long: `Drain moves all leaders and replicas off a store. When the store is empty it is a
tombstone: its kv process ends, and its directory can be deleted. --wait shows how far
it is and returns then; Ctrl-C ends the waiting, not the drain.`,
		RunE: c.run(func(s *session, args []string) error {
			n, err := id("store", args[0])
			if err != nil {
				return err
			}
			if every < 10*time.Millisecond {
				return fmt.Errorf("--every %s is too short; at least 10ms", every)
			}
			v, err := s.drain(n, force)
			if err != nil {
				return err
			}
			if !wait {
				return s.tell(v, "Store %d is being drained; 'cairn ctl stores show %d' tells how far it is.", n, n)
			}
			return s.awaitDrain(n, every)
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "show progress and return when the store is empty")
	cmd.Flags().BoolVar(&force, "force", false, "drain even if the remaining stores are too few for all replicas")
	cmd.Flags().DurationVar(&every, "every", time.Second, "with --wait, how often to show progress")
	return cmd
}

func (s *session) drain(n uint64, force bool) (Store, error) {
	ctx, cancel := s.request()
	defer cancel()
	d, err := s.pd.DrainStore(ctx, &pdpb.DrainStoreRequest{StoreId: n, Force: force})
	if err != nil {
		return Store{}, err
	}
	return storeOf(d), nil
}

// awaitDrain shows progress until the store is a tombstone. An answer that does
// not come is not the end: the leader of the placement driver may be changing.
func (s *session) awaitDrain(n uint64, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last Drain
	var told time.Time
	failures := 0
	for {
		v, err := s.store(fmt.Sprint(n))
		switch {
		case err != nil:
			if failures++; failures == 30 {
				return fmt.Errorf("the drain goes on, but nobody tells how far it is: %w", err)
			}
		case v.State == "tombstone":
			return s.tell(v, "Store %d is empty. Its kv process ends by itself, and its directory can be deleted.", n)
		case v.State != "offline":
			return fmt.Errorf("store %d is %s and is not being drained any more; somebody stopped it", n, v.State)
		default:
			failures = 0
			if v.Drain != nil && !s.json && (v.Drain.moved(last) || time.Since(told) > tellEvery) {
				fmt.Fprintln(s.out, v.Drain.progress())
				last, told = *v.Drain, time.Now()
			}
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return errors.New("no longer waiting; the drain goes on")
		}
	}
}

// tellEvery is how often a drain is spoken of while nothing moves.
const tellEvery = 10 * time.Second

// moved reports whether the drain has come further since.
func (d *Drain) moved(since Drain) bool {
	return d.RegionsLeft != since.RegionsLeft || d.LeadersLeft != since.LeadersLeft
}

// progress is one line about a drain.
func (d *Drain) progress() string {
	all := max(d.RegionsAtStart, d.RegionsLeft, 1)
	text := fmt.Sprintf("%3d %%  %d of %d regions left, %d leaders, %s", (all-d.RegionsLeft)*100/all, d.RegionsLeft, all, d.LeadersLeft, bytesText(d.BytesLeft))
	if d.ETAMS >= 0 {
		text += "; about " + span(uint64(d.ETAMS)/1000*1000) + " to go"
	}
	if d.WaitsFor != "" {
		text += "; waits for " + d.WaitsFor
	}
	return text
}

package ctl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode"
	"github.com/cairndb/cairn/pd"
	"github.com/cairndb/cairn/proto/kvpb"
)

// unsafeRecover is the command for when a majority is lost for good. It works on
// the directory of a process that does not run.
type unsafeRecover struct {
	dir    string
	lost   []string
	alone  bool
	accept bool
}

func (c *ctl) recoverCommand() *cobra.Command {
	var u unsafeRecover
	cmd := &cobra.Command{
		Use: "unsafe-recover", Short: "LAST RESORT: go on after a majority was lost for good; writes may be lost", Args: cobra.NoArgs,
		Long: `Unsafe-recover changes the data directory of a process that does not run, so that
it goes on without stores, or members of the placement driver, that will never come
back. Acknowledged writes may be lost, and indexes may disagree with their tables.

Do not use it while the lost machines could still be repaired: waiting loses nothing.
If a lost process ever starts again, the cluster splits in two and both take writes.

Without --accept-data-loss it changes nothing and tells what it would do.

  cairn ctl unsafe-recover --data-dir DIR --lost-stores 4,5   of a kv, or start
  cairn ctl unsafe-recover --data-dir DIR --forget-members    of a pd, or start`,
		RunE: func(cmd *cobra.Command, _ []string) error { return u.run(cmd) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&u.dir, "data-dir", "", "data directory of a surviving process, which must be stopped")
	f.StringSliceVar(&u.lost, "lost-stores", nil, "ids of the stores that are lost for good")
	f.BoolVar(&u.alone, "forget-members", false, "make this the only member of the placement driver")
	f.BoolVar(&u.accept, "accept-data-loss", false, "do it")
	return cmd
}

func (u *unsafeRecover) run(cmd *cobra.Command) error {
	verb, err := u.verb()
	if err != nil {
		return err
	}
	lost, err := ids("store", u.lost)
	switch {
	case err != nil:
		return err
	case len(lost) == 0 && !u.alone:
		return errors.New("say what is lost: --lost-stores 4,5, or --forget-members for the placement driver")
	case len(lost) > 0 && verb == "pd":
		return fmt.Errorf("%s is of a placement driver and holds no store; --lost-stores is for the directories of the surviving stores", u.dir)
	case u.alone && verb == "kv":
		return fmt.Errorf("%s is of a kv node and holds no member of the placement driver", u.dir)
	}
	if u.alone {
		if err := u.forgetMembers(cmd); err != nil {
			return err
		}
	}
	if len(lost) > 0 {
		if err := u.recoverStore(cmd, lost); err != nil {
			return err
		}
	}
	if !u.accept {
		fmt.Fprintln(cmd.OutOrStdout(), "\nNothing was changed. To do it, LOSING WHAT ONLY THE LOST ONES HAD, add --accept-data-loss.")
	}
	return nil
}

// verb is the kind of process the directory belongs to: pd, kv or start.
func (u *unsafeRecover) verb() (string, error) {
	if u.dir == "" {
		return "", errors.New("--data-dir is missing: the directory of a surviving process, which must be stopped")
	}
	text, err := os.ReadFile(filepath.Join(u.dir, "CAIRN"))
	if err != nil {
		return "", fmt.Errorf("%s is not a data directory of cairn: %w", u.dir, err)
	}
	verb := strings.TrimPrefix(strings.TrimSpace(string(text)), "cairn ")
	if !slices.Contains([]string{"pd", "kv", "start"}, verb) {
		return "", fmt.Errorf("%s belongs to 'cairn %s', which has nothing to recover", u.dir, verb)
	}
	return verb, nil
}

func (u *unsafeRecover) forgetMembers(cmd *cobra.Command) error {
	out := cmd.OutOrStdout()
	if !u.accept {
		fmt.Fprintf(out, "The placement driver in %s would forget all other members and go on alone.\n", u.dir)
		return nil
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := pd.UnsafeRecover(context.WithoutCancel(cmd.Context()), filepath.Join(u.dir, "pd"), log); err != nil {
		return err
	}
	fmt.Fprintf(out, "The placement driver in %s is the only member now. Others can join it with empty directories.\n", u.dir)
	return nil
}

func (u *unsafeRecover) recoverStore(cmd *cobra.Command, lost []uint64) error {
	r, err := kvnode.UnsafeRecover(filepath.Join(u.dir, "kv"), lost, u.accept)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	t := newTable("", "region>", "start", "end", "had replicas on", "goes on with")
	for _, c := range r.Changed {
		t.row(c.Before.Id, bound(keys.Text(c.Before.StartKey)), bound(keys.Text(c.Before.EndKey)), peerStores(c.Before), peerStores(c.After))
	}
	if t.rows > 0 {
		t.render(out)
		fmt.Fprintln(out)
	}
	if u.accept {
		fmt.Fprintf(out, "Store %d: %s of %d changed.\n", r.Store, counted(len(r.Changed), "region"), r.Regions)
		return nil
	}
	fmt.Fprintf(out, "Store %d: %s of %d lost their majority; the others need nothing.\n", r.Store, counted(len(r.Changed), "region"), r.Regions)
	return nil
}

func peerStores(r *kvpb.Region) string {
	var list []string
	for _, p := range r.GetPeers() {
		text := fmt.Sprint(p.StoreId)
		if p.Role != kvpb.PeerRole_PEER_ROLE_VOTER {
			text += "L"
		}
		list = append(list, text)
	}
	return strings.Join(list, " ")
}

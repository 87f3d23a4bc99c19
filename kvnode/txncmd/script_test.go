package txncmd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

// TestScripts runs testdata/*.txt, and again with all locks but one of a region read from the
// engine, which has to give the same answers. A timestamp is a number, or "7ms" for the
// first one of millisecond 7, or "max". Commands and their arguments are
// in scriptCommands.
func TestScripts(t *testing.T) {
	for _, spill := range []bool{false, true} {
		t.Run(fmt.Sprintf("spill=%v", spill), func(t *testing.T) { runScripts(t, spill) })
	}
}

func runScripts(t *testing.T, spill bool) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s *script
		defer func() { s.close(t) }()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "case" {
				s.close(t)
				s = newScript(t, !d.HasArg("no_ts"), d.HasArg("memory"))
				if spill {
					s.st.SpillLocks(1)
				}
				return "" // names the rule; a fresh store for each
			}
			fn := scriptCommands[d.Cmd]
			if fn == nil {
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			return fn(s, t, d)
		})
	})
}

type script struct {
	st *regiontest.Store
	ex *txncmd.Executor
	ts uint64 // of PD, as asked for by the executor
}

func newScript(t *testing.T, withTS, memory bool) *script {
	st, err := regiontest.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &script{st: st}
	o := txncmd.Options{Regions: st, Locks: txncmd.LockReplicated}
	if memory {
		o.Locks = txncmd.LockInMemory
		st.KeepLocksInMemory(1 << 10)
	}
	if withTS {
		o.TS = func(context.Context) (uint64, error) { return s.ts, nil }
	}
	s.ex = txncmd.New(o)
	return s
}

func (s *script) close(t *testing.T) {
	if s == nil {
		return
	}
	if err := errors.Join(s.ex.Close(), s.st.Close()); err != nil {
		t.Error(err)
	}
}

var scriptCommands = map[string]func(s *script, t *testing.T, d *datadriven.TestData) string{
	"prewrite": (*script).prewrite, "commit": (*script).commit, "rollback": (*script).rollback,
	"get": (*script).get, "batch-get": (*script).batchGet, "scan": (*script).scan,
	"status": (*script).status, "secondary": (*script).secondary, "resolve": (*script).resolve,
	"scan-lock": (*script).scanLock, "heartbeat": (*script).heartbeat, "dump": (*script).dump,
	"lock": (*script).lock, "write": (*script).write, "max-ts": (*script).maxTS, "pd-ts": (*script).pdTS,
	"hand-over": (*script).handOver, "reopen": (*script).reopen, "crash": (*script).crash,
	"acquire": (*script).acquire, "release": (*script).release,
	"split": (*script).split, "new-term": (*script).newTerm, "put": (*script).put, "unchanged": (*script).unchanged, "collect": (*script).collect,
}

func parseTS(s string) uint64 {
	if s == "max" {
		return mvcc.MaxTS
	}
	if ms, ok := strings.CutSuffix(s, "ms"); ok {
		n, err := strconv.ParseUint(ms, 10, 64)
		if err != nil {
			panic(err)
		}
		return n << 18
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func showTS(ts uint64) string {
	switch {
	case ts == mvcc.MaxTS:
		return "max"
	case ts>>18 == 0:
		return strconv.FormatUint(ts, 10)
	case ts<<46 == 0:
		return fmt.Sprintf("%dms", ts>>18)
	}
	return fmt.Sprintf("%dms+%d", ts>>18, ts&(1<<18-1))
}

func arg(d *datadriven.TestData, name string) string {
	for _, a := range d.CmdArgs {
		if a.Key == name && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return ""
}

func argTS(d *datadriven.TestData, name string) uint64 {
	if v := arg(d, name); v != "" {
		return parseTS(v)
	}
	return 0
}

func argTSs(d *datadriven.TestData, name string) []uint64 {
	var list []uint64
	for _, a := range d.CmdArgs {
		if a.Key == name {
			for _, v := range a.Vals {
				list = append(list, parseTS(v))
			}
		}
	}
	return list
}

func argKeys(d *datadriven.TestData, name string) [][]byte {
	var list [][]byte
	for _, a := range d.CmdArgs {
		if a.Key == name {
			for _, v := range a.Vals {
				list = append(list, []byte(v))
			}
		}
	}
	return list
}

// at addresses the region of key, as a client does that knows all about it.
func (s *script) at(key []byte, d *datadriven.TestData) *kvpb.Context {
	c := regiontest.Context(s.st.Locate(key))
	c.ResolvedLocks, c.CommittedLocks = argTSs(d, "resolved"), argTSs(d, "committed")
	c.OwnLocks = argTS(d, "own")
	if d.HasArg("old_epoch") {
		c.Epoch = &kvpb.RegionEpoch{ConfVer: 1, Version: c.Epoch.Version - 1}
	}
	return c
}

// value reads "v", or "*3000" for 3000 bytes.
func value(s string) []byte {
	if n, ok := strings.CutPrefix(s, "*"); ok {
		size, err := strconv.Atoi(n)
		if err != nil {
			panic(err)
		}
		return bytes.Repeat([]byte{'x'}, size)
	}
	return []byte(s)
}

func showValue(v []byte) string {
	if len(v) > 40 {
		return fmt.Sprintf("*%d", len(v))
	}
	return string(v)
}

var opNames = map[string]kvpb.MutationOp{
	"put": kvpb.MutationOp_MUTATION_OP_PUT, "delete": kvpb.MutationOp_MUTATION_OP_DELETE,
	"lock": kvpb.MutationOp_MUTATION_OP_LOCK, "insert": kvpb.MutationOp_MUTATION_OP_INSERT,
	"check": kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS,
}

// mutations reads lines "op key [value] [exist|not_exist] [locked|lazy]".
func mutations(t *testing.T, d *datadriven.TestData) []*kvpb.Mutation {
	var list []*kvpb.Mutation
	for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
		f := strings.Fields(line)
		op, ok := opNames[f[0]]
		if !ok {
			d.Fatalf(t, "unknown mutation %q", line)
		}
		m := &kvpb.Mutation{Op: op, Key: []byte(f[1])}
		for _, w := range f[2:] {
			switch w {
			case "locked":
				m.PessimisticAction = kvpb.PessimisticAction_PESSIMISTIC_ACTION_DO_CHECK
			case "lazy":
				m.PessimisticAction = kvpb.PessimisticAction_PESSIMISTIC_ACTION_CONSTRAINT_CHECK
			case "covered":
				m.PessimisticAction = kvpb.PessimisticAction_PESSIMISTIC_ACTION_COVERED
			case "exist":
				m.Assertion = kvpb.Assertion_ASSERTION_EXIST
			case "not_exist":
				m.Assertion = kvpb.Assertion_ASSERTION_NOT_EXIST
			default:
				m.Value = value(w)
			}
		}
		list = append(list, m)
	}
	return list
}

func (s *script) prewrite(t *testing.T, d *datadriven.TestData) string {
	req := &kvpb.PrewriteRequest{
		Mutations: mutations(t, d), StartTs: argTS(d, "start"), LockTtlMs: 3000,
		MinCommitTs: argTS(d, "min_commit"), MaxCommitTs: argTS(d, "max_commit"),
		TryOnePc: d.HasArg("one_pc"), IsRetry: d.HasArg("retry"), UseAsyncCommit: d.HasArg("async"),
		AssertionLevel: kvpb.AssertionLevel_ASSERTION_LEVEL_FAST, ForUpdateTs: argTS(d, "for_update"),
		Generation: argTS(d, "generation"), Secondaries: argKeys(d, "secondaries"), ExpectedForUpdateTs: argTSs(d, "expected"),
	}
	req.TxnSize = uint64(len(req.Mutations))
	if d.HasArg("part") { // of the transaction
		req.TxnSize++
	}
	req.Primary = req.Mutations[0].Key
	if p := arg(d, "primary"); p != "" {
		req.Primary = []byte(p)
	}
	switch arg(d, "level") {
	case "off":
		req.AssertionLevel = kvpb.AssertionLevel_ASSERTION_LEVEL_OFF
	case "strict":
		req.AssertionLevel = kvpb.AssertionLevel_ASSERTION_LEVEL_STRICT
	}
	if ttl := arg(d, "ttl"); ttl != "" {
		req.LockTtlMs = parseTS(ttl)
	}
	req.Context = s.at(req.Mutations[0].Key, d)
	resp := s.ex.Prewrite(context.Background(), req)
	if resp.OnePcCommitTs != 0 {
		return "ok committed at " + showTS(resp.OnePcCommitTs)
	}
	if resp.MinCommitTs != 0 {
		return "ok async min_commit=" + showTS(resp.MinCommitTs)
	}
	return outcome(resp.RegionError, resp.Errors...)
}

// put writes committed versions: lines "key value" or "key -" for a delete.
func (s *script) put(t *testing.T, d *datadriven.TestData) string {
	for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
		f := strings.Fields(line)
		w := &mvcc.Write{Type: mvcc.WritePut, StartTS: argTS(d, "start"), HasValue: true, Value: value(f[1])}
		if f[1] == "-" {
			w = &mvcc.Write{Type: mvcc.WriteDelete, StartTS: argTS(d, "start")}
		}
		s.st.Apply([]byte(f[0]), func(b *mvcc.Writer) { b.PutWrite([]byte(f[0]), argTS(d, "commit"), w) })
	}
	return "ok"
}

// write installs a raw write record.
func (s *script) write(t *testing.T, d *datadriven.TestData) string {
	w := &mvcc.Write{
		Type: mvcc.WriteType(arg(d, "type")[0]), StartTS: argTS(d, "start"), Protected: d.HasArg("protected"),
		OverlappedRollback: d.HasArg("overlapped"), HasGCFence: d.HasArg("fence"), GCFence: argTS(d, "fence"),
		HasValue: d.HasArg("value"), Value: []byte(arg(d, "value")),
	}
	s.st.Apply([]byte(arg(d, "key")), func(b *mvcc.Writer) { b.PutWrite([]byte(arg(d, "key")), argTS(d, "commit"), w) })
	return "ok"
}

// lock installs a raw lock.
func (s *script) lock(t *testing.T, d *datadriven.TestData) string {
	key := []byte(arg(d, "key"))
	l := &mvcc.Lock{
		Type: mvcc.LockType(arg(d, "type")[0]), StartTS: argTS(d, "start"), TTL: 3000, Primary: key,
		MinCommitTS: argTS(d, "min_commit"), UseAsyncCommit: d.HasArg("async"),
		HasShortValue: d.HasArg("value"), ShortValue: []byte(arg(d, "value")),
		ForUpdateTS: argTS(d, "for_update"), LockedWithConflict: d.HasArg("conflict"),
	}
	if p := arg(d, "primary"); p != "" {
		l.Primary = []byte(p)
	}
	s.st.Apply(key, func(b *mvcc.Writer) { b.PutLock(key, l) })
	return "ok"
}

func (s *script) commit(t *testing.T, d *datadriven.TestData) string {
	keys := argKeys(d, "keys")
	resp := s.ex.Commit(context.Background(), &kvpb.CommitRequest{
		Context: s.at(keys[0], d), StartTs: argTS(d, "start"), CommitTs: argTS(d, "commit"), Keys: keys,
	})
	if resp.RegionError == nil && resp.Error == nil {
		return "ok at " + showTS(resp.CommitTs)
	}
	return outcome(resp.RegionError, resp.Error)
}

func (s *script) rollback(t *testing.T, d *datadriven.TestData) string {
	keys := argKeys(d, "keys")
	resp := s.ex.BatchRollback(context.Background(), &kvpb.BatchRollbackRequest{
		Context: s.at(keys[0], d), StartTs: argTS(d, "start"), Keys: keys,
	})
	return outcome(resp.RegionError, resp.Error)
}

// acquire takes pessimistic locks; it waits only if told how long.
func (s *script) acquire(t *testing.T, d *datadriven.TestData) string {
	req := &kvpb.PessimisticLockRequest{
		Keys: argKeys(d, "keys"), StartTs: argTS(d, "start"), ForUpdateTs: argTS(d, "for_update"), LockTtlMs: 3000,
		Shared: d.HasArg("shared"), ReturnValues: d.HasArg("values"), CheckExistence: d.HasArg("exists"),
		LockOnlyIfExists: d.HasArg("if_exists"), AllowLockWithConflict: d.HasArg("allow_conflict"),
		MinCommitTs: argTS(d, "min_commit"), WaitMode: kvpb.LockWaitMode_LOCK_WAIT_MODE_NOWAIT,
	}
	if req.ForUpdateTs == 0 {
		req.ForUpdateTs = req.StartTs
	}
	if d.HasArg("should_not_exist") {
		req.ShouldNotExist = slices.Repeat([]bool{true}, len(req.Keys))
	}
	if d.HasArg("skip") {
		req.WaitMode = kvpb.LockWaitMode_LOCK_WAIT_MODE_SKIP_LOCKED
	}
	if ms := arg(d, "wait"); ms != "" {
		req.WaitMode, req.WaitTimeoutMs = kvpb.LockWaitMode_LOCK_WAIT_MODE_WAIT, uint32(parseTS(ms))
	}
	if ttl := arg(d, "ttl"); ttl != "" {
		req.LockTtlMs = parseTS(ttl)
	}
	req.Primary = req.Keys[0]
	if p := arg(d, "primary"); p != "" {
		req.Primary = []byte(p)
	}
	if d.HasArg("no_primary") {
		req.Primary, req.IsFirstLock = nil, true
	}
	req.MaxLocks, req.SkipChanged = uint32(argTS(d, "max")), d.HasArg("skip_changed")
	req.Context = s.at(req.Keys[0], d)
	resp := s.ex.PessimisticLock(context.Background(), req)
	if resp.RegionError != nil {
		return outcome(resp.RegionError)
	}
	out := showLockResults(req.Keys, resp.Results)
	if resp.Primary != nil {
		out += fmt.Sprintf("primary %s\n", resp.Primary)
	}
	return out
}

func showLockResults(keys [][]byte, results []*kvpb.KeyLockResult) string {
	var out strings.Builder
	for i, r := range results {
		fmt.Fprintf(&out, "%s %s", keys[i], strings.ToLower(strings.TrimPrefix(r.Status.String(), "KEY_LOCK_STATUS_")))
		if r.LockedWithConflictTs != 0 {
			fmt.Fprintf(&out, " at %s", showTS(r.LockedWithConflictTs))
		}
		switch {
		case r.Value != nil:
			fmt.Fprintf(&out, " value=%s", showValue(r.Value))
		case r.Exists:
			out.WriteString(" exists")
		}
		if r.Error != nil {
			out.WriteString(" " + showKeyError(r.Error))
		}
		out.WriteString("\n")
	}
	return out.String()
}

func (s *script) release(t *testing.T, d *datadriven.TestData) string {
	keys := argKeys(d, "keys")
	resp := s.ex.PessimisticRollback(context.Background(), &kvpb.PessimisticRollbackRequest{
		Context: s.at(keys[0], d), StartTs: argTS(d, "start"), ForUpdateTs: argTS(d, "for_update"), Keys: keys,
	})
	return outcome(resp.RegionError, resp.Errors...)
}

func (s *script) get(t *testing.T, d *datadriven.TestData) string {
	key := []byte(arg(d, "key"))
	resp := s.ex.Get(context.Background(), &kvpb.GetRequest{Context: s.at(key, d), Key: key, ReadTs: argTS(d, "ts")})
	switch {
	case resp.RegionError != nil || resp.Error != nil:
		return outcome(resp.RegionError, resp.Error)
	case resp.NotFound:
		return "not found"
	}
	return fmt.Sprintf("%s (commit %s)", showValue(resp.Value), showTS(resp.CommitTs))
}

func showBlock(out *strings.Builder, b *kvpb.KvBlock) {
	for i := 0; i+2 < len(b.GetOffsets()); i += 2 {
		fmt.Fprintf(out, "%s=%s\n", b.Data[b.Offsets[i]:b.Offsets[i+1]], showValue(b.Data[b.Offsets[i+1]:b.Offsets[i+2]]))
	}
}

func (s *script) batchGet(t *testing.T, d *datadriven.TestData) string {
	keys := argKeys(d, "keys")
	resp := s.ex.BatchGet(context.Background(), &kvpb.BatchGetRequest{Context: s.at(keys[0], d), Keys: keys, ReadTs: argTS(d, "ts")})
	var out strings.Builder
	showBlock(&out, resp.Pairs)
	if resp.RegionError != nil || len(resp.Errors) > 0 {
		out.WriteString(outcome(resp.RegionError, resp.Errors...))
	}
	return out.String()
}

func (s *script) scan(t *testing.T, d *datadriven.TestData) string {
	limit, _ := strconv.Atoi(arg(d, "limit"))
	bytes, _ := strconv.Atoi(arg(d, "bytes"))
	req := &kvpb.ScanRequest{
		StartKey: []byte(arg(d, "from")), EndKey: []byte(arg(d, "to")), ReadTs: argTS(d, "ts"),
		Limit: uint32(limit), ByteLimit: uint32(bytes), Reverse: d.HasArg("reverse"), KeyOnly: d.HasArg("key_only"),
	}
	req.Context = s.at(req.StartKey, d)
	resp := s.ex.Scan(context.Background(), req)
	var out strings.Builder
	showBlock(&out, resp.Pairs)
	if resp.RegionError != nil || resp.Error != nil {
		out.WriteString(outcome(resp.RegionError, resp.Error) + "\n")
	}
	if resp.More {
		fmt.Fprintf(&out, "more, resume at %q\n", resp.ResumeKey)
	}
	return out.String()
}

// collect drops the garbage below a safe point.
func (s *script) collect(t *testing.T, d *datadriven.TestData) string {
	if err := s.st.CollectAt(argTS(d, "safe_point")); err != nil {
		t.Fatal(err)
	}
	return "ok"
}

// unchanged asks about the spans given as lines "start end since"; - is no bound.
func (s *script) unchanged(_ *testing.T, d *datadriven.TestData) string {
	req := &kvpb.CheckUnchangedRequest{StartTs: argTS(d, "start"), CommitTs: argTS(d, "commit")}
	for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
		f := strings.Fields(strings.ReplaceAll(line, "-", `""`))
		sp := &kvpb.ReadSpan{SinceTs: parseTS(f[2])}
		sp.StartKey, sp.EndKey = []byte(strings.Trim(f[0], `"`)), []byte(strings.Trim(f[1], `"`))
		if f[1] == "." { // this key alone
			sp.EndKey = append(bytes.Clone(sp.StartKey), 0)
		}
		req.Spans = append(req.Spans, sp)
	}
	req.Context = s.at(req.Spans[0].StartKey, d)
	resp := s.ex.CheckUnchanged(context.Background(), req)
	out := outcome(resp.RegionError, resp.Errors...)
	if resp.More {
		out += fmt.Sprintf(" more, resume at span %d, %q", resp.ResumeSpan, resp.ResumeKey)
	}
	return out
}

func (s *script) status(t *testing.T, d *datadriven.TestData) string {
	key := []byte(arg(d, "primary"))
	resp := s.ex.CheckTxnStatus(context.Background(), &kvpb.CheckTxnStatusRequest{
		Context: s.at(key, d), Primary: key, LockTs: argTS(d, "lock"), CallerStartTs: argTS(d, "caller"),
		CurrentTs: argTS(d, "now"), RollbackIfNotExist: d.HasArg("rollback_if_not_exist"),
		ForceSyncCommit: d.HasArg("force_sync"), ResolvingPessimisticLock: d.HasArg("resolving_pessimistic"),
		VerifyIsPrimary: d.HasArg("verify"),
	})
	if resp.RegionError != nil || resp.Error != nil {
		return outcome(resp.RegionError, resp.Error)
	}
	out := "rolled back"
	switch {
	case resp.CommitTs != 0:
		out = "committed at " + showTS(resp.CommitTs)
	case resp.Lock != nil:
		out = fmt.Sprintf("locked min_commit=%s ttl=%d", showTS(resp.Lock.MinCommitTs), resp.Lock.TtlMs)
	}
	if resp.Action != 0 {
		out += " " + strings.TrimPrefix(resp.Action.String(), "TXN_ACTION_")
	}
	return out
}

func (s *script) secondary(t *testing.T, d *datadriven.TestData) string {
	keys := argKeys(d, "keys")
	resp := s.ex.CheckSecondaryLocks(context.Background(), &kvpb.CheckSecondaryLocksRequest{
		Context: s.at(keys[0], d), Keys: keys, StartTs: argTS(d, "start"),
	})
	switch {
	case resp.RegionError != nil || resp.Error != nil:
		return outcome(resp.RegionError, resp.Error)
	case resp.CommitTs != 0:
		return "committed at " + showTS(resp.CommitTs)
	case resp.RolledBack:
		return "rolled back"
	}
	return showLocks(resp.Locks)
}

func showLocks(list []*kvpb.LockInfo) string {
	var out strings.Builder
	for _, l := range list {
		fmt.Fprintf(&out, "%s start=%s primary=%s min_commit=%s%s\n", l.Key, showTS(l.StartTs), l.Primary, showTS(l.MinCommitTs), plain(l))
	}
	return out.String()
}

func (s *script) resolve(t *testing.T, d *datadriven.TestData) string {
	req := &kvpb.ResolveLockRequest{Keys: argKeys(d, "keys"), StartKey: []byte(arg(d, "from"))}
	commits := argTSs(d, "commit")
	for i, ts := range argTSs(d, "start") {
		req.Txns = append(req.Txns, &kvpb.TxnStatus{StartTs: ts, CommitTs: commits[i]})
	}
	req.Context = s.at(append(append([]byte{}, req.StartKey...), bytes.Join(req.Keys, nil)...), d)
	if len(req.Keys) > 0 {
		req.Context = s.at(req.Keys[0], d)
	}
	resp := s.ex.ResolveLock(context.Background(), req)
	out := outcome(resp.RegionError, resp.Error)
	if resp.More {
		out += fmt.Sprintf(" more, resume at %q", resp.ResumeKey)
	}
	return out
}

func (s *script) scanLock(t *testing.T, d *datadriven.TestData) string {
	limit, _ := strconv.Atoi(arg(d, "limit"))
	req := &kvpb.ScanLockRequest{
		MaxTs: argTS(d, "max"), StartKey: []byte(arg(d, "from")), EndKey: []byte(arg(d, "to")), Limit: uint32(limit),
	}
	req.Context = s.at(req.StartKey, d)
	resp := s.ex.ScanLock(context.Background(), req)
	if resp.RegionError != nil || resp.Error != nil {
		return outcome(resp.RegionError, resp.Error)
	}
	return showLocks(resp.Locks)
}

func (s *script) heartbeat(t *testing.T, d *datadriven.TestData) string {
	key := []byte(arg(d, "primary"))
	resp := s.ex.TxnHeartBeat(context.Background(), &kvpb.TxnHeartBeatRequest{
		Context: s.at(key, d), Primary: key, StartTs: argTS(d, "start"), AdviseTtlMs: parseTS(arg(d, "ttl")),
	})
	if resp.RegionError != nil || resp.Error != nil {
		return outcome(resp.RegionError, resp.Error)
	}
	return fmt.Sprintf("ttl %d", resp.LockTtlMs)
}

func (s *script) maxTS(*testing.T, *datadriven.TestData) string { return showTS(s.ex.MaxTS()) }

func (s *script) pdTS(_ *testing.T, d *datadriven.TestData) string {
	s.ts = argTS(d, "ts")
	return "ok"
}

func (s *script) split(_ *testing.T, d *datadriven.TestData) string {
	s.st.Split([]byte(arg(d, "at")))
	return "ok"
}

func (s *script) handOver(_ *testing.T, d *datadriven.TestData) string {
	s.st.HandOver([]byte(arg(d, "key")))
	return "ok"
}

func (s *script) reopen(_ *testing.T, d *datadriven.TestData) string {
	s.st.Reopen([]byte(arg(d, "key")))
	return "ok"
}

// crash is the end of all leaders, and of what only they know.
func (s *script) crash(*testing.T, *datadriven.TestData) string {
	s.st.Crash()
	return "ok"
}

func (s *script) newTerm(*testing.T, *datadriven.TestData) string {
	s.st.NewTerm()
	return "ok"
}

// outcome shows errors in one line each.
func outcome(rerr *kvpb.RegionError, errs ...*kvpb.KeyError) string {
	if rerr != nil {
		return strings.TrimPrefix(fmt.Sprintf("region error %T", rerr.Kind), "*")
	}
	var out []string
	for _, ke := range errs {
		if ke != nil {
			out = append(out, showKeyError(ke))
		}
	}
	if out == nil {
		return "ok"
	}
	return strings.Join(out, "\n")
}

func showKeyError(ke *kvpb.KeyError) string {
	switch k := ke.Kind.(type) {
	case *kvpb.KeyError_Locked:
		l := k.Locked
		out := fmt.Sprintf("locked: %s by %s primary=%s type=%s", l.Key, showTS(l.StartTs), l.Primary, strings.TrimPrefix(l.Type.String(), "LOCK_TYPE_"))
		for _, h := range l.Holders {
			out += " holder=" + showTS(h.StartTs)
		}
		return out
	case *kvpb.KeyError_Conflict:
		c := k.Conflict
		return fmt.Sprintf("conflict: %s start=%s newer start=%s commit=%s %s", c.Key, showTS(c.StartTs), showTS(c.ConflictStartTs),
			showTS(c.ConflictCommitTs), strings.TrimPrefix(c.Reason.String(), "CONFLICT_REASON_"))
	case *kvpb.KeyError_AlreadyExist:
		return fmt.Sprintf("already exists: %s", k.AlreadyExist.Key)
	case *kvpb.KeyError_CommitTsExpired:
		return fmt.Sprintf("commit ts expired: %s attempted=%s min=%s", k.CommitTsExpired.Key, showTS(k.CommitTsExpired.AttemptedCommitTs), showTS(k.CommitTsExpired.MinCommitTs))
	case *kvpb.KeyError_TxnNotFound:
		return fmt.Sprintf("txn not found: %s", showTS(k.TxnNotFound.StartTs))
	case *kvpb.KeyError_TxnLockNotFound:
		return fmt.Sprintf("lock not found: %s", k.TxnLockNotFound.Key)
	case *kvpb.KeyError_AssertionFailed:
		a := k.AssertionFailed
		return fmt.Sprintf("assertion failed: %s %s existing start=%s commit=%s", a.Key, strings.TrimPrefix(a.Assertion.String(), "ASSERTION_"), showTS(a.ExistingStartTs), showTS(a.ExistingCommitTs))
	case *kvpb.KeyError_TooOld: // the text of messages has spaces at random
		return fmt.Sprintf("too old: %s, safe point %s", showTS(k.TooOld.Ts), showTS(k.TooOld.SafePoint))
	case *kvpb.KeyError_PessimisticLockNotFound:
		n := k.PessimisticLockNotFound
		return fmt.Sprintf("pessimistic lock not found: %s %s", n.Key, strings.TrimPrefix(n.Reason.String(), "PLNF_REASON_"))
	case *kvpb.KeyError_PrimaryMismatch:
		return fmt.Sprintf("primary mismatch: lock of %s names %s", k.PrimaryMismatch.Lock.Key, k.PrimaryMismatch.Lock.Primary)
	case *kvpb.KeyError_Abort:
		return "abort: " + k.Abort
	}
	return ke.String()
}

// dump shows all records, and that the lock index agrees with the lock family.
func (s *script) dump(t *testing.T, d *datadriven.TestData) string {
	if err := s.ex.Close(); err != nil { // locks that are on their way arrive
		t.Error(err)
	}
	return dumpStore(t, s.st)
}

func dumpStore(t testing.TB, st *regiontest.Store) string {
	var out []string
	indexed := 0
	for key := []byte(nil); ; {
		meta := st.Locate(key)
		rg, rerr := st.Region(regiontest.Context(meta))
		if rerr != nil {
			t.Fatal(rerr)
		}
		for _, kl := range rg.MemLocks().List(nil, nil) {
			out = append(out, "0memory "+string(kl.Key)+" "+showLock(kl.Lock))
		}
		err := rg.Locks().Range(nil, nil, func(key []byte, l *mvcc.Lock) bool {
			indexed++
			out = append(out, "1lock "+string(key)+" "+showLock(l))
			return true
		})
		if err != nil {
			t.Error(err)
		}
		if key = meta.EndKey; len(key) == 0 {
			break
		}
	}
	stored := 0
	each(t, st, engine.CFLock, func(it *engine.Iter, v []byte) { stored++ })
	if stored != indexed {
		t.Errorf("%d locks indexed, %d stored", indexed, stored)
	}
	each(t, st, engine.CFWrite, func(it *engine.Iter, v []byte) {
		w, err := mvcc.ParseWrite(v)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("2write %s@%s %s", it.Key(), showTS(it.TS()), showWrite(&w)))
	})
	each(t, st, engine.CFDefault, func(it *engine.Iter, v []byte) {
		out = append(out, fmt.Sprintf("3value %s@%s %s", it.Key(), showTS(it.TS()), showValue(v)))
	})
	sort.SliceStable(out, func(i, j int) bool { return out[i][0] < out[j][0] })
	for i := range out {
		out[i] = out[i][1:]
	}
	return strings.Join(out, "\n")
}

func each(t testing.TB, st *regiontest.Store, cf engine.CF, fn func(it *engine.Iter, v []byte)) {
	it, err := st.DB.NewIter(engine.IterOptions{CF: cf})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			t.Fatal(err)
		}
		fn(it, v)
	}
}

func showLock(l *mvcc.Lock) string {
	if len(l.Holders) > 0 {
		out := "shared"
		for i := range l.Holders {
			out += " (" + showLock(&l.Holders[i]) + ")"
		}
		return out
	}
	out := fmt.Sprintf("%c start=%s primary=%s ttl=%d", l.Type, showTS(l.StartTS), l.Primary, l.TTL)
	if l.MinCommitTS != 0 {
		out += " min_commit=" + showTS(l.MinCommitTS)
	}
	if l.ForUpdateTS != 0 {
		out += " for_update=" + showTS(l.ForUpdateTS)
	}
	if l.LockedWithConflict {
		out += " with conflict"
	}
	if l.HasShortValue {
		out += " value=" + showValue(l.ShortValue)
	}
	if l.Generation != 0 {
		out += fmt.Sprintf(" generation=%d", l.Generation)
	}
	if l.UseAsyncCommit {
		out += " async"
	}
	for _, k := range l.Secondaries {
		out += " secondary=" + string(k)
	}
	for _, ts := range l.RollbackTS {
		out += " rollback=" + showTS(ts)
	}
	return out
}

func showWrite(w *mvcc.Write) string {
	out := fmt.Sprintf("%c start=%s", w.Type, showTS(w.StartTS))
	if w.Protected {
		out += " protected"
	}
	if w.OverlappedRollback {
		out += " overlapped"
	}
	if w.HasGCFence {
		out += " fence=" + showTS(w.GCFence)
	}
	if w.HasValue {
		out += " value=" + showValue(w.Value)
	}
	return out
}

// plain marks a lock that names a commit timestamp and is none of an async commit.
func plain(l *kvpb.LockInfo) string {
	if l.MinCommitTs != 0 && !l.UseAsyncCommit {
		return " two phases"
	}
	return ""
}

package expr

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/sqlerr"
)

// Functions about the session, and those that are about nothing else.

var infoTable = []builtin{
	{name: "database", min: 0, max: 0, flags: fSession, typ: typSystem(64), comp: compDatabase},
	{name: "user", min: 0, max: 0, flags: fSession, typ: typSystem(288), comp: compSession(func(s *SessionInfo) string { return s.User })},
	{name: "current_user", min: 0, max: 0, flags: fSession, typ: typSystem(288),
		comp: compSession(func(s *SessionInfo) string { return s.CurrentUser })},
	{name: "version", min: 0, max: 0, flags: fSession, typ: typSystem(60), comp: compSession(func(s *SessionInfo) string { return s.Version })},
	{name: "connection_id", min: 0, max: 0, flags: fSession | fNeverNull, typ: typUint(21), comp: compConnectionID},
	{name: "last_insert_id", min: 0, max: 1, flags: fSession, typ: typUint(21), comp: compLastInsertID},
	{name: "row_count", min: 0, max: 0, flags: fSession | fNeverNull, typ: typInt(21), comp: compRowCount},
	{name: "found_rows", min: 0, max: 0, flags: fSession | fNeverNull, typ: typUint(21), comp: compFoundRows},
	{name: "uuid", min: 0, max: 0, flags: fVolatile | fNeverNull, typ: typSystem(36), comp: compUUID},
	{name: "sleep", min: 1, max: 1, flags: fVolatile, typ: typInt(21), comp: compSleep},
	{name: "cairn_txn_status", min: 1, max: 1, flags: fVolatile, typ: typSystem(128), comp: compTxnStatus},
	{name: "charset", min: 1, max: 1, flags: fNeverNull, typ: typSystem(64), comp: compCollationName},
	{name: "collation", min: 1, max: 1, flags: fNeverNull, typ: typSystem(64), comp: compCollationName},
	{name: "coercibility", min: 1, max: 1, flags: fNeverNull, typ: typInt(10), comp: compCoercibility},
}

// refusedTable names what MySQL has and this package does not: the answer is 1235, not 1305.
var refusedTable = refused("benchmark", "load_file", "json_extract", "json_unquote", "json_object", "json_array", "json_contains", "json_valid", "json_type",
	"json_length", "json_set", "json_insert", "json_replace", "json_remove", "json_keys", "json_search", "json_merge_patch",
	"json_merge_preserve", "json_array_append", "json_array_insert", "json_contains_path", "json_depth", "json_pretty",
	"json_quote", "json_storage_size", "json_overlaps", "json_value", "member of", "->", "->>", "aes_encrypt", "aes_decrypt", "compress", "uncompress",
	"soundex", "make_set", "export_set", "weight_string", "get_format",
	"inet6_aton", "inet6_ntoa", "is_ipv4", "is_ipv6", "uuid_to_bin", "bin_to_uuid", "is_uuid", "uuid_short", "random_bytes",
	"name_const", "format_bytes", "extractvalue", "updatexml", "match", "master_pos_wait", "values")

func refused(names ...string) []builtin {
	table := make([]builtin, len(names))
	for i, name := range names {
		table[i] = builtin{name: name, max: -1, flags: fRefused}
	}
	return table
}

func compSession(get func(*SessionInfo) string) func(*compiler, *Call) *Program {
	return func(*compiler, *Call) *Program {
		return bytesProgram(func(env *Env, _ *chunk.Batch, _ int) ([]byte, bool) {
			s := get(env.session())
			return append(env.buf(len(s)), s...), false
		})
	}
}

func compDatabase(*compiler, *Call) *Program {
	return bytesProgram(func(env *Env, _ *chunk.Batch, _ int) ([]byte, bool) {
		db := env.session().DB
		return append(env.buf(len(db)), db...), db == ""
	})
}

func compConnectionID(*compiler, *Call) *Program {
	return intProgram(func(env *Env, _ *chunk.Batch, _ int) (int64, bool) { return int64(env.session().ConnID), false })
}

func compRowCount(*compiler, *Call) *Program {
	return intProgram(func(env *Env, _ *chunk.Batch, _ int) (int64, bool) { return env.session().RowCount, false })
}

func compFoundRows(*compiler, *Call) *Program {
	return intProgram(func(env *Env, _ *chunk.Batch, _ int) (int64, bool) { return int64(env.session().FoundRows), false })
}

func compLastInsertID(cc *compiler, c *Call) *Program {
	if len(c.Args) == 0 {
		return intProgram(func(env *Env, _ *chunk.Batch, _ int) (int64, bool) { return int64(env.session().LastInsertID), false })
	}
	f := cc.bits(c.Args[0])
	return intProgram(func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, null := f(env, b, row)
		if set := env.session().SetLastInsertID; set != nil {
			set(uint64(v))
		}
		return v, null
	})
}

// compUUID makes version 4 identifiers: MySQL's version 1 tells the machine's address.
func compUUID(*compiler, *Call) *Program {
	return bytesProgram(func(env *Env, _ *chunk.Batch, _ int) ([]byte, bool) {
		var id [16]byte
		if _, err := rand.Read(id[:]); err != nil {
			env.fail(err)
			return nil, true
		}
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
		out := env.buf(36)
		for i, part := range [...][]byte{id[0:4], id[4:6], id[6:8], id[8:10], id[10:16]} {
			if i > 0 {
				out = append(out, '-')
			}
			out = hex.AppendEncode(out, part)
		}
		return out, false
	})
}

// maxSleep bounds SLEEP: no statement waits longer than a day.
const maxSleep = 24 * time.Hour

func compSleep(cc *compiler, c *Call) *Program {
	f := cc.float(c.Args[0])
	return intProgram(func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		secs, null := f(env, b, row)
		if null || secs < 0 {
			env.fail(sqlerr.New(sqlerr.ErrWrongArguments, "sleep."))
			return 0, true
		}
		ctx := env.Ctx
		if ctx == nil {
			ctx = context.Background()
		}
		d := maxSleep
		if secs < maxSleep.Seconds() {
			d = time.Duration(secs * float64(time.Second))
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return 0, false
		case <-ctx.Done():
			return 1, false
		}
	})
}

// compTxnStatus is ours: what became of the transaction that a commit token names.
func compTxnStatus(cc *compiler, c *Call) *Program {
	token := cc.str(c.Args[0])
	return bytesProgram(func(env *Env, b *chunk.Batch, row int) ([]byte, bool) {
		text, null := token(env, b, row)
		status := env.session().TxnStatus
		switch {
		case null, env.Err != nil:
			return nil, true
		case status == nil:
			env.fail(sqlerr.New(sqlerr.ErrNotSupportedYet, "cairn_txn_status here"))
			return nil, true
		}
		answer, err := status(env.context(), string(text))
		if err != nil {
			env.fail(err)
			return nil, true
		}
		return append(env.buf(len(answer)), answer...), false
	})
}

func compCollationName(_ *compiler, c *Call) *Program {
	t := c.Args[0].Type()
	id := charset.Binary
	if t.IsString() || t.TextForm() {
		id = t.Collation
	}
	name := charset.Get(id).Name
	if c.Fn == "charset" {
		name = charset.Get(id).Charset.Name
	}
	return bytesProgram(always([]byte(name), false))
}

func compCoercibility(_ *compiler, c *Call) *Program {
	return intProgram(always(int64(CoercibilityOf(c.Args[0]))-1, false))
}

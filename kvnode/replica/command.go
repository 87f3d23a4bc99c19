package replica

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// Entry payloads: docs/formats/raftlog.md.
const (
	commandWrite = 1 // an encoded engine batch
	commandAdmin = 2 // a replpb.AdminCommand

	// patientMark is added to the kind when nobody waits for the entry; see arePatient.
	patientMark = 0x80
)

// command is the payload of a Raft entry.
type command struct {
	kind    byte
	id      uint64 // names the proposal to its proposer; unique within a term
	version uint64 // of the region epoch it was evaluated under
	confVer uint64
	term    uint64 // it was evaluated in
	body    []byte
}

// appendHeader appends the payload of c up to its body.
func appendHeader(dst []byte, c command) []byte {
	dst = append(dst, c.kind)
	dst = binary.LittleEndian.AppendUint64(dst, c.id)
	dst = binary.AppendUvarint(dst, c.version)
	dst = binary.AppendUvarint(dst, c.confVer)
	return binary.AppendUvarint(dst, c.term)
}

// decodeCommand takes a payload apart. The body aliases it.
func decodeCommand(b []byte) (command, error) {
	if len(b) < 9 {
		return command{}, fmt.Errorf("%w: command of %d bytes", ErrCorrupt, len(b))
	}
	c := command{kind: kindOf(b), id: binary.LittleEndian.Uint64(b[1:])}
	b = b[9:]
	for _, p := range []*uint64{&c.version, &c.confVer, &c.term} {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return command{}, fmt.Errorf("%w: short command", ErrCorrupt)
		}
		*p, b = v, b[n:]
	}
	if c.kind != commandWrite && c.kind != commandAdmin {
		return command{}, fmt.Errorf("%w: command kind %d", ErrCorrupt, c.kind)
	}
	c.body = b
	return c, nil
}

// kindOf is the kind of a payload that is not empty.
func kindOf(b []byte) byte { return b[0] &^ patientMark }

// arePatient reports whether nobody waits for any of the entries, so that a log may keep
// them for some milliseconds until it has something else to write.
func arePatient(entries []*raftpb.Entry) bool {
	for _, e := range entries {
		if data := e.GetData(); e.GetType() != raftpb.EntryNormal || len(data) == 0 || data[0]&patientMark == 0 {
			return false
		}
	}
	return true
}

package session

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// A commit token names a transaction for cairn_txn_status(), so that a client that
// lost its connection in a COMMIT can ask what became of it. It is base64 of
//
//	version 1 (1 byte) | start timestamp (8, big endian) | proof (16) | key of the witness
//
// The proof is a HMAC of the rest with a secret of the cluster: asking can end a
// transaction, and only who was told the token may do that.
const (
	tokenVersion = 1
	tokenProof   = 16
	tokenHead    = 1 + 8 + tokenProof
)

// statusPatience is how long cairn_txn_status() waits for a transaction to end.
const statusPatience = 10 * time.Second

// tokenSecretName is the name of the secret among the metadata.
const tokenSecretName = "token/secret"

// TokenSecret reads the secret of commit tokens, and makes it if there is none.
func TokenSecret(ctx context.Context, kv catalog.KV) (secret []byte, err error) {
	if secret, err = kv.Latest(ctx, keys.Meta(tokenSecretName)); secret != nil || err != nil {
		return secret, err
	}
	err = kv.Update(ctx, func(tx catalog.Tx) error {
		if secret, err = tx.Get(ctx, keys.Meta(tokenSecretName)); secret != nil || err != nil {
			return err
		}
		secret = make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			return err
		}
		return tx.Set(keys.Meta(tokenSecretName), secret)
	})
	return secret, err
}

func (e *Engine) proof(t txn.Token) []byte {
	h := hmac.New(sha256.New, e.TokenSecret)
	_ = binary.Write(h, binary.BigEndian, t.StartTS)
	h.Write(t.Key)
	return h.Sum(nil)[:tokenProof]
}

func (e *Engine) encodeToken(t txn.Token) string {
	b := make([]byte, 0, tokenHead+len(t.Key))
	b = binary.BigEndian.AppendUint64(append(b, tokenVersion), t.StartTS)
	b = append(append(b, e.proof(t)...), t.Key...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// decodeToken reads a token this cluster has made: 1210 for others.
func (e *Engine) decodeToken(text string) (t txn.Token, err error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil && len(b) > tokenHead && b[0] == tokenVersion {
		t = txn.Token{StartTS: binary.BigEndian.Uint64(b[1:]), Key: b[tokenHead:]}
		if hmac.Equal(b[1+8:tokenHead], e.proof(t)) {
			return t, nil
		}
	}
	why := "this is no token of this cluster"
	if text == "" {
		why = "a transaction has no token before it has written something"
	}
	return txn.Token{}, sqlerr.Newf(sqlerr.ErrWrongArguments, "Incorrect arguments to cairn_txn_status: %s", why)
}

// commitToken is @@cairn_commit_token: that of the open transaction, empty while it
// has written nothing.
func (s *Session) commitToken() string {
	t := s.txn.txn
	if t == nil {
		return ""
	}
	text := s.tokenOf(t)
	if text != "" {
		s.public.Lock()
		s.public.tokenTS = t.StartTS()
		s.public.Unlock()
	}
	return text
}

func (s *Session) tokenOf(t *txn.Txn) string {
	token, ok := t.Token()
	if !ok || s.engine.TokenSecret == nil {
		return ""
	}
	return s.engine.encodeToken(token)
}

// txnStatus is cairn_txn_status().
func (s *Session) txnStatus(ctx context.Context, text string) (string, error) {
	e := s.engine
	token, err := e.decodeToken(text)
	if err != nil {
		return "", err
	}
	patience, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	if own := s.txn.txn; own != nil && own.StartTS() == token.StartTS || !e.awaitEnd(patience, token.StartTS) {
		return "unknown: it is still running", ctx.Err()
	}
	fate, err := e.Store.Fate(patience, token)
	if err != nil {
		return "", err
	}
	switch fate.State {
	case txn.FateCommitted:
		return "committed", nil
	case txn.FateForgotten:
		return "unknown: it began before the safe point of garbage collection", nil
	case txn.FateRunning:
		return "unknown: it is still running", ctx.Err()
	}
	// Without a trace. That says something only if the place where it would be was not deleted as a whole.
	there, err := e.hasRange(token.Key)
	if err != nil {
		return "", err
	}
	if !there {
		return "unknown: the table or index it has written to was dropped", nil
	}
	return "rolled back", nil
}

// hasRange says whether the table and the index of a key are still there. What is
// dropped is deleted when every node that may still ask has heard of it.
func (e *Engine) hasRange(key []byte) (bool, error) {
	if err := e.Catalog.Valid(); err != nil {
		return false, err
	}
	snap, release := e.Catalog.Pin()
	defer release()
	id, _, err := keys.DecodeTable(key)
	if err != nil {
		return true, nil // metadata are not dropped
	}
	t := snap.TableByID(id)
	if t == nil {
		return false, nil
	}
	_, index, _, err := keys.DecodeIndex(key)
	if err != nil {
		return true, nil // a row
	}
	same := func(ix *catalog.Index) bool { return ix.ID == index }
	return slices.ContainsFunc(t.Indexes, same) || slices.ContainsFunc(t.WriteIndexes, same), nil
}

// awaitEnd waits until no session of this node is in the transaction any more, and
// reports whether that was before the end of ctx. A transaction that locks nothing
// before it commits can be seen to run in no other way.
func (e *Engine) awaitEnd(ctx context.Context, startTS uint64) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for e.inTransaction(startTS) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// inTransaction says whether a session is in the transaction that began at startTS.
func (e *Engine) inTransaction(startTS uint64) bool {
	for _, s := range e.all() {
		s.public.Lock()
		in := s.public.tokenTS == startTS
		s.public.Unlock()
		if in {
			return true
		}
	}
	return false
}

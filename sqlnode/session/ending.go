package session

import (
	"context"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/sqlnode/parse"
)

// ending is what COMMIT or ROLLBACK does after the transaction has ended.
type ending struct {
	chain   bool // begin another with the same characteristics
	release bool // end the session
}

// endingOf reads [AND [NO] CHAIN] [[NO] RELEASE] from a COMMIT or ROLLBACK. What it does not
// name completion_type decides. The parser does not keep the NOs.
func (s *Session) endingOf(text string) ending {
	def := s.vars.Text("completion_type")
	e := ending{chain: def == "CHAIN", release: def == "RELEASE"}
	yes := true
	for word := range parse.Words(text) {
		switch word {
		case "NO":
			yes = false
			continue
		case "CHAIN":
			e.chain = yes
		case "RELEASE":
			e.release = yes
		}
		yes = true
	}
	return e
}

// end is COMMIT or ROLLBACK: finish ends the transaction. When it fails there is nothing to chain to, and the client is to
// learn why from this connection.
func (s *Session) end(ctx context.Context, n ast.StmtNode, finish func(context.Context) error) error {
	e := s.endingOf(n.OriginalText())
	open, t, pessimistic := s.txn.open, s.txn.traits, s.txn.pessimistic
	if err := finish(ctx); err != nil {
		return err
	}
	if e.chain {
		if !open {
			t = s.takeTraits()
		}
		s.openTransaction(t)
		if open {
			s.txn.pessimistic = pessimistic
		}
	}
	s.txn.next = nextTraits{} // SET TRANSACTION was for the transaction that ended, though it may never have begun
	if e.release {
		s.Kill()
	}
	return nil
}

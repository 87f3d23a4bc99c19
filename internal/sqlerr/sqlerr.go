// Package sqlerr is the vocabulary of errors and warnings a MySQL client understands: number, SQLSTATE and text.
//
// SQL code attaches a number where it knows what the user did wrong:
//
//	return sqlerr.New(sqlerr.ErrDupEntry, "1", "t.PRIMARY")
//
// The texts are MySQL 8.0's, because clients and ORMs parse some of them. Errors are values without identity: compare
// numbers, through As, and never texts.
package sqlerr

import (
	"errors"
	"fmt"
	"sort"
	"strings"
)

// DefaultState is the SQLSTATE of a number that has no state of its own.
const DefaultState = "HY000"

// Error is one error as it goes to a client.
type Error struct {
	// Code is the MySQL error number.
	Code uint16
	// State is the SQLSTATE, always five characters.
	State string
	// Msg is the complete text, in UTF-8.
	Msg string
}

// Error gives the text in the form the mysql client prints it.
func (e *Error) Error() string {
	return fmt.Sprintf("ERROR %d (%s): %s", e.Code, e.State, e.Msg)
}

// Is reports whether target is an Error with the same number, so that errors.Is(err, &sqlerr.Error{Code: n}) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// New returns the error with the text of the message table, its verbs filled from args.
// A number without a text gives "Unknown error N".
func New(code uint16, args ...any) *Error {
	m, ok := lookup(code)
	if !ok {
		return &Error{Code: code, State: DefaultState, Msg: fmt.Sprintf("Unknown error %d", code)}
	}
	if len(args) == 0 {
		return &Error{Code: code, State: m.state, Msg: plain(m.text)}
	}
	return &Error{Code: code, State: m.state, Msg: fmt.Sprintf(m.text, args...)}
}

// Newf returns the error with a text of the caller's own and the SQLSTATE of the number. With no args the text is taken
// as it is: a percent sign in it is not a verb.
func Newf(code uint16, text string, args ...any) *Error {
	if len(args) > 0 {
		text = fmt.Sprintf(text, args...)
	}
	return &Error{Code: code, State: State(code), Msg: text}
}

// As finds an Error in err's chain.
func As(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// Code returns the number of the Error in err's chain, 0 when there is none.
func Code(err error) uint16 {
	if e, ok := As(err); ok {
		return e.Code
	}
	return 0
}

// From turns any error into one a client understands: the Error in its chain, else 1105 with err's text. nil stays nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := As(err); ok {
		return e
	}
	return Newf(ErrUnknown, err.Error())
}

// State returns the SQLSTATE of a number, DefaultState when the table does not know it.
func State(code uint16) string {
	if m, ok := lookup(code); ok {
		return m.state
	}
	return DefaultState
}

// Text returns the format text of a number.
func Text(code uint16) (string, bool) {
	m, ok := lookup(code)
	return m.text, ok
}

// Level is the severity of a Warning, in the spelling of SHOW WARNINGS.
type Level uint8

// The levels of SHOW WARNINGS.
const (
	Note Level = iota
	WarningLevel
	ErrorLevel
)

// String returns the word in the Level column of SHOW WARNINGS.
func (l Level) String() string {
	switch l {
	case Note:
		return "Note"
	case WarningLevel:
		return "Warning"
	default:
		return "Error"
	}
}

// Warning is one row of SHOW WARNINGS.
type Warning struct {
	Level Level
	Code  uint16
	Msg   string
}

// Warn returns the warning of a number, its text filled as New does.
func Warn(code uint16, args ...any) Warning {
	return Warning{Level: WarningLevel, Code: code, Msg: New(code, args...).Msg}
}

// Warning returns e as a warning of the given level: strict mode's error is the lenient mode's warning.
func (e *Error) Warning(l Level) Warning {
	return Warning{Level: l, Code: e.Code, Msg: e.Msg}
}

// message is one line of the table.
type message struct {
	code  uint16
	state string
	text  string // fmt verbs; precisions as in MySQL's table
}

func lookup(code uint16) (message, bool) {
	table := messagesMore
	switch {
	case code < messagesMore[0].code:
		table = messagesBase
	case code >= messagesCluster[0].code:
		table = messagesCluster
	}
	i := sort.Search(len(table), func(i int) bool { return table[i].code >= code })
	if i == len(table) || table[i].code != code {
		return message{}, false
	}
	return table[i], true
}

// plain undoes the doubling of percent signs in a text that is used without arguments.
func plain(text string) string { return strings.ReplaceAll(text, "%%", "%") }

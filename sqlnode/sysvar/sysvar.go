// Package sysvar is the table of system variables: names, scopes, value rules
// and defaults, as data. It knows nothing of what a variable does; sessions
// read the few that matter and keep the rest so that SET and SHOW VARIABLES
// work for every name a MySQL client may know.
//
// Source: MySQL 8.0 reference manual, "Server System Variables".
package sysvar

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cairndb/cairn/internal/sqlerr"
)

// Scope says where a variable can be set.
type Scope uint8

const (
	Global Scope = 1 << iota
	Session
	Both = Global | Session
)

// Kind is the rule a value must follow.
type Kind uint8

const (
	Text Kind = iota
	Bool
	Int  // signed
	Uint // unsigned
	Float
	Enum
	Set      // comma-separated words of Words
	Duration // such as 10m0s or 1h30m
)

// Var describes one variable. All fields are read-only.
type Var struct {
	Name     string
	Scope    Scope
	ReadOnly bool // SET is error 1238
	Kind     Kind
	Default  string
	Min, Max int64    // of Int, Uint and, in nanoseconds, Duration; Max 0 = no limit
	Words    []string // of Enum and Set, in MySQL's order
	// Live marks variables that change behaviour here. The others are kept only
	// for clients that set or read them.
	Live bool
}

// Lookup finds a variable by name, in any case.
func Lookup(name string) (*Var, bool) {
	v, ok := table()[name]
	if !ok {
		v, ok = table()[strings.ToLower(name)]
	}
	return v, ok
}

// All returns every variable, by name. The caller must not change it.
func All() []*Var { return sorted() }

var table = sync.OnceValue(func() map[string]*Var {
	m := make(map[string]*Var, 512)
	for _, v := range defined() {
		m[v.Name] = &v
	}
	for _, v := range parseKept(kept) {
		if _, dup := m[v.Name]; !dup {
			m[v.Name] = &v
		}
	}
	return m
})

var sorted = sync.OnceValue(func() []*Var {
	return slices.SortedFunc(maps.Values(table()), func(a, b *Var) int { return strings.Compare(a.Name, b.Name) })
})

// Normalize checks text against the rule of v and returns the form it is
// stored in (booleans as ON and OFF, words in canonical case, numbers clipped
// to their range with warning 1292). Errors are 1231 and 1232.
func (v *Var) Normalize(text string) (string, []sqlerr.Warning, error) {
	switch v.Kind {
	case Bool:
		return v.normalizeBool(text)
	case Int, Uint:
		return v.normalizeInt(text)
	case Float:
		if _, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err != nil {
			return "", nil, sqlerr.New(sqlerr.ErrWrongTypeForVar, v.Name)
		}
		return strings.TrimSpace(text), nil, nil
	case Enum:
		return v.normalizeEnum(text)
	case Set:
		return v.normalizeSet(text)
	case Duration:
		return v.normalizeDuration(text)
	}
	return text, nil, nil
}

func (v *Var) wrong(text string) error {
	return sqlerr.New(sqlerr.ErrWrongValueForVar, v.Name, text)
}

func (v *Var) normalizeBool(text string) (string, []sqlerr.Warning, error) {
	switch strings.ToUpper(strings.TrimSpace(text)) {
	case "1", "ON", "TRUE":
		return "ON", nil, nil
	case "0", "OFF", "FALSE":
		return "OFF", nil, nil
	}
	return "", nil, v.wrong(text)
}

func (v *Var) normalizeInt(text string) (string, []sqlerr.Warning, error) {
	text = strings.TrimSpace(text)
	if v.Kind == Uint {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			if v.Max > 0 && n > uint64(v.Max) {
				return v.clip(text, v.Max)
			}
			if v.Min > 0 && n < uint64(v.Min) {
				return v.clip(text, v.Min)
			}
			return strconv.FormatUint(n, 10), nil, nil
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return "", nil, sqlerr.New(sqlerr.ErrWrongTypeForVar, v.Name)
	}
	if n < v.Min {
		return v.clip(text, v.Min)
	}
	if v.Max > 0 && n > v.Max {
		return v.clip(text, v.Max)
	}
	return strconv.FormatInt(n, 10), nil, nil
}

func (v *Var) clip(text string, to int64) (string, []sqlerr.Warning, error) {
	return strconv.FormatInt(to, 10), []sqlerr.Warning{sqlerr.Warn(sqlerr.ErrTruncatedWrongValue, v.Name, text)}, nil
}

func (v *Var) normalizeEnum(text string) (string, []sqlerr.Warning, error) {
	for _, w := range v.Words {
		if strings.EqualFold(w, text) {
			return w, nil, nil
		}
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < len(v.Words) {
		return v.Words[n], nil, nil
	}
	return "", nil, v.wrong(text)
}

func (v *Var) normalizeSet(text string) (string, []sqlerr.Warning, error) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		var out []string
		for i, w := range v.Words {
			if n&(1<<i) != 0 {
				out = append(out, w)
			}
		}
		return strings.Join(out, ","), nil, nil
	}
	chosen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		i := slices.IndexFunc(v.Words, func(w string) bool { return strings.EqualFold(w, part) })
		if i < 0 {
			return "", nil, v.wrong(part)
		}
		chosen[v.Words[i]] = true
		for _, w := range setMacros[v.Words[i]] {
			chosen[w] = true
		}
	}
	var out []string
	for _, w := range v.Words {
		if chosen[w] {
			out = append(out, w)
		}
	}
	return strings.Join(out, ","), nil, nil
}

func (v *Var) normalizeDuration(text string) (string, []sqlerr.Warning, error) {
	d, err := time.ParseDuration(strings.TrimSpace(text))
	if err != nil {
		return "", nil, v.wrong(text)
	}
	clipped := max(d, time.Duration(v.Min))
	if v.Max > 0 {
		clipped = min(clipped, time.Duration(v.Max))
	}
	if clipped != d {
		return clipped.String(), []sqlerr.Warning{sqlerr.Warn(sqlerr.ErrTruncatedWrongValue, v.Name, text)}, nil
	}
	return d.String(), nil, nil
}

// setMacros are sql_mode words that stand for others.
var setMacros = map[string][]string{
	"ANSI":        {"REAL_AS_FLOAT", "PIPES_AS_CONCAT", "ANSI_QUOTES", "IGNORE_SPACE", "ONLY_FULL_GROUP_BY"},
	"TRADITIONAL": {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "NO_ZERO_IN_DATE", "NO_ZERO_DATE", "ERROR_FOR_DIVISION_BY_ZERO", "NO_ENGINE_SUBSTITUTION"},
}

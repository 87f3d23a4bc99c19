package isolation

import "slices"

// Lists is a history of lists that transactions append to and read as a whole. A read of such a list
// tells not only what was last appended but everything before, so that the order of versions is seen by
// the clients themselves, and the end of it by whoever reads last.
type Lists struct {
	Txns []ListTxn
	// Final is every list at the end, when nobody appends any more.
	Final map[string][]Version
}

// ListTxn is a transaction on lists; the fields are those of Txn.
type ListTxn struct {
	Name          string
	Outcome       Outcome
	Ops           []ListOp
	Start, Commit Span
}

// ListOp is one append or one read.
type ListOp struct {
	Key    string
	Append Version   // 0 = a read
	Read   []Version // what was read
	// At is the moment the operation shows. A read of a list that its transaction has
	// appended to shows the moment of the append.
	At    Point
	Range bool
}

// Check returns what is wrong with a history, nil if it is possible.
func (l *Lists) Check() []Anomaly {
	b := &lister{l: l, h: History{Order: map[string][]Version{}}, of: map[Version]int{}}
	b.c = &checker{count: map[string]int{}}
	for i, t := range l.Txns {
		for _, o := range t.Ops {
			if o.Append != 0 {
				b.of[o.Append] = i
			}
		}
	}
	for key, list := range l.Final {
		b.order(key, list)
	}
	for i := range l.Txns {
		b.txn(i)
	}
	return append(b.c.found, Check(&b.h)...)
}

// lister turns lists into versions.
type lister struct {
	l  *Lists
	h  History
	of map[Version]int // who appended an element
	c  *checker        // for what it finds
}

// order makes the versions of a list: what a transaction appended without another's in between is one.
func (b *lister) order(key string, list []Version) {
	var order []Version
	seen := map[Version]bool{}
	last := map[int]int{} // by transaction: place of its version
	for i, v := range list {
		if seen[v] {
			b.c.add("appended twice", "  %s is %v: %d", key, list, v)
			continue
		}
		seen[v] = true
		t, known := b.of[v]
		if !known {
			order = append(order, v) // Check says that it is from nowhere
			continue
		}
		at, before := last[t]
		switch {
		case !before:
			order = append(order, v)
		case at == len(order)-1:
			order[at] = v
		default:
			b.c.add("G0 (dirty write)", "  %s is %v: what %s appended lies between what others did", key, list[:i+1], b.l.Txns[t].Name)
			continue
		}
		last[t] = len(order) - 1
	}
	b.h.Order[key] = order
}

// txn turns a transaction on lists into one on versions.
func (b *lister) txn(i int) {
	t := &b.l.Txns[i]
	out := Txn{Name: t.Name, Outcome: t.Outcome, Start: t.Start, Commit: t.Commit}
	own := map[string][]Version{}
	at := map[string]Point{} // of the own appends
	for _, o := range t.Ops {
		if o.Append != 0 {
			if own[o.Key] == nil {
				at[o.Key] = o.At
			}
			own[o.Key] = append(own[o.Key], o.Append)
			out.Ops = append(out.Ops, Op{Write: true, Key: o.Key, Version: o.Append, At: o.At})
			continue
		}
		mine := own[o.Key]
		before := len(o.Read) - len(mine)
		if before < 0 || !slices.Equal(o.Read[before:], mine) {
			b.c.add("internal", "  %s appended %v to %s and read %v", t.Name, mine, o.Key, o.Read)
			continue
		}
		others := o.Read[:before]
		b.prefix(t, o.Key, others)
		seen := Op{Key: o.Key, At: o.At, Range: o.Range}
		if before > 0 {
			seen.Version = others[before-1]
		}
		if len(mine) > 0 {
			// It was there before the own appends, as far as others are concerned.
			seen.At = at[o.Key]
			first := slices.IndexFunc(out.Ops, func(w Op) bool { return w.Write && w.Key == o.Key })
			out.Ops = slices.Insert(out.Ops, first, seen)
			continue
		}
		out.Ops = append(out.Ops, seen)
	}
	b.h.Txns = append(b.h.Txns, out)
}

// prefix checks that a list that was read is a beginning of the last one.
func (b *lister) prefix(t *ListTxn, key string, list []Version) {
	final := b.l.Final[key]
	if len(list) <= len(final) && slices.Equal(list, final[:len(list)]) {
		return
	}
	for i, v := range list {
		w, known := b.of[v]
		switch {
		case slices.Contains(list[:i], v):
			b.c.add("appended twice", "  %s read %s as %v: %d", t.Name, key, list, v)
		case !known:
			b.c.add("read from nowhere", "  %s read %s as %v: nobody appended %d", t.Name, key, list, v)
		case b.l.Txns[w].Outcome == Aborted:
			b.c.add("G1a (aborted read)", "  %s read %s as %v: %d was appended by %s, which was aborted", t.Name, key, list, v, b.l.Txns[w].Name)
		case !slices.Contains(final, v):
			b.c.add("lost write", "  %s read %s as %v: %d of %s is not there in the end: %v", t.Name, key, list, v, b.l.Txns[w].Name, final)
		default:
			continue
		}
		return
	}
	b.c.add("incompatible order", "  %s read %s as %v; in the end it is %v", t.Name, key, list, final)
}

package kvclient

import (
	"fmt"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
)

// action is what a region error calls for.
type action int

const (
	actFatal   action = iota // no retry heals it
	actLeader                // go to the leader it names
	actReplace               // take the regions it names
	actForget                // ask PD for the region again
	actStore                 // find the store again, then the region
	actWait                  // same place, later
	actNow                   // same place, at once
	actMaybe                 // same place, later; it may have been executed
	actExpired               // the time of the attempt was up: ask another replica
)

// reaction is a row of the table below.
type reaction struct {
	name string
	act  action
	kind backoffKind
}

// reactionTo is the table of region errors. Reads go to leaders only, so there is
// no other replica to turn to when a leader asks to wait.
func reactionTo(re *kvpb.RegionError) reaction {
	switch re.GetKind().(type) {
	case *kvpb.RegionError_NotLeader:
		return reaction{"not_leader", actLeader, boScheduling}
	case *kvpb.RegionError_EpochNotMatch:
		return reaction{"epoch_not_match", actReplace, boRegionMiss}
	case *kvpb.RegionError_RegionNotFound:
		return reaction{"region_not_found", actForget, boRegionMiss}
	case *kvpb.RegionError_KeyNotInRegion:
		return reaction{"key_not_in_region", actForget, boRegionMiss}
	case *kvpb.RegionError_StoreNotMatch:
		return reaction{"store_not_match", actStore, boRegionMiss}
	case *kvpb.RegionError_ServerIsBusy:
		return reaction{"server_is_busy", actWait, boServerBusy}
	case *kvpb.RegionError_StaleCommand:
		return reaction{"stale_command", actWait, boStaleCommand}
	case *kvpb.RegionError_ReadIndexNotReady:
		return reaction{"read_index_not_ready", actWait, boScheduling}
	case *kvpb.RegionError_ProposalInMergingMode:
		return reaction{"proposal_in_merging_mode", actWait, boScheduling}
	case *kvpb.RegionError_RegionNotInitialized:
		return reaction{"region_not_initialized", actWait, boNotInitialized}
	case *kvpb.RegionError_MaxTimestampNotSynced:
		return reaction{"max_timestamp_not_synced", actWait, boMaxTS}
	case *kvpb.RegionError_DiskFull:
		return reaction{"disk_full", actWait, boDiskFull}
	case *kvpb.RegionError_DataIsNotReady:
		return reaction{"data_is_not_ready", actNow, boScheduling}
	case *kvpb.RegionError_Undetermined:
		return reaction{"undetermined", actMaybe, boUndetermined}
	case *kvpb.RegionError_DeadlineExceeded:
		return reaction{"deadline_exceeded", actExpired, boExpired}
	case *kvpb.RegionError_RaftEntryTooLarge:
		return reaction{"raft_entry_too_large", actFatal, 0}
	}
	return reaction{"unknown", actFatal, 0}
}

// describe renders a region error for logs.
func describe(re *kvpb.RegionError) string {
	text := reactionTo(re).name
	if re.Message != "" {
		text += ": " + re.Message
	}
	switch k := re.Kind.(type) {
	case *kvpb.RegionError_ServerIsBusy:
		text += fmt.Sprintf(" (%s, wait %d ms)", k.ServerIsBusy.Reason, k.ServerIsBusy.WaitMs)
	case *kvpb.RegionError_Undetermined:
		text += " (" + k.Undetermined.Reason + ")"
	case *kvpb.RegionError_RaftEntryTooLarge:
		text += fmt.Sprintf(" (%d bytes)", k.RaftEntryTooLarge.EntrySize)
	}
	return text
}

// onRegionError changes the cache as the error says and waits as it must. Nil
// means: try again.
func (s *sending) onRegionError(re *kvpb.RegionError) error {
	r := reactionTo(re)
	s.c.metrics.regionErrors.WithLabelValues(r.name).Inc()
	cause := &RegionError{Err: re}
	s.maybe = s.maybe || r.act == actMaybe
	if err := s.ctx.Err(); err != nil {
		return err
	}
	switch r.act {
	case actFatal:
		return cause
	case actLeader:
		return s.onNotLeader(re.GetNotLeader(), cause)
	case actReplace:
		return s.onEpochNotMatch(re.GetEpochNotMatch().GetCurrentRegions(), cause)
	case actExpired:
		s.sliceOver()
		return s.elsewhere(boExpired, cause)
	case actForget:
		if re.GetRegionNotFound() != nil {
			s.refused = append(s.refused, s.at.peer.Id)
		}
		s.c.cache.remove(s.entry)
	case actStore:
		s.at.store.forget()
		s.c.cache.remove(s.entry)
	case actNow:
		s.next = s.at
		return s.hop(cause)
	case actWait, actMaybe:
		s.next = s.at
	}
	hint := time.Duration(re.GetServerIsBusy().GetWaitMs()) * time.Millisecond
	return s.wait(r.kind, hint, cause)
}

// onNotLeader turns to the leader named. A leader whose store does not answer is
// none: followers name the old one until they have noticed.
func (s *sending) onNotLeader(nl *kvpb.NotLeader, cause error) error {
	if s.entry.changed(s.shared) {
		return s.hop(cause)
	}
	if hint := nl.GetLeader(); hint != nil && hint.Id != s.at.peer.Id {
		rt, err := s.c.routeTo(hint)
		if err != nil {
			return err
		}
		if peerAt(s.entry.meta, hint.StoreId) == nil {
			s.c.refresh(s.entry, refreshEvery) // the members have changed
		}
		if !rt.store.isDown() {
			s.next = rt
			return s.hop(cause)
		}
	}
	return s.elsewhere(boNoLeader, cause)
}

// elsewhere turns to the next replica. There is a pause first when that one is no
// other or does not answer either, or when the last one answered that there is no
// leader: then there is an election, most likely.
func (s *sending) elsewhere(kind backoffKind, cause error) error {
	if s.entry.changed(s.shared) {
		return s.hop(cause)
	}
	rt, err := s.c.nextRoute(s.entry.meta, s.at.peer)
	if err != nil {
		return err
	}
	if rt == nil {
		s.c.cache.remove(s.entry)
		return s.hop(cause)
	}
	s.next = rt
	if kind != boNoLeader && rt.peer.Id != s.at.peer.Id && !rt.store.isDown() {
		return s.hop(cause)
	}
	if s.bo.kinds[kind].times >= refreshAfter {
		s.c.refresh(s.entry, refreshEvery)
	}
	return s.wait(kind, 0, cause)
}

// hop goes on without waiting, a few times in a row.
func (s *sending) hop(cause error) error {
	if s.hops++; s.hops <= maxHops {
		return nil
	}
	return s.wait(boNoLeader, 0, cause)
}

// sliceOver charges an attempt that took all its time, and gives the next one more.
func (s *sending) sliceOver() {
	s.bo.spend(boExpired, s.slice)
	s.slice = min(2*s.slice, s.c.opts.AttemptTimeout*maxSlices)
}

// onEpochNotMatch takes the regions named, unless they are older than what is
// cached: then the store that answered lags behind and needs time.
func (s *sending) onEpochNotMatch(regions []*kvpb.Region, cause error) error {
	from := s.at.peer.StoreId
	fresh := false
	for _, m := range regions {
		if m.GetEpoch() == nil || sameEpoch(m, s.entry.meta) || newer(s.entry.meta, m) {
			continue
		}
		fresh = true
		if err := s.c.insert(m, peerAt(m, from)); err != nil {
			return err
		}
	}
	if fresh {
		if !s.entry.gone.Load() { // none of them covers it: it is elsewhere now
			s.c.cache.remove(s.entry)
		}
		return s.hop(cause)
	}
	if len(regions) == 0 {
		s.c.cache.remove(s.entry)
	}
	s.next = s.at
	return s.wait(boRegionMiss, 0, cause)
}

func sameEpoch(a, b *kvpb.Region) bool {
	return a.Id == b.Id && a.Epoch.GetVersion() == b.Epoch.GetVersion() && a.Epoch.GetConfVer() == b.Epoch.GetConfVer()
}

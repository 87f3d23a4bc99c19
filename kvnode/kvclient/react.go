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
	actExpired               // the time of the attempt was up
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
	if s.ctx.Err() != nil {
		s.maybe = s.maybe || r.act == actMaybe
		return s.ctx.Err()
	}
	switch r.act {
	case actLeader:
		return s.onNotLeader(re.GetNotLeader(), cause)
	case actReplace:
		return s.onEpochNotMatch(re.GetEpochNotMatch().GetCurrentRegions(), cause)
	case actForget:
		s.c.cache.remove(s.entry)
	case actStore:
		s.entry.route.Load().store.forget()
		s.c.cache.remove(s.entry)
	case actNow:
		return s.hop(cause)
	case actMaybe:
		s.maybe = true
	case actExpired:
		s.bo.spend(boExpired, attemptTimeout)
	case actFatal:
		return cause
	}
	hint := time.Duration(re.GetServerIsBusy().GetWaitMs()) * time.Millisecond
	return s.wait(r.kind, hint, cause)
}

// hop goes on without waiting, a few times in a row.
func (s *sending) hop(cause error) error {
	if s.hops++; s.hops <= maxHops {
		return nil
	}
	return s.wait(boScheduling, 0, cause)
}

// onNotLeader turns to the leader named. If none is, the next voter is tried
// after a pause: there is an election, most likely.
func (s *sending) onNotLeader(nl *kvpb.NotLeader, cause error) error {
	from := s.entry.route.Load().peer
	if hint := nl.GetLeader(); hint != nil && hint.Id != from.Id {
		for _, p := range s.entry.meta.Peers {
			if p.Id == hint.Id {
				if err := s.moveTo(p); err != nil {
					return err
				}
				return s.hop(cause)
			}
		}
		s.c.cache.remove(s.entry) // a peer we do not know: the members changed
		return s.hop(cause)
	}
	if err := s.moveTo(nextVoter(s.entry.meta, from)); err != nil {
		return err
	}
	return s.wait(boScheduling, 0, cause)
}

// onEpochNotMatch takes the regions named, unless they are older than what is
// cached: then the store that answered lags behind and needs time.
func (s *sending) onEpochNotMatch(regions []*kvpb.Region, cause error) error {
	from := s.entry.route.Load().peer.StoreId
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
	return s.wait(boRegionMiss, 0, cause)
}

func sameEpoch(a, b *kvpb.Region) bool {
	return a.Id == b.Id && a.Epoch.GetVersion() == b.Epoch.GetVersion() && a.Epoch.GetConfVer() == b.Epoch.GetConfVer()
}

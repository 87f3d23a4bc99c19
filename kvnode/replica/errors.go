package replica

import (
	"fmt"

	"github.com/cairndb/cairn/proto/kvpb"
)

// The region errors this package answers with. Each says whether an effect may
// still happen: only undetermined does.

func notLeader(region uint64, leader *kvpb.Peer) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: fmt.Sprintf("region %d is not led here", region),
		Kind:    &kvpb.RegionError_NotLeader{NotLeader: &kvpb.NotLeader{RegionId: region, Leader: leader}},
	}
}

func epochNotMatch(current ...*kvpb.Region) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: "the region has changed",
		Kind:    &kvpb.RegionError_EpochNotMatch{EpochNotMatch: &kvpb.EpochNotMatch{CurrentRegions: current}},
	}
}

func staleCommand() *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: "the region's leader has changed in between",
		Kind:    &kvpb.RegionError_StaleCommand{StaleCommand: &kvpb.StaleCommand{}},
	}
}

func undetermined(reason string) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: "the write may or may not happen: " + reason,
		Kind:    &kvpb.RegionError_Undetermined{Undetermined: &kvpb.Undetermined{Reason: reason}},
	}
}

func deadlineExceeded() *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: "the request's time is over",
		Kind:    &kvpb.RegionError_DeadlineExceeded{DeadlineExceeded: &kvpb.DeadlineExceeded{}},
	}
}

func serverIsBusy(reason string, waitMS uint32) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: "the store is busy: " + reason,
		Kind:    &kvpb.RegionError_ServerIsBusy{ServerIsBusy: &kvpb.ServerIsBusy{Reason: reason, WaitMs: waitMS}},
	}
}

func entryTooLarge(region uint64, size int) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: fmt.Sprintf("a write of %d bytes to region %d is too large", size, region),
		Kind:    &kvpb.RegionError_RaftEntryTooLarge{RaftEntryTooLarge: &kvpb.RaftEntryTooLarge{RegionId: region, EntrySize: uint64(size)}},
	}
}

func regionNotFound(region uint64) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: fmt.Sprintf("region %d is not here", region),
		Kind:    &kvpb.RegionError_RegionNotFound{RegionNotFound: &kvpb.RegionNotFound{RegionId: region}},
	}
}

// dataIsNotReady sends a read to the leader.
func dataIsNotReady(region, closed uint64) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: fmt.Sprintf("the replica of region %d cannot serve this read now", region),
		Kind:    &kvpb.RegionError_DataIsNotReady{DataIsNotReady: &kvpb.DataIsNotReady{RegionId: region, SafeTs: closed}},
	}
}

// invalidAdmin refuses a command that changes the region itself; asking again does not help.
func invalidAdmin(reason string) *kvpb.RegionError {
	return &kvpb.RegionError{Message: "refused: " + reason}
}

func mergingMode(region uint64) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: fmt.Sprintf("region %d is being merged into its neighbour", region),
		Kind:    &kvpb.RegionError_ProposalInMergingMode{ProposalInMergingMode: &kvpb.ProposalInMergingMode{RegionId: region}},
	}
}

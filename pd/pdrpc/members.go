package pdrpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/pdpb"
)

// ErrUnsafe: a change of the members was refused; the message says why.
var ErrUnsafe = errors.New("refused")

// Members tells about the PDs what this one knows, without asking others (meta.Store).
type Members interface {
	Self() meta.Member
	Members() []meta.Member
	// Leader returns the leader; see meta.Store.
	Leader() (l meta.Leader, ok bool, changed <-chan struct{})
	// Position returns the applied index and the leader of the consensus log.
	Position() (applied, leader uint64)
}

// Roster asks the members how they are and changes who they are; on the leader.
type Roster interface {
	List(ctx context.Context) []*pdpb.MemberDescription
	Add(ctx context.Context, name, address string) (meta.Member, error)
	Remove(ctx context.Context, id uint64, name string) (meta.Member, error)
	Transfer(ctx context.Context, id uint64, name string) (meta.Member, error)
}

// Member describes m to others.
func Member(m meta.Member) *pdpb.Member {
	return &pdpb.Member{Name: m.Name, Id: m.ID, ClientUrls: []string{m.Address}}
}

func members(list []meta.Member) []*pdpb.Member {
	out := make([]*pdpb.Member, len(list))
	for i, m := range list {
		out[i] = Member(m)
	}
	return out
}

// GetMembers is answered by every PD; leader is absent while there is none.
func (h *Handler) GetMembers(_ context.Context, req *pdpb.GetMembersRequest) *pdpb.GetMembersResponse {
	resp := &pdpb.GetMembersResponse{Header: &pdpb.Header{ClusterId: h.ClusterID()}, Members: members(h.members.Members())}
	if l, ok, _ := h.members.Leader(); ok {
		resp.Leader = Member(l.Member)
	}
	return resp
}

// maxWait bounds the wait for a leader.
const maxWait = 10 * time.Second

// Leader tells who leads, or waits until that changes.
func (h *Handler) Leader(ctx context.Context, req *pdpb.LeaderRequest) *pdpb.LeaderResponse {
	var over <-chan time.Time
	if req.WaitMs > 0 {
		t := time.NewTimer(min(time.Duration(req.WaitMs)*time.Millisecond, maxWait))
		defer t.Stop()
		over = t.C
	}
	for {
		serves := h.serves()
		resp, changed := h.leader()
		if over == nil || resp.Serving || resp.Term != req.KnownTerm {
			return resp
		}
		select {
		case <-over:
			over = nil
		case <-ctx.Done():
			return resp
		case <-changed:
		case <-serves:
		}
	}
}

func (h *Handler) leader() (*pdpb.LeaderResponse, <-chan struct{}) {
	l, ok, changed := h.members.Leader()
	resp := &pdpb.LeaderResponse{
		Header: &pdpb.Header{ClusterId: h.ClusterID()}, Term: l.Term, Members: members(h.members.Members()),
		Id: h.members.Self().ID,
	}
	if ok {
		resp.Leader = Member(l.Member)
	}
	if lead := h.lead.Load(); lead != nil && lead.Term.ValidAt(time.Now()) {
		resp.Serving, resp.Leader = true, Member(h.members.Self())
	}
	return resp, changed
}

// serves returns a channel that is closed when this PD begins to serve as leader.
func (h *Handler) serves() <-chan struct{} {
	h.begun.Lock()
	defer h.begun.Unlock()
	return h.begun.serving
}

func (h *Handler) announce() {
	h.begun.Lock()
	defer h.begun.Unlock()
	close(h.begun.serving)
	h.begun.serving = make(chan struct{})
}

// MemberStatus tells how this member is.
func (h *Handler) MemberStatus(context.Context, *pdpb.MemberStatusRequest) *pdpb.MemberStatusResponse {
	applied, leader := h.members.Position()
	return &pdpb.MemberStatusResponse{
		Header: &pdpb.Header{ClusterId: h.ClusterID()}, Id: h.members.Self().ID, AppliedIndex: applied, ConsensusLeader: leader,
	}
}

// ListMembers describes all members.
func (h *Handler) ListMembers(ctx context.Context, req *pdpb.ListMembersRequest) *pdpb.ListMembersResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.ListMembersResponse{Header: refused}
	}
	return &pdpb.ListMembersResponse{Header: l.end(nil), Members: h.roster.List(ctx)}
}

// AddMember prepares for a new member.
func (h *Handler) AddMember(ctx context.Context, req *pdpb.AddMemberRequest) *pdpb.AddMemberResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.AddMemberResponse{Header: refused}
	}
	m, err := h.roster.Add(ctx, req.Name, req.Address)
	return &pdpb.AddMemberResponse{Header: l.end(err), Id: m.ID, Members: members(h.members.Members())}
}

// RemoveMember takes a member out for good.
func (h *Handler) RemoveMember(ctx context.Context, req *pdpb.RemoveMemberRequest) *pdpb.RemoveMemberResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.RemoveMemberResponse{Header: refused}
	}
	m, err := h.roster.Remove(ctx, req.Id, req.Name)
	return &pdpb.RemoveMemberResponse{Header: l.end(err), Removed: Member(m)}
}

// TransferLeader makes another member lead.
func (h *Handler) TransferLeader(ctx context.Context, req *pdpb.TransferLeaderRequest) *pdpb.TransferLeaderResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.TransferLeaderResponse{Header: refused}
	}
	m, err := h.roster.Transfer(ctx, req.Id, req.Name)
	return &pdpb.TransferLeaderResponse{Header: l.end(err), Leader: Member(m)}
}

// memberService is the service Members around the same methods.
type memberService struct {
	pdpb.UnimplementedMembersServer
	h *Handler
}

func (h *Handler) registerMembers(g *grpc.Server) { pdpb.RegisterMembersServer(g, memberService{h: h}) }

func (s memberService) Leader(ctx context.Context, req *pdpb.LeaderRequest) (*pdpb.LeaderResponse, error) {
	return s.h.Leader(ctx, req), nil
}

func (s memberService) MemberStatus(ctx context.Context, req *pdpb.MemberStatusRequest) (*pdpb.MemberStatusResponse, error) {
	return s.h.MemberStatus(ctx, req), nil
}

func (s memberService) ListMembers(ctx context.Context, req *pdpb.ListMembersRequest) (*pdpb.ListMembersResponse, error) {
	return s.h.ListMembers(ctx, req), nil
}

func (s memberService) AddMember(ctx context.Context, req *pdpb.AddMemberRequest) (*pdpb.AddMemberResponse, error) {
	return s.h.AddMember(ctx, req), nil
}

func (s memberService) RemoveMember(ctx context.Context, req *pdpb.RemoveMemberRequest) (*pdpb.RemoveMemberResponse, error) {
	return s.h.RemoveMember(ctx, req), nil
}

func (s memberService) TransferLeader(ctx context.Context, req *pdpb.TransferLeaderRequest) (*pdpb.TransferLeaderResponse, error) {
	return s.h.TransferLeader(ctx, req), nil
}

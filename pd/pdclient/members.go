package pdclient

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/proto/pdpb"
)

// Members is about the PDs themselves. A member is named by its id, 16 hexadecimal
// digits, its name or its address. ErrRefused says why something is not safe.
type Members interface {
	// Members describes the PDs; the leader asks each how it is, for a second at most.
	Members(ctx context.Context) ([]MemberInfo, error)
	// RemoveMember takes a member out for good. Refused when the rest would have no
	// healthy majority.
	RemoveMember(ctx context.Context, member string) error
	// TransferLeader makes a member lead; "" = any healthy other one. It returns the
	// member that was told to lead.
	TransferLeader(ctx context.Context, member string) (MemberInfo, error)
}

// MemberInfo is one PD.
type MemberInfo struct {
	ID      uint64
	Name    string // "" until it started for the first time
	Address string // host:port for clients and other members; "" = none
	Leader  bool
	Learner bool   // has no vote: catching up, waiting for a third, or a spare
	Healthy bool   // it answered just now and follows the leader
	Lag     uint64 // entries of the consensus log that it has not applied
	Note    string // why it is not healthy, or what it waits for
}

// FormatID writes a member's id as it is read.
func (m MemberInfo) FormatID() string { return fmt.Sprintf("%016x", m.ID) }

// memberHandler is Members on PD's side, and what clients need to find the leader.
type memberHandler interface {
	Leader(ctx context.Context, req *pdpb.LeaderRequest) *pdpb.LeaderResponse
	ListMembers(ctx context.Context, req *pdpb.ListMembersRequest) *pdpb.ListMembersResponse
	RemoveMember(ctx context.Context, req *pdpb.RemoveMemberRequest) *pdpb.RemoveMemberResponse
	TransferLeader(ctx context.Context, req *pdpb.TransferLeaderRequest) *pdpb.TransferLeaderResponse
}

// memberRef tells an id from a name.
func memberRef(member string) (id uint64, name string) {
	if len(member) == 16 {
		if id, err := strconv.ParseUint(member, 16, 64); err == nil {
			return id, ""
		}
	}
	return 0, member
}

func memberInfo(m *pdpb.Member) MemberInfo {
	info := MemberInfo{ID: m.GetId(), Name: m.GetName()}
	if urls := m.GetClientUrls(); len(urls) > 0 {
		info.Address = urls[0]
	}
	return info
}

// callMembers is call for the service Members.
func callMembers[Req any, Resp answer](ctx context.Context, c *client, req Req,
	direct func(Handler, context.Context, Req) Resp,
	remote func(pdpb.MembersClient, context.Context, Req, ...grpc.CallOption) (Resp, error),
) (Resp, error) {
	return invoke(ctx, c, req, direct, func(conn *grpc.ClientConn, ctx context.Context, req Req) (Resp, error) {
		return remote(pdpb.NewMembersClient(conn), ctx, req)
	})
}

func (c *client) Members(ctx context.Context) ([]MemberInfo, error) {
	resp, err := callMembers(ctx, c, &pdpb.ListMembersRequest{Header: c.header()}, Handler.ListMembers, pdpb.MembersClient.ListMembers)
	if err != nil {
		return nil, err
	}
	members := make([]*pdpb.Member, len(resp.Members))
	out := make([]MemberInfo, len(resp.Members))
	for i, d := range resp.Members {
		members[i], out[i] = d.Member, memberInfo(d.Member)
		out[i].Leader, out[i].Learner, out[i].Healthy, out[i].Lag, out[i].Note = d.Leader, d.Learner, d.Healthy, d.Lag, d.Note
	}
	c.r.learn(members)
	return out, nil
}

func (c *client) RemoveMember(ctx context.Context, member string) error {
	id, name := memberRef(member)
	if id == 0 && name == "" {
		return &Error{Code: pdpb.Error_INVALID, Message: "no member named"}
	}
	_, err := callMembers(ctx, c, &pdpb.RemoveMemberRequest{Header: c.header(), Id: id, Name: name},
		Handler.RemoveMember, pdpb.MembersClient.RemoveMember)
	return err
}

func (c *client) TransferLeader(ctx context.Context, member string) (MemberInfo, error) {
	id, name := memberRef(member)
	if member == "" {
		// Chosen here, so that a repeated request does not move the leader on.
		list, err := c.Members(ctx)
		if err != nil {
			return MemberInfo{}, err
		}
		for _, m := range list {
			if !m.Leader && !m.Learner && m.Healthy {
				id = m.ID
			}
		}
		if id == 0 {
			return MemberInfo{}, &Error{Code: pdpb.Error_REFUSED, Message: "there is no other healthy member with a vote"}
		}
	}
	resp, err := callMembers(ctx, c, &pdpb.TransferLeaderRequest{Header: c.header(), Id: id, Name: name},
		Handler.TransferLeader, pdpb.MembersClient.TransferLeader)
	if err != nil {
		return MemberInfo{}, err
	}
	return memberInfo(resp.Leader), nil
}

// joinTimeout bounds one request to add a member.
const joinTimeout = 10 * time.Second

// Join asks the cluster at opts.Addrs to add a member that is about to start, and
// returns all members with it. It asks until ctx ends or the cluster refuses. Of a
// member added again under the same address only the last addition counts.
func Join(ctx context.Context, opts Options, name, address string) ([]MemberInfo, error) {
	if len(opts.Addrs) == 0 {
		return nil, &Error{Code: pdpb.Error_INVALID, Message: "no addresses"}
	}
	r := newRemote(opts)
	defer r.close()
	for wait := backoffBase; ; wait = min(2*wait, joinPause) {
		resp, err := r.add(ctx, &pdpb.AddMemberRequest{Name: name, Address: address})
		if err == nil {
			out := make([]MemberInfo, len(resp.Members))
			for i, m := range resp.Members {
				out[i] = memberInfo(m)
			}
			return out, nil
		}
		if !retryable(err) {
			return nil, err
		}
		r.opts.Logger.Info("cannot join yet", "err", err)
		if ended := sleep(ctx, wait); ended != nil {
			return nil, fmt.Errorf("%w: %w", ended, err)
		}
	}
}

// joinPause is the longest pause between two attempts to join.
const joinPause = time.Second

func (r *remote) add(ctx context.Context, req *pdpb.AddMemberRequest) (*pdpb.AddMemberResponse, error) {
	t, err := r.leader(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	req.Header = &pdpb.Header{ClusterId: r.knownCluster()}
	resp, err := pdpb.NewMembersClient(t.conn).AddMember(ctx, req)
	if err == nil {
		err = headerError(resp.Header)
	}
	if retryable(err) {
		r.lost(t)
	}
	return resp, err
}

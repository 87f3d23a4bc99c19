package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/pd/pdclient"
)

// Member is what is printed of a member of the placement driver as JSON.
type Member struct {
	ID      string `json:"id"` // 16 hexadecimal digits
	Name    string `json:"name"`
	Address string `json:"address"`
	Role    string `json:"role"` // leader, voter or learner
	Healthy bool   `json:"healthy"`
	Lag     uint64 `json:"lag"` // entries of the log it has not applied
	Note    string `json:"note"`
}

func memberOf(m pdclient.MemberInfo) Member {
	role := "voter"
	switch {
	case m.Leader:
		role = "leader"
	case m.Learner:
		role = "learner"
	}
	return Member{ID: m.FormatID(), Name: m.Name, Address: m.Address, Role: role, Healthy: m.Healthy, Lag: m.Lag, Note: m.Note}
}

func (c *ctl) membersCommand() *cobra.Command {
	list := c.run((*session).listMembers)
	cmd := &cobra.Command{
		Use: "members", Aliases: []string{"member"}, Short: "Show, remove and choose the members of the placement driver", RunE: list,
		Long: `Members are the processes of the placement driver. One leads; a learner follows and
has no vote: it is catching up, waits for a third member, or is a spare.`,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List the members", Args: cobra.NoArgs, RunE: list},
		&cobra.Command{
			Use: "remove MEMBER", Short: "Take a member out for good, by id, name or address", Args: exactly("MEMBER"),
			RunE: c.run(func(s *session, args []string) error {
				ctx, cancel := s.request()
				defer cancel()
				if err := s.pd.RemoveMember(ctx, args[0]); err != nil {
					return err
				}
				return s.tell(map[string]string{"removed": args[0]}, "%s is no member any more. Its process ends; with an empty directory it can join again.", args[0])
			}),
		},
		&cobra.Command{
			Use: "transfer-leader [MEMBER]", Short: "Let another member lead: this one, or any healthy one", Args: cobra.MaximumNArgs(1),
			RunE: c.run(func(s *session, args []string) error {
				ctx, cancel := s.request()
				defer cancel()
				to := ""
				if len(args) == 1 {
					to = args[0]
				}
				m, err := s.pd.TransferLeader(ctx, to)
				if err != nil {
					return err
				}
				return s.tell(memberOf(m), "%s leads now.", memberOf(m).title())
			}),
		},
	)
	return cmd
}

// title is how a sentence calls the member.
func (m Member) title() string {
	if m.Name == "" {
		return m.Address
	}
	return m.Name
}

func (s *session) listMembers(_ []string) error {
	ctx, cancel := s.request()
	defer cancel()
	found, err := s.pd.Members(ctx)
	if err != nil {
		return err
	}
	list := []Member{}
	t := newTable("There are no members.", "id", "name", "address", "role", "health", "behind>", "note")
	for _, info := range found {
		m := memberOf(info)
		list = append(list, m)
		health := "healthy"
		if !m.Healthy {
			health = "not healthy"
		}
		behind := ""
		if m.Lag > 0 {
			behind = fmt.Sprint(m.Lag)
		}
		t.row(m.ID, m.Name, m.Address, m.Role, health, behind, m.Note)
	}
	return s.show(list, t)
}

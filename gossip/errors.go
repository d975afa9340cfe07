package gossip

import (
	"errors"
	"fmt"
)

// The reasons for which a node does not get into a cluster. Join returns them
// inside a *JoinError.
var (
	// ErrSameID: another node has the id, or another process runs on a copy
	// of the same data directory.
	ErrSameID = errors.New("node id is taken")

	// ErrWrongCluster: the two nodes are of different clusters.
	ErrWrongCluster = errors.New("wrong cluster")

	// ErrSecret: the two nodes have different secrets, or only one has any.
	ErrSecret = errors.New("wrong secret")

	// ErrForgotten: one of the two has forgotten the other. See Allow.
	ErrForgotten = errors.New("node was forgotten")

	// ErrUnreachable: nothing answered, or what did is no gossip port.
	ErrUnreachable = errors.New("unreachable")

	// ErrClosed: the Gossip was closed, or has left.
	ErrClosed = errors.New("gossip: closed")
)

// errLeftover refuses news of an earlier process of this very node: its peers
// have not noticed its end yet. Nobody's fault, so it is not reported.
var errLeftover = errors.New("an earlier process of this node")

// JoinError says why a node could not join at an address, and what to do. Its
// text is complete; errors.Is tells the reason.
type JoinError struct {
	Reason error // one of the errors above
	Addr   string

	// Theirs is who answered at Addr; its ID is 0 where nobody did or proved
	// to know the secret.
	Theirs Facts

	text string
}

func (e *JoinError) Error() string { return e.text }

func (e *JoinError) Unwrap() error { return e.Reason }

// sameID says that claimant has the id of holder.
func sameID(claimant, holder Facts) string {
	if claimant.Dir == holder.Dir {
		return fmt.Sprintf("node id %d is already taken by %s at %s, which runs on the same data directory or a copy of it, as does %s at %s: "+
			"stop one of the two, or give the copy an empty directory and another id",
			holder.ID, holder.label(), holder.address(), claimant.label(), claimant.address())
	}
	return fmt.Sprintf("node id %d is already taken by %s at %s, so %s at %s cannot use it: "+
		"give one of the two another id; if %s is gone for good, first FORGET %d on the nodes that remain",
		holder.ID, holder.label(), holder.address(), claimant.label(), claimant.address(), holder.label(), holder.ID)
}

func wrongCluster(mine, theirs Facts) string {
	return fmt.Sprintf("%s belongs to cluster %q, and %s to cluster %q: give both the same cluster, or meet another node",
		theirs, theirs.Cluster, mine, mine.Cluster)
}

package node

import (
	"context"
	"fmt"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/gossip"
)

// links are the data links to the other members.
type links struct{}

func (n *Node) startLinks(known roll) error {
	n.wanLog = &wanLog{log: n.log}
	n.applier = &wanApplier{exec: n.exec, log: n.log, slog: n.slog, heard: map[uint16]Heard{}, needed: map[uint16]bool{}}
	n.links = &links{}
	return nil
}

func (l *links) NotifyDurable()                                  {}
func (l *links) Pause(bool)                                      {}
func (l *links) update(list []gossip.Member, forgotten []uint16) {}
func (l *links) durable(node uint16) crdt.Vector                 { return nil }
func (l *links) drain(ctx context.Context)                       {}
func (l *links) Close()                                          {}

type linkStats struct{}

func (l *links) Stats() linkStats { return linkStats{} }

func (s linkStats) describe(f *fields, id uint16) { _ = fmt.Sprint() }

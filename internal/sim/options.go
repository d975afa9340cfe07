package sim

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/replicatord/replicatord/oplog"
)

// Fault is a set of kinds of trouble a run may have.
type Fault uint32

// Kinds of faults.
const (
	Partition  Fault = 1 << iota // a node, or a group of nodes, is cut off from the rest
	OneWay                       // nothing arrives in one direction between two nodes
	Cut                          // a connection breaks between any two frames
	Corrupt                      // a frame is changed, lost or repeated under a session
	Slow                         // a link becomes thin and late
	Kill                         // a process dies; what it gave to the kernel is kept
	PowerLoss                    // a machine dies; what was not synced is lost
	Wipe                         // a data directory is lost, and the node comes back with a fresh one
	Restore                      // a data directory is replaced by an old copy of itself
	Rollback                     // the same without a trace of it, as a virtual machine's snapshot does; see site.fenced
	ClockStep                    // a wall clock is set, by up to an hour
	ClockDrift                   // wall clocks are apart and run at different speeds
	ViewLost                     // the connection to the view breaks
	ViewEmpty                    // the view restarts with nothing
	ViewStale                    // the view restarts with what it held some time ago
	Pause                        // NODE PAUSE and RESUME
	Forget                       // a node is removed for good; the others hear of it one by one
	Lapse                        // the log keeps little: who is away for long needs a state sync
	endOfFaults
)

// AllFaults is every kind.
const AllFaults = endOfFaults - 1

var faultNames = [...]string{"partition", "oneway", "cut", "corrupt", "slow", "kill", "powerloss", "wipe", "restore", "rollback",
	"clockstep", "clockdrift", "viewlost", "viewempty", "viewstale", "pause", "forget", "lapse"}

// String lists the kinds, with plus signs between them.
func (f Fault) String() string {
	if f == 0 {
		return "none"
	}
	var out []string
	for i, name := range faultNames {
		if f&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, "+")
}

// ParseFaults reads what String prints, and "all".
func ParseFaults(s string) (Fault, error) {
	switch s {
	case "none":
		return 0, nil
	case "all":
		return AllFaults, nil
	}
	var f Fault
next:
	for _, name := range strings.Split(s, "+") {
		for i, n := range faultNames {
			if n == name {
				f |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("no fault is called %q; there are %v", name, AllFaults)
	}
	return f, nil
}

// Shape says which nodes reach each other.
type Shape uint8

// Shapes. In all but a mesh some nodes hear of each other by way of others
// alone.
const (
	Mesh Shape = iota
	Ring
	Star
	Line
	endOfShapes
)

var shapeNames = [...]string{"mesh", "ring", "star", "line"}

// String returns the shape's name.
func (s Shape) String() string { return shapeNames[s] }

// ParseShape reads what String prints.
func ParseShape(s string) (Shape, error) {
	for i, n := range shapeNames {
		if n == s {
			return Shape(i), nil
		}
	}
	return 0, fmt.Errorf("no shape is called %q; there are %v", s, shapeNames)
}

// linked reports whether two of some nodes, counted from 0, reach each other.
func (s Shape) linked(a, b, nodes int) bool {
	if a > b {
		a, b = b, a
	}
	switch s {
	case Ring:
		return b-a == 1 || a == 0 && b == nodes-1
	case Star:
		return a == 0
	case Line:
		return b-a == 1
	}
	return true
}

// Options are a run's. Together they determine everything that happens in it.
type Options struct {
	Seed     uint64
	Nodes    int           // 2 to 5
	Steps    int           // clients' pipelines, of a few commands each
	Keys     int           // of each type; a few of them get most writes
	Pace     time.Duration // mean time between pipelines
	Trouble  time.Duration // mean time between faults
	Faults   Fault
	Fsync    oplog.Policy
	Lanes    bool // keys are in different lanes, at each start of a node in others
	Overtake bool // lanes of a connection overtake each other, as over QUIC
	Compress bool
	MaxSkew  time.Duration // max_clock_skew
	Limit    int           // bytes a second that a link may take; 0: no limit
	Regions  int           // that the nodes are of, in turn; 0: of none
	Shape    Shape
	// Difference: state syncs bring only what differs, as they do by default.
	Difference bool
}

// FromSeed chooses options by a seed.
func FromSeed(seed uint64) Options {
	r := rand.New(rand.NewPCG(seed, 0x6f7074696f6e73))
	o := Options{
		Seed:     seed,
		Nodes:    2 + r.IntN(3),
		Steps:    20 + r.IntN(100),
		Keys:     1 + r.IntN(4),
		Pace:     time.Duration(5+r.IntN(400)) * time.Millisecond,
		Fsync:    oplog.Policy(r.IntN(3)),
		Lanes:    r.IntN(2) == 0,
		Overtake: r.IntN(2) == 0,
		Compress: r.IntN(8) == 0,
		MaxSkew:  3 * time.Hour,
	}
	if r.IntN(8) == 0 {
		o.Nodes = 5
	}
	if r.IntN(4) == 0 {
		o.Pace *= 10 // long enough for expired keys to be purged on the way
	}
	if r.IntN(4) == 0 {
		o.MaxSkew = time.Minute
	}
	o.Trouble = time.Duration(1+r.IntN(4)) * o.Pace * time.Duration(o.Steps) / 20
	for f := Fault(1); f < endOfFaults; f <<= 1 {
		if r.IntN(3) == 0 {
			o.Faults |= f
		}
	}
	if r.IntN(6) == 0 {
		o.Limit = 4000 << r.IntN(4)
	}
	if r.IntN(3) == 0 {
		o.Regions = 2
	}
	if r.IntN(5) == 0 {
		o.SetShape(1 + Shape(r.IntN(int(endOfShapes)-1)))
	}
	o.Difference = r.IntN(5) > 0
	return o
}

// SetShape sets the shape. In one that is not a mesh a node that goes for good
// takes the way from others, and one that was rolled back without a trace may
// never meet those who know better.
func (o *Options) SetShape(s Shape) {
	if o.Shape = s; s != Mesh {
		o.Nodes = max(o.Nodes, 4)
		o.Faults &^= Forget | Rollback
	}
}

// String prints the options as the test's -options flag takes them.
func (o Options) String() string {
	return fmt.Sprintf("seed=%d,nodes=%d,steps=%d,keys=%d,pace=%v,trouble=%v,faults=%v,fsync=%v,lanes=%t,overtake=%t,compress=%t,skew=%v,limit=%d,regions=%d,shape=%v,difference=%t",
		o.Seed, o.Nodes, o.Steps, o.Keys, o.Pace, o.Trouble, o.Faults, o.Fsync, o.Lanes, o.Overtake, o.Compress, o.MaxSkew, o.Limit, o.Regions, o.Shape, o.Difference)
}

// ParseOptions reads what String prints; what is not named is as the seed has
// it, and the shape a mesh.
func ParseOptions(s string) (Options, error) {
	var o Options
	for i, part := range strings.Split(s, ",") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch name {
		case "seed":
			if i > 0 {
				return o, fmt.Errorf("seed must come first")
			}
			var seed uint64
			seed, err = strconv.ParseUint(value, 10, 64)
			o = FromSeed(seed)
			o.Shape = Mesh
		case "nodes":
			o.Nodes, err = strconv.Atoi(value)
		case "steps":
			o.Steps, err = strconv.Atoi(value)
		case "keys":
			o.Keys, err = strconv.Atoi(value)
		case "pace":
			o.Pace, err = time.ParseDuration(value)
		case "trouble":
			o.Trouble, err = time.ParseDuration(value)
		case "faults":
			o.Faults, err = ParseFaults(value)
		case "fsync":
			o.Fsync, err = oplog.ParsePolicy(value)
		case "lanes":
			o.Lanes, err = strconv.ParseBool(value)
		case "overtake":
			o.Overtake, err = strconv.ParseBool(value)
		case "compress":
			o.Compress, err = strconv.ParseBool(value)
		case "shape":
			o.Shape, err = ParseShape(value)
		case "skew":
			o.MaxSkew, err = time.ParseDuration(value)
		case "limit":
			o.Limit, err = strconv.Atoi(value)
		case "difference":
			o.Difference, err = strconv.ParseBool(value)
		case "regions":
			o.Regions, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("no option is called %q", name)
		}
		if err != nil {
			return o, fmt.Errorf("option %q: %w", part, err)
		}
	}
	return o, nil
}

// Simpler returns options that are simpler than these by one step each, the
// greatest steps first: candidates when a failing run is to be made small.
func (o Options) Simpler() []Options {
	var out []Options
	add := func(change func(*Options)) {
		c := o
		change(&c)
		if c != o {
			out = append(out, c)
		}
	}
	if bits.OnesCount32(uint32(o.Faults)) > 1 {
		add(func(c *Options) { c.Faults = 0 })
	}
	for f := Fault(1); f < endOfFaults; f <<= 1 {
		add(func(c *Options) { c.Faults &^= f })
	}
	add(func(c *Options) { c.Steps = max(1, c.Steps/2) })
	add(func(c *Options) { c.Steps = max(1, c.Steps*7/8) })
	add(func(c *Options) { c.Steps = max(1, c.Steps-1) })
	add(func(c *Options) { c.Nodes = max(2, c.Nodes-1) })
	add(func(c *Options) { c.Keys = max(1, c.Keys-1) })
	add(func(c *Options) { c.Shape = Mesh })
	add(func(c *Options) { c.Lanes = false })
	add(func(c *Options) { c.Overtake = false })
	add(func(c *Options) { c.Compress = false })
	add(func(c *Options) { c.Limit = 0 })
	add(func(c *Options) { c.Regions = 0 })
	add(func(c *Options) { c.Difference = false })
	add(func(c *Options) { c.Fsync = oplog.FsyncAlways })
	return out
}

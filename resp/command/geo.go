package command

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/replicatord/replicatord/crdt"
)

// A geospatial index is a sorted set whose scores are positions (geohash.go).
// Where a command stores what it has found, the view searches, for only it has
// an index, and what is found is logged.

var geoCommands = []*Command{
	{Name: "GEOADD", Arity: -5, Flags: Write | DenyOOM, First: 1, Last: 1, Step: 1, Group: "geo", Since: "3.2.0",
		Summary: "Puts members with their coordinates into a geospatial index", Run: geoadd},
	{Name: "GEODIST", Arity: -4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "geo", Since: "3.2.0",
		Summary: "How far two members of a geospatial index are apart"},
	{Name: "GEOHASH", Arity: -2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "geo", Since: "3.2.0",
		Summary: "Members of a geospatial index as geohash strings"},
	{Name: "GEOPOS", Arity: -2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "geo", Since: "3.2.0",
		Summary: "The coordinates of members of a geospatial index"},
	{Name: "GEORADIUS", Arity: -6, Flags: Write | DenyOOM | MovableKeys, First: 1, Last: 1, Step: 1, Group: "geo", Since: "3.2.0",
		Summary: "Members of a geospatial index within a circle", Reads: georadiusReads, Run: georadius},
	{Name: "GEORADIUS_RO", Arity: -6, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "geo", Since: "3.2.10",
		Summary: "Members of a geospatial index within a circle"},
	{Name: "GEORADIUSBYMEMBER", Arity: -5, Flags: Write | DenyOOM | MovableKeys, First: 1, Last: 1, Step: 1, Group: "geo", Since: "3.2.0",
		Summary: "Members of a geospatial index near another", Reads: georadiusReads, Run: georadiusbymember},
	{Name: "GEORADIUSBYMEMBER_RO", Arity: -5, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "geo", Since: "3.2.10",
		Summary: "Members of a geospatial index near another"},
	{Name: "GEOSEARCH", Arity: -7, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "geo", Since: "6.2.0",
		Summary: "Members of a geospatial index within a box or circle"},
	{Name: "GEOSEARCHSTORE", Arity: -8, Flags: Write | DenyOOM, First: 1, Last: 2, Step: 1, Group: "geo", Since: "6.2.0",
		Summary: "Keeps the members of a geospatial index within a box or circle", Run: geosearchstore},
}

func georadiusReads(args [][]byte) bool { return georadiusStore(args) == 0 }

func geoadd(c *Context) {
	var o zaddOptions
	i := 2
options:
	for ; i < len(c.Args); i++ {
		switch a := c.Args[i]; {
		case is(a, "NX"):
			o.nx = true
		case is(a, "XX"):
			o.xx = true
		case is(a, "CH"):
			o.ch = true
		default:
			break options
		}
	}
	rest := c.Args[i:]
	if len(rest) == 0 || len(rest)%3 != 0 || o.nx && o.xx {
		c.Out.Error(errSyntax)
		return
	}
	members := make([]scored, 0, len(rest)/3)
	for ; len(rest) > 0; rest = rest[3:] {
		p, e := parsePosition(rest)
		if e != "" {
			c.Out.Error(e)
			return
		}
		members = append(members, scored{string(rest[2]), p.score()})
	}
	addScored(c, c.Key(1), members, o)
}

// parsePosition reads a longitude and a latitude, the first two arguments. The
// string is an error reply, "" for none.
func parsePosition(args [][]byte) (position, string) {
	lon, ok := parseDouble(args[0])
	lat, ok2 := parseDouble(args[1])
	switch {
	case !ok || !ok2:
		return position{}, errNotFloat
	case lon < -maxLon || lon > maxLon || lat < -maxLat || lat > maxLat:
		return position{}, "ERR invalid longitude,latitude pair " + fixed(lon) + "," + fixed(lat)
	}
	return position{lon, lat}, ""
}

// fixed prints as C's "%f".
func fixed(f float64) string {
	if math.IsInf(f, 0) {
		return FormatDouble(f)
	}
	return strconv.FormatFloat(f, 'f', 6, 64)
}

// geoSearch is what to look for, and where to keep it.
type geoSearch struct {
	source, dest crdt.Key
	dist         bool // keep distances, not positions

	center position
	area   geoArea
	sort   int   // 1: nearest first, -1: farthest first, 0: as it comes
	count  int64 // 0: all
	view   [][]byte
}

// parseDistance reads a distance with its unit, the first two arguments; see
// parsePosition.
func (a *geoArea) parseDistance(args [][]byte) string {
	f, ok := parseDouble(args[0])
	switch {
	case !ok:
		return errRadius
	case f < 0:
		return errRadiusNegative
	}
	a.radius = f
	return a.parseUnit(args[1])
}

func (a *geoArea) parseBox(args [][]byte) string {
	w, ok := parseDouble(args[0])
	if !ok {
		return errWidth
	}
	h, ok := parseDouble(args[1])
	switch {
	case !ok:
		return errHeight
	case w < 0 || h < 0:
		return errBoxNegative
	}
	a.box, a.width, a.height = true, w, h
	return a.parseUnit(args[2])
}

func (a *geoArea) parseUnit(arg []byte) string {
	for _, u := range geoUnits {
		if is(arg, u.name) {
			a.unit = u.meters
			return ""
		}
	}
	return errUnit
}

// centerOn puts the search around a member, if the source is there.
func (s *geoSearch) centerOn(c *Context, member []byte) string {
	if c.Type(s.source) == crdt.TypeNone {
		return ""
	}
	score, ok := scoreOf(c, s.source, string(member))
	if !ok {
		return errGeoMember
	}
	s.center = positionOf(score)
	return ""
}

func georadius(c *Context) {
	s := geoSearch{source: c.Key(1)}
	if wrongKind(c, s.source, crdt.TypeZSet) {
		return
	}
	var e string
	if s.center, e = parsePosition(c.Args[2:]); e == "" {
		e = s.area.parseDistance(c.Args[4:])
	}
	s.view = append(s.view, []byte("GEORADIUS_RO"), c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5])
	s.run(c, e, 6, false)
}

func georadiusbymember(c *Context) {
	s := geoSearch{source: c.Key(1)}
	if wrongKind(c, s.source, crdt.TypeZSet) {
		return
	}
	e := s.centerOn(c, c.Args[2])
	if e == "" && c.Type(s.source) != crdt.TypeNone {
		e = s.area.parseDistance(c.Args[3:])
	}
	s.view = append(s.view, []byte("GEORADIUSBYMEMBER_RO"), c.Args[1], c.Args[2], c.Args[3], c.Args[4])
	s.run(c, e, 5, false)
}

func geosearchstore(c *Context) {
	s := geoSearch{source: c.Key(2), dest: c.Key(1)}
	if wrongKind(c, s.source, crdt.TypeZSet) {
		return
	}
	s.view = append(s.view, []byte("GEOSEARCH"), c.Args[2])
	s.run(c, "", 3, true)
}

// run reads the options, from an argument on, searches and stores. e is an
// error to be replied instead.
func (s *geoSearch) run(c *Context, e string, from int, search bool) {
	if e == "" {
		e = s.parse(c, from, search)
	}
	if e != "" {
		c.Out.Error(e)
		return
	}
	var found []scored
	if c.Type(s.source) != crdt.TypeNone {
		var err error
		if found, err = s.find(c); err != nil {
			c.Out.Error(err.Error())
			return
		}
	}
	storeScored(c, s.dest, found)
}

// parse reads options. search says that they are GEOSEARCHSTORE's, not those
// of GEORADIUS and GEORADIUSBYMEMBER. The string is an error reply, "" for none.
func (s *geoSearch) parse(c *Context, from int, search bool) string {
	var with, anyOf, member, position, radius, box bool
	for i := from; i < len(c.Args); i++ {
		begin, e := i, ""
		left := len(c.Args) - 1 - i
		ours := false // no option of the view's command
		switch a := c.Args[i]; {
		case is(a, "WITHDIST"), is(a, "WITHHASH"), is(a, "WITHCOORD"):
			with = true
		case is(a, "ANY"):
			anyOf = true
		case is(a, "ASC"):
			s.sort = 1
		case is(a, "DESC"):
			s.sort = -1
		case is(a, "COUNT") && left >= 1:
			i++
			var ok bool
			switch s.count, ok = crdt.ParseInt(c.Args[i]); {
			case !ok:
				e = errNotInteger
			case s.count <= 0:
				e = errGeoCount
			}
		case !search && left >= 1 && (is(a, "STORE") || is(a, "STOREDIST")):
			i++
			ours, s.dest, s.dist = true, c.Key(i), is(a, "STOREDIST")
		case search && is(a, "STOREDIST"):
			ours, s.dist = true, true
		case search && left >= 1 && is(a, "FROMMEMBER") && !position:
			i++
			member, e = true, s.centerOn(c, c.Args[i])
		case search && left >= 2 && is(a, "FROMLONLAT") && !member:
			position = true
			s.center, e = parsePosition(c.Args[i+1:])
			i += 2
		case search && left >= 2 && is(a, "BYRADIUS") && !box:
			radius, e = true, s.area.parseDistance(c.Args[i+1:])
			i += 2
		case search && left >= 3 && is(a, "BYBOX") && !radius:
			box, e = true, s.area.parseBox(c.Args[i+1:])
			i += 3
		default:
			e = errSyntax
		}
		if e != "" {
			return e
		}
		if !ours {
			s.view = append(s.view, c.Args[begin:i+1]...)
		}
	}
	name := oneLine(string(cString(c.Args[0])))
	switch {
	case with && search:
		return "ERR GEOSEARCHSTORE" + errGeoWith
	case with:
		return "ERR STORE option in GEORADIUS" + errGeoWith
	case search && !member && !position:
		return "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for " + name
	case search && !radius && !box:
		return "ERR exactly one of BYRADIUS and BYBOX can be specified for " + name
	case anyOf && s.count == 0:
		return errGeoAny
	}
	if s.count != 0 && s.sort == 0 && !anyOf {
		s.sort = 1
	}
	return ""
}

// find returns what is to be stored. It asks the view; if that answers
// something that does not fit the cells, as with byView, it measures them all.
func (s *geoSearch) find(c *Context) ([]scored, error) {
	raw, err := c.View(s.source.DB, s.view...)
	if err != nil {
		return nil, err
	}
	names, err := parseBulks(raw, c.Len(s.source, crdt.KindScored))
	ok := err == nil && (len(names) > 0 || c.Expiry(s.source) == 0)
	seen := make(map[string]struct{}, len(names))
	var found []scored
	for _, name := range names {
		m := scored{member: string(name)}
		there := false
		if m.score, there = scoreOf(c, s.source, m.member); !there {
			ok = false
			break
		}
		if _, again := seen[m.member]; again {
			continue // Redis too, where areas overlap, would store it twice
		}
		seen[m.member] = struct{}{}
		found = append(found, m)
	}
	if !ok {
		found = s.among(scoredMembers(c, s.source))
	}
	if s.dist {
		for i, m := range found {
			found[i].score = s.center.distance(positionOf(m.score)) / s.area.unit
		}
	}
	return found, nil
}

// among searches members one by one.
func (s *geoSearch) among(members []scored) []scored {
	members = slices.DeleteFunc(members, func(m scored) bool {
		// Redis finds by ranges of scores, which end there.
		return m.score < 0 || m.score >= 1<<52 || !s.area.has(s.center, positionOf(m.score))
	})
	if s.sort != 0 {
		slices.SortStableFunc(members, func(a, b scored) int {
			return s.sort * cmp.Compare(s.center.distance(positionOf(a.score)), s.center.distance(positionOf(b.score)))
		})
	}
	if s.count > 0 && s.count < int64(len(members)) {
		members = members[:s.count]
	}
	return members
}

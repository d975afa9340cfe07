package command

import "math"

// Positions as Redis has them: a score is a geohash of 52 bits, longitude and
// latitude interleaved, of a world cut off near the poles; see Redis's
// documentation of GEOADD. Distances are on a sphere, by the haversine formula.

const (
	maxLon      = 180.0
	maxLat      = 85.05112878 // of EPSG:900913
	geoStep     = 26          // bits of each coordinate
	earthRadius = 6372797.560856
)

var geoUnits = []struct {
	name   string
	meters float64
}{{"M", 1}, {"KM", 1000}, {"FT", 0.3048}, {"MI", 1609.34}}

// position is a place, in degrees.
type position struct{ lon, lat float64 }

// score returns the place's geohash.
func (p position) score() float64 {
	cell := func(v, limit float64) uint64 {
		return uint64(uint32(float64((v+limit)/(2*limit)) * (1 << geoStep)))
	}
	return float64(spread(cell(p.lat, maxLat)) | spread(cell(p.lon, maxLon))<<1)
}

// positionOf returns the middle of the area that a geohash names.
func positionOf(score float64) position {
	bits := uint64(int64(score))
	if score >= 1<<63 {
		bits = uint64(score)
	}
	middle := func(cell uint32, limit float64) float64 {
		edge := func(n uint32) float64 {
			return -limit + float64(float64(n)/(1<<geoStep)*(2*limit))
		}
		return min(max((edge(cell)+edge(cell+1))/2, -limit), limit)
	}
	return position{lon: middle(gather(bits>>1), maxLon), lat: middle(gather(bits), maxLat)}
}

// spread puts the 32 low bits of x into the even places.
func spread(x uint64) uint64 {
	x = (x | x<<16) & 0x0000FFFF0000FFFF
	x = (x | x<<8) & 0x00FF00FF00FF00FF
	x = (x | x<<4) & 0x0F0F0F0F0F0F0F0F
	x = (x | x<<2) & 0x3333333333333333
	return (x | x<<1) & 0x5555555555555555
}

// gather takes the bits in even places together.
func gather(x uint64) uint32 {
	x &= 0x5555555555555555
	x = (x | x>>1) & 0x3333333333333333
	x = (x | x>>2) & 0x0F0F0F0F0F0F0F0F
	x = (x | x>>4) & 0x00FF00FF00FF00FF
	x = (x | x>>8) & 0x0000FFFF0000FFFF
	return uint32(x | x>>16)
}

var degree = float64(math.Pi) / float64(180) // rounded twice, as in C

func radians(degrees float64) float64 { return degrees * degree }

// northward returns how far two latitudes are apart, in metres.
func northward(a, b float64) float64 { return earthRadius * math.Abs(radians(b)-radians(a)) }

// distance returns how far two places are apart, in metres.
func (p position) distance(q position) float64 {
	v := sin((radians(q.lon) - radians(p.lon)) / 2)
	if v == 0 {
		return northward(p.lat, q.lat)
	}
	lat1, lat2 := radians(p.lat), radians(q.lat)
	u := sin((lat2 - lat1) / 2)
	a := float64(u*u) + float64(cos(lat1)*cos(lat2)*v*v)
	return 2 * earthRadius * asin(math.Sqrt(a))
}

// geoArea is a circle or a box, its measures in a unit of so many metres.
type geoArea struct {
	box           bool
	radius        float64
	width, height float64
	unit          float64
}

// has reports whether a place is in the area around center.
func (a *geoArea) has(center, p position) bool {
	if a.box {
		return northward(p.lat, center.lat) <= a.height*a.unit/2 &&
			p.distance(position{center.lon, p.lat}) <= a.width*a.unit/2
	}
	return center.distance(p) <= a.radius*a.unit
}

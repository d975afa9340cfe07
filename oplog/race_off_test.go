//go:build !race

package oplog

const raceOn = false

//go:build race

package oplog

// raceOn says that the race detector is on, and with it pebble's checks of itself.
const raceOn = true

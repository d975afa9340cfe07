package crdt

import "strings"

// Slots is the number of slots keys are spread over, as in Redis Cluster.
const Slots = 16384

// Slot returns a key's slot: CRC16 (XMODEM) modulo Slots of the name, or of
// its hash tag, the part between the first "{" and the next "}" if not empty
// (Redis Cluster Specification, "Hash tags").
func Slot(name string) uint16 {
	if i := strings.IndexByte(name, '{'); i >= 0 {
		if j := strings.IndexByte(name[i+1:], '}'); j > 0 {
			name = name[i+1 : i+1+j]
		}
	}
	var crc uint16
	for i := range len(name) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^name[i]]
	}
	return crc % Slots
}

var crcTable = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}()

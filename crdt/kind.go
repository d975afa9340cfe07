package crdt

// Name names the kind for people; "" if there is no such kind.
func (k Kind) Name() string {
	if k >= numKinds {
		return ""
	}
	return [numKinds]string{"", "string", "field", "member", "scored", "item", "entry", "group",
		"pending", "registers", "expiry"}[k]
}

package command

import "github.com/replicatord/replicatord/crdt"

// Stocks keep members that were drawn of a key and are still to be taken, so
// that commands which take one after the other (SPOP, ZPOPMIN) need not ask the
// view, or put the cells in order, each time. A stock holds as long as the key changes by such taking alone:
// what was drawn at random of the whole is random among what is left, and the
// lowest members stay the lowest.
type Stocks struct{ keys map[crdt.Key]stock }

type stock struct {
	how     string // in which way they were drawn
	members []string
}

const (
	stockSize = 64   // members that are drawn at once
	maxStocks = 1024 // keys of which there are stocks
)

// Changed drops the stock of a key that has changed.
func (s *Stocks) Changed(k crdt.Key) {
	if len(s.keys) > 0 {
		delete(s.keys, k)
	}
}

// Clear drops all stocks: changes that were made are not to be.
func (s *Stocks) Clear() { clear(s.keys) }

// take takes n members out of the stock of a key, drawing one if there are not
// as many: draw is asked for at least so many. settle, to be called when the
// command has removed them, keeps what is left.
func (c *Context) take(k crdt.Key, how string, n int, draw func(n int) ([]string, error)) (taken []string, settle func(), err error) {
	settle = func() {}
	if c.Stocks == nil || n > stockSize {
		taken, err = draw(n)
		return taken, settle, err
	}
	s := c.Stocks.keys[k]
	if s.how != how || len(s.members) < n {
		if s.members, err = draw(stockSize); err != nil {
			return nil, settle, err
		}
	}
	n = min(n, len(s.members))
	taken, left := s.members[:n], s.members[n:]
	return taken, func() {
		if len(left) == 0 {
			return
		}
		if len(c.Stocks.keys) >= maxStocks {
			clear(c.Stocks.keys)
		}
		if c.Stocks.keys == nil {
			c.Stocks.keys = map[crdt.Key]stock{}
		}
		c.Stocks.keys[k] = stock{how, left}
	}, nil
}

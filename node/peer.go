package node

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Transports of the data links, by URL scheme.
const (
	linkTCP  = "tcp"
	linkQUIC = "quic"
	linkWS   = "ws"
	linkWSS  = "wss"
)

// maxPeers bounds the [[peer]] tables, and maxLinks the URLs of a list.
const (
	maxPeers = MaxNodeID
	maxLinks = 8
)

// Peer is a [[peer]] table: how this node reaches another, where what that one
// tells of itself does not do.
type Peer struct {
	// ID is the other node's.
	ID int `toml:"id"`
	// Links are the URLs at which it is dialled, in the order in which they are
	// tried: tcp://host:port, quic://host:port, ws://host:port/path,
	// wss://host:port/path.
	Links []string `toml:"links"`
}

// String shows the table on one line.
func (p Peer) String() string { return fmt.Sprintf("%d %s", p.ID, strings.Join(p.Links, " ")) }

// parseLink takes the URL of a data link apart. A name alone is that of a
// transport, at the port for the exchange.
func (c *Config) parseLink(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s += "://:" + strconv.Itoa(c.WANPort)
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not a URL", clip(s))
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case !slices.Contains([]string{linkTCP, linkQUIC, linkWS, linkWSS}, u.Scheme):
		return nil, fmt.Errorf("%q: there are tcp, quic, ws and wss", clip(u.Scheme))
	case u.Port() == "":
		return nil, fmt.Errorf("%q has no port", clip(s))
	case err != nil || port == 0:
		return nil, fmt.Errorf("%q: the port is outside 1 to 65535", clip(s))
	case u.Hostname() != "" && !validHost(u.Hostname()):
		return nil, fmt.Errorf("%q: the host is not an address or name", clip(s))
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q: a link has a host, a port and at most a path", clip(u.Redacted()))
	case u.Path != "" && u.Path != "/" && u.Scheme != linkWS && u.Scheme != linkWSS:
		return nil, fmt.Errorf("%q: only ws and wss have a path", clip(s))
	case strings.ContainsAny(u.Path, "{} ") || u.RawPath != "" && u.RawPath != u.Path:
		return nil, fmt.Errorf("%q: the path is letters, digits and / . _ - ~", clip(s))
	}
	return u, nil
}

// listenLinks returns the URLs to listen at.
func (c *Config) listenLinks() []string {
	out := make([]string, len(c.WAN.Listen))
	for i, s := range c.WAN.Listen {
		u, err := c.parseLink(s)
		if err != nil {
			continue // Validate has seen to it
		}
		if u.Hostname() == "" {
			u.Host = net.JoinHostPort(c.Bind, u.Port())
		}
		out[i] = u.String()
	}
	return out
}

// toldLinks returns what others are told of where to dial, as gossip has it; ""
// if tcp at the usual port is all.
func (c *Config) toldLinks() string {
	if len(c.WAN.Links) > 0 {
		return strings.Join(c.WAN.Links, " ")
	}
	var out []string
	for _, s := range c.WAN.Listen {
		u, err := c.parseLink(s)
		if err != nil {
			continue
		}
		port := u.Port()
		if len(c.WAN.Listen) == 1 && u.Scheme == linkTCP && port == strconv.Itoa(c.WANPort) {
			return ""
		}
		if port == strconv.Itoa(c.WANPort) && c.AdvertiseWANPort != 0 {
			port = strconv.Itoa(c.AdvertiseWANPort)
		}
		u.Host = ":" + port // at the host that is advertised
		out = append(out, u.String())
	}
	return strings.Join(out, " ")
}

// linksTo returns the URLs at which to dial a member: those that a [[peer]]
// table has, else those it tells, else its address for the exchange.
func (c *Config) linksTo(id uint16, wan, told string) []string {
	for _, p := range c.Peers {
		if p.ID == int(id) {
			return p.Links
		}
	}
	var out []string
	for _, s := range strings.Fields(told) {
		u, err := url.Parse(s)
		if err != nil || len(out) == maxLinks {
			continue
		}
		if u.Hostname() == "" {
			u.Host = net.JoinHostPort(hostOf(wan), u.Port())
		}
		out = append(out, u.String())
	}
	if len(out) == 0 && wan != "" {
		out = append(out, linkTCP+"://"+wan)
	}
	return out
}

// validateLinks says what is wrong with where data links are.
func (c *Config) validateLinks(bad func(key, format string, a ...any)) {
	if len(c.WAN.Listen) > maxLinks || len(c.WAN.Links) > maxLinks {
		bad("wan.listen", "more than %d links", maxLinks)
	}
	ports := map[string]string{
		"tcp:" + strconv.Itoa(c.Port): "port", "tcp:" + strconv.Itoa(c.GossipPort): "gossip_port", "udp:" + strconv.Itoa(c.GossipPort): "gossip_port",
	}
	for _, s := range c.WAN.Listen {
		u, err := c.parseLink(s)
		if err != nil {
			if strings.Contains(s, "://") || c.WANPort > 0 && c.WANPort <= math.MaxUint16 { // else that is told
				bad("wan.listen", "%v", err)
			}
			continue
		}
		network := "tcp"
		if u.Scheme == linkQUIC {
			network = "udp"
		}
		if was, ok := ports[network+":"+u.Port()]; ok && u.Port() != strconv.Itoa(c.WANPort) || ok && was != "port" && was != "gossip_port" {
			bad("wan.listen", "%q is at the port of %s: each needs one of its own", clip(s), was)
		}
		ports[network+":"+u.Port()] = s
		switch host := u.Hostname(); {
		case u.Scheme == linkWSS && !c.TLS.WAN:
			bad("wan.listen", "%q needs a certificate: set tls.wan", clip(s))
		case u.Scheme == linkWS && c.TLS.WAN:
			bad("wan.listen", "%q is without TLS, and tls.wan is true: write wss", clip(s))
		case host != "" && !isLoopback(host) && c.Secret == "":
			bad("wan.listen", "%q lets other machines join: set secret or secret_file, the same on every node", clip(s))
		}
	}
	for _, s := range c.WAN.Links {
		if _, err := c.parseLink(s); err != nil {
			bad("wan.links", "%v", err)
		} else if !strings.Contains(s, "://") {
			bad("wan.links", "%q is not a URL", clip(s))
		}
	}
	if n := len(c.toldLinks()); n > 200 {
		bad("wan.links", "the links others are told take %d bytes, at most 200 are possible: shorten them", n)
	}
	if c.WAN.Proxy != "" {
		if u, err := url.Parse(c.WAN.Proxy); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" {
			bad("wan.proxy", "not http://host:port, or http://user:password@host:port")
		}
	}
	if len(c.Peers) > maxPeers {
		bad(tableKey("peer", maxPeers, "id"), "%d tables are too many: at most %d", len(c.Peers), maxPeers)
	}
	for i, p := range c.Peers[:min(len(c.Peers), maxPeers)] {
		key := func(name string) string { return tableKey("peer", i, name) }
		switch {
		case p.ID == 0:
			bad(key("id"), "missing: whose links are these?")
		case p.ID < 0 || p.ID > MaxNodeID:
			bad(key("id"), "%d is outside 1 to %d", p.ID, MaxNodeID)
		case slices.ContainsFunc(c.Peers[:i], func(q Peer) bool { return q.ID == p.ID }):
			bad(key("id"), "%d has a table before this one", p.ID)
		}
		if len(p.Links) == 0 || len(p.Links) > maxLinks {
			bad(key("links"), "%d links: give 1 to %d", len(p.Links), maxLinks)
		}
		for _, s := range p.Links {
			u, err := c.parseLink(s)
			switch {
			case err != nil:
				bad(key("links"), "%v", err)
			case u.Hostname() == "":
				bad(key("links"), "%q has no host", clip(s))
			}
		}
	}
}

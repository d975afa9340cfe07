// Package transport carries frames between two nodes. A Conn takes and gives
// whole frames, in order within each channel; what is in them, and whether the
// other side may be trusted, is the business of package wan.
//
// One file holds one transport, registered with Factory under its URL scheme:
//
//	tcp://host:port        TCP, with TLS if Options.TLS is set
//	quic://host:port       QUIC: a stream for each channel, so that loss in one
//	                       does not hold up another
//	ws://host:port/path    WebSocket: a message for each frame
//	wss://host:port/path   the same with TLS, through an HTTP proxy if need be
//
// Every transport passes the tests of package transporttest. To add one,
// implement Transport, give it a scheme in New, and run them on it.
package transport

// Package wire is the protobuf form of what nodes store in their logs and send
// to each other. It turns the domain's types into bytes and back; the generated
// types stay in here.
//
// The schemas are the *.proto files. To change one, edit it and run
//
//	go generate ./internal/wire
//
// which needs nothing but Go: gen compiles the schemas with protocompile and
// runs the protoc-gen-go of the module's own protobuf version. A test fails if
// the generated code is not that of the schemas.
//
// Entries are the hot path: every commit encodes one. They are therefore
// written and read by hand, with protowire; tests hold the result against the
// generated code. So are the states of a SyncKeys read.
package wire

//go:generate go run ./gen

package gossip

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
)

// Labels under which keys are derived from the cluster's secret; a key for one
// use says nothing about that for another.
const (
	labelGossip = "replicatord gossip v1"
	labelKnock  = "replicatord gossip knock v1"
)

// deriveKey returns a key of 32 bytes (AES-256) by HKDF with SHA-256, or nil
// for an empty secret.
func deriveKey(secret []byte, label string) ([]byte, error) {
	if len(secret) == 0 {
		return nil, nil
	}
	return hkdf.Key(sha256.New, secret, nil, label, 32)
}

// seal is AES-256-GCM with a random nonce in front. At one message per join,
// random nonces do not run into each other.
type seal struct{ aead cipher.AEAD }

// newSeal returns nil for a nil key.
func newSeal(key []byte) (*seal, error) {
	if key == nil {
		return nil, nil
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &seal{aead}, nil
}

func (s *seal) close(plain, context []byte) []byte {
	nonce := make([]byte, s.aead.NonceSize())
	rand.Read(nonce) // never fails
	return s.aead.Seal(nonce, nonce, plain, context)
}

var errSeal = errors.New("sealed with another secret")

func (s *seal) open(b, context []byte) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(b) < n {
		return nil, errSeal
	}
	plain, err := s.aead.Open(nil, b[:n], b[n:], context)
	if err != nil {
		return nil, errSeal
	}
	return plain, nil
}

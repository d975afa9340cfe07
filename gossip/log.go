package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// logWriter passes memberlist's log to slog, all of it at debug level: what of
// it matters to an operator, this package says itself. memberlist logs names,
// addresses and facts, never keys.
type logWriter struct{ to *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	if w.to.Enabled(context.Background(), slog.LevelDebug) {
		text := bytes.TrimSpace(p)
		level := ""
		if bytes.HasPrefix(text, []byte("[")) {
			if l, rest, ok := bytes.Cut(text[1:], []byte("] ")); ok {
				level, text = string(l), rest
			}
		}
		text = bytes.TrimPrefix(text, []byte("memberlist: "))
		w.to.Debug("memberlist", slog.String("level", level), slog.String("text", string(text)))
	}
	return len(p), nil
}

func memberlistLogger(to *slog.Logger) *log.Logger { return log.New(logWriter{to}, "", 0) }

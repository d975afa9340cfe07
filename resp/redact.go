package resp

import (
	"slices"

	"github.com/replicatord/replicatord/resp/command"
)

// redacted stands for what may be a password.
const redacted = "(redacted)"

// hideSecrets returns the arguments with passwords replaced, as Redis hides
// them from SLOWLOG and MONITOR; what ACL SETUSER says is hidden whole.
func hideSecrets(cmd *command.Command, args [][]byte) [][]byte {
	var hidden []int
	hide := func(from, to int) {
		for i := from; i < min(to, len(args)); i++ {
			hidden = append(hidden, i)
		}
	}
	switch cmd.Name {
	case "AUTH":
		hide(1, len(args))
	case "ACL|SETUSER":
		hide(2, len(args))
	case "HELLO":
		for i := 2; i < len(args); i++ {
			if equalFold(args[i], "auth") {
				hide(i+1, i+3)
				break
			}
		}
	case "CONFIG|SET":
		for i := 2; i+1 < len(args); i += 2 {
			if secretParameters[string(asciiLower(args[i]))] {
				hide(i+1, i+2)
			}
		}
	case "MIGRATE":
		for i := 6; i < len(args); i++ {
			switch {
			case equalFold(args[i], "auth"):
				hide(i+1, i+2)
				i++
			case equalFold(args[i], "auth2"):
				hide(i+1, i+3)
				i += 2
			case equalFold(args[i], "keys"):
				i = len(args)
			}
		}
	}
	if hidden == nil {
		return args
	}
	out := slices.Clone(args)
	for _, i := range hidden {
		out[i] = []byte(redacted)
	}
	return out
}

// secretParameters are the parameters of CONFIG whose values are secrets.
var secretParameters = map[string]bool{
	"requirepass": true, "masterauth": true, "masteruser": true, "tls-key-file-pass": true, "tls-client-key-file-pass": true,
}

func asciiLower(b []byte) []byte {
	out := slices.Clone(b)
	for i, ch := range out {
		if 'A' <= ch && ch <= 'Z' {
			out[i] = ch + 'a' - 'A'
		}
	}
	return out
}

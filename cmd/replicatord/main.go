// Command replicatord runs one node of an active-active Redis database.
//
// It parses flags and the configuration file, starts a node, hands it signals
// and turns what happened into an exit code. All else is in package node.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/replicatord/replicatord/node"
)

// Exit codes, as documented in --help.
const (
	exitOK      = 0 // ended as asked
	exitFailure = 1 // could not start, or failed while running
	exitUsage   = 2 // the command line or configuration has faults; all are listed
	exitDamage  = 3 // oplog verify found damage
	exitSignal  = 128
)

const description = `Makes any Redis or Valkey active-active: one node per region, in front of an ordinary Redis. Clients read and write at their node with local speed; nodes exchange their changes and always end equal.

Start two nodes on this machine and join them; each finds or brings its own Redis:

  replicatord --port 9001 &
  replicatord --port 9002 &
  redis-cli -p 9002 meet 127.0.0.1:9001
  redis-cli -p 9001 set greeting hello
  redis-cli -p 9002 get greeting

In production, with a Redis of your own and a file (constdb.toml.example explains every key):

  replicatord check-config constdb.toml
  replicatord constdb.toml --redis 127.0.0.1:6379

Flags are keys of the file with dashes for underscores, and win over it. Secrets are given by files, never by flags.

Exit codes: 0 ended as asked; 1 failed to start or while running; 2 faults in the command line or configuration, all listed; 3 'oplog verify' found damage; 128+N ended at once by a second signal N.`

// cli is the command line.
type cli struct {
	Run         runCmd         `cmd:"" default:"withargs" help:"Run a node (the default command). SIGTERM or SIGINT stops it in order; a second one at once."`
	CheckConfig checkConfigCmd `cmd:"" help:"List every fault of a configuration with its line, or the settings that would be in force."`
	Tail        tailCmd        `cmd:"" help:"Print a node's changes, live, as JSON lines: of some databases, keys or lanes, if need be."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
	Oplog       oplogCmd       `cmd:"" help:"Look into the data directory of a node that is stopped."`
}

// streams is where commands write.
type streams struct{ out, err io.Writer }

// exitError carries an exit code to main. Its message, if any, is printed.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

func main() { os.Exit(run(os.Args[1:], streams{os.Stdout, os.Stderr})) }

// run executes a command line and returns its exit code.
func run(args []string, s streams) (code int) {
	// kong ends --help by calling exit; unwind instead, so that tests can run it.
	type exited int
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	parser, err := kong.New(&cli{},
		kong.Name("replicatord"),
		kong.Description(description),
		kong.Writers(s.out, s.err),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{FlagsLast: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Help(printHelp),
		kong.ExplicitGroups([]kong.Group{
			{Key: "node", Title: "This node:"},
			{Key: "redis", Title: "The Redis behind it:"},
			{Key: "cluster", Title: "Other nodes:"},
			{Key: "data", Title: "Durability:"},
			{Key: "more", Title: "More:"},
		}),
		kong.Bind(s),
	)
	if err != nil {
		panic(err) // the cli struct is wrong: a test runs this
	}
	if len(args) > 0 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "--help")
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(s.err, "replicatord: %v\nTry 'replicatord --help'.\n", err)
		return exitUsage
	}
	err = ctx.Run(settingsOf(ctx))
	var exit exitError
	var faults node.Faults
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &faults):
		fmt.Fprintln(s.err, faults)
		fmt.Fprintf(s.err, "replicatord: %s in the configuration\n", plural(len(faults), "fault"))
		return exitUsage
	case errors.As(err, &exit):
		code = exit.code
	default:
		code = exitFailure
	}
	if msg := err.Error(); msg != "" {
		fmt.Fprintln(s.err, "replicatord:", msg)
	}
	return code
}

// printHelp prints the usual help; that of the whole program ends with the flags of
// the default command, which are the ones a new user looks for.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	ofCommand := slices.ContainsFunc(ctx.Model.Children, func(c *kong.Node) bool { return slices.Contains(ctx.Args, c.Name) })
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil || ofCommand {
		return err
	}
	runCtx, err := kong.Trace(ctx.Kong, []string{"run"})
	if err != nil {
		return err
	}
	fmt.Fprintln(ctx.Stdout)
	return kong.DefaultHelpPrinter(options, runCtx)
}

// settings are the flags given that are keys of the configuration.
type settings []node.Setting

// settingsOf collects them. Every flag in configFlags is named like its key.
func settingsOf(ctx *kong.Context) settings {
	var given settings
	for _, flag := range ctx.Flags() {
		if !flag.Set || flag.Tag.Has("notakey") {
			continue
		}
		var value string
		switch v := flag.Target.Interface().(type) {
		case []string:
			value = strings.Join(v, ",")
		default:
			value = fmt.Sprint(v)
		}
		given = append(given, node.Setting{Key: strings.ReplaceAll(flag.Name, "-", "_"), Value: value})
	}
	return given
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

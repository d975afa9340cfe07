// Command gen compiles the *.proto files of the current directory to Go, with
// nothing installed but Go. With -check it writes nothing and fails if what is
// there is not what it would write.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// plugin is run from the module's own dependencies, so go.mod pins it.
const plugin = "google.golang.org/protobuf/cmd/protoc-gen-go"

// module is the import path of the directory; generated files go where their
// go_package lies below it.
const module = "github.com/replicatord/replicatord/internal/wire"

func main() {
	check := flag.Bool("check", false, "only compare; exit 1 on a difference")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	names, err := filepath.Glob("*.proto")
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("no *.proto here")
	}
	slices.Sort(names)
	request, err := compile(names)
	if err != nil {
		return err
	}
	response, err := generate(request)
	if err != nil {
		return err
	}
	for _, f := range response.File {
		name, text := filepath.FromSlash(f.GetName()), []byte(f.GetContent())
		if !check {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(name, text, 0o644); err != nil {
				return err
			}
			continue
		}
		have, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if !bytes.Equal(have, text) {
			return fmt.Errorf("%s is not what its schema gives; run go generate", name)
		}
	}
	return nil
}

// compile reads the schemas and asks for code for all of them.
func compile(names []string) (*pluginpb.CodeGeneratorRequest, error) {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: names,
		Parameter:      proto.String("module=" + module),
	}
	for _, f := range files {
		addFile(request, f)
	}
	return request, nil
}

// addFile appends a file after those it imports, each once, as plugins want
// them.
func addFile(request *pluginpb.CodeGeneratorRequest, f protoreflect.FileDescriptor) {
	if slices.ContainsFunc(request.ProtoFile, func(have *descriptorpb.FileDescriptorProto) bool { return have.GetName() == f.Path() }) {
		return
	}
	imports := f.Imports()
	for i := range imports.Len() {
		addFile(request, imports.Get(i).FileDescriptor)
	}
	request.ProtoFile = append(request.ProtoFile, protodesc.ToFileDescriptorProto(f))
}

func generate(request *pluginpb.CodeGeneratorRequest) (*pluginpb.CodeGeneratorResponse, error) {
	in, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "run", plugin)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", plugin, err)
	}
	response := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(out, response); err != nil {
		return nil, err
	}
	if response.Error != nil {
		return nil, fmt.Errorf("%s: %s", plugin, response.GetError())
	}
	return response, nil
}

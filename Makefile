# make          builds bin/replicatord
# make check    checks everything (scripts/check says what)
# make <step>   one step of it: format vet lint generated unit race simulation integration bench

GO ?= go
STEPS := tools format vet lint generated unit race simulation integration bench

.PHONY: build check install fmt clean $(STEPS)

build:
	$(GO) build -o bin/replicatord ./cmd/replicatord

install:
	$(GO) install ./cmd/replicatord

check:
	scripts/check

$(STEPS):
	scripts/check $@

fmt:
	gofmt -w .

clean:
	rm -rf bin

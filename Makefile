# Twill: what can be run from a checkout. `make` lists it.
SHELL := /bin/bash
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# etcd's interface is compiled from its description.
BUILD_TOOLS := cc:gcc protoc:protobuf-compiler /usr/include/google/protobuf/descriptor.proto:libprotobuf-dev
UNIT_TOOLS := $(BUILD_TOOLS) etcd:etcd-server openssl:openssl
TEST_TOOLS := $(UNIT_TOOLS) nft:nftables ip:iproute2 tcpdump:tcpdump bird:bird2 vtysh:frr gobgpd:gobgpd iptables-restore:iptables conntrack:conntrack ping:iputils-ping \
  /usr/sbin/bgpctl:openbgpd exabgp:exabgp /usr/lib/cni/ptp:containernetworking-plugins
# Of a node with a kubelet; containerd and runc are the machine's own, and not brought here: their package starts a service.
KUBELET_TOOLS := nft:nftables ip:iproute2 setpriv:util-linux busybox:busybox-static /usr/lib/cni/loopback:containernetworking-plugins
VM_TOOLS := qemu-system-x86_64:qemu-system-x86 /usr/lib/qemu/virtiofsd:qemu-system-common busybox:busybox-static cpio:cpio modprobe:kmod ipvsadm:ipvsadm
# Where rustup puts it: sudo forgets the PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin
ROOT = @[ "$$(id -u)" -eq 0 ] || { echo "make $@ needs root: $(1)" >&2; exit 1; }

.PHONY: help build static image manifest demo test test-unit test-root test-vm test-sctp test-restarts test-flood test-kubernetes test-kubelet test-cni test-pressure test-storm fuzz-bgp bench-bgp bench-bfd bench-policy bench-kubernetes bench-cni model-ipam lint

help:
	@echo "make demo       build, bring up two racks with an application, show it, take it down (root; KEEP=1 leaves it up,"
	@echo "                IPIP=1 shows it with IP-in-IP on a Debian kernel in a virtual machine)"
	@echo "make test       all tests, in the kernel too and on an older one in a virtual machine (root)"
	@echo "make test-unit  the tests that need no root"
	@echo "make test-vm    the tests that need another kernel, in a virtual machine (root)"
	@echo "make test-restarts  daemons killed under traffic, with every speaker as ToR or neighbour, ten minutes (root)"
	@echo "make test-flood  policy under as many packets as the machine carries: 1000 changes, felix killed 20 times, two minutes (root)"
	@echo "make test-sctp  policy on SCTP, in a virtual machine, a quarter of an hour (root)"
	@echo "make test-kubernetes  the tests that need a Kubernetes API server: etcd, kube-apiserver and kubectl in"
	@echo "                \$$KUBEBUILDER_ASSETS or /usr/local/kubebuilder/bin (root)"
	@echo "make test-kubelet  the manifest on two nodes with kubelet, containerd and runc, through upgrades: kubelet, kube-controller-manager"
	@echo "                and kube-scheduler beside those (root; containerd and runc installed)"
	@echo "make test-cni   libcni's own tool against the plugin: CNITOOL=path of cnitool (root)"
	@echo "make test-pressure  the speaker with a million routes and peers that misbehave, ten minutes (root)"
	@echo "make test-storm  100,000 calls of the plugin on twenty nodes, with daemons and plugins killed and etcd cut, on both datastores, hours (root):"
	@echo "                NODES=5 PARALLEL=20 OPERATIONS=5000 for less, ENGINE=etcd for one, SEED=N for the same numbers again"
	@echo "make fuzz-bgp   100 million random messages against the BGP codec and the speaker: COUNT=1000000 for less"
	@echo "make bench-bgp  Twill's speaker beside BIRD, FRR, OpenBGPD and GoBGP (root): BENCH=\"--divide 10 --rows 50,1\" for less"
	@echo "make bench-bfd  a thousand BFD sessions at 50 ms and none that goes down, and what share of a processor that takes (root)"
	@echo "make bench-policy  what policy costs, from an event to its commit in the kernel, in clusters of several sizes (root)"
	@echo "make bench-cni  what ADD costs beside the reference plugins ptp and host-local (root): BENCH=\"--alone 20\" for less"
	@echo "make bench-kubernetes  Twill's daemons of 50 nodes on one API server with 10,000 pods: BENCH=\"--nodes 5 --pods 500\" for less"
	@echo "make model-ipam a million states of blocks and addresses from each of 28 beginnings, hours: STATES=100000 for less"
	@echo "make lint       format, clippy, licences and versions of dependencies"
	@echo "make build      optimised twill and twill-cni in target/release"
	@echo "make static     the same without shared libraries, for any Linux of this architecture"
	@echo "make image      a container image of them, by buildah, podman or docker: IMAGE=REPOSITORY:TAG"
	@echo "make manifest   deploy/twill.yaml from the Helm chart, and the chart's CRDs from the Rust types (helm)"

build:
	@scripts/need $(BUILD_TOOLS)
	$(CARGO) build --locked --release -p twill -p twill-cni

STATIC_TARGET = $(shell uname -m)-unknown-linux-gnu
STATIC = $(TARGET)/$(STATIC_TARGET)/release
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
IMAGE ?= localhost/twill:$(VERSION)

static:
	@scripts/need cc:gcc readelf:binutils
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --locked --release --target $(STATIC_TARGET) -p twill -p twill-cni
	@scripts/is-static $(STATIC)/twill $(STATIC)/twill-cni

image: static
	scripts/image $(IMAGE) $(STATIC)

manifest:
	$(CARGO) build --locked -p twill
	$(TARGET)/debug/twill crds >deploy/helm/twill/crds/twill.yaml
	scripts/manifest deploy/helm/twill >deploy/twill.yaml

demo:
	$(call ROOT,it makes network namespaces.)
	@scripts/need $(BUILD_TOOLS) nft:nftables ip:iproute2
	$(CARGO) build --locked --profile quick -p twill -p twill-cni
	$(if $(IPIP),@scripts/need $(VM_TOOLS))
	$(if $(IPIP),KEEP=0 e2e/vm/run )demo/run $(TARGET)/quick/twill

test:
	$(call ROOT,its tests make network namespaces; make test-unit runs those that do not.)
	@$(MAKE) --no-print-directory test-unit test-root test-vm

test-unit:
	@scripts/need $(UNIT_TOOLS)
	$(CARGO) test --locked --workspace --lib --bins --tests --no-fail-fast

# The published applications are no part of the project: where they are not there, their tests are named and not run.
EXAMPLES ?= $(or $(TWILL_EXAMPLES),$(wildcard ../shared/examples))
ROOT_TESTS = "needs root" $(if $(EXAMPLES),"needs the published manifests")

# A test of the whole workspace builds twill and twill-cni, too. Built by themselves before it, they would ask less of their
# dependencies, and all libraries would be built twice.
test-root:
	$(call ROOT,its tests make network namespaces; make test-unit runs those that do not.)
	@scripts/need $(TEST_TOOLS)
	$(if $(EXAMPLES),TWILL_EXAMPLES=$(abspath $(EXAMPLES))) $(CARGO) test --locked --workspace --lib --bins --tests --no-fail-fast -- \
	  --ignored $$(scripts/ignored-tests $(ROOT_TESTS))
	@$(if $(EXAMPLES),,echo "Not run without TWILL_EXAMPLES=DIR:" $$(scripts/ignored-tests "needs the published manifests"))

# Daemons killed under traffic, eight labs, each for minutes; on a busy machine traffic itself stands still now and then.
test-restarts:
	$(call ROOT,its tests make network namespaces.)
	@scripts/need $(TEST_TOOLS)
	$(CARGO) build --locked -p twill -p twill-cni
	$(CARGO) test --locked -p twill-e2e --test root_restarts -- --ignored

# As fast as the machine can, so that nothing beside it runs at its own pace; a shorter one is part of `make test-root`.
test-flood:
	$(call ROOT,its tests make network namespaces.)
	@scripts/need $(TEST_TOOLS)
	$(CARGO) test --locked -p twill-felix --test flood -- --ignored --nocapture $$(scripts/ignored-tests "needs minutes")

# A quarter of an hour on an emulated processor, so not part of `make test`.
test-sctp:
	$(call ROOT,it shares this machine's files with a virtual machine.)
	@scripts/need $(TEST_TOOLS) $(VM_TOOLS)
	CARGO="$(CARGO)" e2e/vm/tests --sctp

test-vm:
	$(call ROOT,it shares this machine's files with a virtual machine.)
	@scripts/need $(TEST_TOOLS) $(VM_TOOLS)
	CARGO="$(CARGO)" e2e/vm/tests

# Rendering the chart needs helm, which envtest does not bring: where it is not there, its tests are named and not run.
HELM ?= $(or $(shell command -v helm),$(wildcard $(or $(KUBEBUILDER_ASSETS),/usr/local/kubebuilder/bin)/helm))
KUBERNETES_TESTS = "needs a Kubernetes API server" $(if $(HELM),"needs helm")

test-kubernetes:
	$(call ROOT,its tests make network namespaces.)
	@scripts/control-plane
	@scripts/need $(TEST_TOOLS)
	$(CARGO) test --locked --workspace --lib --bins --tests --no-fail-fast -- \
	  --ignored --test-threads=2 $$(scripts/ignored-tests $(KUBERNETES_TESTS))
	@$(if $(HELM),,echo "Not run without helm:" $$(scripts/ignored-tests "needs helm"))

test-kubelet:
	$(call ROOT,its tests make namespaces and cgroups.)
	@scripts/control-plane kube-controller-manager kube-scheduler kubelet
	@scripts/need $(BUILD_TOOLS) $(KUBELET_TOOLS)
	$(CARGO) build --locked -p twill -p twill-cni
	$(CARGO) test --locked -p twill-e2e --test kube_kubelet -- --ignored --nocapture

# Needs Go once, to build the tool.
CNITOOL ?= $(or $(TWILL_CNITOOL),$(shell command -v cnitool))

test-cni:
	$(call ROOT,its tests make network namespaces.)
	@[ -x "$(CNITOOL)" ] || { echo "make $@ needs cnitool: go install github.com/containernetworking/cni/cnitool@v1.3.0, then CNITOOL=its path" >&2; exit 1; }
	@scripts/need $(TEST_TOOLS)
	$(CARGO) build --locked -p twill -p twill-cni
	TWILL_CNITOOL=$(abspath $(CNITOOL)) $(CARGO) test --locked -p twill-e2e --test root_cni -- --ignored $$(scripts/ignored-tests "needs cnitool")

# As `make test` has it, with all routes and an optimised speaker.
test-pressure:
	$(call ROOT,its tests make network namespaces.)
	@scripts/need $(BUILD_TOOLS) nft:nftables ip:iproute2
	$(CARGO) build --locked --profile quick -p twill -p twill-cni
	TWILL_PRESSURE_ROUTES=1000000 $(CARGO) test --locked --profile quick -p twill-e2e --test root_pressure -- --ignored --nocapture

# As `make test` has it, larger and optimised; and felix killed before each of its writes instead of some. Addresses rest as long as they do for users.
NODES ?= 20
PARALLEL ?= 100
OPERATIONS ?= 100000
COOL_DOWN ?= 60
ENGINE ?=
SEED ?=

test-storm:
	$(call ROOT,its tests make network namespaces.)
	@scripts/need $(TEST_TOOLS)
	$(CARGO) build --locked --profile quick -p twill -p twill-cni
	TWILL_STORM_NODES=$(NODES) TWILL_STORM_PARALLEL=$(PARALLEL) TWILL_STORM_OPERATIONS=$(OPERATIONS) TWILL_STORM_COOL_DOWN=$(COOL_DOWN) \
	  $(if $(SEED),TWILL_STORM_SEED=$(SEED)) TWILL_STORM_EVERY=1 \
	  $(CARGO) test --locked --profile quick -p twill-e2e --test root_storm -- --ignored --nocapture --test-threads=1 $(if $(ENGINE),the_storm_on_$(ENGINE))

# Messages of other projects are thrown, too, where they are.
CORPORA ?= $(or $(TWILL_CORPORA),$(wildcard ../shared/corpora))
COUNT ?= 100000000

fuzz-bgp:
	@scripts/need $(BUILD_TOOLS)
	$(CARGO) run --locked --release -p twill-codec-oracles --bin fuzz_messages -- --count $(COUNT) $(if $(CORPORA),--corpora $(CORPORA)) $(FUZZ)

# Who is missing is said by the program, which measures only whom BENCH asks for.
bench-bgp:
	@scripts/need $(BUILD_TOOLS) ip:iproute2
	$(CARGO) run --locked --release -p twill-e2e --bin bench_bgp -- $(BENCH)

bench-bfd:
	$(call ROOT,it makes network namespaces.)
	@scripts/need $(BUILD_TOOLS) ip:iproute2
	$(CARGO) build --locked -p twill -p twill-cni
	$(CARGO) test --locked -p twill-e2e --test root_bfd -- --ignored --nocapture $$(scripts/ignored-tests "needs a quiet machine")

bench-policy:
	$(call ROOT,it makes network namespaces.)
	@scripts/need $(BUILD_TOOLS)
	$(CARGO) run --locked --release -p twill-felix --example policy_bench

bench-kubernetes:
	@scripts/control-plane
	@scripts/need $(BUILD_TOOLS) setpriv:util-linux
	$(CARGO) run --locked --profile quick -p twill-e2e --bin bench_kubernetes -- $(BENCH)

bench-cni:
	$(call ROOT,it makes network namespaces.)
	@scripts/need $(BUILD_TOOLS) nft:nftables ip:iproute2
	$(CARGO) build --locked --release -p twill -p twill-cni
	$(CARGO) run --locked --release -p twill-e2e --bin bench_cni -- $(BENCH)

STATES ?= 1000000

model-ipam:
	@scripts/need $(BUILD_TOOLS)
	TWILL_MODEL_STATES=$(STATES) $(CARGO) test --locked --profile quick -p twill-ipam-model -- --nocapture

lint:
	@scripts/need $(BUILD_TOOLS)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@command -v cargo-deny >/dev/null || { echo "make lint needs cargo-deny: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny --locked check licenses bans sources

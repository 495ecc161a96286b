# SPDX-License-Identifier: GPL-2.0
# qcow2chain: kernel module, daemon, control tool, tests.  "make help" lists
# the targets.

VERSION := 0.1.0

# Kernel to build for: the running one if its headers are installed, else the
# newest installed headers.
KVER ?= $(shell if [ -e "/lib/modules/$$(uname -r)/build" ]; then uname -r; \
	else ls -d /lib/modules/*/build 2>/dev/null | cut -d/ -f4 | sort -V | tail -n1; fi)
KDIR ?= /lib/modules/$(KVER)/build

PREFIX ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= /lib/systemd/system
SYSCONFDIR ?= /etc
DESTDIR ?=

# User-space flavours share the rules below; SAN=1 builds with the sanitizers,
# FUZZ=1 (with CC=clang) with them and for libFuzzer.
SAN ?=
FUZZ ?=
BUILD := build/$(if $(FUZZ),fuzz,$(if $(SAN),asan,user))
PKGS := libcurl expat libnl-genl-3.0 devmapper jansson inih libsystemd libcrypto uuid blkid zlib libzstd sqlite3
PKG_CONFIG ?= pkg-config

comma := ,
CC ?= gcc
CFLAGS ?= -O2 -g
SANITIZE := $(if $(SAN)$(FUZZ),-fsanitize=address$(comma)undefined)
ALL_CFLAGS := -std=gnu11 -Wall -Wextra -Wshadow -Wstrict-prototypes \
	-Wmissing-prototypes -Wno-unused-parameter -D_GNU_SOURCE \
	-D_FILE_OFFSET_BITS=64 -DQC2_VERSION='"$(VERSION)"' \
	-Iinclude/uapi -Iuserspace/lib -MMD -MP \
	$(if $(SANITIZE),$(SANITIZE) -fno-sanitize-recover=undefined -fno-omit-frame-pointer) \
	$(if $(FUZZ),-fsanitize=fuzzer-no-link)
ALL_CFLAGS += $(CFLAGS)
ALL_LDFLAGS := $(LDFLAGS) $(SANITIZE)
# Evaluated when first needed, so that "make setup" runs without pkg-config.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell $(PKG_CONFIG) --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $$(shell $(PKG_CONFIG) --libs $(PKGS)))$(PKG_LIBS)

LIB_OBJS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard userspace/lib/*.c))
CHAIND_OBJS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard userspace/chaind/*.c))
CHAINCTL_OBJS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard userspace/chainctl/*.c))
UNIT_BINS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
FUZZ_BINS := $(patsubst tests/fuzz/fuzz_%.c,$(BUILD)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
TOOL_BINS := $(patsubst tests/system/tools/%.c,$(BUILD)/tests/tools/%,$(wildcard tests/system/tools/*.c))

.PHONY: all user module kunit tools unit-bins fuzz-bins install uninstall clean setup demo \
	check check-kernels check-debug soak fuzz bench bench-local bench-chain bench-store bench-cache \
	help
all: user module

help:
	@echo 'all (default)  kernel module, chaind, chainctl'
	@echo 'module         dm-qcow2chain.ko for KVER=$(KVER)'
	@echo 'user           chaind and chainctl'
	@echo 'install        install all of it below PREFIX (DESTDIR is honoured)'
	@echo 'setup          install the Debian packages that building and testing need'
	@echo 'demo           set up, build, and show a disk from a remote chain in a VM'
	@echo 'check          set up, build, and run all tests'
	@echo 'check-kernels  the system tests on 6.12 and on the newest kernel, built once'
	@echo 'check-debug    KUnit suites and system tests on a kernel that finds bugs, built once'
	@echo 'soak           eviction under load for SOAK_MINUTES (60) on the debug kernel; outages, long'
	@echo 'fuzz           each fuzz target for FUZZ_SECONDS (60), with clang and libFuzzer'
	@echo 'bench          requests and bytes to open and read a chain, beside QEMU'
	@echo 'bench-local    local I/O beside dm-linear and others; memory, activation, pauses'
	@echo 'bench-chain    what the depth of a chain costs: requests, bytes, time, memory; index'
	@echo 'bench-store    fetching over HTTP beside curl, QEMU and nbdkit'
	@echo 'bench-cache    what the cache spares: starts, clones, a region, pulls; its memory'

user: $(BUILD)/chaind $(BUILD)/chainctl
tools: $(TOOL_BINS)
unit-bins: $(UNIT_BINS)
fuzz-bins: $(FUZZ_BINS)

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(PKG_CFLAGS) -c -o $@ $<

$(BUILD)/libqcow2chain.a: $(LIB_OBJS)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/chaind: $(CHAIND_OBJS) $(BUILD)/libqcow2chain.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -pthread

$(BUILD)/chainctl: $(CHAINCTL_OBJS) $(BUILD)/libqcow2chain.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -pthread

$(BUILD)/tests/unit/test_cache_index: $(BUILD)/userspace/chaind/cache_index.o
$(BUILD)/tests/unit/test_cache_space: $(BUILD)/userspace/chaind/cache_space.o
$(BUILD)/tests/unit/test_cache_names: $(BUILD)/userspace/chaind/cache_names.o
$(BUILD)/tests/unit/test_cache: $(addprefix $(BUILD)/userspace/chaind/,cache.o cache_commit.o \
	cache_probe.o cache_space.o cache_names.o cache_index.o cache_super.o bypass.o pool.o \
	object.o origin.o)
$(BUILD)/tests/unit/test_cache: ALL_LDFLAGS += \
	$(addprefix -Wl$(comma)--wrap=,pwrite64 fdatasync cache_index_commit cache_index_close)
$(BUILD)/tests/unit/test_origin: $(addprefix $(BUILD)/userspace/chaind/,origin.o log.o)
$(BUILD)/tests/unit/test_fetch: $(addprefix $(BUILD)/userspace/chaind/,fetch.o transfer.o \
	multi.o pool.o object.o cache_names.o origin.o replica.o log.o)
$(BUILD)/tests/unit/test_plan: $(addprefix $(BUILD)/userspace/chaind/,plan.o object.o cache_names.o origin.o resolve.o log.o)
$(BUILD)/tests/unit/test_live: $(addprefix $(BUILD)/userspace/chaind/,live.o object.o cache_names.o origin.o log.o)
$(BUILD)/tests/unit/test_fill: $(addprefix $(BUILD)/userspace/chaind/,fill.o live.o plan.o object.o cache_names.o origin.o resolve.o log.o)
$(BUILD)/tests/unit/test_object: $(addprefix $(BUILD)/userspace/chaind/,object.o cache_names.o origin.o log.o)
$(BUILD)/tests/unit/test_miss: $(addprefix $(BUILD)/userspace/chaind/,miss.o plan.o object.o cache_names.o origin.o resolve.o log.o)
$(BUILD)/tests/unit/test_region: $(addprefix $(BUILD)/userspace/chaind/,region.o \
	region_store.o transfer.o multi.o pool.o object.o cache_names.o origin.o log.o)
$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(BUILD)/libqcow2chain.a
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(PKG_LIBS) -lcmocka

# Without libFuzzer a fuzz target runs over the files that it is given.
FUZZ_MAIN := $(if $(FUZZ),,$(BUILD)/tests/fuzz/replay.o)
$(BUILD)/tests/fuzz/unpack: $(BUILD)/userspace/chaind/unpack.o
$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/fuzz_%.o $(FUZZ_MAIN) $(BUILD)/libqcow2chain.a
	$(CC) $(ALL_LDFLAGS) $(if $(FUZZ),-fsanitize=fuzzer) -o $@ $(filter %.o,$^) \
		$(filter %.a,$^) $(PKG_LIBS)

$(BUILD)/tests/tools/qc2fetch: $(addprefix $(BUILD)/userspace/chaind/,fetch.o transfer.o \
	multi.o pool.o object.o cache_names.o origin.o unpack.o log.o)
$(BUILD)/tests/tools/%: $(BUILD)/tests/system/tools/%.o $(BUILD)/libqcow2chain.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(PKG_LIBS) $(LIBS)

$(BUILD)/tests/tools/qc2bench: LIBS := -luring -pthread
$(BUILD)/tests/tools/qc2cmp: LIBS := -pthread
$(BUILD)/tests/tools/qc2fault: LIBS := -pthread
$(BUILD)/tests/tools/qc2fetch: LIBS := -pthread

-include $(shell find build/user build/asan build/fuzz -name '*.d' 2>/dev/null)

# The module is built in a copy of its sources, one directory for each kernel,
# so that kernels do not share object files.
MODDIR = build/module/$(KVER)
module:
	@test -n "$(KVER)" || { echo "no kernel headers found; install linux-headers-amd64 or set KVER" >&2; exit 1; }
	@test -e "$(KDIR)/Makefile" || { echo "$(KDIR): no kernel headers for $(KVER)" >&2; exit 1; }
	@mkdir -p $(MODDIR)
	@cp -Rpu Kbuild kernel include $(MODDIR)/
	@mkdir -p $(MODDIR)/tests && cp -Rpu tests/kunit tests/debug $(MODDIR)/tests/
	$(MAKE) -C $(KDIR) M=$(CURDIR)/$(MODDIR) W=1 modules

# With the KUnit suites, in a module of their own; KVER has CONFIG_KUNIT.
kunit:
	$(MAKE) module QC2_KUNIT=m

install: all
	install -D -m 755 $(BUILD)/chaind $(DESTDIR)$(SBINDIR)/chaind
	install -D -m 755 $(BUILD)/chainctl $(DESTDIR)$(SBINDIR)/chainctl
	install -D -m 644 $(MODDIR)/dm-qcow2chain.ko $(DESTDIR)/lib/modules/$(KVER)/updates/dm-qcow2chain.ko
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|@SBINDIR@|$(SBINDIR)|' systemd/chaind.service.in > $(DESTDIR)$(UNITDIR)/chaind.service
	test -e $(DESTDIR)$(SYSCONFDIR)/qcow2chain/chaind.conf || \
		install -D -m 600 systemd/chaind.conf $(DESTDIR)$(SYSCONFDIR)/qcow2chain/chaind.conf
	for m in docs/man/*.8; do install -D -m 644 $$m $(DESTDIR)$(MANDIR)/man8/$${m##*/}; done
	test -n "$(DESTDIR)" || depmod $(KVER)

uninstall:
	rm -f $(DESTDIR)$(SBINDIR)/chaind $(DESTDIR)$(SBINDIR)/chainctl
	rm -f $(DESTDIR)/lib/modules/$(KVER)/updates/dm-qcow2chain.ko
	rm -f $(DESTDIR)$(UNITDIR)/chaind.service
	for m in docs/man/*.8; do rm -f $(DESTDIR)$(MANDIR)/man8/$${m##*/}; done
	test -n "$(DESTDIR)" || depmod $(KVER)

setup:
	tests/setup

demo: setup
	tests/demo

check:
	tests/setup stores
	tests/check

check-kernels: setup
	tests/check-kernels

check-debug: setup
	tests/check-debug

soak: setup
	tests/soak

fuzz:
	tests/setup fuzz
	$(MAKE) -s FUZZ=1 CC=clang CFLAGS='-O1 -g' fuzz-bins
	tests/fuzz/run

bench: setup
	tests/bench/run

bench-local: setup
	tests/bench/local

bench-chain: setup
	tests/setup bench-chain
	tests/bench/chain

bench-store: setup
	tests/setup bench-store
	tests/bench/store

bench-cache: setup
	tests/setup bench-cache
	tests/bench/cache

clean:
	rm -rf build

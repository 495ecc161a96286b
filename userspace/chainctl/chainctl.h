/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of chainctl share: the parsed command line, the verbs, and
 * output.  chainctl has one thread, but for those in publish.c, which see nothing of
 * this; nothing here locks.
 *
 * Verbs return 0 or a negative errno with the reason in @err; main() prints
 * it and turns the errno into an exit code.  Results go to stdout, warnings
 * and errors to stderr.
 */
#ifndef CHAINCTL_H
#define CHAINCTL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <jansson.h>

#include "config.h"
#include "err.h"
#include "site.h"

/* Exit codes; chainctl(8) documents them. */
enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_FOUND = 3,
	EXIT_BUSY = 4,
	EXIT_DENIED = 5,
	EXIT_REMOTE = 6,
	EXIT_INTEGRITY = 7,
};

/* errno of a wrong argument; EINVAL has other causes too */
#define EBADARG		EDOM

struct ctl {
	struct qc2_config cfg;
	struct qc2_sites *sites;	/* NULL until chain_access() */
	const char *verb;	/* as errors name it */
	const char *arg[2];	/* what follows the verb; NULL if not given */
	bool json;
	bool discard;
	bool force;
	bool all;
	bool journal;
	bool no_digests;
	const char *tip;	/* --tip */
	const char *output;	/* --output */
	const char *chain_id;	/* --chain-id, as typed */
	uint64_t size;		/* --size, bytes */
	uint64_t journal_size;	/* --journal-size, bytes */
	uint64_t offset;	/* --offset, bytes */
	uint64_t length;	/* --length, bytes; 0: not given */
	/* Kernel features; 0: not given */
	uint64_t fail_reads_after;	/* seconds */
	uint64_t map_limit_kb;
};

int disk_start(struct ctl *ctl, struct qc2_err *err);
int disk_stop(struct ctl *ctl, struct qc2_err *err);
int status_show(struct ctl *ctl, struct qc2_err *err);
int status_list(struct ctl *ctl, struct qc2_err *err);
int chain_info(struct ctl *ctl, struct qc2_err *err);
int chain_map(struct ctl *ctl, struct qc2_err *err);
int chain_publish(struct ctl *ctl, struct qc2_err *err);
int cache_resize(struct ctl *ctl, struct qc2_err *err);
int cache_pin(struct ctl *ctl, struct qc2_err *err);
int cache_unpin(struct ctl *ctl, struct qc2_err *err);
int chain_pull(struct ctl *ctl, struct qc2_err *err);
int tip_create(struct ctl *ctl, struct qc2_err *err);
int tip_check(struct ctl *ctl, struct qc2_err *err);
int tip_dump(struct ctl *ctl, struct qc2_err *err);

/* Device-mapper uuids of disks made by chainctl: this and the name. */
#define DISK_UUID_PREFIX	"QC2-"

/**
 * disk_check_name() - is this a name for a disk?
 *
 * Names go into device nodes, udev rules and file names as they are, so only
 * characters that all of them leave alone are allowed.
 */
int disk_check_name(const char *name, struct qc2_err *err);

/**
 * disk_tip() - the tip in a table line of the kernel
 * @table: the target's parameters
 * @dev: its device
 * @path: the file below it if chainctl attached one, else the device node;
 *	empty if neither can be found
 *
 * Return: 0, or -EINVAL if the line cannot be read.
 */
int disk_tip(const char *table, dev_t *dev, char *path, size_t size);

/* A number of bytes as people type it, with K, M, G or T.  -EINVAL. */
int parse_size(const char *text, uint64_t *bytes);

/* What the kernel's status line says; docs/uapi.md describes it. */
struct disk_state {
	bool read_only;
	uint64_t owner;		/* netlink port of the daemon; 0: none */
	uint64_t dirty_sectors;
	uint64_t map_kb, map_limit_kb;
	uint64_t parked, pending, oldest_ms;
	uint64_t reads_tip, reads_store, reads_zero, reads_missed, reads_again;
	uint64_t writes, commits;
};

/* Reads a status line; more fields behind the known ones are no error. */
int status_parse(const char *line, struct disk_state *state);

/* The library's errno for a path that holds no sound tip, as exit codes need it */
int tip_errno(int ret);

/**
 * tip_claim() - open a tip to use it alone
 * @fd: open file; holds a lock as long as it, or a loop device over it, lives
 *
 * -EBUSY if a loop device, another disk or another chainctl uses it.
 */
int tip_claim(const char *path, int *fd, bool *block_device, struct qc2_err *err);

/**
 * tip_discard() - delete a tip file, or wipe a tip from a device
 *
 * Refuses what holds no tip, and what is in use.  -ENOENT if it is not there.
 */
int tip_discard(const char *path, struct qc2_err *err);

/* out.c */

/* A size for people, such as "8.0 GiB"; @buf holds the result. */
#define OUT_SIZE_LEN	32
const char *out_size(char buf[OUT_SIZE_LEN], uint64_t bytes);

/* Writes a text from outside with control characters made harmless. */
void out_text(FILE *f, const char *text);

/* Prints a document on stdout and drops the reference to it. */
int out_json(json_t *doc, struct qc2_err *err);

/*
 * How far something has come, in one line that is written over, if stderr is a terminal;
 * @more goes behind it.  One thread at a time.
 */
void out_progress(const char *what, uint64_t done, uint64_t all, const char *more);
/* Clears that line. */
void out_progress_end(void);

/* "chainctl: VERB: warning: ..." on stderr */
void out_warn(const struct ctl *ctl, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define CHAIN_ID_HEX_LEN	32

/* Writes 32 hex digits and a NUL. */
void out_chain_id(char hex[CHAIN_ID_HEX_LEN + 1], const uint8_t *id);
/* 32 hex digits to 16 bytes; -EINVAL if it is anything else. */
int parse_chain_id(const char *hex, uint8_t *id);

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Disks: a name, a chain, and, once attached, a mapped device of the kernel.
 *
 *	opening   the chain is being opened.  A disk of an earlier daemon is
 *		  registered with the kernel already; its requests wait.
 *	open      the chain is open, no device.  Its index may still be read, see
 *		  opening.h
 *	attached  the device's requests are answered
 *	failed    the chain of an earlier daemon's disk could not be opened or
 *		  is another one now, or tables are damaged; its requests fail, and
 *		  after a while one of them has the chain opened again
 *
 * Main thread only, but for the opening of a chain, which is a job.
 */
#ifndef CHAIND_DISK_H
#define CHAIND_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "chain.h"
#include "chaind.h"
#include "plan.h"
#include "state.h"

enum disk_state {
	DISK_OPENING,
	DISK_OPEN,
	DISK_ATTACHED,
	DISK_FAILED,
};

struct fill;
struct opening;
TAILQ_HEAD(request_list, request);

struct disk {
	struct chaind *chaind;
	struct disk_info info;		/* name, URL, device, tip */
	bool unnamed;			/* see disk_open_unnamed() */
	enum disk_state state;
	struct qc2_err error;		/* of the last try to open; or empty */
	int failed;			/* why the chain could not be opened, a negative errno ... */
	uint64_t failed_until_us;	/* ... and DISK_FAILED: before when it is not tried again */
	struct qc2_chain *chain;	/* NULL until open */
	/* By number, two for each link; NULL: has no unpacked clusters, or
	 * nothing in the index leads there yet. */
	struct object **objects;
	uint64_t live_sectors;		/* when the chain is complete */
	struct qc2_digests *digests;	/* of the manifest; or NULL */
	/*
	 * A chain whose manifest seems to be wrong, while it is walked; the
	 * digests are the manifest's until that is known.
	 */
	struct qc2_chain *suspect;
	bool no_manifest;		/* it was wrong, or may be */
	bool disown;			/* what the cache has by its digests, too */
	bool registered;		/* with the kernel, for info.dev */
	bool has_bypass;		/* its table has store 1 */
	struct opening *opening;	/* NULL: the chain is complete, or none */
	unsigned int tries;
	sd_event_source *retry_timer;
	struct fetch_stats *stats;
	uint64_t misses;		/* requests answered */
	struct plan plan;
	struct fill *fill;		/* that brings all of the chain; or NULL */
	uint64_t generation;		/* of the newest request */
	struct request_list requests;	/* oldest first */
	void *request_tree;		/* the same by key (tsearch) */
	/* who asked for the opening */
	void (*opened)(void *arg, struct disk *disk, int ret,
		       const struct qc2_err *err);
	void *opened_arg;
	TAILQ_ENTRY(disk) entry;
};

/* Functions below return 0 or a negative errno with @err filled. */

/**
 * disk_open() - make a disk and start to open its chain
 * @opened: called once from the event loop, not before this returns.  After a
 *	failure the disk is gone when @opened returns.
 */
int disk_open(struct chaind *chaind, const char *name, const char *url,
	      void (*opened)(void *arg, struct disk *disk, int ret,
			     const struct qc2_err *err),
	      void *arg, struct qc2_err *err);

/**
 * disk_open_unnamed() - open a chain for the daemon itself
 * @label: for the log; no name of a disk
 * @disk: the disk, which is not found by name and has no device; it is closed with
 *	disk_close(), and goes by itself if it cannot be opened
 */
int disk_open_unnamed(struct chaind *chaind, const char *label, const char *url,
		      struct disk **disk, struct qc2_err *err);

/**
 * disk_index() - what is known of the chain about some sectors
 * @to: sector behind the last one of which the index knows.  The first is before
 *	@sector, at a multiple of 2 MiB
 *
 * Return: the index; or NULL: the requests are looked at again when there is one.
 */
const struct qc2_index *disk_index(struct disk *disk, uint64_t sector,
				   uint64_t nr_sectors, uint64_t *to);

/*
 * From the opening: the chain is open (0 and @chain, of which the disk takes a
 * reference) or not; there may be an index for more sectors; there is one for all,
 * or never will be.
 */
void disk_walked(struct disk *disk, struct qc2_chain *chain, int ret,
		 const struct qc2_err *err);
void disk_indexed(struct disk *disk);
void disk_complete(struct disk *disk, int ret, const struct qc2_err *err);
/* The digests came, which the disk takes over; or NULL and why not. */
void disk_verifies(struct disk *disk, struct qc2_digests *digests,
		   const struct qc2_err *err);

/**
 * disk_distrust() - a block of an open disk is not what the manifest says
 * @why: -ESTALE: its object is another one now; -EBADMSG: it has another digest
 *
 * Return: true if the chain is walked now, which tells who is right, and requests
 * wait for that; false if the error stands.
 */
bool disk_distrust(struct disk *disk, int why);

/*
 * A read wants a disk that has failed: what was wrong may have been mended.  Returns
 * true if its chain is being opened again.
 */
bool disk_revive(struct disk *disk);

/* Who asked for the opening is gone; so is the disk. */
void disk_open_abandon(struct chaind *chaind, void *arg);

/**
 * disk_check_table() - a request came from a table that was not seen before
 * @generation: of that table
 *
 * A table over another chain, size or cache must not be served; the device is
 * given up then, and @disk may be freed.
 *
 * Return: 0; -EINVAL if it was given up; another negative errno if the table
 * could not be looked at.
 */
int disk_check_table(struct disk *disk, uint64_t generation);

/* Become the daemon of a mapped device; the state file is written. */
int disk_attach(struct disk *disk, uint32_t dev, const char *tip,
		struct qc2_err *err);

/* Forget a disk and its state file; a device of it stays, and waits. */
void disk_close(struct disk *disk);

struct disk *disk_find(struct chaind *chaind, const char *name);

/* By their state files: whether there are any; whether store 0 of them all is @dev. */
bool disks_run(const struct chaind *chaind);
/* For cache_open(); @arg: struct chaind. */
int disks_check_cache(void *arg, dev_t dev, struct qc2_err *err);

/* Take over the disks of an earlier daemon. */
void disks_restore(struct chaind *chaind);

/* For the end of the program: openings stop soon. */
void disks_cancel_opening(struct chaind *chaind);

/* For kernel_ops */
struct disk *disk_find_dev(struct chaind *chaind, uint32_t dev);
void disk_device_gone(struct disk *disk, const struct qc2_err *err);

#endif

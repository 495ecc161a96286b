/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Opening the chain of a disk, in three steps:
 *
 *	walking   the headers of all links; then the disk is open.  The index of
 *		  the first window is there, too, or that of all if the disk is
 *		  no larger than that.
 *	windows   as requests need them, one at a time
 *	all       the index of the whole disk, when the first requests have been
 *		  answered, or after two seconds.  The windows go then.
 *
 * If a manifest has the chain, it is complete after the first step; the digests of its
 * data follow in the place of the tables.
 *
 * The steps are jobs; whatever jobs have to read from stores is retried there for
 * a while.  Main thread only, but for what runs in the jobs, which see the walk
 * and their own results.
 */
#ifndef CHAIND_OPENING_H
#define CHAIND_OPENING_H

#include <stdint.h>

#include "chain.h"
#include "chaind.h"

struct opening;

/**
 * opening_new() - start to open the chain of a disk
 *
 * Of what comes disk_walked(), disk_indexed(), disk_complete() and disk_verifies()
 * are told, see disk.h, not before this returns.
 *
 * Return: the opening, to be ended with opening_end(); NULL for lack of memory.
 */
struct opening *opening_new(struct disk *disk);

/* Whether the digests of a manifest are still to come. */
bool opening_wants_digests(const struct opening *opening);

/* The disk does not want it any more, or everything was told. */
void opening_end(struct opening *opening);

/**
 * opening_index() - the index of the window that holds some sectors
 * @to: sector behind the last one of which it knows.  The first is before @sector,
 *	at a multiple of 2 MiB
 *
 * Return: the index; or NULL: there is none, but disk_indexed() or disk_complete()
 * will tell.
 */
const struct qc2_index *opening_index(struct opening *opening, uint64_t sector,
				      uint64_t nr_sectors, uint64_t *to);

/* No request waits any more: the whole index may be read, if none comes soon. */
void opening_go_on(struct opening *opening);

/* For the end of the program: makes running jobs return soon. */
void opening_cancel(struct opening *opening);

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reads of store devices that fail are made again, with another answer of the
 * daemon.
 */
#ifndef QC2_REREAD_H
#define QC2_REREAD_H

#include <linux/atomic.h>
#include <linux/bio.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

struct qc2_target;

/* So often may a store fail one piece of a read. */
#define QC2_MAX_STORE_FAILURES	5

/**
 * struct qc2_store_read - what a bio reads from a store
 * @map_reader: token of the map's readers, see qc2_map_read_lock(); 0 if the bio
 *	reads from no store
 * @sector: first sector on the virtual disk
 * @store_sector: first sector on the store device
 * @nr_sectors: number of sectors
 * @store: index of the store
 */
struct qc2_store_read {
	unsigned long map_reader;
	u64 sector;
	u64 store_sector;
	unsigned int nr_sectors;
	u32 store;
};

/**
 * struct qc2_reread - what a read needs to be made again, kept with its bio
 * @iter: of the bio before it was mapped; after a failure what is still to be read
 * @bi_flags: of the bio before it was mapped
 * @piece: bytes that are being read now, if @by_pieces
 * @nr_failures: how often stores have failed the piece
 * @by_pieces: after a failure: one piece, in one block, follows the other
 * @failed: the place of the piece is known to be bad
 * @ask: the daemon is to be told so; the store is that of the last read
 * @store_part_failed: a part that was split off has failed on a store
 * @part_failed: a part has failed in another way, and with it the read
 */
struct qc2_reread {
	struct bvec_iter iter;
	unsigned short bi_flags;
	unsigned int piece;
	unsigned int nr_failures;
	bool by_pieces;
	bool failed;
	bool ask;
	bool store_part_failed;
	bool part_failed;
};

/**
 * struct qc2_rereads - the reads of one table that stores have failed
 * @qt: the target
 * @lock: protects @bios; taken in any context
 * @bios: reads to go on with
 * @work: goes on with them
 * @count: how many reads of stores failed and were made again
 */
struct qc2_rereads {
	struct qc2_target *qt;
	spinlock_t lock;	/* see above */
	struct bio_list bios;
	struct work_struct work;
	atomic64_t count;
};

void qc2_rereads_init(struct qc2_rereads *rereads, struct qc2_target *qt);
void qc2_rereads_stop(struct qc2_rereads *rereads);

void qc2_reread_record(struct qc2_reread *reread, const struct bio *bio);
bool qc2_reread_useful(const struct bio *bio, blk_status_t status);
unsigned int qc2_reread_piece(struct qc2_reread *reread, struct bio *bio,
			      unsigned int nr_sectors);
bool qc2_reread_end(struct qc2_rereads *rereads, struct bio *bio, bool of_store,
		    blk_status_t *error);

#endif

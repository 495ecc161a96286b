/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading and writing blocks of a tip's metadata, several at a time.
 */
#ifndef QC2_METAIO_H
#define QC2_METAIO_H

#include <linux/bio.h>
#include <linux/completion.h>
#include <linux/types.h>

/* Greatest number of blocks in one go. */
#define QC2_METAIO_BLOCKS	64

/**
 * struct qc2_metaio_block - a block on its way
 * @block: where it is, counted in blocks from the start of its area; set by
 *	the user
 * @page: its content
 * @bio: of the I/O
 * @vec: likewise
 */
struct qc2_metaio_block {
	u64 block;
	struct page *page;
	struct bio bio;
	struct bio_vec vec;
};

/**
 * struct qc2_metaio - what a user reads or writes metadata with
 * @bdev: the device
 * @blocks: QC2_METAIO_BLOCKS blocks
 * @pending: number of blocks on their way
 * @done: completed with the last of them
 * @error: an error among them
 */
struct qc2_metaio {
	struct block_device *bdev;
	struct qc2_metaio_block *blocks;
	atomic_t pending;
	struct completion done;
	blk_status_t error;
};

int qc2_metaio_init(struct qc2_metaio *io, struct block_device *bdev);
void qc2_metaio_exit(struct qc2_metaio *io);

int qc2_metaio_run(struct qc2_metaio *io, u64 start, unsigned int nr, blk_opf_t opf);
int qc2_metaio_run_one(struct qc2_metaio *io, u64 start, u64 block, blk_opf_t opf);

static inline void *qc2_metaio_data(struct qc2_metaio *io, unsigned int i)
{
	return page_address(io->blocks[i].page);
}

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * Reading and writing blocks of a tip's metadata.  All memory is allocated
 * beforehand: a commit must not wait for memory that needs it.
 *
 * Locking: a struct qc2_metaio has one user at a time; its owner says which.
 */
#include <linux/blkdev.h>
#include <linux/mm.h>

#include <linux/dm-qcow2chain.h>

#include "metaio.h"

/**
 * qc2_metaio_init() - allocate what is needed
 * @io: zeroed; qc2_metaio_exit() in any case, also after a failure
 * @bdev: the device
 *
 * Return: 0 or -ENOMEM.
 */
int qc2_metaio_init(struct qc2_metaio *io, struct block_device *bdev)
{
	unsigned int i;

	io->bdev = bdev;
	init_completion(&io->done);
	io->blocks = kvcalloc(QC2_METAIO_BLOCKS, sizeof(*io->blocks), GFP_KERNEL);
	if (!io->blocks)
		return -ENOMEM;
	for (i = 0; i < QC2_METAIO_BLOCKS; i++) {
		io->blocks[i].page = alloc_page(GFP_KERNEL);
		if (!io->blocks[i].page)
			return -ENOMEM;
	}
	return 0;
}

/**
 * qc2_metaio_exit() - free it
 * @io: nothing is on its way
 */
void qc2_metaio_exit(struct qc2_metaio *io)
{
	unsigned int i;

	for (i = 0; io->blocks && i < QC2_METAIO_BLOCKS; i++)
		if (io->blocks[i].page)
			__free_page(io->blocks[i].page);
	kvfree(io->blocks);
}

static void qc2_metaio_end(struct bio *bio)
{
	struct qc2_metaio *io = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(io->error, bio->bi_status);
	bio_uninit(bio);
	if (atomic_dec_and_test(&io->pending))
		complete(&io->done);
}

/**
 * qc2_metaio_run() - read or write the first blocks of @io
 * @io: with the place of each block set, and its content for a write
 * @start: of the area, in sectors
 * @nr: number of blocks
 * @opf: operation and flags
 *
 * Context: process; waits.
 * Return: 0 or a negative errno; then some of the blocks may have succeeded.
 */
int qc2_metaio_run(struct qc2_metaio *io, u64 start, unsigned int nr, blk_opf_t opf)
{
	struct blk_plug plug;
	unsigned int i;

	atomic_set(&io->pending, 1);
	reinit_completion(&io->done);
	io->error = BLK_STS_OK;

	blk_start_plug(&plug);
	for (i = 0; i < nr; i++) {
		struct qc2_metaio_block *b = &io->blocks[i];

		bio_init(&b->bio, io->bdev, &b->vec, 1, opf);
		b->bio.bi_iter.bi_sector = start + b->block * QC2_TIP_BLOCK_SECTORS;
		b->bio.bi_end_io = qc2_metaio_end;
		b->bio.bi_private = io;
		__bio_add_page(&b->bio, b->page, QC2_TIP_BLOCK_SIZE, 0);
		atomic_inc(&io->pending);
		submit_bio(&b->bio);
	}
	blk_finish_plug(&plug);

	if (!atomic_dec_and_test(&io->pending))
		wait_for_completion_io(&io->done);

	return blk_status_to_errno(io->error);
}

/**
 * qc2_metaio_run_one() - read or write the first block of @io
 * @io: with its content for a write
 * @start: of the area, in sectors
 * @block: where it is
 * @opf: operation and flags
 *
 * Context: process; waits.
 * Return: 0 or a negative errno.
 */
int qc2_metaio_run_one(struct qc2_metaio *io, u64 start, u64 block, blk_opf_t opf)
{
	io->blocks[0].block = block;
	return qc2_metaio_run(io, start, 1, opf);
}

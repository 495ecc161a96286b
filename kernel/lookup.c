// SPDX-License-Identifier: GPL-2.0
/*
 * Where a read or write at some sector goes, and how much of it: a bio is split
 * where the answer changes.
 *
 * Locking: none; see qc2_dirty_lookup() and qc2_map_lookup().
 */
#include <linux/minmax.h>

#include "lookup.h"
#include "target.h"

/**
 * qc2_lookup() - where the content of a sector is
 * @qt: the target
 * @sector: first sector of a read
 * @nr_sectors: its length, not 0
 * @place: @place->nr_sectors is set to how much of the read the answer holds
 *	for, at least 1; the rest with QC2_IN_STORE only
 * @reader: with QC2_IN_STORE a token for qc2_map_read_unlock(), else 0
 *
 * Context: any.
 * Return: the state of the sectors.
 */
enum qc2_state qc2_lookup(struct qc2_target *qt, u64 sector, unsigned int nr_sectors,
			  struct qc2_place *place, unsigned long *reader)
{
	unsigned int to_block_end = QC2_BLOCK_SECTORS - (sector & (QC2_BLOCK_SECTORS - 1));
	enum qc2_state state = QC2_UNKNOWN;
	unsigned long token;

	*reader = 0;
	if (qc2_dirty_lookup(&qt->tip->dirty, sector, &nr_sectors)) {
		place->nr_sectors = nr_sectors;
		return QC2_IN_TIP;
	}

	token = qc2_map_read_lock(&qt->map);
	if (qc2_map_lookup(&qt->map, sector, nr_sectors, place))
		state = place->store == QC2_STORE_ZERO ? QC2_ZERO : QC2_IN_STORE;

	if (state == QC2_IN_STORE)
		*reader = token;
	else
		qc2_map_read_unlock(&qt->map, token);

	/* A parked read stays in its block: what comes behind may be known. */
	if (state == QC2_UNKNOWN)
		place->nr_sectors = min(place->nr_sectors, to_block_end);
	return state;
}

/**
 * qc2_write_reach() - how much of a write can be made at once
 * @sector: first sector
 * @nr_sectors: length of the write, not 0
 *
 * Return: number of sectors, at least 1, all in one region.
 */
unsigned int qc2_write_reach(u64 sector, unsigned int nr_sectors)
{
	return min_t(unsigned int, nr_sectors,
		     QC2_REGION_SECTORS - (sector & (QC2_REGION_SECTORS - 1)));
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The merged index of a chain: for every sector of the virtual disk the object
 * and the place in it that hold the newest content.  Sectors in no extent
 * read as zeros.  Immutable once built, so any thread may read it.
 */
#ifndef QC2_INDEX_H
#define QC2_INDEX_H

#include <stddef.h>
#include <stdint.h>

/* qc2_extent.object of sectors that are zeros by a zero cluster */
#define QC2_OBJECT_ZERO	UINT32_MAX

/*
 * More extents than this in one list are refused (800 MB; a disk of 2 TiB in
 * which no two clusters of 64 KiB lie side by side has as many).
 */
#define QC2_MAX_EXTENTS	(1U << 25)

/**
 * struct qc2_extent - some sectors of the virtual disk
 * @sector: first sector on the virtual disk
 * @offset: where they are in the object, in bytes; 0 for QC2_OBJECT_ZERO
 * @nr_sectors: length
 * @object: number of the object, see chain.h; or QC2_OBJECT_ZERO
 *
 * The size of an object need not be a multiple of 512, so the last sector of
 * an extent can begin inside the object and end, by up to 511 bytes, behind
 * it.  Who fetches takes zeros for the bytes behind the end.
 */
struct qc2_extent {
	uint64_t sector;
	uint64_t offset;
	uint32_t nr_sectors;
	uint32_t object;
};

struct qc2_index {
	struct qc2_extent *extents;	/* sorted by sector, no overlap */
	size_t nr_extents;
	uint32_t *by_object;		/* extents with data, by (object, offset) */
	size_t nr_by_object;
	uint64_t nr_sectors;		/* size of the virtual disk */
	/*
	 * The disk in pieces of 2^dir_shift sectors, about as many as extents:
	 * for each one the first extent that ends after its first sector, and
	 * nr_extents at the end.
	 */
	uint32_t *dir;
	unsigned int dir_shift;
	void *map;			/* a file that has all of it, or NULL */
	size_t map_len;
};

/* Entries of the directory. */
static inline uint64_t qc2_index_nr_dir(const struct qc2_index *idx)
{
	return (idx->nr_sectors >> idx->dir_shift) + 2;
}

/* A growing list of extents, for building. */
struct qc2_extents {
	struct qc2_extent *v;
	size_t nr, alloc;
};

/*
 * Appends, joining with the last extent where both sides go on without a gap.
 * Sectors ascend, unless qc2_extents_sort() follows.  Returns 0, -ENOMEM, or
 * -E2BIG for more than QC2_MAX_EXTENTS.
 */
int qc2_extents_add(struct qc2_extents *list, const struct qc2_extent *ext);
/* Puts extents without overlap in order and joins what goes on. */
void qc2_extents_sort(struct qc2_extents *list);
/* Leaves nothing but what is in sectors from..to (exclusive). */
void qc2_extents_clip(struct qc2_extents *list, uint64_t from, uint64_t to);
void qc2_extents_free(struct qc2_extents *list);

/**
 * qc2_extents_underlay() - merge: put a lower link below what is there
 * @upper: sorted extents of all links above; replaced by the result
 * @lower: sorted extents of the lower link
 * @limit: sectors of @lower from here on are hidden (a smaller link above)
 *
 * Return: 0, -ENOMEM or -E2BIG; @upper is as before then.
 */
int qc2_extents_underlay(struct qc2_extents *upper,
			 const struct qc2_extents *lower, uint64_t limit);

/**
 * qc2_index_build() - make the index of merged extents
 * @list: sorted; emptied: the index takes the memory over.  Extents with
 *	QC2_OBJECT_ZERO are dropped: what is in no extent is zeros.
 * @nr_sectors: size of the virtual disk; the extents lie within
 *
 * Return: the index; or NULL for lack of memory, @list is as before then.
 */
struct qc2_index *qc2_index_build(struct qc2_extents *list, uint64_t nr_sectors);
void qc2_index_free(struct qc2_index *idx);

/**
 * qc2_index_find() - the first extent that ends after a sector
 *
 * Return: number of the extent; idx->nr_extents if there is none.
 */
size_t qc2_index_find(const struct qc2_index *idx, uint64_t sector);

/**
 * qc2_index_find_object() - the first extent of an object that ends after a byte
 * @object: its number
 * @offset: byte in it
 *
 * In an object in which several places of the disk share a cluster, which QEMU
 * does not write, this can be a later one of the extents that hold the byte.
 *
 * Return: position in idx->by_object; idx->nr_by_object, or that of another
 * object's extent, if there is none.
 */
size_t qc2_index_find_object(const struct qc2_index *idx, uint32_t object,
			     uint64_t offset);

#endif

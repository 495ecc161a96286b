/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Index files: what was read from the tables of images, kept on the host, so that
 * nobody has to read it again; docs/index-format.md.  A folder holds
 *
 *	ID.chain	the index of a chain, which is mapped into memory
 *	ID.link		the list of a link, whatever chains it is part of
 *
 * where the id is a digest of what the tables were read from.  The files are a
 * cache: each may be missing at any time, and whoever writes one may fail.  They
 * are not trusted more than needed: a file that is damaged is as good as none.
 *
 * No state; any thread, and any process, at any time.
 */
#ifndef QC2_INDEX_FILE_H
#define QC2_INDEX_FILE_H

#include <stddef.h>
#include <stdint.h>

#include <linux/dm-qcow2chain.h>

#include "err.h"
#include "index.h"
#include "packed.h"

/* What all files of a folder may take together; the oldest go first. */
#define QC2_INDEX_DIR_MAX	(1ULL << 30)

/**
 * struct qc2_index_parts - what a file is made of
 * @list: merged extents; or those of one link, also zero clusters, with the
 *	objects of link 0
 * @nr_sectors: of the disk
 * @index: of a chain; NULL: a link
 * @packed: compressed clusters, by link; each may be NULL
 * @nr_links: their number
 */
struct qc2_index_parts {
	struct qc2_extents list;
	uint64_t nr_sectors;
	struct qc2_index *index;
	struct qc2_packed **packed;
	size_t nr_links;
};

/**
 * qc2_index_file_save() - write a file, in the place of an older one
 * @dir: the folder, which exists
 * @parts: without @list if there is an @index
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_index_file_save(const char *dir, const uint8_t id[QC2_CHAIN_ID_LEN],
			const struct qc2_index_parts *parts, struct qc2_err *err);

/**
 * qc2_index_file_load() - read a file
 * @parts: @nr_links, @packed with room for as many, and @nr_sectors are given, and
 *	must be what the file has; @list is filled, or with @chain @index
 * @chain: the index of a chain, not the list of a link
 *
 * Return: 0; -ENOENT: there is none; -EBADMSG: it is damaged or from another version
 * or host; or another negative errno; with @err filled and nothing in @parts.
 */
int qc2_index_file_load(const char *dir, const uint8_t id[QC2_CHAIN_ID_LEN],
			bool chain, struct qc2_index_parts *parts,
			struct qc2_err *err);

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The table of internal snapshots.  Without state; an image is used by one
 * thread at a time.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2_format.h"

/* As QEMU. */
#define MAX_SNAPSHOTS		65536
#define MAX_EXTRA_DATA		1024

/* The table is read in pieces of this size; most entries are far smaller. */
#define READ_AHEAD		(128 << 10)
#define USUAL_ENTRY		4096

struct entry {
	uint64_t l1_offset;
	uint32_t l1_size;
	uint16_t id_len;
	uint16_t name_len;
	uint32_t date_sec;
	uint32_t date_nsec;
	uint64_t vm_clock_nsec;
	uint32_t vm_state_size;
	uint32_t extra_len;
} __attribute__((packed));

struct extra {
	uint64_t vm_state_size;
	uint64_t disk_size;
} __attribute__((packed));

/* What is looked for, and the best that was found.  As in QEMU an id counts first. */
struct search {
	const char *name;
	enum { FOUND_NONE, FOUND_NAME, FOUND_ID } found;
	uint64_t l1_offset, disk_size;
	uint32_t l1_size;
};

/* Has the entry at @pos in memory, if it is no larger than usual. */
static int read_ahead(struct qc2_qcow2 *img, uint64_t pos, struct qc2_err *err)
{
	uint64_t left = pos < img->src->size ? img->src->size - pos : 0;

	if (qcow2_peek(img, pos, left < USUAL_ENTRY ? left : USUAL_ENTRY))
		return 0;
	return qcow2_read_ahead(img, pos, READ_AHEAD, err);
}

/* Looks at the entry at *@offset and moves that behind it. */
static int read_entry(struct qc2_qcow2 *img, uint64_t *offset,
		      struct search *search, struct qc2_err *err)
{
	uint64_t disk_size = img->virtual_size, pos = *offset;
	size_t id_len, name_len, extra_len;
	struct extra extra;
	struct entry entry;
	char *text;
	int ret, found = FOUND_NONE;

	ret = read_ahead(img, pos, err);
	if (!ret)
		ret = qcow2_read(img, "snapshot table", pos, &entry,
				 sizeof(entry), err);
	if (ret)
		return ret;
	pos += sizeof(entry);
	extra_len = be32toh(entry.extra_len);
	id_len = be16toh(entry.id_len);
	name_len = be16toh(entry.name_len);
	if (extra_len > MAX_EXTRA_DATA)
		return qc2_fail(err, EINVAL,
			"%s: snapshot table: %zu bytes of extra data at offset %" PRIu64 "; at most %d are possible",
			img->src->url, extra_len, pos, MAX_EXTRA_DATA);
	if (extra_len >= sizeof(extra)) {
		ret = qcow2_read(img, "snapshot table", pos, &extra,
				 sizeof(extra), err);
		if (ret)
			return ret;
		disk_size = be64toh(extra.disk_size);
	}
	pos += extra_len;

	text = malloc(id_len + name_len + 1);
	if (!text)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = id_len + name_len ?
		qcow2_read(img, "snapshot table", pos, text, id_len + name_len,
			   err) : 0;
	if (!ret) {
		if (strlen(search->name) == id_len &&
		    !memcmp(text, search->name, id_len))
			found = FOUND_ID;
		else if (strlen(search->name) == name_len &&
			 !memcmp(text + id_len, search->name, name_len))
			found = FOUND_NAME;
	}
	free(text);
	if (ret)
		return ret;
	if (found > (int)search->found) {
		search->found = found;
		search->l1_offset = be64toh(entry.l1_offset);
		search->l1_size = be32toh(entry.l1_size);
		search->disk_size = disk_size;
	}
	*offset = (pos + id_len + name_len + 7) & ~7ULL;
	return 0;
}

int qc2_qcow2_snapshot(struct qc2_qcow2 *img, const char *name,
		       struct qc2_err *err)
{
	uint64_t offset = img->snapshots_offset;
	struct search search = { .name = name };
	char shown[160];
	uint32_t i;
	int ret;

	if (img->nr_snapshots > MAX_SNAPSHOTS)
		return qc2_fail(err, EFBIG,
			"%s: %" PRIu32 " snapshots; at most %d are possible",
			img->src->url, img->nr_snapshots, MAX_SNAPSHOTS);
	if (offset & (qcow2_cluster_size(img) - 1))
		return qc2_fail(err, EINVAL,
			"%s: the offset of the snapshot table, %" PRIu64 ", is not a multiple of the cluster size",
			img->src->url, offset);
	for (i = 0; i < img->nr_snapshots && search.found != FOUND_ID; i++) {
		ret = read_entry(img, &offset, &search, err);
		if (ret)
			return ret;
	}
	if (search.found == FOUND_NONE)
		return qc2_fail(err, ENOENT,
			"%s: no snapshot has the name or id '%s'; qemu-img snapshot -l lists the %" PRIu32 " that there are",
			img->src->url,
			qc2_printable(name, strlen(name), shown, sizeof(shown)),
			img->nr_snapshots);
	return qcow2_set_l1(img, search.disk_size & ~511ULL, search.l1_offset,
			    search.l1_size, err);
}

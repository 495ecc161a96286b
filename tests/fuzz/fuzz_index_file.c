/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Index files.  The input has a byte that says how, and the file; unless that byte
 * says not to, its checksum, its length and what it is of are put right.
 */
#include <errno.h>
#include <unistd.h>

#include "chain.h"
#include "crc32c.h"
#include "fuzz.h"
#include "index_file.h"

#define MAX_FILE	(64 << 10)
#define MAX_LINKS	4
#define HEADER		80

static char dir[] = "/tmp/fuzz_index_file.XXXXXX";
static const uint8_t id[QC2_CHAIN_ID_LEN] = "0123456789abcdef";
static char path[2][128];		/* of a link, of a chain */

static void remove_dir(void)
{
	unlink(path[0]);
	unlink(path[1]);
	rmdir(dir);
}

static void make_dir(void)
{
	if (path[0][0])
		return;
	assert(mkdtemp(dir));
	for (int chain = 0; chain < 2; chain++)
		snprintf(path[chain], sizeof(path[chain]),
			 "%s/30313233343536373839616263646566.%s", dir,
			 chain ? "chain" : "link");
	atexit(remove_dir);
}

static void write_file(const char *name, const uint8_t *data, size_t len)
{
	FILE *file = fopen(name, "w");

	assert(file && fwrite(data, 1, len, file) == len);
	assert(!fclose(file));
}

static void check_extents(const struct qc2_extent *v, size_t nr, uint64_t nr_sectors,
			  size_t nr_links, bool zeros)
{
	uint64_t end = 0;

	for (size_t i = 0; i < nr; i++) {
		assert(v[i].sector >= end && v[i].nr_sectors);
		end = v[i].sector + v[i].nr_sectors;
		assert(end <= nr_sectors);
		assert(v[i].object == QC2_OBJECT_ZERO ? zeros :
		       qc2_object_link(v[i].object) < nr_links);
	}
}

/* Lookups find what a search from the front finds. */
static void check_lookups(const struct qc2_index *idx)
{
	uint64_t step = idx->nr_sectors / 64 + 1, sector;
	size_t i = 0;

	for (sector = 0; sector < idx->nr_sectors; sector += step) {
		while (i < idx->nr_extents && idx->extents[i].sector +
		       idx->extents[i].nr_sectors <= sector)
			i++;
		assert(qc2_index_find(idx, sector) == i);
	}
	for (i = 0; i < idx->nr_extents; i++) {
		const struct qc2_extent *ext = &idx->extents[i], *found;
		size_t pos = qc2_index_find_object(idx, ext->object, ext->offset);

		assert(pos < idx->nr_by_object);
		found = &idx->extents[idx->by_object[pos]];
		assert(found->object == ext->object && found->offset <= ext->offset);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t file[MAX_FILE];
	struct qc2_packed *packed[MAX_LINKS] = { NULL };
	struct input in = { data, size };
	unsigned int how = take(&in, 1);
	bool chain = how & 1;
	struct qc2_index_parts parts = {
		.nr_links = 1 + (how >> 2 & 3), .packed = packed,
	};
	struct qc2_err err = { "" };
	uint64_t len = in.len < MAX_FILE ? in.len : MAX_FILE;
	uint32_t value;
	int ret;

	make_dir();
	memcpy(file, in.p, len);
	if (len >= HEADER && !(how & 2)) {
		memcpy(file, "QC2INDEX", 8);
		value = 1;
		memcpy(file + 8, &value, 4);
		memcpy(file + 16, id, sizeof(id));
		memcpy(file + 32, &len, 8);
		memcpy(&parts.nr_sectors, file + 40, 8);
		value = qc2_crc32c(0, file + 16, len - 16);
		memcpy(file + 12, &value, 4);
	}
	write_file(path[chain], file, len);
	ret = qc2_index_file_load(dir, id, chain, &parts, &err);
	assert(!ret || ((ret == -EBADMSG || ret == -ENOMEM) && err.msg[0]));
	if (!ret && chain) {
		check_extents(parts.index->extents, parts.index->nr_extents,
			      parts.nr_sectors, parts.nr_links, false);
		check_lookups(parts.index);
		qc2_index_free(parts.index);
	} else if (!ret) {
		check_extents(parts.list.v, parts.list.nr, parts.nr_sectors,
			      parts.nr_links, true);
		qc2_extents_free(&parts.list);
	}
	for (size_t i = 0; i < MAX_LINKS; i++) {
		assert(!ret || !packed[i]);
		qc2_packed_put(packed[i]);
	}
	return 0;
}

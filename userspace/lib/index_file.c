/* SPDX-License-Identifier: GPL-2.0 */
/* Reading and writing index files.  No state. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "chain.h"
#include "crc32c.h"
#include "index_file.h"
#include "qcow2.h"

#define MAGIC		"QC2INDEX"
#define VERSION		1

/*
 * The file, in the byte order of the host.  Behind the header: extents; lists;
 * compressed clusters of all lists; of a chain by_object, dir.
 */
struct header {
	char magic[8];
	uint32_t version;
	uint32_t crc;		/* CRC-32C of all that follows */
	uint8_t id[QC2_CHAIN_ID_LEN];
	uint64_t len;		/* of the file, bytes */
	uint64_t nr_sectors;
	uint64_t nr_extents;
	uint64_t nr_dir;	/* 0: a link */
	uint64_t nr_packed;
	uint32_t nr_lists;
	uint32_t dir_shift;
};

/* The compressed clusters of a link. */
struct list {
	uint32_t link;
	uint32_t cluster_bits;
	uint32_t compression;
	uint32_t reserved;	/* 0 */
	uint64_t nr;
};

#define CRC_FROM	offsetof(struct header, id)

/* Where the parts of a file are. */
struct layout {
	uint64_t extents, lists, packed, by_object, dir, end;
};

static void lay_out(const struct header *hdr, struct layout *at)
{
	at->extents = sizeof(*hdr);
	at->lists = at->extents + hdr->nr_extents * sizeof(struct qc2_extent);
	at->packed = at->lists + hdr->nr_lists * sizeof(struct list);
	at->by_object = at->packed +
			hdr->nr_packed * sizeof(struct qc2_packed_cluster);
	at->dir = at->by_object + (hdr->nr_dir ? hdr->nr_extents * 4 : 0);
	at->end = at->dir + hdr->nr_dir * 4;
}

static char *file_name(const char *dir, const uint8_t *id, bool chain)
{
	char hex[2 * QC2_CHAIN_ID_LEN + 1], *name;
	size_t i;

	for (i = 0; i < QC2_CHAIN_ID_LEN; i++)
		sprintf(hex + 2 * i, "%02x", id[i]);
	return asprintf(&name, "%s/%s.%s", dir, hex, chain ? "chain" : "link") < 0 ?
		NULL : name;
}

/*
 * ---------------------------------------------------------------------------
 * Writing
 * ---------------------------------------------------------------------------
 */

struct entry {
	char *name;
	uint64_t size;
	struct timespec used;
};

static int cmp_used(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->used.tv_sec != y->used.tv_sec)
		return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
	return (x->used.tv_nsec > y->used.tv_nsec) -
	       (x->used.tv_nsec < y->used.tv_nsec);
}

/* Deletes what was not used for longest; others may be doing the same. */
static void trim_dir(const char *dir)
{
	struct entry *entries = NULL, *more;
	size_t nr = 0, i;
	uint64_t sum = 0;
	struct dirent *de;
	struct stat st;
	DIR *d;

	d = opendir(dir);
	if (!d)
		return;
	while ((de = readdir(d))) {
		if (fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
		    !S_ISREG(st.st_mode))
			continue;
		more = reallocarray(entries, nr + 1, sizeof(*entries));
		if (!more)
			break;
		entries = more;
		entries[nr].name = strdup(de->d_name);
		entries[nr].size = st.st_blocks * 512ULL;
		entries[nr].used = st.st_mtim;
		sum += entries[nr++].size;
	}
	if (sum > QC2_INDEX_DIR_MAX)
		qsort(entries, nr, sizeof(*entries), cmp_used);
	for (i = 0; i < nr; i++) {
		if (sum > QC2_INDEX_DIR_MAX && entries[i].name &&
		    !unlinkat(dirfd(d), entries[i].name, 0))
			sum -= entries[i].size;
		free(entries[i].name);
	}
	free(entries);
	closedir(d);
}

static int write_all(int fd, const void *buf, size_t len)
{
	ssize_t n;

	for (; len; buf = (const char *)buf + n, len -= n) {
		n = write(fd, buf, len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n < 0)
			n = 0;
	}
	return 0;
}

/*
 * Writes a part and goes on with the checksum.  Without a file: the checksum alone,
 * which is in front of what it is of.
 */
static int put(int fd, uint32_t *crc, const void *buf, size_t len)
{
	*crc = qc2_crc32c(*crc, buf, len);
	return fd < 0 ? 0 : write_all(fd, buf, len);
}

static int put_parts(int fd, const struct header *hdr,
		     const struct qc2_index_parts *parts, uint32_t *crc)
{
	const struct qc2_extent *extents = parts->index ? parts->index->extents :
							   parts->list.v;
	size_t i;
	int ret;

	*crc = 0;
	ret = put(fd, crc, (const char *)hdr + CRC_FROM, sizeof(*hdr) - CRC_FROM);
	if (!ret)
		ret = put(fd, crc, extents, hdr->nr_extents * sizeof(*extents));
	for (i = 0; i < parts->nr_links && !ret; i++) {
		const struct qc2_packed *packed = parts->packed[i];
		struct list list = { .link = i };

		if (!packed)
			continue;
		list.cluster_bits = packed->cluster_bits;
		list.compression = packed->compression;
		list.nr = packed->nr;
		ret = put(fd, crc, &list, sizeof(list));
	}
	for (i = 0; i < parts->nr_links && !ret; i++)
		if (parts->packed[i])
			ret = put(fd, crc, parts->packed[i]->v,
				  parts->packed[i]->nr * sizeof(*parts->packed[i]->v));
	if (!ret && parts->index)
		ret = put(fd, crc, parts->index->by_object, hdr->nr_extents * 4);
	if (!ret && parts->index)
		ret = put(fd, crc, parts->index->dir, hdr->nr_dir * 4);
	return ret;
}

static void make_header(struct header *hdr, const uint8_t *id,
			const struct qc2_index_parts *parts)
{
	const struct qc2_index *idx = parts->index;
	struct layout at;
	size_t i;

	*hdr = (struct header){
		.magic = MAGIC,
		.version = VERSION,
		.nr_sectors = parts->nr_sectors,
		.nr_extents = idx ? idx->nr_extents : parts->list.nr,
		.nr_dir = idx ? qc2_index_nr_dir(idx) : 0,
		.dir_shift = idx ? idx->dir_shift : 0,
	};
	memcpy(hdr->id, id, sizeof(hdr->id));
	for (i = 0; i < parts->nr_links; i++) {
		if (!parts->packed[i])
			continue;
		hdr->nr_lists++;
		hdr->nr_packed += parts->packed[i]->nr;
	}
	lay_out(hdr, &at);
	hdr->len = at.end;
}

int qc2_index_file_save(const char *dir, const uint8_t id[QC2_CHAIN_ID_LEN],
			const struct qc2_index_parts *parts, struct qc2_err *err)
{
	char *name = file_name(dir, id, parts->index), *tmp = NULL;
	struct header hdr;
	uint32_t crc;
	int fd = -1, ret;

	if (!name || asprintf(&tmp, "%s/tmp.XXXXXX", dir) < 0) {
		free(name);
		return qc2_fail(err, ENOMEM, "out of memory");
	}
	make_header(&hdr, id, parts);
	put_parts(-1, &hdr, parts, &hdr.crc);
	fd = mkostemp(tmp, O_CLOEXEC);
	ret = fd < 0 ? -errno : write_all(fd, &hdr, CRC_FROM);
	if (!ret)
		ret = put_parts(fd, &hdr, parts, &crc);
	/* A file that a power failure cuts has another checksum. */
	if (fd >= 0 && close(fd) && !ret)
		ret = -errno;
	if (!ret && rename(tmp, name))
		ret = -errno;
	if (ret) {
		qc2_fail(err, -ret, "%s: %s", name, strerror(-ret));
		if (fd >= 0)
			unlink(tmp);
	}
	free(tmp);
	free(name);
	/* Behind those of the links. */
	if (parts->index)
		trim_dir(dir);
	return ret;
}

/*
 * ---------------------------------------------------------------------------
 * Reading
 * ---------------------------------------------------------------------------
 */

/* A file in memory. */
struct file {
	const char *name;
	const uint8_t *map;
	size_t len;
	const struct header *hdr;
	struct layout at;
	struct qc2_err *err;
};

static int bad(const struct file *f, const char *what)
{
	return qc2_fail(f->err, EBADMSG,
		"%s: damaged, or not of this version: %s; it is read anew from the images",
		f->name, what);
}

static int check_header(struct file *f, const uint8_t *id, bool chain,
			const struct qc2_index_parts *parts)
{
	const struct header *hdr = (const struct header *)f->map;

	f->hdr = hdr;
	if (f->len < sizeof(*hdr) || memcmp(hdr->magic, MAGIC, sizeof(hdr->magic)) ||
	    hdr->version != VERSION)
		return bad(f, "its header");
	if (hdr->len != f->len || hdr->nr_extents > QC2_MAX_EXTENTS ||
	    hdr->nr_lists > parts->nr_links || hdr->nr_packed > f->len / 16 ||
	    hdr->nr_dir > f->len / 4)
		return bad(f, "its length");
	lay_out(hdr, &f->at);
	if (f->at.end != f->len)
		return bad(f, "its length");
	if (qc2_crc32c(0, f->map + CRC_FROM, f->len - CRC_FROM) != hdr->crc)
		return bad(f, "its checksum");
	if (memcmp(hdr->id, id, sizeof(hdr->id)) || chain != !!hdr->nr_dir ||
	    hdr->nr_sectors != parts->nr_sectors)
		return bad(f, "it is of something else");
	return 0;
}

static int check_extents(const struct file *f, size_t nr_links)
{
	const struct qc2_extent *ext =
		(const struct qc2_extent *)(f->map + f->at.extents);
	uint64_t end = 0;
	size_t i;

	for (i = 0; i < f->hdr->nr_extents; i++, ext++) {
		if (!ext->nr_sectors || ext->sector < end ||
		    ext->sector > f->hdr->nr_sectors ||
		    ext->nr_sectors > f->hdr->nr_sectors - ext->sector)
			return bad(f, "the order of its extents");
		if (ext->object == QC2_OBJECT_ZERO ? f->hdr->nr_dir != 0 :
		    qc2_object_link(ext->object) >= nr_links)
			return bad(f, "the object of an extent");
		if (ext->offset % 512 ||
		    ext->offset > INT64_MAX - ext->nr_sectors * 512ULL)
			return bad(f, "the offset of an extent");
		end = ext->sector + ext->nr_sectors;
	}
	return 0;
}

/* In the order of the list by object. */
static bool is_before(const struct qc2_extent *a, const struct qc2_extent *b)
{
	if (a->object != b->object)
		return a->object < b->object;
	return a->offset != b->offset ? a->offset < b->offset : a->sector < b->sector;
}

static int check_index(const struct file *f)
{
	const struct qc2_extent *v = (const struct qc2_extent *)(f->map + f->at.extents);
	const uint32_t *by_object = (const uint32_t *)(f->map + f->at.by_object);
	const uint32_t *dir = (const uint32_t *)(f->map + f->at.dir);
	const struct header *hdr = f->hdr;
	uint64_t i, d;

	for (i = 0; i < hdr->nr_extents; i++)
		if (by_object[i] >= hdr->nr_extents ||
		    (i && !is_before(&v[by_object[i - 1]], &v[by_object[i]])))
			return bad(f, "its list by object");
	if (hdr->dir_shift > 63 || hdr->nr_sectors > QC2_QCOW2_MAX_SIZE / 512 ||
	    hdr->nr_dir != (hdr->nr_sectors >> hdr->dir_shift) + 2)
		return bad(f, "its directory");
	for (i = 0, d = 0; d < hdr->nr_dir; d++) {
		while (i < hdr->nr_extents &&
		       v[i].sector + v[i].nr_sectors <= d << hdr->dir_shift)
			i++;
		if (dir[d] != i)
			return bad(f, "its directory");
	}
	return 0;
}

static int load_list(const struct file *f, const struct list *list, uint64_t first,
		     struct qc2_packed **packed)
{
	const struct qc2_packed_cluster *v =
		(const struct qc2_packed_cluster *)(f->map + f->at.packed) + first;
	uint64_t i;
	int ret;

	if (list->cluster_bits < 9 || list->cluster_bits > 21 ||
	    list->compression > QC2_COMPRESSION_ZSTD ||
	    list->nr > f->hdr->nr_packed - first)
		return bad(f, "its compressed clusters");
	*packed = qc2_packed_new(list->cluster_bits, list->compression);
	if (!*packed)
		return qc2_fail(f->err, ENOMEM, "out of memory");
	for (i = 0; i < list->nr; i++) {
		if (i && v[i].cluster <= v[i - 1].cluster)
			return bad(f, "the order of its compressed clusters");
		if (!v[i].len || v[i].len > 2U << list->cluster_bits ||
		    v[i].offset > (uint64_t)INT64_MAX - v[i].len)
			return bad(f, "a compressed cluster");
		ret = qc2_packed_add(*packed, v[i].offset, v[i].cluster, v[i].len);
		if (ret)
			return qc2_fail(f->err, -ret, "out of memory");
	}
	return 0;
}

static int load_lists(const struct file *f, struct qc2_index_parts *parts)
{
	const struct list *lists = (const struct list *)(f->map + f->at.lists);
	uint64_t first = 0;
	uint32_t i;
	int ret;

	for (i = 0; i < f->hdr->nr_lists; i++) {
		if (lists[i].link >= parts->nr_links || parts->packed[lists[i].link])
			return bad(f, "its compressed clusters");
		ret = load_list(f, &lists[i], first, &parts->packed[lists[i].link]);
		if (ret)
			return ret;
		first += lists[i].nr;
	}
	return 0;
}

/* Extents of compressed clusters need a list of these. */
static int check_unpacked(const struct file *f, const struct qc2_index_parts *parts)
{
	const struct qc2_extent *ext =
		(const struct qc2_extent *)(f->map + f->at.extents);
	uint64_t i;

	for (i = 0; i < f->hdr->nr_extents; i++, ext++)
		if (ext->object != QC2_OBJECT_ZERO &&
		    qc2_object_is_unpacked(ext->object) &&
		    !parts->packed[qc2_object_link(ext->object)])
			return bad(f, "the object of an extent");
	return 0;
}

static int load_extents(const struct file *f, struct qc2_extents *list)
{
	size_t nr = f->hdr->nr_extents;

	list->v = calloc(nr ? nr : 1, sizeof(*list->v));
	if (!list->v)
		return qc2_fail(f->err, ENOMEM, "out of memory");
	memcpy(list->v, f->map + f->at.extents, nr * sizeof(*list->v));
	list->nr = nr;
	list->alloc = nr ? nr : 1;
	return 0;
}

/* The index is in the map, which belongs to it from now on. */
static int map_index(const struct file *f, struct qc2_index **idxp)
{
	struct qc2_index *idx = calloc(1, sizeof(*idx));

	if (!idx)
		return qc2_fail(f->err, ENOMEM, "out of memory");
	idx->map = (void *)f->map;
	idx->map_len = f->len;
	idx->extents = (struct qc2_extent *)(f->map + f->at.extents);
	idx->by_object = (uint32_t *)(f->map + f->at.by_object);
	idx->dir = (uint32_t *)(f->map + f->at.dir);
	idx->nr_extents = f->hdr->nr_extents;
	idx->nr_by_object = f->hdr->nr_extents;
	idx->nr_sectors = f->hdr->nr_sectors;
	idx->dir_shift = f->hdr->dir_shift;
	*idxp = idx;
	return 0;
}

static int load(struct file *f, const uint8_t *id, bool chain,
		struct qc2_index_parts *parts)
{
	size_t i;
	int ret;

	ret = check_header(f, id, chain, parts);
	if (!ret)
		ret = check_extents(f, parts->nr_links);
	if (!ret && chain)
		ret = check_index(f);
	if (!ret)
		ret = load_lists(f, parts);
	if (!ret)
		ret = check_unpacked(f, parts);
	if (!ret)
		ret = chain ? map_index(f, &parts->index) :
			      load_extents(f, &parts->list);
	for (i = 0; ret && i < parts->nr_links; i++) {
		qc2_packed_put(parts->packed[i]);
		parts->packed[i] = NULL;
	}
	return ret;
}

int qc2_index_file_load(const char *dir, const uint8_t id[QC2_CHAIN_ID_LEN], bool chain,
			struct qc2_index_parts *parts, struct qc2_err *err)
{
	char *name = file_name(dir, id, chain);
	struct file f = { .name = name, .err = err };
	struct stat st;
	void *map;
	int fd, ret;

	if (!name)
		return qc2_fail(err, ENOMEM, "out of memory");
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		ret = qc2_fail(err, errno, "%s: %s", name, strerror(errno));
		goto out;
	}
	f.len = st.st_size;
	map = f.len < sizeof(struct header) ? MAP_FAILED :
		mmap(NULL, f.len, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		ret = bad(&f, "it cannot be mapped");
		goto out;
	}
	f.map = map;
	ret = load(&f, id, chain, parts);
	if (ret || !chain)
		munmap(map, f.len);
	/* What is used is not the oldest. */
	if (!ret)
		futimens(fd, NULL);
out:
	if (fd >= 0)
		close(fd);
	free(name);
	return ret;
}

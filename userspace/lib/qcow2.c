/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The qcow2 reader.  Where the format leaves a choice to readers (reserved
 * bits, data behind the end of the file) it does what QEMU does.  Without
 * state of its own; an image is used by one thread at a time.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2_format.h"

#define QCOW2_MAGIC		0x514649fb	/* "QFI\xfb" */

#define MAX_BACKING_NAME	1023

#define INCOMPAT_DIRTY		(1ULL << 0)
#define INCOMPAT_CORRUPT	(1ULL << 1)
#define INCOMPAT_DATA_FILE	(1ULL << 2)
#define INCOMPAT_COMPRESSION	(1ULL << 3)
#define INCOMPAT_EXTENDED_L2	(1ULL << 4)

#define EXT_END			0x00000000
#define EXT_BACKING_FORMAT	0xe2792aca
#define EXT_FEATURE_NAMES	0x6803f857
#define EXT_DATA_FILE		0x44415441

struct qcow2_header {
	uint32_t magic;
	uint32_t version;
	uint64_t backing_offset;
	uint32_t backing_len;
	uint32_t cluster_bits;
	uint64_t size;
	uint32_t crypt_method;
	uint32_t l1_size;
	uint64_t l1_offset;
	uint64_t refcount_table_offset;
	uint32_t refcount_table_clusters;
	uint32_t nb_snapshots;
	uint64_t snapshots_offset;
	/* version 3 */
	uint64_t incompat;
	uint64_t compat;
	uint64_t autoclear;
	uint32_t refcount_order;
	uint32_t header_length;
	uint8_t compression_type;	/* if header_length says so */
} __attribute__((packed));

#define V2_HEADER_LENGTH	72
#define V3_HEADER_LENGTH	104

struct qcow2_ext {
	uint32_t type;
	uint32_t len;
} __attribute__((packed));

struct qcow2_feature_name {
	uint8_t type;			/* 0: incompatible */
	uint8_t bit;
	char name[46];
} __attribute__((packed));

/* What the header extensions say; pointers go into the head. */
struct extensions {
	const char *backing_format;
	size_t backing_format_len;
	const struct qcow2_feature_name *names;
	size_t nr_names;
	const char *data_file;
	size_t data_file_len;
};

static const char *url_of(const struct qc2_qcow2 *img)
{
	return img->src->url;
}

int qcow2_fail_truncated(const struct qc2_qcow2 *img, struct qc2_err *err,
			 const char *what, uint64_t offset, uint64_t len)
{
	return qc2_fail(err, EINVAL,
		"%s: truncated: %s at offset %" PRIu64 " (%" PRIu64 " bytes) is behind the end of the file, which has %" PRIu64 " bytes; copy the image again",
		url_of(img), what, offset, len, img->src->size);
}

const uint8_t *qcow2_peek(const struct qc2_qcow2 *img, uint64_t offset,
			  size_t len)
{
	uint64_t at = offset - img->tables_offset;

	if (len <= img->head_len && offset <= img->head_len - len)
		return img->head + offset;
	if (offset >= img->tables_offset && len <= img->tables_len &&
	    at <= img->tables_len - len)
		return img->tables + at;
	return NULL;
}

int qcow2_read(struct qc2_qcow2 *img, const char *what, uint64_t offset,
	       void *buf, size_t len, struct qc2_err *err)
{
	const uint8_t *data;

	if (len > img->src->size || offset > img->src->size - len)
		return qcow2_fail_truncated(img, err, what, offset, len);
	data = qcow2_peek(img, offset, len);
	if (data) {
		memcpy(buf, data, len);
		return 0;
	}
	return img->src->ops->read(img->src, offset, buf, len, err);
}

int qcow2_read_ahead(struct qc2_qcow2 *img, uint64_t offset, uint64_t len,
		     struct qc2_err *err)
{
	uint64_t size = img->src->size;
	int ret;

	free(img->tables);
	img->tables = NULL;
	img->tables_len = 0;
	if (offset >= size)
		return 0;
	if (len > size - offset)
		len = size - offset;
	img->tables = malloc(len);
	if (!img->tables)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = img->src->ops->read(img->src, offset, img->tables, len, err);
	if (!ret) {
		img->tables_offset = offset;
		img->tables_len = len;
	}
	return ret;
}

/* Extensions lie between the header and the backing file name. */
static int parse_extensions(struct qc2_qcow2 *img, uint64_t offset,
			    uint64_t end, struct extensions *exts,
			    struct qc2_err *err)
{
	struct qcow2_ext ext;

	memset(exts, 0, sizeof(*exts));
	if (end > img->head_len)
		end = img->head_len;
	while (offset < end) {
		if (end - offset < sizeof(ext))
			break;
		memcpy(&ext, img->head + offset, sizeof(ext));
		ext.type = be32toh(ext.type);
		ext.len = be32toh(ext.len);
		offset += sizeof(ext);
		if (ext.type == EXT_END)
			return 0;
		if (ext.len > end - offset)
			return qc2_fail(err, EINVAL,
				"%s: header extension 0x%08" PRIx32 " at offset %" PRIu64 " claims %" PRIu32 " bytes, %" PRIu64 " are left",
				url_of(img), ext.type, offset - sizeof(ext),
				ext.len, end - offset);
		switch (ext.type) {
		case EXT_BACKING_FORMAT:
			exts->backing_format = (char *)img->head + offset;
			exts->backing_format_len = ext.len;
			break;
		case EXT_FEATURE_NAMES:
			exts->names = (void *)(img->head + offset);
			exts->nr_names = ext.len / sizeof(*exts->names);
			break;
		case EXT_DATA_FILE:
			exts->data_file = (char *)img->head + offset;
			exts->data_file_len = ext.len;
			break;
		}
		offset += ((uint64_t)ext.len + 7) & ~7ULL;
	}
	return 0;
}

static int check_incompat(struct qc2_qcow2 *img, uint64_t incompat,
			  const struct extensions *exts, struct qc2_err *err)
{
	char list[256] = "", one[64];
	unsigned int bit;
	size_t i, len;

	if (incompat & INCOMPAT_CORRUPT)
		return qc2_fail(err, EINVAL,
			"%s: the image is marked corrupt; repair a copy of it with qemu-img check -r all",
			url_of(img));
	incompat &= ~(INCOMPAT_DIRTY | INCOMPAT_DATA_FILE | INCOMPAT_COMPRESSION |
		      INCOMPAT_EXTENDED_L2);
	if (!incompat)
		return 0;
	for (bit = 0; bit < 64; bit++) {
		if (!(incompat >> bit & 1))
			continue;
		snprintf(one, sizeof(one), "bit %u", bit);
		for (i = 0; i < exts->nr_names; i++)
			if (exts->names[i].type == 0 &&
			    exts->names[i].bit == bit)
				qc2_printable(exts->names[i].name,
					      sizeof(exts->names[i].name),
					      one, sizeof(one));
		len = strlen(list);
		snprintf(list + len, sizeof(list) - len, "%s%s",
			 len ? ", " : "", one);
	}
	return qc2_fail(err, EOPNOTSUPP,
		"%s: needs features of qcow2 that this version cannot read: %s",
		url_of(img), list);
}

static int parse_backing(struct qc2_qcow2 *img, const struct qcow2_header *hdr,
			 const struct extensions *exts, struct qc2_err *err)
{
	uint64_t end = qcow2_cluster_size(img);
	char shown[300], format[40];

	if (!hdr->backing_offset || !hdr->backing_len)
		return 0;
	if (hdr->backing_offset > end)
		return qc2_fail(err, EINVAL,
			"%s: the backing file name is at offset %" PRIu64 ", outside the first cluster of %" PRIu64 " bytes",
			url_of(img), hdr->backing_offset, end);
	if (hdr->backing_len > MAX_BACKING_NAME ||
	    hdr->backing_len > end - hdr->backing_offset)
		return qc2_fail(err, EINVAL,
			"%s: the backing file name is %" PRIu32 " bytes long; it may have %d and must end in the first cluster",
			url_of(img), hdr->backing_len, MAX_BACKING_NAME);
	if (hdr->backing_offset + hdr->backing_len > img->head_len)
		return qcow2_fail_truncated(img, err, "backing file name",
				      hdr->backing_offset, hdr->backing_len);

	img->backing_name = strndup((char *)img->head + hdr->backing_offset,
				    hdr->backing_len);
	if (!img->backing_name)
		return qc2_fail(err, ENOMEM, "out of memory");
	if (strlen(img->backing_name) != hdr->backing_len)
		return qc2_fail(err, EINVAL,
			"%s: NUL byte in the backing file name", url_of(img));

	if (!exts->backing_format_len) {
		/*
		 * Never looked at to find out: a guest could have written a
		 * qcow2 header into a raw image.
		 */
		qc2_printable(img->backing_name, hdr->backing_len, shown,
			      sizeof(shown));
		return qc2_fail(err, EINVAL,
			"%s: the header does not say which format the backing file '%s' has; write it into the image: qemu-img rebase -u -F qcow2 -b '%s' IMAGE (or -F raw, if it is raw)",
			url_of(img), shown, shown);
	}
	qc2_printable(exts->backing_format, exts->backing_format_len, format,
		      sizeof(format));
	img->backing_raw = !strcmp(format, "raw");
	if (!img->backing_raw && strcmp(format, "qcow2"))
		return qc2_fail(err, EOPNOTSUPP,
			"%s: the backing file has the format '%s'; only qcow2 and raw can be read",
			url_of(img), format);
	return 0;
}

int qcow2_set_l1(struct qc2_qcow2 *img, uint64_t virtual_size, uint64_t offset,
		 uint32_t entries, struct qc2_err *err)
{
	uint64_t len = (uint64_t)entries * 8;

	if (virtual_size > QC2_QCOW2_MAX_SIZE)
		return qc2_fail(err, EFBIG,
			"%s: virtual size %" PRIu64 " is larger than the 64 TiB that can be read",
			url_of(img), virtual_size);
	if (len > QCOW2_MAX_L1_BYTES)
		return qc2_fail(err, EFBIG,
			"%s: the L1 table has %" PRIu32 " entries; at most %d are possible",
			url_of(img), entries, QCOW2_MAX_L1_BYTES / 8);
	if (entries < qcow2_l1_needed(img, virtual_size))
		return qc2_fail(err, EINVAL,
			"%s: the L1 table has %" PRIu32 " entries, too few for a virtual size of %" PRIu64 " bytes",
			url_of(img), entries, virtual_size);
	if (offset & (qcow2_cluster_size(img) - 1))
		return qc2_fail(err, EINVAL,
			"%s: the offset of the L1 table, %" PRIu64 ", is not a multiple of the cluster size",
			url_of(img), offset);
	if (len > img->src->size || offset > img->src->size - len)
		return qcow2_fail_truncated(img, err, "L1 table", offset, len);
	img->virtual_size = virtual_size;
	img->l1_offset = offset;
	return 0;
}

/* The data of the image is in another file; it is raw. */
static int parse_data_file(struct qc2_qcow2 *img, const struct extensions *exts,
			   struct qc2_err *err)
{
	if (!exts->data_file_len)
		return qc2_fail(err, EINVAL,
			"%s: its data is in an external data file, but the header does not name it; write the name into the image: qemu-img amend -o data_file=NAME IMAGE",
			url_of(img));
	if (exts->data_file_len > MAX_BACKING_NAME ||
	    memchr(exts->data_file, 0, exts->data_file_len))
		return qc2_fail(err, EINVAL,
			"%s: the name of the external data file is %zu bytes long or has a NUL byte; it may have %d",
			url_of(img), exts->data_file_len, MAX_BACKING_NAME);
	img->data_name = strndup(exts->data_file, exts->data_file_len);
	return img->data_name ? 0 : qc2_fail(err, ENOMEM, "out of memory");
}

/* What the incompatible features say about how the image is read. */
static int parse_features(struct qc2_qcow2 *img, const struct qcow2_header *hdr,
			  const struct extensions *exts, struct qc2_err *err)
{
	int ret = check_incompat(img, hdr->incompat, exts, err);

	if (ret)
		return ret;
	img->extended_l2 = hdr->incompat & INCOMPAT_EXTENDED_L2;
	if (img->extended_l2 && img->cluster_bits < 14)
		return qc2_fail(err, EINVAL,
			"%s: extended L2 entries with clusters of %" PRIu64 " bytes; at least 16384 are needed",
			url_of(img), qcow2_cluster_size(img));
	if (hdr->compression_type > QC2_COMPRESSION_ZSTD)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: compression type %u; only 0 (zlib) and 1 (zstd) can be read",
			url_of(img), hdr->compression_type);
	if (!hdr->compression_type != !(hdr->incompat & INCOMPAT_COMPRESSION))
		return qc2_fail(err, EINVAL,
			"%s: damaged: compression type %u does not go with the incompatible features 0x%" PRIx64,
			url_of(img), hdr->compression_type, hdr->incompat);
	img->compression = hdr->compression_type;
	if (hdr->incompat & INCOMPAT_DATA_FILE)
		return parse_data_file(img, exts, err);
	return 0;
}

static int parse_header(struct qc2_qcow2 *img, struct qc2_err *err)
{
	struct qcow2_header hdr = { 0 };
	struct extensions exts;
	uint64_t ext_end;
	size_t len = V2_HEADER_LENGTH;
	int ret;

	if (img->head_len < 8 ||
	    (memcpy(&hdr, img->head, 8), be32toh(hdr.magic) != QCOW2_MAGIC))
		return qc2_fail(err, EINVAL,
			"%s: not a qcow2 image (a raw image is named with #format=raw behind the URL, or with qemu-img rebase -u -F raw as a backing file)",
			url_of(img));
	img->version = be32toh(hdr.version);
	if (img->version != 2 && img->version != 3)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: qcow2 version %u; only 2 and 3 can be read",
			url_of(img), img->version);
	if (img->version == 3)
		len = V3_HEADER_LENGTH;
	if (img->head_len < len)
		return qcow2_fail_truncated(img, err, "header", 0, len);
	memcpy(&hdr, img->head, len);

	hdr.backing_offset = be64toh(hdr.backing_offset);
	hdr.backing_len = be32toh(hdr.backing_len);
	hdr.cluster_bits = be32toh(hdr.cluster_bits);
	hdr.size = be64toh(hdr.size);
	hdr.crypt_method = be32toh(hdr.crypt_method);
	hdr.l1_size = be32toh(hdr.l1_size);
	hdr.l1_offset = be64toh(hdr.l1_offset);
	hdr.nb_snapshots = be32toh(hdr.nb_snapshots);
	hdr.snapshots_offset = be64toh(hdr.snapshots_offset);
	hdr.incompat = be64toh(hdr.incompat);
	hdr.header_length = be32toh(hdr.header_length);
	if (img->version == 2)
		hdr.header_length = V2_HEADER_LENGTH;

	if (hdr.cluster_bits < 9 || hdr.cluster_bits > 21)
		return qc2_fail(err, EINVAL,
			"%s: clusters of 2^%" PRIu32 " bytes; 512 bytes to 2 MiB are possible",
			url_of(img), hdr.cluster_bits);
	img->cluster_bits = hdr.cluster_bits;
	if (hdr.header_length < len || hdr.header_length > qcow2_cluster_size(img))
		return qc2_fail(err, EINVAL,
			"%s: header length %" PRIu32 "; it is %zu at least and %" PRIu64 " (the cluster size) at most",
			url_of(img), hdr.header_length, len, qcow2_cluster_size(img));
	if (hdr.header_length > img->head_len)
		return qcow2_fail_truncated(img, err, "header", 0,
				      hdr.header_length);
	if (hdr.header_length >= sizeof(hdr))
		hdr.compression_type = img->head[V3_HEADER_LENGTH];

	ext_end = qcow2_cluster_size(img);
	if (hdr.backing_offset && hdr.backing_offset < ext_end)
		ext_end = hdr.backing_offset;
	ret = parse_extensions(img, hdr.header_length, ext_end, &exts, err);
	if (ret)
		return ret;
	if (hdr.crypt_method)
		return qc2_fail(err, EOPNOTSUPP,
			"%s: encrypted (%s), which cannot be read; decrypt a copy of it with qemu-img convert",
			url_of(img), hdr.crypt_method == 1 ? "AES" :
			hdr.crypt_method == 2 ? "LUKS" : "unknown method");
	ret = parse_features(img, &hdr, &exts, err);
	if (ret)
		return ret;
	/* QEMU takes no notice of an incomplete last sector. */
	ret = qcow2_set_l1(img, hdr.size & ~511ULL, hdr.l1_offset, hdr.l1_size,
			   err);
	if (ret)
		return ret;
	img->snapshots_offset = hdr.snapshots_offset;
	img->nr_snapshots = hdr.nb_snapshots;
	return parse_backing(img, &hdr, &exts, err);
}

int qc2_qcow2_open(struct qc2_source *src, struct qc2_qcow2 **imgp,
		   struct qc2_err *err)
{
	struct qc2_qcow2 *img = calloc(1, sizeof(*img));
	int ret;

	if (!img)
		return qc2_fail(err, ENOMEM, "out of memory");
	pthread_mutex_init(&img->l1_lock, NULL);
	img->src = src;
	img->head_len = src->size < QC2_HEAD_BYTES ? src->size : QC2_HEAD_BYTES;
	img->head = malloc(img->head_len ? img->head_len : 1);
	if (!img->head)
		ret = qc2_fail(err, ENOMEM, "out of memory");
	else if (img->head_len)
		ret = src->ops->read(src, 0, img->head, img->head_len, err);
	else
		ret = qc2_fail(err, EINVAL, "%s: the file is empty", src->url);
	if (!ret)
		ret = parse_header(img, err);
	if (ret) {
		qc2_qcow2_close(img);
		return ret;
	}
	*imgp = img;
	return 0;
}

void qc2_qcow2_close(struct qc2_qcow2 *img)
{
	if (!img)
		return;
	free(img->head);
	free(img->tables);
	free(img->l2);
	free(img->backing_name);
	free(img->data_name);
	pthread_mutex_destroy(&img->l1_lock);
	free(img);
}


/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Manifests as they are on disk, for manifest.c and manifest_write.c; all numbers
 * are little-endian.  docs/manifest-format.md says what they mean.
 */
#ifndef QC2_MANIFEST_FORMAT_H
#define QC2_MANIFEST_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define MANIFEST_MAGIC		"QC2CHMAN"
#define MANIFEST_VERSION	1

struct manifest_header {
	uint8_t magic[8];
	uint32_t version;
	uint32_t checksum;	/* of the header with its table, this field being 0 */
	uint64_t compat;
	uint64_t length;
	uint32_t header_len;
	uint32_t nr_sections;
	uint8_t reserved[24];
};

struct manifest_section {
	uint32_t type;
	uint32_t flags;
	uint64_t offset;
	uint64_t stored;
	uint64_t unpacked;
	uint32_t crc;
	uint32_t reserved;
};

#define MANIFEST_ZSTD		1U	/* flag of a section */

/* A section unpacks to that much, or to a multiple of its stored length. */
#define MANIFEST_UNPACKED_MIN	(16ULL << 20)
#define MANIFEST_UNPACKED_RATIO	1024

/* Types of sections: "LINK" and so on as they are read in a dump. */
#define MANIFEST_TYPE(a, b, c, d) \
	((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

static const uint32_t manifest_types[] = {
	MANIFEST_TYPE('L', 'I', 'N', 'K'),
	MANIFEST_TYPE('E', 'X', 'T', 'S'),
	MANIFEST_TYPE('P', 'A', 'C', 'K'),
	MANIFEST_TYPE('D', 'R', 'U', 'N'),
	MANIFEST_TYPE('D', 'I', 'G', 'S'),
};

static const char *const manifest_names[] = {
	"LINK", "EXTS", "PACK", "DRUN", "DIGS",
};

/* Before the records of the links; their strings follow these. */
struct manifest_links {
	uint32_t nr_links;
	uint32_t reserved;
};

struct manifest_link {
	uint64_t size;
	uint64_t virtual_size;
	uint64_t data_size;
	uint32_t cluster_bits;		/* 0: raw */
	uint32_t compression;
	uint32_t nr_packed;
	uint32_t name_len;		/* of strings, without a NUL */
	uint32_t version_len;
	uint32_t data_name_len;		/* 0: no external data file */
	uint32_t data_version_len;
	uint32_t reserved;
	uint8_t sha256[32];		/* of the file; zeros: not known */
};

_Static_assert(sizeof(struct manifest_header) == 64, "header");
_Static_assert(sizeof(struct manifest_section) == 40, "section");
_Static_assert(sizeof(struct manifest_link) == 88, "link");

#define MANIFEST_MAX_SECTIONS	100
#define MANIFEST_MAX_VERSION	512	/* length of a version */

/* Bytes of all columns for one extent, one packed cluster, one run of digests. */
#define MANIFEST_EXTENT_LEN	(8 + 4 + 4 + 8)
#define MANIFEST_PACKED_LEN	(4 + 4 + 8)
#define MANIFEST_RUN_LEN	(4 + 4 + 4)

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A chain: the links from the top image to the base, and the merged index
 * over them.  Opening takes the chain from a manifest beside the top image, or walks
 * it: first the headers of all links, then their tables.  A chain that is complete
 * does not change any more.
 *
 * The index leads to objects, two for each link: its data, which is in the
 * image itself or in its external data file, and its compressed clusters, as
 * they are when unpacked, at their offset on the link's own virtual disk.
 */
#ifndef QC2_CHAIN_H
#define QC2_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/dm-qcow2chain.h>

#include "err.h"
#include "index.h"
#include "packed.h"
#include "source.h"

/* Numbers of objects. */
static inline uint32_t qc2_object_data(uint32_t link)
{
	return 2 * link;
}

static inline uint32_t qc2_object_unpacked(uint32_t link)
{
	return 2 * link + 1;
}

static inline bool qc2_object_is_unpacked(uint32_t object)
{
	return object & 1;
}

static inline uint32_t qc2_object_link(uint32_t object)
{
	return object / 2;
}

struct qc2_link {
	char *url;		/* canonical; see url.h */
	char *version;		/* ETag or equivalent at the time of opening */
	uint64_t size;		/* of the image file, bytes */
	uint64_t virtual_size;	/* bytes */
	uint32_t cluster_size;	/* bytes; 0 for raw */
	/* Known when the chain is complete: */
	uint64_t live_sectors;	/* that the index takes from this link */
	struct qc2_packed *packed;	/* NULL: no compressed clusters */
	char *data_url;		/* external data file; NULL: none */
	char *data_version;
	uint64_t data_size;
};

struct qc2_manifest_origin;

struct qc2_chain {
	unsigned int refs;	/* changed atomically */
	uint64_t nr_sectors;	/* size of the virtual disk */
	struct qc2_link *links;	/* 0 is the top */
	size_t nr_links;
	char *snapshot;		/* of the top that the chain begins with; or NULL */
	bool from_manifest;	/* and not by a walk; see manifest.h */
	struct qc2_manifest_origin *manifest;	/* which one, if it is an object; or NULL */
	char *manifest_trouble;	/* why a manifest that is there was not used; or NULL */
	struct qc2_index *index;	/* NULL: not complete yet */
	/*
	 * Identity of the content: the first bytes of the SHA-256 of
	 * "URL\0FORMAT\0SIZE\0VERSION\0" of every link from the top: its
	 * canonical URL, "qcow2" or "raw", its size in decimal digits, its
	 * version.  The same with "data" follows for an external data file;
	 * "qcow2#snapshot=NAME" is the format of an internal snapshot.  A tip
	 * is bound to it.
	 */
	uint8_t id[QC2_CHAIN_ID_LEN];
};

struct qc2_chain_limits {
	unsigned int max_depth;
	/*
	 * Canonical URL prefixes (qc2_url_prefix()) a backing or data file may
	 * lie under besides the top's folder.
	 */
	const char *const *allow;
	size_t nr_allow;
	/* Folder of index files, see index_file.h; NULL: neither read nor written. */
	const char *index_dir;
	bool reread;		/* index files are written, not read */
	bool no_manifest;	/* walk, even if there is one */
};

/**
 * qc2_chain_open() - take a chain from its manifest, or walk and merge it
 * @opener: opens the links
 * @url: the top image, see qc2_url_top()
 *
 * A raw image whose size is not a multiple of 512 goes on with zeros to the
 * next sector, as in QEMU.
 *
 * Errors name the link.  The caller puts the chain with qc2_chain_put().
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_chain_open(struct qc2_opener *opener, const char *url,
		   const struct qc2_chain_limits *limits,
		   struct qc2_chain **chain, struct qc2_err *err);

struct qc2_chain *qc2_chain_ref(struct qc2_chain *chain);
/* NULL is fine. */
void qc2_chain_put(struct qc2_chain *chain);

/*
 * For who makes a chain in another way than by walking it: its id, from all links; and
 * the index, which is taken over, with which the chain is complete.
 */
int qc2_chain_identify(struct qc2_chain *chain, struct qc2_err *err);
void qc2_chain_complete(struct qc2_chain *chain, struct qc2_index *index);

/*
 * The same in steps, for who wants to use a chain before all of its tables were
 * read.
 */
struct qc2_walk;

/**
 * qc2_walk_new() - read the headers of all links, or a manifest
 * @opener: must stay, as must @limits, until qc2_walk_free()
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_walk_new(struct qc2_opener *opener, const char *url,
		 const struct qc2_chain_limits *limits, struct qc2_walk **walk,
		 struct qc2_err *err);

/*
 * The chain, without its index, or complete if there is a manifest or an index file of
 * it; the walk keeps its reference.
 */
struct qc2_chain *qc2_walk_chain(struct qc2_walk *walk);

/**
 * qc2_walk_window() - index a part of the disk
 * @from: first sector
 * @to: sector behind it, both multiples of 2 MiB or the end of the disk
 * @index: knows of these sectors only; NULL if compressed clusters are among them,
 *	which need lists of whole images
 *
 * Any thread; several windows, and qc2_walk_read(), may run at once.
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_walk_window(struct qc2_walk *walk, uint64_t from, uint64_t to,
		    struct qc2_index **index, struct qc2_err *err);

/*
 * Reads all tables, once, and writes index files, as far as that is possible.  Any
 * thread.  0 or a negative errno with @err filled.
 */
int qc2_walk_read(struct qc2_walk *walk, struct qc2_err *err);

/* After that: makes the chain complete.  While nobody else uses the chain. */
void qc2_walk_complete(struct qc2_walk *walk);

void qc2_walk_free(struct qc2_walk *walk);

#endif

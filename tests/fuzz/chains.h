/* SPDX-License-Identifier: GPL-2.0 */
/* What holds for every chain, however it was opened. */
#ifndef QC2_FUZZ_CHAINS_H
#define QC2_FUZZ_CHAINS_H

#include "chain.h"
#include "images.h"
#include "url.h"

static inline void check_object(const struct qc2_chain *chain,
			 const struct qc2_extent *ext)
{
	uint32_t number = qc2_object_link(ext->object);
	const struct qc2_link *link = &chain->links[number];

	assert(number < chain->nr_links);
	if (ext->object == qc2_object_unpacked(number))
		check_unpacked(ext, link->packed);
	else
		check_in_file(ext, link->data_url ? link->data_size : link->size);
	/* What is behind the end of a link above is not seen. */
	for (uint32_t i = 0; i <= number; i++)
		assert(ext->sector + ext->nr_sectors <=
		       chain->links[i].virtual_size / 512);
}

static inline void check_chain(const struct qc2_chain *chain,
			const struct qc2_chain_limits *limits)
{
	const struct qc2_index *idx = chain->index;
	uint64_t live = 0, sectors = 0;
	struct qc2_err err;
	size_t i;

	assert(chain->nr_links && chain->nr_links <= limits->max_depth);
	assert(idx->nr_sectors &&
	       idx->nr_sectors == chain->links[0].virtual_size / 512);
	for (i = 0; i < chain->nr_links; i++) {
		const struct qc2_link *link = &chain->links[i];

		assert(!qc2_url_allowed(link->url, chain->links[0].url,
					limits->allow, limits->nr_allow, &err));
		assert(!link->data_url ||
		       !qc2_url_allowed(link->data_url, chain->links[0].url,
					limits->allow, limits->nr_allow, &err));
		check_packed(link->packed, link->size, link->virtual_size);
		live += link->live_sectors;
	}
	check_extents(idx->extents, idx->nr_extents, idx->nr_sectors);
	for (i = 0; i < idx->nr_extents; i++) {
		check_object(chain, &idx->extents[i]);
		sectors += idx->extents[i].nr_sectors;
	}
	assert(sectors == live);
}

#endif

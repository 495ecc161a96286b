/* SPDX-License-Identifier: GPL-2.0 */
/* Opening a chain through the manifest that lies beside its top image. */
#ifndef QC2_MANIFEST_OPEN_H
#define QC2_MANIFEST_OPEN_H

#include "chain.h"
#include "err.h"
#include "manifest.h"
#include "source.h"
#include "store.h"
#include "url.h"

/**
 * qc2_manifest_open() - open a top image, and its chain if a manifest has it
 * @src: the top image, to be closed by the caller
 * @chain: complete, to be put by the caller; NULL: it has to be walked
 * @trouble: why a manifest that is there cannot be used; NULL: there is none, or
 *	it was used.  The caller frees it.
 *
 * Return: 0; or a negative errno with @err filled if the top image itself cannot be
 * opened.
 */
int qc2_manifest_open(struct qc2_opener *opener, const struct qc2_top *top,
		      const struct qc2_chain_limits *limits,
		      struct qc2_source **src, struct qc2_chain **chain,
		      char **trouble, struct qc2_err *err);

/**
 * qc2_manifest_fetch_digests() - read the digests of a manifest that was used
 *
 * Return: 0 or a negative errno with @err filled: -ENOENT if it has none, -ESTALE if
 * the object is another one by now.
 */
int qc2_manifest_fetch_digests(struct qc2_store *store,
			       const struct qc2_manifest_origin *origin,
			       struct qc2_digests **digests, struct qc2_err *err);

#endif

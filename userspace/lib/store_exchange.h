/* SPDX-License-Identifier: GPL-2.0 */
/* One operation on an object, with retries; for store_ops.c and store_upload.c. */
#ifndef QC2_STORE_EXCHANGE_H
#define QC2_STORE_EXCHANGE_H

#include "store_type.h"

/**
 * qc2_exchange() - do an operation, and try again if that may help
 * @req: filled with the last request and its answer; qc2_request_free() is needed
 *	whatever this returns
 * @max: bytes of the answer's body, which @req->text gets; 0: it is not wanted
 * @repeated: there was an earlier try, which the store may have carried out
 *
 * Return: 0 or a negative errno with @err filled.
 */
int qc2_exchange(const struct qc2_store_config *cfg, const struct qc2_operation *op,
		 struct qc2_request *req, size_t max, bool *repeated, struct qc2_err *err);

/* What the answer says; NULL if it says nothing.  0, or -ENOMEM with @err filled. */
int qc2_answer_version(const struct qc2_request *req, char **version, struct qc2_err *err);

#endif

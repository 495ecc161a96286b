/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading what a chain holds, straight from the stores.  Any thread; several may read from
 * one chain at once.
 */
#ifndef QC2_CHAIN_READ_H
#define QC2_CHAIN_READ_H

#include <stddef.h>
#include <stdint.h>

#include "chain.h"
#include "err.h"

struct qc2_store;

/**
 * qc2_object_read() - a part of an object
 * @chain: complete
 * @object: number of one with data, or with compressed clusters, which are unpacked
 * @offset: first byte
 *
 * Behind the end of the object, and between compressed clusters, are zeros.
 *
 * Return: 0 or a negative errno with @err filled; -ESTALE if the object is another one than
 * that of the chain; -EBADMSG if a compressed cluster is damaged.
 */
int qc2_object_read(const struct qc2_chain *chain, struct qc2_store *store, uint32_t object,
		    uint64_t offset, void *buf, size_t len, struct qc2_err *err);

/**
 * qc2_chain_read() - a part of the virtual disk
 * @chain: complete
 * @sector: first sector
 * @nr_sectors: within the disk
 *
 * What lies together in an object is read at once.  Likewise.
 */
int qc2_chain_read(const struct qc2_chain *chain, struct qc2_store *store, uint64_t sector,
		   uint64_t nr_sectors, void *buf, struct qc2_err *err);

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * CRC-32C (Castagnoli), as the tip format and later formats use it.
 */
#ifndef QC2_CRC32C_H
#define QC2_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/**
 * qc2_crc32c() - checksum of some bytes
 * @crc: 0; or what the call for the bytes before returned
 *
 * Initial value and final xor are ~0.
 */
uint32_t qc2_crc32c(uint32_t crc, const void *data, size_t len);

#endif

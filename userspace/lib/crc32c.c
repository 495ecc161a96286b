/* SPDX-License-Identifier: GPL-2.0 */
/*
 * CRC-32C by a table that is made before main(), so that there is nothing to
 * lock.  Used for blocks of metadata; speed does not matter.
 */
#include "crc32c.h"

static uint32_t table[256];

__attribute__((constructor)) static void make_table(void)
{
	uint32_t i, crc;
	int bit;

	for (i = 0; i < 256; i++) {
		for (crc = i, bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
		table[i] = crc;
	}
}

uint32_t qc2_crc32c(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;

	crc = ~crc;
	while (len--)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
	return ~crc;
}

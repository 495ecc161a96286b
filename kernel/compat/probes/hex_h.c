// SPDX-License-Identifier: GPL-2.0
/* <linux/hex.h>, where hex2bin() moved to from <linux/kernel.h>: v6.4 */
#include <linux/hex.h>

int probe(u8 *dst, const char *src);
int probe(u8 *dst, const char *src)
{
	return hex2bin(dst, src, 1);
}

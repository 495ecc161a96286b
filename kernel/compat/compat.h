/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Differences between kernel series.  The code is written for the newest
 * kernel; what an older one lacks is supplied here.  Each QC2_HAVE_… comes
 * from a compile probe in probes/ (see the Kbuild file), never from a version
 * number: stable trees backport.  This folder is the only place with such
 * conditions.
 */
#ifndef QC2_COMPAT_H
#define QC2_COMPAT_H

#include <linux/blkdev.h>
#include <linux/srcu.h>

#ifdef QC2_HAVE_HEX_H
#include <linux/hex.h>
#endif

/* blk_mode_t instead of fmode_t for dm_get_device(): v6.5, 05bdb9965305 */
#ifndef BLK_OPEN_READ
#define BLK_OPEN_READ FMODE_READ
#endif

#ifndef QC2_HAVE_SRCU_DOWN_READ
static inline int srcu_down_read(struct srcu_struct *ssp) __acquires(ssp)
{
	return __srcu_read_lock(ssp);
}

static inline void srcu_up_read(struct srcu_struct *ssp, int idx) __releases(ssp)
{
	__srcu_read_unlock(ssp, idx);
}
#endif

#endif

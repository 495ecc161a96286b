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
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/srcu.h>

#ifdef QC2_HAVE_HEX_H
#include <linux/hex.h>
#endif

/* blk_mode_t instead of fmode_t for dm_get_device(): v6.5, 05bdb9965305 */
#ifndef BLK_OPEN_READ
#define BLK_OPEN_READ FMODE_READ
#define BLK_OPEN_WRITE FMODE_WRITE
#endif

/* The status of misaligned bios; v6.1 lacks it, v6.12 has it. */
#ifndef BLK_STS_INVAL
#define BLK_STS_INVAL BLK_STS_NOTSUPP
#endif

/*
 * Readers that end elsewhere than they began, by the cheapest means there is: two
 * memory barriers for each reader, or none.  The tokens are never 0.
 */
#ifdef QC2_HAVE_SRCU_FAST_UPDOWN
static inline int qc2_srcu_init(struct srcu_struct *ssp)
{
	return init_srcu_struct_fast_updown(ssp);
}

static inline unsigned long qc2_srcu_down_read(struct srcu_struct *ssp) __acquires(ssp)
{
	return (__force unsigned long)srcu_down_read_fast(ssp);
}

static inline void qc2_srcu_up_read(struct srcu_struct *ssp, unsigned long token)
	__releases(ssp)
{
	srcu_up_read_fast(ssp, (__force struct srcu_ctr __percpu *)token);
}
#else
#ifndef QC2_HAVE_SRCU_DOWN_READ
#define srcu_down_read __srcu_read_lock
#define srcu_up_read __srcu_read_unlock
#endif

static inline int qc2_srcu_init(struct srcu_struct *ssp)
{
	return init_srcu_struct(ssp);
}

static inline unsigned long qc2_srcu_down_read(struct srcu_struct *ssp) __acquires(ssp)
{
	return srcu_down_read(ssp) + 1;
}

static inline void qc2_srcu_up_read(struct srcu_struct *ssp, unsigned long token)
	__releases(ssp)
{
	srcu_up_read(ssp, token - 1);
}
#endif

/*
 * qc2_shrinker_add() - allocate and register a shrinker; NULL without memory.
 * shrinker_alloc(), and private_data in the structure: v6.7, c42d50aefd17
 */
#ifdef QC2_HAVE_SHRINKER_ALLOC
static inline struct shrinker *
qc2_shrinker_add(unsigned long (*count)(struct shrinker *shrinker, struct shrink_control *sc),
		 unsigned long (*scan)(struct shrinker *shrinker, struct shrink_control *sc),
		 void *data, const char *name)
{
	struct shrinker *shrinker = shrinker_alloc(0, "qcow2chain:%s", name);

	if (shrinker) {
		shrinker->count_objects = count;
		shrinker->scan_objects = scan;
		shrinker->private_data = data;
		shrinker_register(shrinker);
	}
	return shrinker;
}

static inline void qc2_shrinker_remove(struct shrinker *shrinker)
{
	shrinker_free(shrinker);
}

static inline void *qc2_shrinker_data(struct shrinker *shrinker)
{
	return shrinker->private_data;
}
#else
struct qc2_shrinker {
	struct shrinker shrinker;
	void *data;
};

static inline struct shrinker *
qc2_shrinker_add(unsigned long (*count)(struct shrinker *shrinker, struct shrink_control *sc),
		 unsigned long (*scan)(struct shrinker *shrinker, struct shrink_control *sc),
		 void *data, const char *name)
{
	struct qc2_shrinker *s = kzalloc(sizeof(*s), GFP_KERNEL);

	if (!s)
		return NULL;
	s->shrinker.count_objects = count;
	s->shrinker.scan_objects = scan;
	s->shrinker.seeks = DEFAULT_SEEKS;
	s->data = data;
	if (register_shrinker(&s->shrinker, "qcow2chain:%s", name)) {
		kfree(s);
		return NULL;
	}
	return &s->shrinker;
}

static inline void qc2_shrinker_remove(struct shrinker *shrinker)
{
	unregister_shrinker(shrinker);
	kfree(container_of(shrinker, struct qc2_shrinker, shrinker));
}

static inline void *qc2_shrinker_data(struct shrinker *shrinker)
{
	return container_of(shrinker, struct qc2_shrinker, shrinker)->data;
}
#endif

/*
 * Reads in flight are counted by SRCU, and end in interrupts; the SRCU of
 * kernels for one processor cannot do that.
 */
#ifndef CONFIG_SMP
#error "dm-qcow2chain needs a kernel with CONFIG_SMP"
#endif

#endif

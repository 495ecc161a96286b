/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory of the tip's regions, for suites that need it; see dirty_test.c.
 */
#ifndef QC2_KUNIT_DIRTY_CACHE_H
#define QC2_KUNIT_DIRTY_CACHE_H

struct kunit_suite;

int dirty_cache_create(struct kunit_suite *suite);
void dirty_cache_destroy(struct kunit_suite *suite);

#endif

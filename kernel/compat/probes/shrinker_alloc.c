// SPDX-License-Identifier: GPL-2.0
/* shrinker_alloc(), shrinker_register(), shrinker_free(): v6.7, c42d50aefd17 */
#include <linux/shrinker.h>

struct shrinker *probe(void);

struct shrinker *probe(void)
{
	struct shrinker *shrinker = shrinker_alloc(0, "probe");

	shrinker->private_data = NULL;
	shrinker_register(shrinker);
	return shrinker;
}

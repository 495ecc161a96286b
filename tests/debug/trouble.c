// SPDX-License-Identifier: GPL-2.0
/*
 * Does wrong on purpose, once, what the debug kernel must notice:
 *
 *	modprobe qc2-trouble kind=KIND
 */
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>

static char *kind = "";
module_param(kind, charp, 0444);
MODULE_PARM_DESC(kind, "sleep, ubsan, rcu, leak, lock or kasan");

/* The compiler must not see what is coming. */
static unsigned int size = 16;
module_param(size, uint, 0444);
MODULE_PARM_DESC(size, "leave it");

static DEFINE_SPINLOCK(spin);
static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);
static int __rcu *pointer;

static void trouble_sleep(void)
{
	spin_lock(&spin);
	might_sleep();
	spin_unlock(&spin);
}

static void trouble_ubsan(void)
{
	static int result;

	WRITE_ONCE(result, 1 << (size + 16));
}

static void trouble_rcu(void)
{
	/* Neither under the lock of readers nor of writers. */
	if (rcu_dereference(pointer))
		pr_info("there is a pointer\n");
}

static void trouble_leak(void)
{
	char *p = kmalloc(size * 100, GFP_KERNEL);

	if (p)
		WRITE_ONCE(p[0], 1);
}

static void trouble_lock(void)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);

	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static void trouble_kasan(void)
{
	char *p = kmalloc(size, GFP_KERNEL);

	if (p)
		WRITE_ONCE(p[size], 1);
	kfree(p);
}

static const struct {
	const char *kind;
	void (*make)(void);
} troubles[] = {
	{ "sleep", trouble_sleep },
	{ "ubsan", trouble_ubsan },
	{ "rcu", trouble_rcu },
	{ "leak", trouble_leak },
	{ "lock", trouble_lock },
	{ "kasan", trouble_kasan },
};

static int __init trouble_init(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(troubles); i++) {
		if (!strcmp(kind, troubles[i].kind)) {
			troubles[i].make();
			return 0;
		}
	}
	return -EINVAL;
}

static void __exit trouble_exit(void)
{
}

module_init(trouble_init);
module_exit(trouble_exit);

MODULE_DESCRIPTION("What a debug kernel must notice");
MODULE_LICENSE("GPL");

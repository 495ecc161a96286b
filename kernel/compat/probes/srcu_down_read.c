// SPDX-License-Identifier: GPL-2.0
/* srcu_down_read(), srcu_up_read(): v6.3, "srcu: Add SRCU down/up variants" */
#include <linux/srcu.h>

int probe(struct srcu_struct *ssp);
int probe(struct srcu_struct *ssp)
{
	int idx = srcu_down_read(ssp);

	srcu_up_read(ssp, idx);
	return idx;
}

// SPDX-License-Identifier: GPL-2.0
/* init_srcu_struct_fast_updown(), srcu_down_read_fast(): in v7.2, not in v6.12 */
#include <linux/srcu.h>

int probe(struct srcu_struct *ssp);
int probe(struct srcu_struct *ssp)
{
	struct srcu_ctr __percpu *scp;

	if (init_srcu_struct_fast_updown(ssp))
		return -1;
	scp = srcu_down_read_fast(ssp);
	srcu_up_read_fast(ssp, scp);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0 */
/* The configuration: what is loaded keeps to what config.h promises. */
#include <sys/mman.h>
#include <unistd.h>

#include "config.h"
#include "fuzz.h"
#include "url.h"

static void check_prefix(const char *prefix)
{
	struct qc2_err err;
	char *again;

	assert(!qc2_url_prefix(prefix, &again, &err));
	assert(!strcmp(prefix, again));
	free(again);
}

static void check(const struct qc2_config *cfg)
{
	assert(cfg->socket[0] == '/' && cfg->run_dir[0] == '/');
	assert(cfg->cache_path[0] == '/' && cfg->tip_dir[0] == '/');
	assert(!cfg->group || cfg->group[0]);
	assert(!cfg->ca_file || cfg->ca_file[0]);
	assert(!cfg->sites_file || cfg->sites_file[0]);
	assert(cfg->cache_size >= 1 << 20 && cfg->cache_size <= 1ULL << 50);
	assert(cfg->max_depth && cfg->max_depth <= 65536);
	assert(cfg->connections && cfg->connections <= 1024);
	assert(cfg->connect_timeout_s && cfg->connect_timeout_s <= 3600);
	assert(cfg->low_speed_time_s && cfg->low_speed_time_s <= 3600);
	assert(cfg->extension_bytes >= 64 << 10 &&
	       cfg->extension_bytes <= 64 << 20);
	assert(cfg->region_timeout_ms >= 10 && cfg->region_timeout_ms <= 60000);
	for (size_t i = 0; i < cfg->nr_allow; i++)
		check_prefix(cfg->allow[i]);
	for (size_t i = 0; i < cfg->nr_region_stores; i++)
		check_prefix(cfg->region_stores[i]);
	if (cfg->region_cache)
		check_prefix(cfg->region_cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("config", MFD_CLOEXEC);
	struct qc2_err err = { "" };
	struct qc2_config cfg;
	char path[32];

	assert(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	sprintf(path, "/proc/self/fd/%d", fd);
	if (!qc2_config_load(path, &cfg, &err)) {
		check(&cfg);
		qc2_config_free(&cfg);
	} else {
		assert(strstr(err.msg, path));
	}
	close(fd);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The stores file: what is loaded keeps to what site.h promises, and an error names the
 * file.
 */
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "site.h"
#include "url.h"

static void check(struct qc2_sites *sites, const char *url)
{
	struct qc2_site *site = qc2_sites_find(sites, url);
	char region[QC2_REGION_LEN];
	struct qc2_err err;
	char *again;

	assert(site->prefix && site->connections <= 1024 && site->idle_s <= 3600);
	assert(!site->endpoint || !strncmp(site->endpoint, "http", 4));
	assert(!site->endpoint || site->endpoint[strlen(site->endpoint) - 1] != '/');
	assert(!site->ca_file || site->ca_file[0] == '/');
	qc2_site_region(site, url, region);
	for (size_t i = 0; i < site->nr_replicas; i++) {
		assert(!qc2_url_prefix(site->replicas[i], &again, &err));
		assert(!strcmp(site->replicas[i], again));
		free(again);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const urls[] = {
		"s3://bucket/image", "s3://bucket/folder/image", "azure://account/c/image",
		"https://host/dir/image", "http://127.0.0.1/image", "file:///image",
	};
	int fd = memfd_create("sites", MFD_CLOEXEC);
	struct qc2_sites *sites;
	struct qc2_err err = { "" };
	char path[32];

	/* The environment of who runs this is none of the input. */
	clearenv();
	setenv("HOME", "/nonexistent", 1);
	assert(fd >= 0 && !fchmod(fd, 0600) && write(fd, data, size) == (ssize_t)size);
	sprintf(path, "/proc/self/fd/%d", fd);
	if (!qc2_sites_load(path, &sites, &err)) {
		for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
			check(sites, urls[i]);
		qc2_sites_free(sites);
	} else {
		assert(strstr(err.msg, path));
	}
	close(fd);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * qc2obj [-s SITESFILE] [-c CAFILE] [-a PREFIX] VERB URL ...: objects through the library, as
 * the tests need them.  Redirects may lead to what begins with PREFIX.
 *
 *   put URL FILE [--if-none-match | --if-match VERSION]	prints the version
 *   get URL OFFSET LEN		writes the bytes to standard output
 *   head URL			prints size and version
 *   list URL			prints size and URL of each object
 *   multipart URL FILE PART_BYTES [--if-none-match | --abort]	prints the version
 *   delete URL
 *
 * QC2OBJ_CLOCK and QC2OBJ_REGION begin with a wrong clock (seconds off) or region.
 *
 * Exit status: 0; 1 failed; 2 wrong usage; 3 no such object; 4 refused; 5 the condition
 * does not hold; 6 trying again later may help.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"
#include "store_ops.h"
#include "url.h"

static const char *allow[1];

static struct qc2_store_config cfg = {
	.connect_timeout_s = 10, .low_speed_time_s = 30, .allow_local_addresses = true,
	.allow = allow,
};

static int usage(void)
{
	fputs("usage: qc2obj [-s SITESFILE] [-c CAFILE] [-a PREFIX] VERB URL ...\n", stderr);
	return 2;
}

static int report(int ret, const struct qc2_err *err)
{
	if (!ret)
		return 0;
	fprintf(stderr, "qc2obj: %s\n", err->msg);
	switch (ret) {
	case -ENOENT:
		return 3;
	case -EACCES:
		return 4;
	case -EEXIST:
	case -ESTALE:
		return 5;
	case -EAGAIN:
		return 6;
	default:
		return 1;
	}
}

/* NULL: it cannot be read.  Stays until the end. */
static void *map_file(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st)) {
		perror(path);
		return NULL;
	}
	*len = st.st_size;
	p = mmap(NULL, *len + !*len, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

static int put(const char *url, char **arg)
{
	struct qc2_put_if cond = { false, NULL };
	struct qc2_err err = { "" };
	char *version = NULL;
	size_t len;
	void *buf;
	int ret;

	if (arg[1] && !strcmp(arg[1], "--if-none-match") && !arg[2])
		cond.absent = true;
	else if (arg[1] && !strcmp(arg[1], "--if-match") && arg[2])
		cond.version = arg[2];
	else if (arg[1])
		return usage();
	buf = map_file(arg[0], &len);
	if (!buf)
		return 1;
	ret = qc2_put(&cfg, url, buf, len, &cond, &version, &err);
	if (!ret)
		puts(version ? version : "");
	free(version);
	return report(ret, &err);
}

static int get(const char *url, char **arg)
{
	struct qc2_source *src = NULL;
	struct qc2_err err = { "" };
	struct qc2_store *store;
	uint64_t offset;
	char *version, *buf;
	uint64_t size;
	size_t len;
	int ret;

	if (!arg[1])
		return usage();
	offset = strtoull(arg[0], NULL, 0);
	len = strtoull(arg[1], NULL, 0);
	buf = malloc(len + 1);
	store = qc2_store_new(&cfg);
	if (!buf || !store)
		return 1;
	ret = qc2_head(&cfg, url, &size, &version, &err);
	if (!ret) {
		src = qc2_store_pinned(store, url, size, version);
		ret = src ? src->ops->read(src, offset, buf, len, &err) : -ENOMEM;
		free(version);
	}
	if (!ret)
		fwrite(buf, 1, len, stdout);
	if (src)
		src->ops->close(src);
	qc2_store_free(store);
	free(buf);
	return report(ret, &err);
}

static int head(const char *url)
{
	struct qc2_err err = { "" };
	char *version;
	uint64_t size;
	int ret;

	ret = qc2_head(&cfg, url, &size, &version, &err);
	if (!ret)
		printf("%" PRIu64 " %s\n", size, version);
	free(version);
	return report(ret, &err);
}

static int print_object(void *arg, const char *url, uint64_t size)
{
	printf("%" PRIu64 " %s\n", size, url);
	return 0;
}

static int list(const char *url)
{
	struct qc2_err err = { "" };

	return report(qc2_list(&cfg, url, print_object, NULL, &err), &err);
}

static int multipart(const char *url, char **arg)
{
	bool absent = arg[1] && arg[2] && !strcmp(arg[2], "--if-none-match");
	bool give_up = arg[1] && arg[2] && !strcmp(arg[2], "--abort");
	struct qc2_upload *upload = NULL;
	struct qc2_err err = { "" };
	char *version = NULL, *buf;
	size_t len, part, done, n;
	unsigned int nr = 0;
	int ret, aborted;

	if (!arg[1] || (arg[2] && !absent && !give_up))
		return usage();
	buf = map_file(arg[0], &len);
	part = strtoull(arg[1], NULL, 0);
	if (!buf || !part)
		return 1;
	ret = qc2_upload_start(&cfg, url, part, &upload, &err);
	for (done = 0; !ret && done < len; done += n) {
		n = len - done < part ? len - done : part;
		ret = qc2_upload_part(upload, ++nr, buf + done, n, &err);
	}
	if (!ret && !give_up)
		ret = qc2_upload_complete(upload, nr, absent, &version, &err);
	if (upload && (ret || give_up)) {
		aborted = qc2_upload_abort(upload, ret ? NULL : &err);
		ret = ret ? ret : aborted;
	}
	if (!ret)
		puts(version ? version : "aborted");
	free(version);
	qc2_upload_free(upload);
	return report(ret, &err);
}

static int remove_object(const char *url)
{
	struct qc2_err err = { "" };

	return report(qc2_delete(&cfg, url, &err), &err);
}

static int canonical(const char *verb, const char *text, char **url, struct qc2_err *err)
{
	struct qc2_top top;
	int ret;

	if (!strcmp(verb, "list"))
		return qc2_url_prefix(text, url, err);
	ret = qc2_url_top(text, &top, err);
	*url = top.url;
	return ret;
}

static void begin_wrong(const char *url)
{
	const char *off = getenv("QC2OBJ_CLOCK"), *region = getenv("QC2OBJ_REGION");
	struct qc2_site *site = qc2_sites_find(cfg.sites, url);

	if (off)
		site->clock_offset = atoll(off);
	if (region)
		qc2_site_learn_region(site, url, region);
}

int main(int argc, char **argv)
{
	const char *sites = NULL, *verb;
	struct qc2_err err = { "" };
	char *url, **arg;
	int opt, ret = 2;

	while ((opt = getopt(argc, argv, "+s:c:a:")) != -1) {
		if (opt == 's')
			sites = optarg;
		else if (opt == 'c')
			cfg.ca_file = optarg;
		else if (opt == 'a')
			allow[0] = optarg;
		else
			return usage();
	}
	if (argc - optind < 2)
		return usage();
	cfg.nr_allow = allow[0] ? 1 : 0;
	verb = argv[optind];
	arg = argv + optind + 2;
	curl_global_init(CURL_GLOBAL_DEFAULT);
	if (qc2_sites_load(sites, &cfg.sites, &err) ||
	    canonical(verb, argv[optind + 1], &url, &err))
		return report(-EINVAL, &err);
	begin_wrong(url);
	if (!strcmp(verb, "put") && arg[0])
		ret = put(url, arg);
	else if (!strcmp(verb, "get") && arg[0])
		ret = get(url, arg);
	else if (!strcmp(verb, "head") && !arg[0])
		ret = head(url);
	else if (!strcmp(verb, "list") && !arg[0])
		ret = list(url);
	else if (!strcmp(verb, "multipart") && arg[0])
		ret = multipart(url, arg);
	else if (!strcmp(verb, "delete") && !arg[0])
		ret = remove_object(url);
	else
		usage();
	free(url);
	qc2_sites_free(cfg.sites);
	return ret;
}

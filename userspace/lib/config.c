/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading the configuration file, by inih.  Used at start by one thread.
 */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ini.h>

#include "config.h"
#include "url.h"

enum key_type {
	KEY_PATH, KEY_TEXT, KEY_SIZE, KEY_NUMBER, KEY_BOOL,
	KEY_PREFIX,			/* of URLs; empty: NULL */
	KEY_PREFIXES			/* a list, with its length in @nr_offset */
};

static const struct key {
	const char *section, *name;
	enum key_type type;
	size_t offset, nr_offset;	/* in struct qc2_config */
	uint64_t min, max;
	const char *value;		/* default */
} keys[] = {
#define FIELD(name) offsetof(struct qc2_config, name)
	{ "daemon", "socket", KEY_PATH, FIELD(socket),
	  .value = "/run/qcow2chain/chaind.sock" },
	{ "daemon", "run_dir", KEY_PATH, FIELD(run_dir),
	  .value = "/run/qcow2chain" },
	{ "daemon", "group", KEY_TEXT, FIELD(group), .value = "" },
	{ "cache", "path", KEY_PATH, FIELD(cache_path),
	  .value = "/var/lib/qcow2chain/cache" },
	{ "cache", "size", KEY_SIZE, FIELD(cache_size),
	  .min = 1ULL << 20, .max = 1ULL << 50, .value = "10G" },
	{ "cache", "index", KEY_TEXT, FIELD(cache_index), .value = "" },
	{ "cache", "scrub_rate", KEY_SIZE, FIELD(cache_scrub_rate),
	  .min = 0, .max = 1ULL << 32, .value = "1M" },
	{ "tip", "dir", KEY_PATH, FIELD(tip_dir),
	  .value = "/var/lib/qcow2chain/tips" },
	{ "chain", "max_depth", KEY_NUMBER, FIELD(max_depth),
	  .min = 1, .max = 65536, .value = "4096" },
	{ "chain", "allow", KEY_PREFIXES, FIELD(allow), FIELD(nr_allow), .value = "" },
	{ "chain", "index_dir", KEY_PATH, FIELD(index_dir),
	  .value = "/var/lib/qcow2chain/index" },
	{ "store", "ca_file", KEY_TEXT, FIELD(ca_file), .value = "" },
	{ "store", "sites_file", KEY_TEXT, FIELD(sites_file), .value = "" },
	{ "store", "allow_local_addresses", KEY_BOOL,
	  FIELD(allow_local_addresses), .value = "no" },
	{ "store", "connections", KEY_NUMBER, FIELD(connections),
	  .min = 1, .max = 1024, .value = "64" },
	{ "store", "connect_timeout_s", KEY_NUMBER, FIELD(connect_timeout_s),
	  .min = 1, .max = 3600, .value = "10" },
	{ "store", "low_speed_time_s", KEY_NUMBER, FIELD(low_speed_time_s),
	  .min = 1, .max = 3600, .value = "30" },
	{ "store", "extension", KEY_SIZE, FIELD(extension_bytes),
	  .min = 64 << 10, .max = 64 << 20, .value = "2M" },
	{ "region", "cache", KEY_PREFIX, FIELD(region_cache), .value = "" },
	{ "region", "stores", KEY_PREFIXES, FIELD(region_stores), FIELD(nr_region_stores),
	  .value = "" },
	{ "region", "key_file", KEY_TEXT, FIELD(region_key_file), .value = "" },
	{ "region", "private", KEY_BOOL, FIELD(region_private), .value = "no" },
	{ "region", "timeout_ms", KEY_NUMBER, FIELD(region_timeout_ms),
	  .min = 10, .max = 60000, .value = "1000" },
#undef FIELD
};

#define NR_KEYS	(sizeof(keys) / sizeof(keys[0]))

/* One run of the parser. */
struct reader {
	FILE *file;
	const char *path;
	struct qc2_config *cfg;
	struct qc2_err *err;
	unsigned int line;
	bool indented;		/* the current line */
	int ret;		/* of the first error, which ends the reading */
};

static int parse_number(const char *text, uint64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return *end ? -EINVAL : -errno;
}

static int parse_size(const char *text, uint64_t *value)
{
	static const char suffixes[] = "KMGT";
	size_t len = strlen(text);
	unsigned int shift = 0;
	const char *suffix;
	char digits[32];
	int ret;

	if (!len || len >= sizeof(digits))
		return -EINVAL;
	strcpy(digits, text);
	suffix = strchr(suffixes, toupper((unsigned char)text[len - 1]));
	if (suffix) {
		shift = 10 * (suffix - suffixes + 1);
		digits[len - 1] = '\0';
	}
	ret = parse_number(digits, value);
	if (ret)
		return ret;
	if (*value > UINT64_MAX >> shift)
		return -ERANGE;
	*value <<= shift;
	return 0;
}

static int add_prefixes(char ***list, size_t *nr, const char *value, struct qc2_err *err)
{
	char *copy = strdup(value), *rest = copy, *word, *prefix, **more;
	int ret = 0;

	if (!copy)
		return qc2_fail(err, ENOMEM, "out of memory");
	while (!ret && (word = strsep(&rest, " \t"))) {
		if (!*word)
			continue;
		ret = qc2_url_prefix(word, &prefix, err);
		if (ret)
			break;
		more = reallocarray(*list, *nr + 1, sizeof(*more));
		if (!more) {
			free(prefix);
			ret = qc2_fail(err, ENOMEM, "out of memory");
			break;
		}
		*list = more;
		more[(*nr)++] = prefix;
	}
	free(copy);
	return ret;
}

static int set_key(struct qc2_config *cfg, const struct key *key,
		   const char *value, struct qc2_err *err)
{
	void *field = (char *)cfg + key->offset;
	uint64_t number = 0;
	char *copy;
	int ret;

	switch (key->type) {
	case KEY_PREFIXES:
		return add_prefixes(field, (size_t *)((char *)cfg + key->nr_offset), value, err);
	case KEY_PREFIX:
		copy = NULL;
		ret = value[0] ? qc2_url_prefix(value, &copy, err) : 0;
		if (ret)
			return ret;
		free(*(char **)field);
		*(char **)field = copy;
		return 0;
	case KEY_PATH:
		if (value[0] != '/')
			return qc2_fail(err, EINVAL,
					"\"%s\" is not an absolute path",
					value);
		/* fall through */
	case KEY_TEXT:
		copy = NULL;
		if (value[0]) {
			copy = strdup(value);
			if (!copy)
				return qc2_fail(err, ENOMEM, "out of memory");
		}
		free(*(char **)field);
		*(char **)field = copy;
		return 0;
	case KEY_SIZE:
		ret = parse_size(value, &number);
		if (ret || number < key->min || number > key->max)
			return qc2_fail(err, EINVAL,
				"\"%s\" is not a size from %lluK to %lluK (a number of bytes, or with a suffix K, M, G or T)",
				value, (unsigned long long)key->min >> 10,
				(unsigned long long)key->max >> 10);
		*(uint64_t *)field = number;
		return 0;
	case KEY_NUMBER:
		ret = parse_number(value, &number);
		if (ret || number < key->min || number > key->max)
			return qc2_fail(err, EINVAL,
				"\"%s\" is not a number from %llu to %llu",
				value, (unsigned long long)key->min,
				(unsigned long long)key->max);
		*(unsigned int *)field = number;
		return 0;
	case KEY_BOOL:
		if (strcmp(value, "yes") && strcmp(value, "no"))
			return qc2_fail(err, EINVAL, "\"%s\" is neither yes nor no",
					value);
		*(bool *)field = value[0] == 'y';
		return 0;
	}
	return -EINVAL;
}

static int find_key(const char *section, const char *name,
		    const struct key **key, struct qc2_err *err)
{
	bool known = false;
	size_t i;

	for (i = 0; i < NR_KEYS; i++) {
		if (strcmp(section, keys[i].section))
			continue;
		known = true;
		if (!strcmp(name, keys[i].name)) {
			*key = &keys[i];
			return 0;
		}
	}
	if (known)
		return qc2_fail(err, EINVAL, "unknown key \"%s\" in [%s]",
				name, section);
	if (!section[0])
		return qc2_fail(err, EINVAL,
				"\"%s\" stands before the first [section]",
				name);
	return qc2_fail(err, EINVAL,
		"unknown section [%s]; there are daemon, cache, tip, chain, store and region",
		section);
}

static int handle_key(void *arg, const char *section, const char *name,
		      const char *value)
{
	struct reader *rd = arg;
	const struct key *key = NULL;
	int ret;

	if (rd->ret)
		return 0;
	ret = find_key(section, name, &key, rd->err);
	/*
	 * inih takes an indented line for more of the value before it.  That
	 * is good for a list; otherwise it is a key that would get lost.
	 */
	if (!ret && rd->indented && key->type != KEY_PREFIXES)
		ret = qc2_fail(rd->err, EINVAL,
			"the line is indented; only a list (\"allow\", \"stores\") goes on in indented lines");
	if (!ret)
		ret = set_key(rd->cfg, key, value, rd->err);
	if (ret)
		rd->ret = qc2_fail_prefix(rd->err, ret, "%s:%u: ", rd->path,
					  rd->line);
	return !ret;
}

/* fgets() that counts lines and notices one that does not fit. */
static char *read_line(char *str, int num, void *stream)
{
	struct reader *rd = stream;
	size_t len;

	if (rd->ret || !fgets(str, num, rd->file))
		return NULL;
	rd->line++;
	rd->indented = str[0] == ' ' || str[0] == '\t';
	len = strlen(str);
	if (len && str[len - 1] != '\n' && !feof(rd->file)) {
		rd->ret = qc2_fail(rd->err, EINVAL,
			"%s:%u: the line is longer than %d characters or has a NUL byte (a list can go on in indented lines)",
			rd->path, rd->line, num - 2);
		return NULL;
	}
	return str;
}

static int read_file(struct reader *rd)
{
	int line;

	/*
	 * The line of the first mistake.  inih goes on behind a line that it
	 * cannot read itself, so ours may be a later one.
	 */
	line = ini_parse_stream(read_line, rd, handle_key, rd);
	if (rd->ret && (line <= 0 || (unsigned int)line >= rd->line))
		return rd->ret;
	if (ferror(rd->file))
		return qc2_fail(rd->err, EIO, "%s: cannot be read", rd->path);
	if (line)
		return qc2_fail(rd->err, EINVAL,
			"%s:%d: neither [section] nor KEY = VALUE nor comment",
			rd->path, line > 0 ? line : 0);
	return 0;
}

int qc2_config_load(const char *path, struct qc2_config *cfg,
		    struct qc2_err *err)
{
	struct reader rd = { .cfg = cfg, .err = err };
	size_t i;
	int ret = 0;

	memset(cfg, 0, sizeof(*cfg));
	for (i = 0; i < NR_KEYS && !ret; i++)
		ret = set_key(cfg, &keys[i], keys[i].value, err);
	if (ret)
		goto fail;
	rd.path = path ? path : QC2_CONFIG_DEFAULT_PATH;
	rd.file = fopen(rd.path, "re");
	if (!rd.file) {
		if (!path && errno == ENOENT)
			return 0;
		ret = qc2_fail(err, errno, "%s: cannot be opened: %s", rd.path,
			       strerror(errno));
		goto fail;
	}
	ret = read_file(&rd);
	fclose(rd.file);
	if (!ret)
		return 0;
fail:
	qc2_config_free(cfg);
	return ret;
}

void qc2_config_free(struct qc2_config *cfg)
{
	size_t i;

	free(cfg->socket);
	free(cfg->run_dir);
	free(cfg->group);
	free(cfg->cache_path);
	free(cfg->cache_index);
	free(cfg->tip_dir);
	free(cfg->index_dir);
	for (i = 0; i < cfg->nr_allow; i++)
		free(cfg->allow[i]);
	free(cfg->allow);
	free(cfg->ca_file);
	free(cfg->region_cache);
	for (i = 0; i < cfg->nr_region_stores; i++)
		free(cfg->region_stores[i]);
	free(cfg->region_stores);
	free(cfg->region_key_file);
	free(cfg->sites_file);
	memset(cfg, 0, sizeof(*cfg));
}

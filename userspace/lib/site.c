/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading the stores file, and finding the site of a URL.
 *
 * The file's text stays in secret memory while it is read; what is kept of secrets goes
 * from there into the credentials.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aws_profile.h"
#include "credentials_source.h"
#include "ini_text.h"
#include "secret.h"
#include "site.h"
#include "url.h"

#define MAX_FILE	(1 << 20)
#define MAX_NUMBER	3600

struct qc2_sites {
	struct qc2_site **site;
	size_t nr;
};

/* What a section may be for, as bits. */
enum { S3 = 1, AZURE = 2, HTTP = 4, FILES = 8 };

static const struct scheme {
	const char *start;	/* of URLs, and the name of the section for all of them */
	unsigned int bit;
} schemes[] = {
	{ "s3://", S3 }, { "azure://", AZURE }, { "http://", HTTP }, { "https://", HTTP },
	{ "file://", FILES },
};

#define NR_SCHEMES	(sizeof(schemes) / sizeof(schemes[0]))

enum key {
	KEY_ENDPOINT, KEY_REGION, KEY_STYLE, KEY_CREDENTIALS, KEY_ACCESS_KEY, KEY_SECRET_KEY,
	KEY_SESSION_TOKEN, KEY_PROFILE, KEY_PROCESS, KEY_ACCOUNT_KEY, KEY_SAS, KEY_HEADER_FILE,
	KEY_CA_FILE, KEY_PROXY, KEY_HTTP2, KEY_CONNECTIONS, KEY_IDLE_S, KEY_REPLICA, NR_KEYS
};

static const struct {
	const char *name;
	unsigned int schemes;
} keys[NR_KEYS] = {
	[KEY_ENDPOINT] = { "endpoint", S3 | AZURE },
	[KEY_REGION] = { "region", S3 },
	[KEY_STYLE] = { "style", S3 | AZURE },
	[KEY_CREDENTIALS] = { "credentials", S3 | AZURE },
	[KEY_ACCESS_KEY] = { "access_key", S3 },
	[KEY_SECRET_KEY] = { "secret_key", S3 },
	[KEY_SESSION_TOKEN] = { "session_token", S3 },
	[KEY_PROFILE] = { "profile", S3 },
	[KEY_PROCESS] = { "process", S3 },
	[KEY_ACCOUNT_KEY] = { "account_key", AZURE },
	[KEY_SAS] = { "sas", AZURE },
	[KEY_HEADER_FILE] = { "header_file", HTTP },
	[KEY_CA_FILE] = { "ca_file", S3 | AZURE | HTTP },
	[KEY_PROXY] = { "proxy", S3 | AZURE | HTTP },
	[KEY_HTTP2] = { "http2", S3 | AZURE | HTTP },
	[KEY_CONNECTIONS] = { "connections", S3 | AZURE | HTTP },
	[KEY_IDLE_S] = { "idle_s", S3 | AZURE | HTTP },
	[KEY_REPLICA] = { "replica", S3 | AZURE | HTTP | FILES },
};

#define ANONYMOUS	(-1)	/* beside enum qc2_credentials_kind */

static const struct {
	const char *name;
	int kind;
	unsigned int schemes;
} kinds[] = {
	{ "auto", QC2_CREDENTIALS_AUTO, S3 | AZURE },
	{ "keys", QC2_CREDENTIALS_KEYS, S3 | AZURE },
	{ "env", QC2_CREDENTIALS_ENV, S3 | AZURE },
	{ "anonymous", ANONYMOUS, S3 | AZURE },
	{ "profile", QC2_CREDENTIALS_PROFILE, S3 },
	{ "process", QC2_CREDENTIALS_PROCESS, S3 },
	{ "web-identity", QC2_CREDENTIALS_WEB_IDENTITY, S3 },
	{ "container", QC2_CREDENTIALS_CONTAINER, S3 },
	{ "instance", QC2_CREDENTIALS_INSTANCE, S3 },
};

/* A section while it is read; the texts are in the file's. */
struct section {
	struct qc2_site *site;
	const struct scheme *scheme;
	bool bare;			/* for all URLs of the scheme */
	unsigned int line;
	const char *value[NR_KEYS];	/* but for replicas */
	int kind;
};

static int no_memory(struct qc2_err *err)
{
	return qc2_fail(err, ENOMEM, "out of memory");
}

/* --- sites ------------------------------------------------------------------------ */

static void free_site(struct qc2_site *site)
{
	if (!site)
		return;
	free(site->prefix);
	free(site->endpoint);
	free(site->region);
	free(site->ca_file);
	free(site->proxy);
	for (size_t i = 0; i < site->nr_replicas; i++)
		free(site->replicas[i]);
	free(site->replicas);
	qc2_credentials_free(site->creds);
	pthread_mutex_destroy(&site->lock);
	free(site);
}

/* A new site with the prefix, which is the site's afterwards, even after a failure. */
static struct qc2_site *add_site(struct qc2_sites *sites, char *prefix)
{
	struct qc2_site *site = calloc(1, sizeof(*site)), **more;

	more = prefix && site ? reallocarray(sites->site, sites->nr + 1, sizeof(*more)) : NULL;
	if (!more) {
		free(site);
		free(prefix);
		return NULL;
	}
	sites->site = more;
	sites->site[sites->nr++] = site;
	site->prefix = prefix;
	site->http2 = true;
	pthread_mutex_init(&site->lock, NULL);
	return site;
}

static struct qc2_site *same_prefix(struct qc2_sites *sites, const char *prefix)
{
	for (size_t i = 0; i < sites->nr; i++) {
		if (!strcmp(sites->site[i]->prefix, prefix))
			return sites->site[i];
	}
	return NULL;
}

/* --- values ------------------------------------------------------------------------ */

static bool visible(const char *s)
{
	while (*s > ' ' && *s < 0x7f)
		s++;
	return !*s;
}

/* qc2_url_prefix(), but a URL that may have a password in it is not shown. */
static int set_prefix(const char *value, char **prefix, struct qc2_err *err)
{
	int ret = qc2_url_prefix(value, prefix, err);

	if (ret && strchr(value, '@'))
		qc2_fail(err, -ret, "not the URL of a store; it must have no user or password");
	return ret;
}

static int set_text(const char *value, char **field, struct qc2_err *err)
{
	*field = strdup(value);
	return *field ? 0 : no_memory(err);
}

static int set_path(const char *value, char **field, struct qc2_err *err)
{
	if (value[0] != '/')
		return qc2_fail(err, EINVAL, "not an absolute path");
	return field ? set_text(value, field, err) : 0;
}

static int set_endpoint(const char *value, char **endpoint, struct qc2_err *err)
{
	size_t len;
	int ret;

	if (strncmp(value, "http://", 7) && strncmp(value, "https://", 8))
		return qc2_fail(err, EINVAL, "does not begin with https:// or http://");
	ret = set_prefix(value, endpoint, err);
	if (ret)
		return ret;
	len = strlen(*endpoint);
	if (strchr(strstr(*endpoint, "://") + 3, '/') != *endpoint + len - 1)
		return qc2_fail(err, EINVAL, "has a path; it is https://HOST or https://HOST:PORT");
	(*endpoint)[len - 1] = '\0';
	return 0;
}

static int set_region(const char *value, char **region, struct qc2_err *err)
{
	if (strlen(value) >= QC2_REGION_LEN ||
	    value[strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-")])
		return qc2_fail(err, EINVAL, "not up to %d of a-z, 0-9 and -",
				QC2_REGION_LEN - 1);
	return set_text(value, region, err);
}

/* There may be a password in it, so it is not shown. */
static int set_proxy(const char *value, char **proxy, struct qc2_err *err)
{
	static const char *const starts[] = { "http://", "https://", "socks5://", "socks5h://" };

	if (!strcmp(value, "none"))
		return set_text("", proxy, err);
	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		size_t len = strlen(starts[i]);

		if (!strncmp(value, starts[i], len) && value[len] && visible(value))
			return set_text(value, proxy, err);
	}
	return qc2_fail(err, EINVAL,
			"neither none nor http://HOST:PORT (or https://, socks5://, socks5h://)");
}

static int set_number(const char *value, unsigned int max, unsigned int *number,
		      struct qc2_err *err)
{
	size_t len = strspn(value, "0123456789");
	unsigned long n = len && len < 10 && !value[len] ? strtoul(value, NULL, 10) : 0;

	if (!n || n > max)
		return qc2_fail(err, EINVAL, "not a number from 1 to %u", max);
	*number = n;
	return 0;
}

static int choose(const char *value, const char *yes, const char *no, bool *field,
		  struct qc2_err *err)
{
	if (strcmp(value, yes) && strcmp(value, no))
		return qc2_fail(err, EINVAL, "neither %s nor %s", yes, no);
	*field = !strcmp(value, yes);
	return 0;
}

static int set_kind(struct section *section, const char *value, struct qc2_err *err)
{
	bool somewhere = false;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(value, kinds[i].name))
			continue;
		somewhere = true;
		section->kind = kinds[i].kind;
		if (kinds[i].schemes & section->scheme->bit)
			return 0;
	}
	return qc2_fail(err, EINVAL, somewhere ? "not possible for %s" :
			"unknown; there are auto, keys, env, profile, process, web-identity, container, instance and anonymous",
			section->scheme->start);
}

static int add_replica(struct section *section, const char *value, struct qc2_err *err)
{
	struct qc2_site *site = section->site;
	char *prefix, **more;
	int ret;

	if (section->bare)
		return qc2_fail(err, EINVAL,
			"the section is for all %s URLs; a replica is that of a folder or bucket",
			section->scheme->start);
	ret = set_prefix(value, &prefix, err);
	if (ret)
		return ret;
	if (!strcmp(prefix, site->prefix)) {
		free(prefix);
		return qc2_fail(err, EINVAL, "is the section's own prefix");
	}
	more = reallocarray(site->replicas, site->nr_replicas + 1, sizeof(*more));
	if (!more) {
		free(prefix);
		return no_memory(err);
	}
	site->replicas = more;
	site->replicas[site->nr_replicas++] = prefix;
	return 0;
}

/* Nothing of @value is in the error if it may be secret. */
static int set_value(struct section *section, enum key key, const char *value,
		     struct qc2_err *err)
{
	struct qc2_site *site = section->site;

	switch (key) {
	case KEY_ENDPOINT:
		return set_endpoint(value, &site->endpoint, err);
	case KEY_REGION:
		return set_region(value, &site->region, err);
	case KEY_STYLE:
		return choose(value, "virtual", "path", &site->virtual_host, err);
	case KEY_CREDENTIALS:
		return set_kind(section, value, err);
	case KEY_ACCESS_KEY:
	case KEY_SECRET_KEY:
	case KEY_SESSION_TOKEN:
		return visible(value) ? 0 :
		       qc2_fail(err, EINVAL, "has a space or a character that is not ASCII");
	case KEY_ACCOUNT_KEY:
		return !value[strspn(value,
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")] ?
		       0 : qc2_fail(err, EINVAL, "not base64");
	case KEY_SAS:
		return visible(value) && strstr(value, "sig=") && !strchr(value, '#') ? 0 :
		       qc2_fail(err, EINVAL, "not a SAS token, which has sig= in it");
	case KEY_HEADER_FILE:
		return set_path(value, NULL, err);
	case KEY_CA_FILE:
		return set_path(value, &site->ca_file, err);
	case KEY_PROXY:
		return set_proxy(value, &site->proxy, err);
	case KEY_HTTP2:
		return choose(value, "yes", "no", &site->http2, err);
	case KEY_CONNECTIONS:
		return set_number(value, 1024, &site->connections, err);
	case KEY_IDLE_S:
		return set_number(value, MAX_NUMBER, &site->idle_s, err);
	case KEY_REPLICA:
		return add_replica(section, value, err);
	default:
		return 0;
	}
}

/* --- the end of a section ------------------------------------------------------------ */

/* The keys that go with one kind of credentials, which they imply. */
static int check_kind(struct section *section, struct qc2_err *err)
{
	static const struct {
		enum key key;
		int kind;
	} implied[] = {
		{ KEY_ACCESS_KEY, QC2_CREDENTIALS_KEYS },
		{ KEY_SECRET_KEY, QC2_CREDENTIALS_KEYS },
		{ KEY_SESSION_TOKEN, QC2_CREDENTIALS_KEYS },
		{ KEY_ACCOUNT_KEY, QC2_CREDENTIALS_KEYS },
		{ KEY_SAS, QC2_CREDENTIALS_KEYS },
		{ KEY_PROFILE, QC2_CREDENTIALS_PROFILE },
		{ KEY_PROCESS, QC2_CREDENTIALS_PROCESS },
		{ KEY_HEADER_FILE, QC2_CREDENTIALS_HEADER_FILE },
	};
	bool given = section->value[KEY_CREDENTIALS];

	for (size_t i = 0; i < sizeof(implied) / sizeof(implied[0]); i++) {
		if (!section->value[implied[i].key])
			continue;
		if (given && section->kind != implied[i].kind)
			return qc2_fail(err, EINVAL, "%s does not go with the other credentials",
					keys[implied[i].key].name);
		section->kind = implied[i].kind;
		given = true;
	}
	if (section->scheme->bit & (HTTP | FILES) && !given)
		section->kind = ANONYMOUS;
	return 0;
}

static int check_needed(struct section *section, struct qc2_err *err)
{
	const char **value = section->value;

	if (section->kind == QC2_CREDENTIALS_KEYS && section->scheme->bit == S3 &&
	    (!value[KEY_ACCESS_KEY] || !value[KEY_SECRET_KEY]))
		return qc2_fail(err, EINVAL, "access_key and secret_key belong together");
	if (section->kind == QC2_CREDENTIALS_KEYS && section->scheme->bit == AZURE &&
	    !value[KEY_ACCOUNT_KEY] == !value[KEY_SAS])
		return qc2_fail(err, EINVAL, "one of account_key and sas is needed");
	if (section->kind == QC2_CREDENTIALS_PROCESS && !value[KEY_PROCESS])
		return qc2_fail(err, EINVAL, "process is needed");
	if (section->scheme->bit == AZURE && section->bare &&
	    (section->kind == QC2_CREDENTIALS_KEYS || section->kind == QC2_CREDENTIALS_ENV))
		return qc2_fail(err, EINVAL,
			"these credentials are those of one account, which the section's name must have: azure://ACCOUNT/");
	if (section->kind == QC2_CREDENTIALS_HEADER_FILE && section->bare)
		return qc2_fail(err, EINVAL,
			"header_file would go to every host; name one in the section: https://HOST/");
	if (section->kind == QC2_CREDENTIALS_HEADER_FILE &&
	    !qc2_creds_url_private(section->site->prefix))
		return qc2_fail(err, EINVAL,
			"header_file would be readable on its way; use https");
	return 0;
}

/* The account in the name of a section, which the caller frees; NULL: out of memory. */
static char *account_of(const char *prefix)
{
	prefix += strlen("azure://");
	return strndup(prefix, strcspn(prefix, "/"));
}

static bool is_env_account(const char *account)
{
	const char *env = qc2_creds_getenv("AZURE_STORAGE_ACCOUNT");

	return env && !strcmp(env, account) && (qc2_creds_getenv("AZURE_STORAGE_KEY") ||
						qc2_creds_getenv("AZURE_STORAGE_SAS_TOKEN"));
}

static int make_credentials(struct section *section, struct qc2_err *err)
{
	struct qc2_credentials_config cfg = {
		.id = section->value[KEY_ACCESS_KEY],
		.secret = section->value[KEY_SECRET_KEY],
		.token = section->value[KEY_SESSION_TOKEN],
		.profile = section->value[KEY_PROFILE],
		.process = section->value[KEY_PROCESS],
		.header_file = section->value[KEY_HEADER_FILE],
		.ca_file = section->site->ca_file,
	};
	char *account = NULL;

	if (section->scheme->bit == AZURE && !section->bare) {
		account = account_of(section->site->prefix);
		if (!account)
			return no_memory(err);
		cfg.account = account;
		cfg.secret = section->value[KEY_ACCOUNT_KEY];
		cfg.token = section->value[KEY_SAS];
		if (cfg.token && *cfg.token == '?')
			cfg.token++;
	}
	/* The environment does not change: it has this account's key, or nobody has. */
	if (section->scheme->bit == AZURE && section->kind == QC2_CREDENTIALS_AUTO)
		section->kind = account && is_env_account(account) ? QC2_CREDENTIALS_ENV :
								     ANONYMOUS;
	if (section->kind != ANONYMOUS) {
		cfg.kind = section->kind;
		section->site->creds = qc2_credentials_new(&cfg);
	}
	free(account);
	return section->kind == ANONYMOUS || section->site->creds ? 0 : no_memory(err);
}

/* As AWS's tools do it, but that what cannot be read does not matter here. */
static int default_region(struct section *section, struct qc2_err *err)
{
	const char *region = qc2_creds_getenv("AWS_REGION");
	struct qc2_aws_profile profile = { };
	struct qc2_err ignored;
	int ret = -EINVAL;

	if (!region)
		region = qc2_creds_getenv("AWS_DEFAULT_REGION");
	if (!region && !qc2_aws_profile_load(section->value[KEY_PROFILE], &profile, &ignored))
		region = profile.region;
	if (region)
		ret = set_region(region, &section->site->region, err);
	if (ret == -EINVAL)
		ret = set_text("us-east-1", &section->site->region, err);
	qc2_aws_profile_free(&profile);
	return ret;
}

static int finish_section(struct section *section, struct qc2_err *err)
{
	struct qc2_site *site = section->site;
	int ret;

	if (!section->value[KEY_STYLE])
		site->virtual_host = !site->endpoint;
	ret = check_kind(section, err);
	if (!ret)
		ret = check_needed(section, err);
	if (!ret)
		ret = make_credentials(section, err);
	if (!ret && section->scheme->bit == S3 && !site->region)
		ret = default_region(section, err);
	return ret;
}

/* --- the file ------------------------------------------------------------------------- */

static const struct scheme *find_scheme(const char *url)
{
	for (size_t i = 0; i < NR_SCHEMES; i++) {
		if (!strncmp(url, schemes[i].start, strlen(schemes[i].start)))
			return &schemes[i];
	}
	return NULL;
}

static int begin_section(struct qc2_sites *sites, struct section *section, const char *name,
			 unsigned int line, struct qc2_err *err)
{
	char *prefix;
	int ret;

	memset(section, 0, sizeof(*section));
	section->line = line;
	section->kind = QC2_CREDENTIALS_AUTO;
	for (size_t i = 0; i < NR_SCHEMES; i++)
		section->bare |= !strcmp(name, schemes[i].start);
	if (section->bare) {
		prefix = strdup(name);
		ret = prefix ? 0 : no_memory(err);
	} else {
		ret = set_prefix(name, &prefix, err);
	}
	if (ret)
		return ret;
	section->scheme = find_scheme(prefix);
	if (!section->scheme || same_prefix(sites, prefix)) {
		free(prefix);
		return qc2_fail(err, EINVAL, section->scheme ? "this section is there already" :
				"not the URL of a store");
	}
	section->site = add_site(sites, prefix);
	return section->site ? 0 : no_memory(err);
}

/* A line that is no key may be a piece of a secret: what does not look like one is hidden. */
static int unknown_key(const char *name, struct qc2_err *err)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789");

	return qc2_fail(err, EINVAL, "unknown key \"%s\"", name[len] || len > 20 ? "..." : name);
}

static int read_key(struct section *section, const struct qc2_ini *ini, struct qc2_err *err)
{
	int ret, key;

	if (!section->site)
		return qc2_fail(err, EINVAL, "a key stands before the first [section]");
	for (key = 0; key < NR_KEYS && strcmp(ini->name, keys[key].name); key++)
		;
	if (key == NR_KEYS)
		return unknown_key(ini->name, err);
	if (!(keys[key].schemes & section->scheme->bit))
		return qc2_fail(err, EINVAL, "\"%s\" has no meaning for %s", keys[key].name,
				section->scheme->start);
	if (section->value[key])
		return qc2_fail(err, EINVAL, "\"%s\" is given twice in this section",
				keys[key].name);
	if (!ini->value[0])
		return qc2_fail(err, EINVAL, "\"%s\" has no value", keys[key].name);
	ret = set_value(section, key, ini->value, err);
	if (ret)
		return qc2_fail_prefix(err, ret, "\"%s\": ", keys[key].name);
	if (key != KEY_REPLICA)
		section->value[key] = ini->value;
	return 0;
}

static int read_sites(struct qc2_sites *sites, const char *path, char *text, struct qc2_err *err)
{
	struct qc2_ini ini = { .rest = text };
	struct section section = { };
	enum qc2_ini_item item;
	unsigned int line;
	int ret;

	do {
		item = qc2_ini_next(&ini);
		line = ini.line;
		ret = 0;
		if (item == QC2_INI_KEY) {
			ret = read_key(&section, &ini, err);
		} else if (item == QC2_INI_OTHER) {
			ret = qc2_fail(err, EINVAL,
				       "neither [section] nor KEY = VALUE nor comment");
		} else {
			if (section.site) {
				ret = finish_section(&section, err);
				line = ret ? section.line : line;
			}
			if (!ret && item == QC2_INI_SECTION)
				ret = begin_section(sites, &section, ini.name, line, err);
		}
	} while (!ret && item != QC2_INI_END);
	return ret ? qc2_fail_prefix(err, ret, "%s:%u: ", path, line) : 0;
}

/* Sites of the schemes that have none, and of Azure's account in the environment. */
static int add_defaults(struct qc2_sites *sites, struct qc2_err *err)
{
	const char *account = qc2_creds_getenv("AZURE_STORAGE_ACCOUNT");
	struct section section;
	char name[128];
	int ret = 0;

	if (account && is_env_account(account) && !same_prefix(sites, "azure://")) {
		snprintf(name, sizeof(name), "azure://%.64s/", account);
		/* One that the file has stays; nothing can be asked of a bad name. */
		if (!same_prefix(sites, name) &&
		    !begin_section(sites, &section, name, 0, err))
			ret = finish_section(&section, err);
	}
	for (size_t i = 0; !ret && i < NR_SCHEMES; i++) {
		if (same_prefix(sites, schemes[i].start))
			continue;
		ret = begin_section(sites, &section, schemes[i].start, 0, err);
		if (!ret)
			ret = finish_section(&section, err);
	}
	return ret;
}

int qc2_sites_load(const char *path, struct qc2_sites **sites, struct qc2_err *err)
{
	const char *name = path ? path : QC2_SITES_DEFAULT_PATH;
	struct qc2_sites *new;
	char *text = NULL;
	size_t len;
	int ret;

	*sites = NULL;
	ret = qc2_secret_read(name, MAX_FILE, true, &text, &len, err);
	if (ret && (path || ret != -ENOENT))
		return ret;
	new = calloc(1, sizeof(*new));
	ret = new ? 0 : no_memory(err);
	if (!ret && text)
		ret = read_sites(new, name, text, err);
	if (!ret)
		ret = add_defaults(new, err);
	qc2_secret_free(text);
	if (ret)
		qc2_sites_free(new);
	else
		*sites = new;
	return ret;
}

void qc2_sites_free(struct qc2_sites *sites)
{
	if (!sites)
		return;
	for (size_t i = 0; i < sites->nr; i++)
		free_site(sites->site[i]);
	free(sites->site);
	free(sites);
}

/* --- use --------------------------------------------------------------------------------- */

struct qc2_site *qc2_sites_find(struct qc2_sites *sites, const char *url)
{
	struct qc2_site *best = NULL;
	size_t best_len = 0;

	for (size_t i = 0; i < sites->nr; i++) {
		size_t len = strlen(sites->site[i]->prefix);

		if (len > best_len && !strncmp(url, sites->site[i]->prefix, len)) {
			best = sites->site[i];
			best_len = len;
		}
	}
	/* The default of the last scheme is there for what is no URL of a store. */
	return best ? best : sites->site[sites->nr - 1];
}

static void bucket_of(const char *url, char bucket[QC2_BUCKET_LEN])
{
	const char *name = strstr(url, "://") + 3;

	snprintf(bucket, QC2_BUCKET_LEN, "%.*s", (int)strcspn(name, "/"), name);
}

/* Its place among those that were learned, or -1; with the lock. */
static int find_learned(const struct qc2_site *site, const char *bucket)
{
	unsigned int room = sizeof(site->learned) / sizeof(site->learned[0]);

	for (unsigned int i = 0; i < site->nr_learned && i < room; i++)
		if (!strcmp(site->learned[i].bucket, bucket))
			return i;
	return -1;
}

void qc2_site_region(struct qc2_site *site, const char *url, char buf[QC2_REGION_LEN])
{
	const char *region = site->region ? site->region : "";
	char bucket[QC2_BUCKET_LEN];
	int i;

	bucket_of(url, bucket);
	pthread_mutex_lock(&site->lock);
	i = find_learned(site, bucket);
	snprintf(buf, QC2_REGION_LEN, "%s", i < 0 ? region : site->learned[i].region);
	pthread_mutex_unlock(&site->lock);
}

bool qc2_site_learn_region(struct qc2_site *site, const char *url, const char *region)
{
	unsigned int room = sizeof(site->learned) / sizeof(site->learned[0]);
	char bucket[QC2_BUCKET_LEN];
	size_t len = strlen(region);
	int i;

	if (!len || len >= QC2_REGION_LEN ||
	    region[strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-")])
		return false;
	bucket_of(url, bucket);
	pthread_mutex_lock(&site->lock);
	i = find_learned(site, bucket);
	if (i < 0)	/* in the place of the oldest */
		i = site->nr_learned++ % room;
	strcpy(site->learned[i].bucket, bucket);
	strcpy(site->learned[i].region, region);
	pthread_mutex_unlock(&site->lock);
	return true;
}

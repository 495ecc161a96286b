/* SPDX-License-Identifier: GPL-2.0 */
/*
 * URLs: of a top image, of a name in it, of a prefix that is allowed.  The input
 * is these three texts, each up to a NUL.
 */
#include <ctype.h>
#include <unistd.h>

#include "fuzz.h"
#include "url.h"

/* Absolute, in printable ASCII, without a dot segment, a user or a fragment. */
static void check_canonical(const char *url)
{
	const char *path, *p;
	size_t len;

	for (p = url; *p; p++)
		assert(*p > 0x20 && *p < 0x7f && *p != '#' && *p != '\\');
	if (!strncmp(url, "file://", 7)) {
		path = url + 7;
		assert(*path == '/' && !strstr(path, "//"));
	} else {
		assert(!strncmp(url, "http://", 7) || !strncmp(url, "https://", 8) ||
		       (!strpbrk(url, "?") && (!strncmp(url, "s3://", 5) ||
					       !strncmp(url, "azure://", 8))));
		path = strchr(strchr(url, ':') + 3, '/');
		assert(path);
		for (p = url; p < path; p++)
			assert(!isupper((unsigned char)*p) && *p != '@' && *p != '?');
	}
	for (p = path; *p == '/'; p += len) {
		len = 1 + strcspn(p + 1, "/?");
		assert(!(len == 2 && p[1] == '.') && strncmp(p, "/..", len < 3 ? 3 : len));
	}
}

/* The canonical form of a canonical URL is itself, and a path comes back. */
static void check_again(const char *url)
{
	struct qc2_err err = { "" };
	struct qc2_top top;
	char *path, *again;

	check_canonical(url);
	if (qc2_url_top(url, &top, &err))
		assert(!err.msg[0]);
	assert(!strcmp(top.url, url) && !top.raw && !top.snapshot);
	qc2_top_free(&top);
	path = qc2_url_to_path(url);
	assert(!path == !!strncmp(url, "file:", 5));
	if (path) {
		assert(path[0] == '/');
		if (qc2_url_from_path(path, &again, &err))
			assert(!err.msg[0]);
		assert(!strcmp(again, url));
		free(again);
	}
	free(path);
}

/* Length of the URL up to the last slash of its path, found in another way. */
static size_t folder(const char *url)
{
	const char *end = strchrnul(url, '?');
	const char *slash = memrchr(url, '/', end - url);

	return slash + 1 - url;
}

static void check_resolve(const char *top, const char *name,
			  const char *const *allow, size_t nr_allow)
{
	bool plain = name[0] != '/' && !strpbrk(name, ":?#\\%") &&
		     strncmp(name, "../", 3) && !strstr(name, "/../");
	struct qc2_err err = { "" };
	bool inside, allowed;
	char *url;

	if (qc2_url_resolve(top, name, &url, &err)) {
		assert(err.msg[0]);
		return;
	}
	check_again(url);
	inside = !strncmp(url, top, folder(top));
	allowed = nr_allow && !strncmp(url, allow[0], strlen(allow[0]));
	/* A name without anything special in it stays in the folder. */
	assert(inside || !plain);
	assert(!qc2_url_allowed(url, top, allow, nr_allow, &err) ==
	       (inside || allowed));
	/* A local path comes from a local image or an absolute URL. */
	assert(strncmp(url, "file:", 5) || !strncmp(top, "file:", 5) ||
	       !strncasecmp(name, "file:", 5));
	free(url);
}

/* A name of an object is that of its URL, and a redirect stays within the policy. */
static void check_others(const char *top, const char *name, const char *const *allow,
			 size_t nr_allow)
{
	struct qc2_err err = { "" };
	char *url, *key;

	if (!qc2_url_from_key(top, name, &url, &err)) {
		check_again(url);
		assert(qc2_url_same_origin(url, top));
		key = qc2_url_to_key(url);
		/* With the container, at azure://. */
		assert(strlen(key) >= strlen(name) &&
		       !strcmp(key + strlen(key) - strlen(name), name));
		free(key);
		free(url);
	}
	if (!strncmp(top, "http", 4) &&
	    !qc2_url_redirect(top, name, allow, nr_allow, &url, &err)) {
		check_canonical(url);
		assert(qc2_url_same_origin(url, top) || !strncmp(url, "https:", 6) ||
		       (nr_allow && !strncmp(url, allow[0], strlen(allow[0]))));
		free(url);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	char *text = take_text(&in), *name = take_text(&in);
	char *prefix_text = take_text(&in), *prefix = NULL, *again;
	struct qc2_err err = { "" };
	struct qc2_top top, second;

	if (!qc2_url_prefix(prefix_text, &prefix, &err)) {
		check_canonical(prefix);
		assert(prefix[strlen(prefix) - 1] == '/' && !strchr(prefix, '?'));
		assert(!qc2_url_prefix(prefix, &again, &err));
		assert(!strcmp(prefix, again));
		free(again);
	}
	if (!qc2_url_top(text, &top, &err)) {
		check_again(top.url);
		/* As it is written into state files and read again. */
		again = qc2_top_text(&top);
		assert(!qc2_url_top(again, &second, &err));
		assert(!strcmp(second.url, top.url) && second.raw == top.raw);
		assert(!second.snapshot == !top.snapshot &&
		       (!top.snapshot || !strcmp(second.snapshot, top.snapshot)));
		qc2_top_free(&second);
		free(again);
		check_resolve(top.url, name, (const char *const *)&prefix,
			      prefix ? 1 : 0);
		check_others(top.url, name, (const char *const *)&prefix, prefix ? 1 : 0);
		qc2_top_free(&top);
	}
	free(prefix);
	free(prefix_text);
	free(name);
	free(text);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * URLs of images.  Pure functions on text; any thread may call them.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "url.h"

#define FORMAT_RAW	"#format=raw"
#define SNAPSHOT	"#snapshot="

/* A URL longer than this is not one that anybody's store hands out. */
#define MAX_URL		8192

enum scheme { SCHEME_FILE, SCHEME_HTTP, SCHEME_HTTPS, SCHEME_S3, SCHEME_AZURE, NR_SCHEMES };

static const char *const scheme_names[] = { "file", "http", "https", "s3", "azure" };

/* The host is no name of the DNS, and a path is all that follows. */
static bool is_bucket_scheme(enum scheme scheme)
{
	return scheme == SCHEME_S3 || scheme == SCHEME_AZURE;
}

static bool is_unreserved(unsigned char c)
{
	return c < 0x80 && (isalnum(c) || (c && strchr("-._~", c)));
}

/* May stand for itself within a segment of a path. */
static bool is_pchar(unsigned char c)
{
	return is_unreserved(c) || (c && strchr("!$&'()*+,;=:@", c));
}

static bool is_control(unsigned char c)
{
	return c < 0x20 || c == 0x7f;
}

static int hex_value(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static char *put_encoded(char *out, unsigned char c)
{
	return out + sprintf(out, "%%%02X", c);
}

static bool has_control(const char *s)
{
	while (*s && !is_control(*s))
		s++;
	return *s;
}

/* Length of "scheme:" or 0; a colon behind a slash belongs to a name. */
static size_t scheme_len(const char *s)
{
	size_t n = strcspn(s, ":/?#");

	return s[n] == ':' ? n : 0;
}

/* One spelling for each character; dot segments are looked at afterwards. */
static int canonical_chars(const char *url, enum scheme scheme,
			   const char *path, size_t len, char *out,
			   struct qc2_err *err)
{
	bool file = scheme == SCHEME_FILE;
	size_t i;

	for (i = 0; i < len; i++) {
		unsigned char c = path[i];
		bool encoded = c == '%';

		if (encoded) {
			int hi = i + 1 < len ? hex_value(path[i + 1]) : -1;
			int lo = i + 2 < len ? hex_value(path[i + 2]) : -1;

			if (hi < 0 || lo < 0)
				return qc2_fail(err, EINVAL,
					"%s: '%%' without two hexadecimal digits behind it; a percent sign is written %%25",
					url);
			c = hi << 4 | lo;
			i += 2;
			if (c == '/' || is_control(c))
				return qc2_fail(err, EINVAL,
					"%s: %%%02X in a path is refused",
					url, c);
		}
		/* Some servers take a backslash for a slash. */
		if (c == '\\' && !file)
			return qc2_fail(err, EINVAL,
				"%s: a backslash in a path is refused", url);
		if (encoded ? is_unreserved(c) || (file && is_pchar(c)) :
			      is_pchar(c) || c == '/')
			*out++ = c;
		else
			out = put_encoded(out, c);
	}
	*out = '\0';
	return 0;
}

/* Removes "." and ".." segments in place; empty ones too with @merge. */
static void remove_dots(char *path, bool merge)
{
	const char *in = path;
	char *out = path;

	/* @path begins with a slash; each turn handles "/segment". */
	while (*in) {
		size_t len = 1 + strcspn(in + 1, "/");
		bool last = !in[len];

		if (len == 3 && in[1] == '.' && in[2] == '.') {
			while (out > path && *--out != '/')
				;
			if (last)
				*out++ = '/';
		} else if ((len == 2 && in[1] == '.') || (len == 1 && merge)) {
			if (last)
				*out++ = '/';
		} else {
			memmove(out, in, len);
			out += len;
		}
		in += len;
	}
	*out = '\0';
}

static int canonical_host(const char *url, const char *host, size_t len,
			  char *out, struct qc2_err *err)
{
	const char *const bad =
		"%s: bad host; a URL looks like https://HOST[:PORT]/FOLDER/IMAGE";
	size_t i = 0, start;
	unsigned long port;

	if (len && host[0] == '[') {
		for (i = 1; i < len && (isxdigit((unsigned char)host[i]) ||
					strchr(":.", host[i])); i++)
			;
		if (i == len || host[i++] != ']' || i == 2)
			return qc2_fail(err, EINVAL, bad, url);
	} else {
		while (i < len && is_unreserved((unsigned char)host[i]))
			i++;
		if (!i)
			return qc2_fail(err, EINVAL, bad, url);
	}
	if (i < len) {
		if (host[i++] != ':')
			return qc2_fail(err, EINVAL, bad, url);
		for (start = i, port = 0; i < len && port <= 65535 &&
		     isdigit((unsigned char)host[i]); i++)
			port = port * 10 + (host[i] - '0');
		if (i < len || i == start || !port || port > 65535)
			return qc2_fail(err, EINVAL, bad, url);
	}
	for (i = 0; i < len; i++)
		out[i] = tolower((unsigned char)host[i]);
	out[len] = '\0';
	return 0;
}

static bool is_lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* The name of a bucket (s3) or of a storage account (azure). */
static int canonical_bucket(const char *url, enum scheme scheme, const char *name, size_t len,
			    char *out, struct qc2_err *err)
{
	bool s3 = scheme == SCHEME_S3, ok = len >= 3 && len <= (s3 ? 63 : 24);

	for (size_t i = 0; i < len && ok; i++)
		ok = is_lower_alnum(name[i]) ||
		     (s3 && i && i + 1 < len && strchr(".-", name[i]));
	if (!ok && s3)
		return qc2_fail(err, EINVAL,
			"%s: bad name of a bucket (3 to 63 lower-case letters, digits, '.' and '-'); a URL looks like s3://BUCKET/FOLDER/IMAGE, and the server's address is \"endpoint\" in the stores file",
			url);
	if (!ok)
		return qc2_fail(err, EINVAL,
			"%s: bad name of a storage account (3 to 24 lower-case letters and digits); a URL looks like azure://ACCOUNT/CONTAINER/IMAGE, and the server's address is \"endpoint\" in the stores file",
			url);
	memcpy(out, name, len);
	out[len] = '\0';
	return 0;
}

static int canonicalise(const char *url, char **canonical, struct qc2_err *err)
{
	size_t host_len = 0, path_len, query_len, n;
	const char *host = "", *path, *query;
	char shown[160], *buf, *out;
	enum scheme scheme;
	int ret;

	/* Errors show the start of the URL, but never a password. */
	qc2_printable(url, strlen(url), shown, sizeof(shown));
	n = scheme_len(url);
	for (scheme = 0; scheme < NR_SCHEMES; scheme++)
		if (n && strlen(scheme_names[scheme]) == n &&
		    !strncasecmp(url, scheme_names[scheme], n) &&
		    !strncmp(url + n, "://", 3))
			break;
	if (scheme < NR_SCHEMES) {
		host = url + n + 3;
		host_len = strcspn(host, "/?#");
		if (memchr(host, '@', host_len))
			return qc2_fail(err, EINVAL,
				"%s://...@...: a user name or password in a URL is refused, because it would appear in status and logs; remove it",
				scheme_names[scheme]);
	}
	if (scheme < NR_SCHEMES && is_bucket_scheme(scheme) && strchr(url, '?')) {
		/* Whatever follows may be a signature. */
		shown[strcspn(shown, "?")] = '\0';
		return qc2_fail(err, EINVAL,
			"%s: '?' in the URL; what signs requests belongs in the stores file, and a '?' in a name is written %%3F",
			shown);
	}
	for (n = 0; url[n]; n++)
		if (is_control(url[n]))
			return qc2_fail(err, EINVAL,
				"%s: control character at position %zu of the URL",
				shown, n);
	if (n > MAX_URL)
		return qc2_fail(err, ENAMETOOLONG,
			"%s...: URL longer than %d characters", shown, MAX_URL);
	if (scheme == NR_SCHEMES)
		return qc2_fail(err, EINVAL,
			"%s: not a URL this program reads; it begins with file:///, http://, https://, s3:// or azure://",
			shown);
	if (strchr(url, '#'))
		return qc2_fail(err, EINVAL,
			"%s: '#' in a URL; only " FORMAT_RAW " or " SNAPSHOT "NAME may follow the URL of a top image, and a '#' in a name is written %%23",
			shown);

	path = host + host_len;
	/* A question mark is not special in file:// names to everybody. */
	query = scheme == SCHEME_FILE ? path + strlen(path) :
					path + strcspn(path, "?");
	path_len = query - path;
	query_len = strlen(query);

	/* No byte becomes more than three. */
	buf = malloc(sizeof("azure:///") + 3 * n);
	if (!buf)
		return qc2_fail(err, ENOMEM, "out of memory");
	out = buf + sprintf(buf, "%s://", scheme_names[scheme]);
	if (scheme == SCHEME_FILE) {
		/* "?" ends a host as well: it is then no path that begins there. */
		if (host[host_len] == '?' ||
		    (host_len && !(host_len == 9 &&
				   !strncasecmp(host, "localhost", 9)))) {
			ret = qc2_fail(err, EINVAL,
				"%s: a file URL names no host; it looks like file:///FOLDER/IMAGE",
				shown);
			goto fail;
		}
	} else {
		ret = is_bucket_scheme(scheme) ?
		      canonical_bucket(shown, scheme, host, host_len, out, err) :
		      canonical_host(shown, host, host_len, out, err);
		if (ret)
			goto fail;
		out += host_len;
	}
	if (!path_len) {
		ret = qc2_fail(err, EINVAL, "%s: no path in the URL", shown);
		goto fail;
	}
	ret = canonical_chars(shown, scheme, path, path_len, out, err);
	if (ret)
		goto fail;
	remove_dots(out, scheme == SCHEME_FILE);
	out += strlen(out);
	for (; query_len; query_len--, query++) {
		unsigned char c = *query;

		if (is_pchar(c) || strchr("/?%[]", c))
			*out++ = c;
		else
			out = put_encoded(out, c);
	}
	*out = '\0';
	/* Else the canonical form could not be read again. */
	if (out - buf > MAX_URL) {
		ret = qc2_fail(err, ENAMETOOLONG,
			"%s...: URL longer than %d characters when percent-encoded",
			shown, MAX_URL);
		goto fail;
	}
	*canonical = buf;
	return 0;
fail:
	free(buf);
	return ret;
}

/* Length of a canonical URL up to the last slash of its path, inclusive. */
static size_t folder_len(const char *url)
{
	size_t n = strcspn(url, "?");

	while (url[n - 1] != '/')
		n--;
	return n;
}

/* As canonicalise(), for an image. */
static int canonical_image(const char *url, char **canonical,
			   struct qc2_err *err)
{
	size_t n;
	int ret;

	ret = canonicalise(url, canonical, err);
	if (ret)
		return ret;
	n = strcspn(*canonical, "?");
	if ((*canonical)[n - 1] == '/')
		ret = qc2_fail(err, EISDIR, "%.160s: names a folder, not an image",
			       *canonical);
	else if (!strncmp(*canonical, "azure:", 6) && folder_len(*canonical) ==
		 strlen("azure://") + strcspn(*canonical + strlen("azure://"), "/") + 1)
		ret = qc2_fail(err, EINVAL,
			       "%.160s: no container in the URL; it looks like azure://ACCOUNT/CONTAINER/IMAGE",
			       *canonical);
	else
		return 0;
	free(*canonical);
	*canonical = NULL;
	return ret;
}

int qc2_url_top(const char *url, struct qc2_top *top, struct qc2_err *err)
{
	const char *suffix = strchrnul(url, '#');
	const char *name = NULL;
	char *copy;
	int ret;

	memset(top, 0, sizeof(*top));
	if (!strncmp(suffix, SNAPSHOT, strlen(SNAPSHOT)))
		name = suffix + strlen(SNAPSHOT);
	else
		top->raw = !strcmp(suffix, FORMAT_RAW);

	copy = name || top->raw ? strndup(url, suffix - url) : strdup(url);
	if (!copy)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = canonical_image(copy, &top->url, err);
	free(copy);
	if (!ret && name && (!*name || has_control(name)))
		ret = qc2_fail(err, EINVAL,
			"%.160s" SNAPSHOT ": the name of the snapshot is missing, or has control characters",
			top->url);
	if (!ret && name) {
		top->snapshot = strdup(name);
		if (!top->snapshot)
			ret = qc2_fail(err, ENOMEM, "out of memory");
	}
	if (ret)
		qc2_top_free(top);
	return ret;
}

void qc2_top_free(struct qc2_top *top)
{
	free(top->url);
	free(top->snapshot);
	memset(top, 0, sizeof(*top));
}

char *qc2_top_text(const struct qc2_top *top)
{
	char *text;

	if (asprintf(&text, "%s%s%s", top->url,
		     top->raw ? FORMAT_RAW : top->snapshot ? SNAPSHOT : "",
		     top->snapshot ? top->snapshot : "") < 0)
		return NULL;
	return text;
}

int qc2_url_prefix(const char *url, char **canonical, struct qc2_err *err)
{
	char *copy;
	int ret;

	if (strchr(url, '?')) {
		char shown[160];

		return qc2_fail(err, EINVAL, "%s: '?' in the URL of a folder",
				qc2_printable(url, strlen(url), shown,
					      sizeof(shown)));
	}
	if (asprintf(&copy, "%s/", url) < 0)
		return qc2_fail(err, ENOMEM, "out of memory");
	if (url[0] && url[strlen(url) - 1] == '/')
		copy[strlen(url)] = '\0';
	ret = canonicalise(copy, canonical, err);
	free(copy);
	return ret;
}

/* Percent-encodes what cannot stand in a URL, and what is in @also. */
static char *encode_name(const char *name, const char *also)
{
	char *buf = malloc(3 * strlen(name) + 1), *out = buf;

	if (!buf)
		return NULL;
	for (; *name; name++) {
		unsigned char c = *name;

		if (is_control(c) || c >= 0x80 || strchr(also, c))
			out = put_encoded(out, c);
		else
			*out++ = c;
	}
	*out = '\0';
	return buf;
}

int qc2_url_from_path(const char *path, char **canonical, struct qc2_err *err)
{
	char *name, *url = NULL;
	int ret = -ENOMEM;

	name = encode_name(path, "%?#\\ ");
	if (!name || asprintf(&url, "file://%s", name) < 0)
		qc2_fail(err, ENOMEM, "out of memory");
	else
		ret = canonical_image(url, canonical, err);
	free(url);
	free(name);
	return ret;
}

/* What is behind the host, decoded; the caller frees it.  NULL: out of memory. */
static char *decode_path(const char *url)
{
	char *path = strdup(url), *out;

	if (!path)
		return NULL;
	for (out = path; *url; url++) {
		if (*url == '%' && hex_value(url[1]) >= 0 &&
		    hex_value(url[2]) >= 0) {
			*out++ = hex_value(url[1]) << 4 | hex_value(url[2]);
			url += 2;
		} else {
			*out++ = *url;
		}
	}
	*out = '\0';
	return path;
}

char *qc2_url_to_path(const char *url)
{
	return strncmp(url, "file:///", 8) ? NULL : decode_path(url + 7);
}

char *qc2_url_to_key(const char *url)
{
	const char *host = strstr(url, "://") + 3;

	return decode_path(host + strcspn(host, "/") + 1);
}

/* Length of a canonical URL up to the slash in front of the names that a list has. */
static size_t bucket_len(const char *url)
{
	const char *host = strstr(url, "://") + 3;
	size_t len = host + strcspn(host, "/") - url;

	/* The container is between account and name. */
	if (!strncmp(url, "azure:", 6) && url[len])
		len += 1 + strcspn(url + len + 1, "/");
	return len;
}

int qc2_url_from_key(const char *base, const char *key, char **canonical, struct qc2_err *err)
{
	size_t len = bucket_len(base);
	char *name, *again, *url = NULL;
	int ret = -ENOMEM;

	*canonical = NULL;
	name = encode_name(key, "%?#\\ ");
	if (!name || asprintf(&url, "%.*s/%s", (int)len, base, name) < 0)
		qc2_fail(err, ENOMEM, "out of memory");
	else
		ret = canonical_image(url, canonical, err);
	free(url);
	free(name);
	if (ret)
		return ret;
	/* Dot segments in a name of an object would lead to another one. */
	again = bucket_len(*canonical) == len && !strncmp(*canonical, base, len) ?
		decode_path(*canonical + len + 1) : strdup("");
	if (again && *key && !strcmp(again, key)) {
		free(again);
		return 0;
	}
	ret = again ? qc2_fail(err, EINVAL, "%.300s: an object's name that no URL has",
			       *canonical) : qc2_fail(err, ENOMEM, "out of memory");
	free(again);
	free(*canonical);
	*canonical = NULL;
	return ret;
}

int qc2_url_resolve(const char *base, const char *name, char **canonical,
		    struct qc2_err *err)
{
	bool file = !strncmp(base, "file:", 5);
	char shown[160], *encoded, *url = NULL;
	size_t n = scheme_len(name);
	int ret;

	qc2_printable(name, strlen(name), shown, sizeof(shown));
	if (n == 4 && !strncmp(name, "json", 4))
		return qc2_fail(err, EOPNOTSUPP,
			"%.300s: a file is given as \"json:\", which is not supported; use qemu-img rebase -u to write a plain name",
			base);
	if (n && !strncmp(name + n, "://", 3)) {
		ret = canonical_image(name, canonical, err);
		goto out;
	}
	if (n)
		return qc2_fail(err, EOPNOTSUPP,
			"%.300s: file %s: protocol \"%.*s:\" is not supported (a file whose name has a colon is written ./NAME)",
			base, shown, (int)(n < 32 ? n : 32), shown);
	if (name[0] == '/') {
		if (!file)
			return qc2_fail(err, EACCES,
				"%.300s: file %s is a path on the machine that wrote the image; use qemu-img rebase -u to write a name relative to the image, or a URL",
				base, shown);
		ret = qc2_url_from_path(name, canonical, err);
		goto out;
	}
	/*
	 * Control characters are encoded as well, to be refused with the other
	 * ones rather than to end a name early.
	 */
	encoded = encode_name(name, file ? "%?#\\ " : "# ");
	if (!encoded || asprintf(&url, "%.*s%s", (int)folder_len(base), base,
				 encoded) < 0)
		ret = qc2_fail(err, ENOMEM, "out of memory");
	else
		ret = canonical_image(url, canonical, err);
	free(url);
	free(encoded);
out:
	if (ret)
		qc2_fail_prefix(err, ret, "%.300s: bad file name in the header: ",
				base);
	return ret;
}

bool qc2_url_has_name(const char *url)
{
	static const char local[] = ".localhost";
	char host[256] = ".", *name = host + 1;
	const char *start = strstr(url, "://") + 3;
	size_t len = strcspn(start, ":/");
	struct in_addr addr;

	if (strncmp(url, "http", 4) || !len || *start == '[')
		return false;
	if (len > sizeof(host) - 2)
		return true;
	memcpy(name, start, len);
	if (len + 1 >= strlen(local) && !strcmp(name + len - strlen(local), local))
		return false;
	return inet_pton(AF_INET, name, &addr) != 1;
}

static bool has_prefix(const char *url, const char *prefix, size_t len)
{
	/* "http://host/images" is no prefix of "http://host/images2/x". */
	return len && !strncmp(url, prefix, len) &&
	       (prefix[len - 1] == '/' || url[len] == '/');
}

/* Length of a canonical URL up to its path. */
static size_t origin_len(const char *url)
{
	const char *host = strstr(url, "://") + 3;

	return host + strcspn(host, "/") - url;
}

/* Of the host alone, without a port. */
static size_t bare_host_len(const char *host)
{
	return *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
}

bool qc2_url_same_origin(const char *one, const char *two)
{
	size_t len = origin_len(one);

	return len == origin_len(two) && !strncmp(one, two, len);
}

int qc2_url_redirect(const char *from, const char *location, const char *const *allow,
		     size_t nr_allow, char **target, struct qc2_err *err)
{
	const char *old = strstr(from, "://") + 3, *new;
	char *url = NULL;
	CURLU *parts = curl_url();
	size_t i;
	int ret;

	*target = NULL;
	if (!parts || curl_url_set(parts, CURLUPART_URL, from, 0) ||
	    curl_url_set(parts, CURLUPART_URL, location, 0) ||
	    curl_url_get(parts, CURLUPART_URL, &url, 0)) {
		curl_url_cleanup(parts);
		return qc2_fail(err, EPROTO, "the server redirects to no usable URL");
	}
	curl_url_cleanup(parts);
	url[strcspn(url, "#")] = '\0';
	ret = canonicalise(url, target, err);
	curl_free(url);
	if (ret)	/* its text would show a signature */
		return qc2_fail(err, EPROTO, "the server redirects to no usable URL");
	new = strstr(*target, "://") + 3;
	if (qc2_url_same_origin(from, *target))
		return 0;
	if (!strncmp(*target, "https:", 6) && bare_host_len(old) == bare_host_len(new) &&
	    !strncmp(old, new, bare_host_len(old)))
		return 0;
	for (i = 0; i < nr_allow; i++)
		if (has_prefix(*target, allow[i], strlen(allow[i])))
			return 0;
	i = origin_len(*target);
	ret = qc2_fail(err, EACCES,
		"the server redirects to %.*s; if that may be followed, add %.*s/ to \"allow\" in section [chain] of the configuration",
		(int)(i < 200 ? i : 200), *target, (int)(i < 200 ? i : 200), *target);
	free(*target);
	*target = NULL;
	return ret;
}

int qc2_url_allowed(const char *url, const char *top, const char *const *allow,
		    size_t nr_allow, struct qc2_err *err)
{
	size_t i;

	if (has_prefix(url, top, folder_len(top)))
		return 0;
	for (i = 0; i < nr_allow; i++)
		if (has_prefix(url, allow[i], strlen(allow[i])))
			return 0;
	return qc2_fail(err, EACCES,
		"%.300s is outside the folder of the top image; if it may be read, add %.*s to \"allow\" in section [chain] of the configuration",
		url, (int)(folder_len(url) < 300 ? folder_len(url) : 300), url);
}

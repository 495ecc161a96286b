/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What programs and metadata services answer: JSON, and the XML of the token service.
 * Pure functions; any thread may call them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "credentials_source.h"
#include "secret.h"
#include "xml.h"

/* What may be in a header without meaning anything else: visible ASCII. */
static bool visible(const char *s)
{
	while (*s > ' ' && *s < 0x7f)
		s++;
	return !*s;
}

int qc2_creds_make(const char *id, const char *secret, const char *token, int64_t expires,
		   int64_t now, struct qc2_keys **keys, struct qc2_err *err)
{
	if (!id || !*id || !secret || !*secret)
		return qc2_fail(err, EAGAIN, "has no %s",
				id && *id ? "secret access key" : "access key id");
	if (token && !*token)
		token = NULL;
	if (!visible(id) || !visible(secret) || (token && !visible(token)))
		return qc2_fail(err, EAGAIN,
			"has an access key id, secret or token with a space or control character");
	if (expires && expires <= now)
		return qc2_fail(err, EAGAIN,
			"has keys that expired %lld s ago by this machine's clock",
			(long long)(now - expires));
	*keys = qc2_keys_new(id, secret, token, expires);
	return *keys ? 0 : qc2_fail(err, ENOMEM, "out of memory");
}

int64_t qc2_creds_time(const char *text)
{
	int sign, hours = 0, minutes = 0, used = 0;
	struct tm tm = { };
	char c;

	/* Field widths keep every number small. */
	if (sscanf(text, "%4d-%2d-%2d%c%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &c,
		   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &used) != 7 || !used ||
	    (c != 'T' && c != 't' && c != ' '))
		return -1;
	if (tm.tm_year < 1970 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 ||
	    tm.tm_mday > 31 || tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 ||
	    tm.tm_min > 59 || tm.tm_sec < 0 || tm.tm_sec > 60)
		return -1;
	text += used;
	if (*text == '.')
		text += 1 + strspn(text + 1, "0123456789");
	if (*text == '+' || *text == '-') {
		sign = *text == '+' ? 1 : -1;
		used = 0;
		if (sscanf(text + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2 || !used ||
		    hours < 0 || hours > 23 || minutes < 0 || minutes > 59 || text[1 + used])
			return -1;
	} else if (strcmp(text, "Z") && strcmp(text, "z")) {
		return -1;
	} else {
		sign = 0;
	}
	tm.tm_year -= 1900;
	tm.tm_mon--;
	return timegm(&tm) - sign * (hours * 3600 + minutes * 60);
}

/* Wipes what was copied out of the answer before it goes back to malloc(). */
static void wipe_json(json_t *object)
{
	const char *name;
	json_t *value;

	json_object_foreach(object, name, value) {
		if (json_is_string(value))
			explicit_bzero((char *)json_string_value(value),
				       json_string_length(value));
	}
	json_decref(object);
}

static int keys_from_json(json_t *object, const char *token, bool version, int64_t now,
			  struct qc2_keys **keys, struct qc2_err *err)
{
	const char *code = json_string_value(json_object_get(object, "Code"));
	json_t *expiration = json_object_get(object, "Expiration");
	int64_t expires = 0;

	if (!json_is_object(object))
		return qc2_fail(err, EAGAIN, "is not a JSON object");
	if (version && json_integer_value(json_object_get(object, "Version")) != 1)
		return qc2_fail(err, EAGAIN, "does not have \"Version\": 1");
	if (code && strcmp(code, "Success"))
		return qc2_fail(err, EAGAIN, "has a code other than Success");
	if (json_is_string(expiration)) {
		expires = qc2_creds_time(json_string_value(expiration));
		if (expires <= 0)
			return qc2_fail(err, EAGAIN, "has an \"Expiration\" that is no time");
	} else if (!version || (expiration && !json_is_null(expiration))) {
		return qc2_fail(err, EAGAIN, "has no \"Expiration\"");
	}
	return qc2_creds_make(json_string_value(json_object_get(object, "AccessKeyId")),
			      json_string_value(json_object_get(object, "SecretAccessKey")),
			      json_string_value(json_object_get(object, token)), expires, now,
			      keys, err);
}

int qc2_creds_parse_json(const char *text, size_t len, const char *token, bool version,
			 int64_t now, struct qc2_keys **keys, struct qc2_err *err)
{
	/* The parser's own error would quote the text. */
	json_t *object = json_loadb(text, len, 0, NULL);
	int ret;

	ret = keys_from_json(object, token, version, now, keys, err);
	wipe_json(object);
	return ret;
}

/* --- XML ------------------------------------------------------------------------ */

enum { XML_ID, XML_SECRET, XML_TOKEN, XML_EXPIRATION, XML_CODE, NR_XML };

#define STS	"AssumeRoleWithWebIdentityResponse/AssumeRoleWithWebIdentityResult/Credentials/"

static const char *const paths[NR_XML] = {
	[XML_ID] = STS "AccessKeyId",
	[XML_SECRET] = STS "SecretAccessKey",
	[XML_TOKEN] = STS "SessionToken",
	[XML_EXPIRATION] = STS "Expiration",
	[XML_CODE] = "ErrorResponse/Error/Code",
};

/* What was found in an answer; the texts together are no longer than the answer. */
struct xml {
	const char *text[NR_XML];	/* NULL: was not there */
	char *next;			/* room for the next text */
};

static int on_element(void *arg, const char *path, const char *text)
{
	struct xml *xml = arg;

	for (int i = 0; i < NR_XML; i++) {
		if (!xml->text[i] && !strcmp(path, paths[i])) {
			xml->text[i] = xml->next;
			xml->next = stpcpy(xml->next, text) + 1;
		}
	}
	return 0;
}

/* @memory has @len + NR_XML bytes. */
static bool read_xml(struct xml *xml, const char *text, size_t len, char *memory)
{
	*xml = (struct xml){ .next = memory };
	return !qc2_xml_parse(text, len, on_element, xml);
}

static int keys_from_xml(const struct xml *xml, int64_t now, struct qc2_keys **keys,
			 struct qc2_err *err)
{
	int64_t expires;

	if (!xml->text[XML_EXPIRATION])
		return qc2_fail(err, EAGAIN, "has no Expiration");
	expires = qc2_creds_time(xml->text[XML_EXPIRATION]);
	if (expires <= 0)
		return qc2_fail(err, EAGAIN, "has an Expiration that is no time");
	if (!xml->text[XML_TOKEN])
		return qc2_fail(err, EAGAIN, "has no SessionToken");
	return qc2_creds_make(xml->text[XML_ID], xml->text[XML_SECRET], xml->text[XML_TOKEN],
			      expires, now, keys, err);
}

int qc2_creds_parse_sts(const char *text, size_t len, int64_t now, struct qc2_keys **keys,
			struct qc2_err *err)
{
	char *memory = qc2_secret_alloc(len + NR_XML);
	struct xml xml;
	int ret;

	if (!memory)
		return qc2_fail(err, ENOMEM, "out of memory");
	if (read_xml(&xml, text, len, memory))
		ret = keys_from_xml(&xml, now, keys, err);
	else
		ret = qc2_fail(err, EAGAIN, "is not the XML that was expected");
	qc2_secret_free(memory);
	return ret;
}

void qc2_creds_parse_sts_error(const char *text, size_t len, char code[48])
{
	char *memory = qc2_secret_alloc(len + NR_XML);
	const char *found;
	struct xml xml;

	code[0] = '\0';
	if (!memory)
		return;
	if (read_xml(&xml, text, len, memory)) {
		found = xml.text[XML_CODE];
		/* No token is all letters. */
		if (found && strlen(found) < 48 && !found[strspn(found,
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")])
			strcpy(code, found);
	}
	qc2_secret_free(memory);
}

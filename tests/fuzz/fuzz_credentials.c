/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What gives credentials: the first byte says what the rest is, an answer in JSON or XML, a
 * time, a command, or INI text.  Keys that come out of it may be in a header.
 */
#include <time.h>

#include "credentials_source.h"
#include "fuzz.h"
#include "ini_text.h"

static void check_text(const char *text)
{
	for (; text && *text; text++)
		assert(*text > ' ' && *text < 0x7f);
}

static void check_keys(int ret, struct qc2_keys *keys, int64_t now)
{
	assert(!ret == !!keys);
	if (ret)
		return;
	assert(keys->id && *keys->id && keys->secret && *keys->secret);
	assert(!keys->expires || keys->expires > now);
	check_text(keys->id);
	check_text(keys->secret);
	check_text(keys->token);
	qc2_keys_unref(keys);
}

static void check_split(const char *command)
{
	char **words = qc2_creds_split(command);
	size_t total = 0;

	if (!words)
		return;
	assert(words[0] && *words[0]);
	for (size_t i = 0; words[i]; i++)
		total += strlen(words[i]);
	assert(total <= strlen(command));
	free(words);
}

static void check_ini(char *text, size_t len)
{
	struct qc2_ini ini = { .rest = text };
	enum qc2_ini_item item;
	unsigned int line = 0;

	while ((item = qc2_ini_next(&ini)) != QC2_INI_END) {
		assert(ini.line > line);
		line = ini.line;
		if (item != QC2_INI_OTHER)
			assert(ini.name >= text && ini.name + strlen(ini.name) <= text + len);
		if (item == QC2_INI_KEY)
			assert(*ini.name && ini.value + strlen(ini.value) <= text + len);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned int what = take(&in, 1);
	const char *raw = (const char *)in.p;
	size_t len = in.len;
	const int64_t now = 1767225600;
	struct qc2_keys *keys = NULL;
	struct qc2_err err = { "" };
	struct tm tm;
	char code[48];
	char *text;
	time_t t;
	int ret;

	if (len > QC2_CREDS_MAX)
		return 0;
	switch (what % 6) {
	case 0:
		ret = qc2_creds_parse_json(raw, len, "Token", false, now, &keys, &err);
		check_keys(ret, keys, now);
		return 0;
	case 1:
		ret = qc2_creds_parse_json(raw, len, "SessionToken", true, now, &keys, &err);
		check_keys(ret, keys, now);
		return 0;
	case 2:
		ret = qc2_creds_parse_sts(raw, len, now, &keys, &err);
		check_keys(ret, keys, now);
		qc2_creds_parse_sts_error(raw, len, code);
		assert(strlen(code) < sizeof(code));
		return 0;
	}
	text = take_text(&in);
	switch (what % 6) {
	case 3:
		t = qc2_creds_time(text);
		assert(t == -1 || gmtime_r(&t, &tm));
		break;
	case 4:
		check_split(text);
		break;
	default:
		check_ini(text, strlen(text));
	}
	free(text);
	return 0;
}

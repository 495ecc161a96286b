/* SPDX-License-Identifier: GPL-2.0 */
/* State files.  Main thread only; no state in memory. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "log.h"
#include "state.h"

#define STATE_MAX_SIZE	65536

void disk_info_free(struct disk_info *info)
{
	free(info->name);
	free(info->url);
	free(info->tip);
	free(info->dm_name);
	memset(info, 0, sizeof(*info));
}

bool disk_name_ok(const char *name)
{
	size_t i;

	if (!name[0] || name[0] == '.' || name[0] == '-')
		return false;
	for (i = 0; name[i]; i++) {
		if (i == DISK_NAME_MAX ||
		    (!isalnum((unsigned char)name[i]) &&
		     !strchr("._-", name[i])))
			return false;
	}
	return true;
}

uint32_t parse_dev(const char *text)
{
	unsigned int major, minor;
	int end = 0;

	if (!isdigit((unsigned char)text[0]) ||
	    sscanf(text, "%5u:%8u%n", &major, &minor, &end) != 2 ||
	    text[end] || major >= 1U << 12 || minor >= 1U << 20)
		return 0;
	return major << 20 | minor;
}

void format_hex(const uint8_t *bytes, size_t len, char *text)
{
	size_t i;

	for (i = 0; i < len; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
}

static bool parse_hex(const char *text, uint8_t *bytes, size_t len)
{
	unsigned int byte;
	size_t i;

	if (strlen(text) != 2 * len)
		return false;
	for (i = 0; i < len; i++) {
		if (!isxdigit((unsigned char)text[2 * i]) ||
		    sscanf(text + 2 * i, "%2x", &byte) != 1)
			return false;
		bytes[i] = byte;
	}
	return true;
}

static char *state_path(const char *run_dir, const char *name,
			const char *suffix)
{
	char *path;

	return asprintf(&path, "%s/disks/%s%s", run_dir, name, suffix) < 0 ?
	       NULL : path;
}

int state_setup(const char *run_dir, struct qc2_err *err)
{
	char *path = state_path(run_dir, "", "");
	int ret = 0;

	if (!path)
		return qc2_fail(err, ENOMEM, "out of memory");
	if (mkdir(path, 0700) && errno != EEXIST)
		ret = qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	free(path);
	return ret;
}

static int write_file(const char *path, const char *text, struct qc2_err *err)
{
	size_t len = strlen(text);
	int fd, ret = 0;

	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	if (write(fd, text, len) != (ssize_t)len)
		ret = qc2_fail(err, errno ? errno : ENOSPC, "%s: %s", path,
			       strerror(errno ? errno : ENOSPC));
	if (close(fd) && !ret)
		ret = qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	return ret;
}

/* RUN_DIR does not survive a restart of the machine: no fsync. */
int state_save(const char *run_dir, const struct disk_info *info,
	       struct qc2_err *err)
{
	char *path = state_path(run_dir, info->name, ".json");
	char *tmp = state_path(run_dir, info->name, ".tmp");
	char id[2 * QC2_CHAIN_ID_LEN + 1];
	char dev[32];
	json_t *root;
	char *text;
	int ret;

	format_hex(info->chain_id, QC2_CHAIN_ID_LEN, id);
	snprintf(dev, sizeof(dev), "%u:%u", info->dev >> 20,
		 info->dev & 0xfffff);
	root = json_pack("{ss ss ss ss ss ss}", "name", info->name, "url",
			 info->url, "chain_id", id, "dev", dev, "dm_name",
			 info->dm_name, "tip", info->tip);
	text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
	json_decref(root);
	errno = 0;
	if (!path || !tmp || !text)
		ret = qc2_fail(err, ENOMEM, "state file: out of memory");
	else
		ret = write_file(tmp, text, err);
	if (!ret && rename(tmp, path))
		ret = qc2_fail(err, errno, "%s: %s", path, strerror(errno));
	if (ret && tmp)
		unlink(tmp);
	free(text);
	free(path);
	free(tmp);
	return ret;
}

void state_remove(const char *run_dir, const char *name)
{
	char *path = state_path(run_dir, name, ".json");

	if (path && unlink(path) && errno != ENOENT)
		log_warn("%s: %s", path, strerror(errno));
	free(path);
}

static bool parse_state(json_t *root, struct disk_info *info)
{
	const char *name, *url, *id, *dev, *dm_name, *tip;

	if (json_unpack(root, "{ss ss ss ss ss ss}", "name", &name, "url",
			&url, "chain_id", &id, "dev", &dev, "dm_name", &dm_name,
			"tip", &tip))
		return false;
	memset(info, 0, sizeof(*info));
	info->dev = parse_dev(dev);
	if (!disk_name_ok(name) || !info->dev ||
	    !parse_hex(id, info->chain_id, QC2_CHAIN_ID_LEN))
		return false;
	info->name = strdup(name);
	info->url = strdup(url);
	info->dm_name = strdup(dm_name);
	info->tip = strdup(tip);
	if (info->name && info->url && info->dm_name && info->tip)
		return true;
	disk_info_free(info);
	return false;
}

static bool load_file(const char *path, struct disk_info *info)
{
	struct stat st;
	json_t *root;
	bool ok;

	if (stat(path, &st) || st.st_size > STATE_MAX_SIZE)
		return false;
	root = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
	ok = root && parse_state(root, info);
	json_decref(root);
	return ok;
}

int state_load_all(const char *run_dir,
		   void (*found)(void *arg, struct disk_info *info), void *arg,
		   struct qc2_err *err)
{
	char *path = state_path(run_dir, "", "");
	struct disk_info info;
	struct dirent **names;
	int i, nr, ret = 0;

	nr = path ? scandir(path, &names, NULL, alphasort) : -1;
	if (nr < 0)
		ret = qc2_fail(err, errno, "%s/disks: %s", run_dir,
			       strerror(errno));
	free(path);
	for (i = 0; i < nr; i++) {
		size_t len = strlen(names[i]->d_name);

		path = NULL;
		if (len > 5 && !strcmp(names[i]->d_name + len - 5, ".json"))
			path = state_path(run_dir, names[i]->d_name, "");
		if (path && load_file(path, &info))
			found(arg, &info);
		else if (path)
			log_err("%s: is no usable state file; its disk stays without a daemon",
				path);
		free(path);
		free(names[i]);
	}
	if (nr >= 0)
		free(names);
	return ret;
}

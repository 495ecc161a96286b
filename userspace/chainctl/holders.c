/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who holds a block device open: mounts, swap, devices stacked on it, and
 * processes, as /proc and /sys tell.
 */
#include <ctype.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "holders.h"

struct list {
	char *text;
	size_t size;
	size_t len;
	unsigned int nr;
};

static void __attribute__((format(printf, 2, 3)))
add(struct list *list, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (list->len && list->len + 2 < list->size)
		list->len += sprintf(list->text + list->len, ", ");
	va_start(ap, fmt);
	n = vsnprintf(list->text + list->len, list->size - list->len, fmt, ap);
	va_end(ap);
	list->len += n;
	if (list->len >= list->size)
		list->len = list->size - 1;
}

static bool is_device(const char *path, dev_t dev)
{
	struct stat st;

	return !strncmp(path, "/dev/", 5) && !stat(path, &st) && S_ISBLK(st.st_mode) &&
	       st.st_rdev == dev;
}

static void find_mounts(dev_t dev, struct list *list)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		char *where = NULL, *source = NULL;
		const char *tail = strstr(line, " - ");
		unsigned int maj, min;

		/*
		 * id parent major:minor root mountpoint ... - type source ...
		 * The number is not the device's with file systems that span
		 * several devices.
		 */
		if (tail && sscanf(tail, " - %*s %ms", &source) == 1 &&
		    sscanf(line, "%*s %*s %u:%u %*s %ms", &maj, &min, &where) == 3 &&
		    (makedev(maj, min) == dev || is_device(source, dev))) {
			add(list, "mounted at %s", where);
			list->nr++;
		}
		free(where);
		free(source);
	}
	free(line);
	if (f)
		fclose(f);
}

static void find_swap(dev_t dev, struct list *list)
{
	FILE *f = fopen("/proc/swaps", "re");
	char path[256];

	while (f && fscanf(f, "%255s%*[^\n]", path) == 1) {
		if (is_device(path, dev)) {
			add(list, "swap");
			list->nr++;
		}
	}
	if (f)
		fclose(f);
}

/* Devices that lie on this one: partitions by kpartx, LVM, md, dm-crypt */
static void find_stacked(dev_t dev, struct list *list)
{
	struct dirent *entry;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major(dev), minor(dev));
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		add(list, "block device %s", entry->d_name);
		list->nr++;
	}
	if (dir)
		closedir(dir);
}

static bool process_has(const char *pid, dev_t dev)
{
	struct dirent *entry;
	char path[64];
	bool found = false;
	struct stat st;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir)))
		found = !fstatat(dirfd(dir), entry->d_name, &st, 0) &&
			S_ISBLK(st.st_mode) && st.st_rdev == dev;
	if (dir)
		closedir(dir);
	return found;
}

static void find_processes(dev_t dev, struct list *list)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char path[64], comm[32] = "?";
		FILE *f;

		if (!isdigit((unsigned char)entry->d_name[0]) ||
		    !process_has(entry->d_name, dev))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/comm", entry->d_name);
		f = fopen(path, "re");
		if (f) {
			if (fscanf(f, "%31[^\n]", comm) != 1)
				strcpy(comm, "?");
			fclose(f);
		}
		add(list, "process %.20s (%s)", entry->d_name, comm);
		if (!strstr(comm, "udev"))
			list->nr++;
	}
	if (dir)
		closedir(dir);
}

unsigned int holders_find(dev_t dev, char *text, size_t size)
{
	struct list list = { .text = text, .size = size };

	*text = 0;
	find_mounts(dev, &list);
	find_swap(dev, &list);
	find_stacked(dev, &list);
	find_processes(dev, &list);
	return list.nr;
}

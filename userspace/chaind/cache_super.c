/* SPDX-License-Identifier: GPL-2.0 */
/* The superblock of the cache.  No state. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <zlib.h>

#include "cache_super.h"

#define SUPER_BYTES	4096
#define MAGIC		"QC2CACHE"
#define VERSION		1

struct super {
	char magic[8];
	uint32_t version;
	uint32_t checksum;
	uint8_t id[QC2_CACHE_ID_LEN];
	uint8_t reserved[SUPER_BYTES - 32];
};

static uint32_t checksum(struct super *super)
{
	uint32_t old = super->checksum, sum;

	super->checksum = 0;
	sum = crc32(0, (const uint8_t *)super, sizeof(*super));
	super->checksum = old;
	return sum;
}

static int make_super(int fd, const char *path, struct super *super, struct qc2_err *err)
{
	memset(super, 0, sizeof(*super));
	memcpy(super->magic, MAGIC, sizeof(super->magic));
	super->version = htole32(VERSION);
	if (getrandom(super->id, sizeof(super->id), 0) != sizeof(super->id))
		return qc2_fail(err, EIO, "cache %s: no random numbers", path);
	super->checksum = htole32(checksum(super));
	if (pwrite(fd, super, sizeof(*super), 0) != sizeof(*super) || fdatasync(fd))
		return qc2_fail(err, errno ? errno : EIO, "cache %s: cannot be written: %s",
				path, strerror(errno));
	return 0;
}

static int check_super(int fd, const char *path, struct super *super, struct qc2_err *err)
{
	static const struct super empty;

	if (!memcmp(super, &empty, sizeof(empty)))
		return make_super(fd, path, super, err);
	if (memcmp(super->magic, MAGIC, sizeof(super->magic)))
		return qc2_fail(err, EEXIST,
				"cache %s: holds something else; if that is not needed: wipefs -a %s, and blkdiscard -z -l 4096 %s (or remove the file)",
				path, path, path);
	if (le32toh(super->version) != VERSION)
		return qc2_fail(err, EINVAL,
				"cache %s: has format %u, this version knows %u; empty it: dd if=/dev/zero of=%s bs=4096 count=1 conv=notrunc",
				path, le32toh(super->version), VERSION, path);
	/* Half written, perhaps: then it is another cache, and empty. */
	if (le32toh(super->checksum) != checksum(super))
		return make_super(fd, path, super, err);
	return 0;
}

int cache_super_load(int fd, const char *path, uint8_t id[QC2_CACHE_ID_LEN],
		     struct qc2_err *err)
{
	struct super *super;
	int ret;

	_Static_assert(sizeof(*super) == SUPER_BYTES, "one block");
	if (posix_memalign((void **)&super, SUPER_BYTES, SUPER_BYTES))
		return qc2_fail(err, ENOMEM, "cache: out of memory");
	if (pread(fd, super, sizeof(*super), 0) != sizeof(*super))
		ret = qc2_fail(err, errno ? errno : EIO, "cache %s: cannot be read: %s", path,
			       strerror(errno));
	else
		ret = check_super(fd, path, super, err);
	if (!ret)
		memcpy(id, super->id, QC2_CACHE_ID_LEN);
	free(super);
	return ret;
}

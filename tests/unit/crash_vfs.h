/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An SQLite VFS in the place of unix-excl in which the world ends at a chosen write.
 *
 * Each write, sync, truncation and deletion is an event; events are numbered from 1.  At
 * event crash.at the world stops: a write is done by half, the rest not at all, and from
 * then on everything fails, as for a process that has died (closing works, so that what it
 * had open is closed).  What the files then contain is what the process left behind.
 *
 * crash_power_loss() makes of it what a loss of power leaves: of what was written to a file
 * since its last sync, each piece is there, not there, or there in parts (sectors); a file
 * created or deleted since the directory was synced may be there or not.  No sync reaches
 * the real device; here it only says what is safe.
 *
 * With crash.error set the event at crash.at fails with it instead, and all goes on.
 */
#ifndef QC2_TEST_CRASH_VFS_H
#define QC2_TEST_CRASH_VFS_H

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include <stdbool.h>

#include "testing.h"

#define CRASH_SECTOR	512
#define CRASH_FILES	4

/* A change that no sync has made safe.  @data NULL: a truncation to @offset */
struct crash_op {
	uint8_t *data;
	size_t offset, len;
	struct crash_op *next;
};

/* A file's content at its last sync, and what came later */
struct crash_inode {
	uint8_t *safe;
	size_t safe_size;
	struct crash_op *ops, **last;
	struct crash_inode *all;
};

/* A name in the directory: what it leads to for sure, and now; NULL: no file */
struct crash_name {
	char path[256];
	struct crash_inode *safe, *now;
};

struct crash_file {
	sqlite3_file base;
	struct crash_inode *inode;
	sqlite3_file *real;
};

static struct {
	unsigned int at, events;
	int error;
	bool stopped;
	sqlite3_vfs vfs, *real;
	struct crash_name names[CRASH_FILES];
	struct crash_inode *inodes;
} crash;

static struct crash_name *crash_find(const char *path)
{
	unsigned int i;

	for (i = 0; i < CRASH_FILES; i++) {
		if (!crash.names[i].path[0])
			snprintf(crash.names[i].path, sizeof(crash.names[i].path), "%s", path);
		if (!strcmp(crash.names[i].path, path))
			return &crash.names[i];
	}
	fail_msg("%s: too many files", path);
	return NULL;
}

static void crash_drop_ops(struct crash_inode *inode)
{
	struct crash_op *op;

	while ((op = inode->ops)) {
		inode->ops = op->next;
		free(op->data);
		free(op);
	}
	inode->last = &inode->ops;
}

static struct crash_inode *crash_new_inode(void)
{
	struct crash_inode *inode = calloc(1, sizeof(*inode));

	inode->last = &inode->ops;
	inode->all = crash.inodes;
	crash.inodes = inode;
	return inode;
}

static void crash_add_op(struct crash_inode *inode, const void *data, size_t len, size_t offset)
{
	struct crash_op *op = calloc(1, sizeof(*op));

	if (data) {
		op->data = malloc(len);
		memcpy(op->data, data, len);
	}
	op->len = len;
	op->offset = offset;
	*inode->last = op;
	inode->last = &op->next;
}

static void crash_grow(uint8_t **content, size_t *size, size_t want)
{
	if (want <= *size)
		return;
	*content = realloc(*content, want);
	memset(*content + *size, 0, want - *size);
	*size = want;
}

static void crash_apply(uint8_t **content, size_t *size, const struct crash_op *op, size_t from,
			size_t len)
{
	if (!op->data) {
		crash_grow(content, size, op->offset);
		*size = op->offset;
		return;
	}
	crash_grow(content, size, op->offset + from + len);
	memcpy(*content + op->offset + from, op->data + from, len);
}

static void crash_sync(struct crash_inode *inode)
{
	const struct crash_op *op;

	for (op = inode->ops; op; op = op->next)
		crash_apply(&inode->safe, &inode->safe_size, op, 0, op->len);
	crash_drop_ops(inode);
}

static void crash_sync_dir(void)
{
	unsigned int i;

	for (i = 0; i < CRASH_FILES; i++)
		crash.names[i].safe = crash.names[i].now;
}

/* Forgets all that it knows: what the files contain is safe, and no event is chosen. */
static void crash_reset(void)
{
	struct crash_inode *inode;

	while ((inode = crash.inodes)) {
		crash.inodes = inode->all;
		crash_drop_ops(inode);
		free(inode->safe);
		free(inode);
	}
	memset(crash.names, 0, sizeof(crash.names));
	crash.at = crash.events = 0;
	crash.error = 0;
	crash.stopped = false;
}

/* How the unsynced pieces fare */
enum crash_fate { CRASH_DROP, CRASH_RANDOM };

static void crash_write_file(const char *path, const uint8_t *content, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, size), size);
	close(fd);
}

/* After all is closed.  Forgets what it knows. */
static void crash_power_loss(enum crash_fate fate, uint64_t *random)
{
	struct crash_inode *inode;
	struct crash_name *name;
	struct crash_op *op;
	size_t from, len;

	for (name = crash.names; name < crash.names + CRASH_FILES && name->path[0]; name++) {
		inode = name->safe;
		if (fate == CRASH_RANDOM && test_random(random) % 2)
			inode = name->now;
		if (!inode) {
			unlink(name->path);
			continue;
		}
		for (op = inode->ops; op; op = op->next) {
			unsigned int luck = fate == CRASH_DROP ? 0 : test_random(random) % 3;

			for (from = 0; luck == 1 && from < op->len; from += len) {
				len = op->len - from;
				if (len > CRASH_SECTOR)
					len = CRASH_SECTOR;
				if (test_random(random) % 2)
					crash_apply(&inode->safe, &inode->safe_size, op, from, len);
			}
			if (luck == 2)
				crash_apply(&inode->safe, &inode->safe_size, op, 0, op->len);
		}
		crash_write_file(name->path, inode->safe, inode->safe_size);
	}
	crash_reset();
}

/* 0: go on; else the error.  @last: it is this event that stops the world. */
static int crash_event(bool *last)
{
	*last = false;
	if (crash.stopped)
		return SQLITE_IOERR;
	if (++crash.events != crash.at)
		return 0;
	if (crash.error)
		return crash.error;
	crash.stopped = true;
	*last = true;
	return SQLITE_IOERR;
}

static sqlite3_file *crash_real(sqlite3_file *file)
{
	return ((struct crash_file *)file)->real;
}

static struct crash_inode *crash_inode(sqlite3_file *file)
{
	return ((struct crash_file *)file)->inode;
}

static int crash_x_close(sqlite3_file *file)
{
	return crash_real(file)->pMethods->xClose(crash_real(file));
}

static int crash_x_read(sqlite3_file *file, void *buf, int len, sqlite3_int64 offset)
{
	if (crash.stopped)
		return SQLITE_IOERR_READ;
	return crash_real(file)->pMethods->xRead(crash_real(file), buf, len, offset);
}

static int crash_x_write(sqlite3_file *file, const void *buf, int len, sqlite3_int64 offset)
{
	bool last;
	int ret = crash_event(&last);

	if (last)
		len /= 2;
	if (!ret || (last && len)) {
		int rc = crash_real(file)->pMethods->xWrite(crash_real(file), buf, len, offset);

		if (rc)
			return rc;
		crash_add_op(crash_inode(file), buf, len, offset);
	}
	return ret;
}

static int crash_x_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	bool last;
	int ret = crash_event(&last);

	if (ret)
		return ret;
	crash_add_op(crash_inode(file), NULL, 0, size);
	return crash_real(file)->pMethods->xTruncate(crash_real(file), size);
}

static int crash_x_sync(sqlite3_file *file, int flags)
{
	bool last;
	int ret = crash_event(&last);

	if (ret)
		return ret;
	/* The first sync of a journal or log syncs the directory, too. */
	crash_sync(crash_inode(file));
	crash_sync_dir();
	return 0;
}

static int crash_x_file_size(sqlite3_file *file, sqlite3_int64 *size)
{
	return crash_real(file)->pMethods->xFileSize(crash_real(file), size);
}

static int crash_x_lock(sqlite3_file *file, int level)
{
	return crash_real(file)->pMethods->xLock(crash_real(file), level);
}

static int crash_x_unlock(sqlite3_file *file, int level)
{
	return crash_real(file)->pMethods->xUnlock(crash_real(file), level);
}

static int crash_x_check_lock(sqlite3_file *file, int *reserved)
{
	return crash_real(file)->pMethods->xCheckReservedLock(crash_real(file), reserved);
}

static int crash_x_file_control(sqlite3_file *file, int op, void *arg)
{
	/* It would change the file's size past the events. */
	if (op == SQLITE_FCNTL_SIZE_HINT || op == SQLITE_FCNTL_CHUNK_SIZE)
		return SQLITE_NOTFOUND;
	return crash_real(file)->pMethods->xFileControl(crash_real(file), op, arg);
}

static int crash_x_sector_size(sqlite3_file *file)
{
	return crash_real(file)->pMethods->xSectorSize(crash_real(file));
}

static int crash_x_characteristics(sqlite3_file *file)
{
	return crash_real(file)->pMethods->xDeviceCharacteristics(crash_real(file));
}

static int crash_x_shm_map(sqlite3_file *file, int page, int size, int extend,
			   void volatile **mem)
{
	return crash_real(file)->pMethods->xShmMap(crash_real(file), page, size, extend, mem);
}

static int crash_x_shm_lock(sqlite3_file *file, int offset, int nr, int flags)
{
	return crash_real(file)->pMethods->xShmLock(crash_real(file), offset, nr, flags);
}

static void crash_x_shm_barrier(sqlite3_file *file)
{
	crash_real(file)->pMethods->xShmBarrier(crash_real(file));
}

static int crash_x_shm_unmap(sqlite3_file *file, int delete)
{
	return crash_real(file)->pMethods->xShmUnmap(crash_real(file), delete);
}

static const sqlite3_io_methods crash_methods = {
	.iVersion = 2,
	.xClose = crash_x_close,
	.xRead = crash_x_read,
	.xWrite = crash_x_write,
	.xTruncate = crash_x_truncate,
	.xSync = crash_x_sync,
	.xFileSize = crash_x_file_size,
	.xLock = crash_x_lock,
	.xUnlock = crash_x_unlock,
	.xCheckReservedLock = crash_x_check_lock,
	.xFileControl = crash_x_file_control,
	.xSectorSize = crash_x_sector_size,
	.xDeviceCharacteristics = crash_x_characteristics,
	.xShmMap = crash_x_shm_map,
	.xShmLock = crash_x_shm_lock,
	.xShmBarrier = crash_x_shm_barrier,
	.xShmUnmap = crash_x_shm_unmap,
};

/* What is in a file that was not written through here is safe. */
static struct crash_inode *crash_load(const char *path)
{
	struct crash_inode *inode = crash_new_inode();
	int fd = open(path, O_RDONLY);
	struct stat st;

	assert_true(fd >= 0 && !fstat(fd, &st));
	inode->safe_size = st.st_size;
	inode->safe = malloc(st.st_size + 1);
	assert_int_equal(read(fd, inode->safe, st.st_size), st.st_size);
	close(fd);
	return inode;
}

static int crash_x_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags,
			int *out_flags)
{
	struct crash_file *self = (struct crash_file *)file;
	struct crash_name *name;
	bool existed;
	int rc;

	file->pMethods = NULL;
	if (crash.stopped)
		return SQLITE_CANTOPEN;
	/* With all in memory there are no temporary files, which have no name. */
	assert_non_null(path);
	name = crash_find(path);
	existed = !access(path, F_OK);
	if (existed && !name->now)
		name->safe = name->now = crash_load(path);
	self->real = (sqlite3_file *)(self + 1);
	rc = crash.real->xOpen(crash.real, path, self->real, flags, out_flags);
	if (rc)
		return rc;
	if (!existed)
		name->now = crash_new_inode();
	self->inode = name->now;
	file->pMethods = &crash_methods;
	return 0;
}

static int crash_x_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
	struct crash_name *name = crash_find(path);
	bool last;
	int ret;

	if (!crash.stopped && access(path, F_OK))
		return SQLITE_IOERR_DELETE_NOENT;
	if (!crash.stopped && !name->now)
		name->safe = name->now = crash_load(path);
	ret = crash_event(&last);
	if (ret)
		return ret;
	ret = crash.real->xDelete(crash.real, path, 0);
	name->now = NULL;
	if (!ret && sync_dir)
		crash_sync_dir();
	return ret;
}

/* Each connection writes its log back after a few pages, so that this is tested, too. */
static int crash_connected(sqlite3 *db, char **message, const struct sqlite3_api_routines *api)
{
	return sqlite3_wal_autocheckpoint(db, 24);
}

static inline void crash_install(void)
{
	sqlite3_initialize();
	crash.real = sqlite3_vfs_find("unix-excl");
	crash.vfs = *crash.real;
	crash.vfs.szOsFile = sizeof(struct crash_file) + crash.real->szOsFile;
	crash.vfs.xOpen = crash_x_open;
	crash.vfs.xDelete = crash_x_delete;
	/* Found before the real one, which has the same name. */
	sqlite3_vfs_register(&crash.vfs, 1);
	sqlite3_auto_extension((void (*)(void))crash_connected);
}

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The index of the cache, in SQLite.
 *
 * Checksums.  A row of name has the CRC-32 of all that it claims: that this block of the
 * object with this key (not only this number) has the content with this digest, and that
 * the slot holds it.  Key and digest are taken from the rows of object and block when it is
 * checked, so a name is believed only if three rows agree: one that a flipped bit brought
 * back from the dead, or put below another number, is not.  What is deleted is
 * overwritten (secure_delete) for the same reason.  A row that is damaged is as if it were
 * not there, and is replaced when the same thing is written again.
 *
 * Locking.  Two connections, each with its mutex, because a statement belongs to one
 * thread at a time: changes use the writer, all else the reader, which does not wait for
 * a commit.  The VFS unix-excl keeps other processes out and the index of the write-ahead
 * log in memory instead of in a mapped file, access to which would kill the process when
 * the device fails.  Nothing here holds both mutexes.  A check has a third connection and
 * no mutex.
 *
 * Memory.  Each connection keeps as much of the database as its cache_size says (16 and
 * 4 MiB), the kernel's page cache the rest: 22 MB in all, however large the cache is, and 2 during
 * a check.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>
#include <zlib.h>

#include "cache_index.h"

#define VFS		"unix-excl"
#define APPLICATION_ID	0x51433243	/* "QC2C" */
#define VERSION		1
#define KEY_LEN		32
/* So many steps of SQLite's machine are between looks at whether to give up. */
#define STEPS		10000
/* Rows that one call reads, or deletes in one transaction, before others have a turn. */
#define BATCH		4096
#define UNUSED_SECONDS	(30 * 24 * 3600)

/* What meta.state says. */
#define STATE_CLEAN	"clean"
#define STATE_OPEN	"open"

/* Whether a commit waits for the log to be durable */
#define DURABLE		"PRAGMA synchronous = FULL"
#define NOT_DURABLE	"PRAGMA synchronous = NORMAL"

/* QC2_SLOT_ZERO, for SQL */
#define ZERO		"4294967294"

/* By name, as they are read back. */
static const char *const schema[] = {
	"CREATE TABLE block(slot INTEGER PRIMARY KEY, digest BLOB NOT NULL, sum INTEGER NOT NULL)",
	"CREATE INDEX block_digest ON block(digest)",
	"CREATE TABLE meta(cache BLOB NOT NULL, state TEXT NOT NULL, sum INTEGER NOT NULL,"
	" names INTEGER NOT NULL, zeros INTEGER NOT NULL, blocks INTEGER NOT NULL)",
	"CREATE TABLE name(object INTEGER NOT NULL, block INTEGER NOT NULL, slot INTEGER NOT NULL,"
	" sum INTEGER NOT NULL, PRIMARY KEY(object, block)) WITHOUT ROWID",
	"CREATE INDEX name_slot ON name(slot) WHERE slot < " ZERO,
	"CREATE TABLE object(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, url TEXT NOT NULL,"
	" used INTEGER NOT NULL, pinned INTEGER NOT NULL, sum INTEGER NOT NULL)",
};

enum {
	GET_OBJECT, GET_KEY, GET_NAMES, GET_SLOTS, GET_DIGEST, GET_FILLED, GET_COUNTS,
	GET_PINNED, GET_SLOTS_OBJECT,
	BEGIN, COMMIT, ROLLBACK, MARK, MAX_OBJECT, ADD_OBJECT, USE_OBJECT, PIN_OBJECT,
	DROP_OBJECT_KEY,
	ADD_BLOCK, DROP_BLOCK, ADD_NAME, DROP_NAME, DROP_NAMES_SLOT, ADD_COUNTS,
	GET_UNUSED, DROP_NAMES_OBJECT, DROP_OBJECT,
	NR_STMTS
};

static const char *const sql[NR_STMTS] = {
	[GET_OBJECT] = "SELECT id, sum, used, pinned FROM object WHERE key = ?1",
	[GET_KEY] = "SELECT key, sum, pinned FROM object WHERE id = ?1",
	[GET_NAMES] = "SELECT n.block, n.slot, n.sum, b.digest, b.sum FROM name n"
		" LEFT JOIN block b ON b.slot = n.slot"
		" WHERE n.object = ?1 AND n.block >= ?2 AND n.block < ?3",
	[GET_SLOTS] = "SELECT slot, sum FROM block WHERE digest = ?1",
	[GET_DIGEST] = "SELECT digest, sum FROM block WHERE slot = ?1",
	[GET_FILLED] = "SELECT slot, digest, sum FROM block WHERE slot > ?1 ORDER BY slot LIMIT ?2",
	[GET_COUNTS] = "SELECT names, zeros, blocks FROM meta",
	[GET_PINNED] = "SELECT key, sum, pinned, id FROM object WHERE id > ?1 AND pinned"
		" ORDER BY id LIMIT 1",
	[GET_SLOTS_OBJECT] = "SELECT block, slot FROM name WHERE object = ?1 AND block > ?2"
		" ORDER BY block LIMIT ?3",
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[MARK] = "UPDATE meta SET state = ?1, sum = ?2",
	[MAX_OBJECT] = "SELECT ifnull(max(id), 0) FROM object",
	[ADD_OBJECT] = "INSERT INTO object(id, key, url, used, pinned, sum)"
		" VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
	[USE_OBJECT] = "UPDATE object SET used = ?2 WHERE id = ?1",
	[PIN_OBJECT] = "UPDATE object SET pinned = ?2, sum = ?3 WHERE id = ?1",
	[DROP_OBJECT_KEY] = "DELETE FROM object WHERE key = ?1",
	[ADD_BLOCK] = "INSERT INTO block(slot, digest, sum) VALUES(?1, ?2, ?3)",
	[DROP_BLOCK] = "DELETE FROM block WHERE slot = ?1",
	[ADD_NAME] = "INSERT INTO name(object, block, slot, sum) VALUES(?1, ?2, ?3, ?4)",
	[DROP_NAME] = "DELETE FROM name WHERE object = ?1 AND block = ?2 RETURNING slot",
	[DROP_NAMES_SLOT] = "DELETE FROM name WHERE slot = ?1 AND slot < " ZERO
		" RETURNING object, block",
	[ADD_COUNTS] = "UPDATE meta SET names = names + ?1, zeros = zeros + ?2,"
		" blocks = blocks + ?3",
	[GET_UNUSED] = "SELECT id FROM object AS o WHERE used < ?1 AND NOT pinned"
		" AND NOT EXISTS"
		" (SELECT 1 FROM name WHERE name.object = o.id AND slot < " ZERO ") LIMIT 1",
	[DROP_NAMES_OBJECT] = "DELETE FROM name WHERE object = ?1 AND block IN"
		" (SELECT block FROM name WHERE object = ?1 LIMIT ?2)",
	[DROP_OBJECT] = "DELETE FROM object WHERE id = ?1",
};

struct conn {
	pthread_mutex_t lock;
	sqlite3 *db;
	sqlite3_stmt *stmts[NR_STMTS];
};

struct cache_index {
	char *path;
	int64_t opened;		/* time() */
	uint8_t cache_id[QC2_CACHE_ID_LEN];
	atomic_bool stopped;	/* cache_index_check() gives up */
	struct conn writer, reader;
};

/* What a transaction changes about the counts in meta. */
struct counts {
	int64_t names, zeros, blocks;
};

static const uint8_t zero_digest[QC2_DIGEST_LEN];

/*
 * Errors
 */

static int errno_of(sqlite3 *db, int rc)
{
	if (rc == SQLITE_IOERR_NOMEM)
		return ENOMEM;
	switch (rc & 0xff) {
	case SQLITE_NOMEM:
		return ENOMEM;
	case SQLITE_FULL:
		return ENOSPC;
	case SQLITE_IOERR:
		return EIO;
	case SQLITE_CANTOPEN:
		return db && sqlite3_system_errno(db) ? sqlite3_system_errno(db) : EIO;
	case SQLITE_INTERRUPT:
		return ECANCELED;
	case SQLITE_READONLY:
		return EROFS;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL:
		return EBUSY;
	default:
		/* CORRUPT, NOTADB; also what no statement of ours leads to in a sound file */
		return EUCLEAN;
	}
}

static int damaged(const struct cache_index *index, const char *what, struct qc2_err *err)
{
	return qc2_fail(err, EUCLEAN, "%s: the index of the cache is damaged (%s); without it the cache starts empty",
			index->path, what);
}

static int fail(const struct cache_index *index, sqlite3 *db, int rc, struct qc2_err *err)
{
	int errnum = errno_of(db, rc);
	const char *text = db ? sqlite3_errmsg(db) : sqlite3_errstr(rc);

	if (errnum == EUCLEAN)
		return damaged(index, text, err);
	if (errnum == EBUSY)
		return qc2_fail(err, errnum, "%s: the index of the cache is in use by another process",
				index->path);
	return qc2_fail(err, errnum, "%s: the index of the cache: %s (%s)", index->path,
			strerror(errnum), text);
}

/*
 * Statements
 */

static sqlite3_stmt *use(struct conn *conn, int nr, int64_t first)
{
	sqlite3_stmt *stmt = conn->stmts[nr];

	sqlite3_bind_int64(stmt, 1, first);
	return stmt;
}

/* 1: a row, and the statement has to be reset; 0: it is done; negative errno. */
static int step(struct cache_index *index, sqlite3_stmt *stmt, struct qc2_err *err)
{
	int rc = sqlite3_step(stmt), ret = 0;

	if (rc == SQLITE_ROW)
		return 1;
	if (rc != SQLITE_DONE)
		ret = fail(index, sqlite3_db_handle(stmt), rc, err);
	sqlite3_reset(stmt);
	return ret;
}

/* For one that gives no rows. */
static int run(struct cache_index *index, sqlite3_stmt *stmt, struct qc2_err *err)
{
	int ret = step(index, stmt, err);

	if (ret <= 0)
		return ret;
	sqlite3_reset(stmt);
	return damaged(index, "rows where none can be", err);
}

static int exec(struct cache_index *index, struct conn *conn, const char *text,
		struct qc2_err *err)
{
	int rc = sqlite3_exec(conn->db, text, NULL, NULL, NULL);

	return rc ? fail(index, conn->db, rc, err) : 0;
}

static bool get_u32(sqlite3_stmt *stmt, int column, uint32_t *value)
{
	int64_t wide = sqlite3_column_int64(stmt, column);

	*value = wide;
	return sqlite3_column_type(stmt, column) == SQLITE_INTEGER && wide >= 0 &&
	       wide <= UINT32_MAX;
}

static bool get_blob(sqlite3_stmt *stmt, int column, void *buf, int len)
{
	if (sqlite3_column_type(stmt, column) != SQLITE_BLOB ||
	    sqlite3_column_bytes(stmt, column) != len)
		return false;
	memcpy(buf, sqlite3_column_blob(stmt, column), len);
	return true;
}

/*
 * Checksums.  Each kind of row starts from another number, so that one is not taken for
 * another.
 */

static uint32_t sum_add(uint32_t sum, uint64_t number)
{
	number = htole64(number);
	return crc32(sum, (const void *)&number, sizeof(number));
}

static uint32_t sum_object(int64_t id, const uint8_t *key, bool pinned)
{
	return crc32(sum_add(sum_add('o', id), pinned), key, KEY_LEN);
}

static uint32_t sum_block(uint32_t slot, const uint8_t *digest)
{
	return crc32(sum_add('b', slot), digest, QC2_DIGEST_LEN);
}

static uint32_t sum_name(const uint8_t *key, uint32_t block, uint32_t slot, const uint8_t *digest)
{
	return crc32(crc32(sum_add(sum_add('n', block), slot), key, KEY_LEN), digest,
		     QC2_DIGEST_LEN);
}

static uint32_t sum_meta(const uint8_t *cache_id, const char *state)
{
	return crc32(crc32('m', cache_id, QC2_CACHE_ID_LEN), (const void *)state, strlen(state));
}

/*
 * Reading.  Each function of these has the lock of @conn.
 */

static bool get_bool(sqlite3_stmt *stmt, int column, bool *value)
{
	uint32_t number;
	bool ok = get_u32(stmt, column, &number) && number <= 1;

	*value = ok && number;
	return ok;
}

/* *@id: 0 if there is none */
static int get_object(struct cache_index *index, struct conn *conn, const uint8_t *key,
		      int64_t *id, int64_t *used, bool *pinned, struct qc2_err *err)
{
	sqlite3_stmt *stmt = conn->stmts[GET_OBJECT];
	uint32_t sum;
	int ret;

	*id = 0;
	sqlite3_bind_blob(stmt, 1, key, KEY_LEN, SQLITE_STATIC);
	ret = step(index, stmt, err);
	if (ret <= 0)
		return ret;
	if (get_u32(stmt, 1, &sum) && get_bool(stmt, 3, pinned) &&
	    sqlite3_column_type(stmt, 0) == SQLITE_INTEGER &&
	    sum == sum_object(sqlite3_column_int64(stmt, 0), key, *pinned)) {
		*id = sqlite3_column_int64(stmt, 0);
		*used = sqlite3_column_int64(stmt, 2);
	}
	sqlite3_reset(stmt);
	return 0;
}

/* Of a row of object: key, sum, pinned */
static bool get_row_key(sqlite3_stmt *stmt, int64_t object, uint8_t key[KEY_LEN])
{
	uint32_t sum;
	bool pinned;

	return get_blob(stmt, 0, key, KEY_LEN) && get_u32(stmt, 1, &sum) &&
	       get_bool(stmt, 2, &pinned) && sum == sum_object(object, key, pinned);
}

/* 1: there is one */
static int get_key(struct cache_index *index, struct conn *conn, int64_t object,
		   uint8_t key[KEY_LEN], struct qc2_err *err)
{
	sqlite3_stmt *stmt = use(conn, GET_KEY, object);
	int ret = step(index, stmt, err);

	if (ret <= 0)
		return ret;
	ret = get_row_key(stmt, object, key);
	sqlite3_reset(stmt);
	return ret;
}

/* 1: the slot is filled; 0: it is not, or *@bad */
static int get_digest(struct cache_index *index, struct conn *conn, uint32_t slot,
		      uint8_t digest[QC2_DIGEST_LEN], bool *bad, struct qc2_err *err)
{
	sqlite3_stmt *stmt = use(conn, GET_DIGEST, slot);
	uint32_t sum;
	int ret = step(index, stmt, err);

	*bad = false;
	if (ret <= 0)
		return ret;
	ret = get_blob(stmt, 0, digest, QC2_DIGEST_LEN) && get_u32(stmt, 1, &sum) &&
	      sum == sum_block(slot, digest);
	*bad = !ret;
	sqlite3_reset(stmt);
	return ret;
}

int cache_index_names(struct cache_index *index, int64_t object, uint32_t first,
		      unsigned int nr, uint32_t *slots, struct qc2_err *err)
{
	struct conn *conn = &index->reader;
	uint8_t key[KEY_LEN], digest[QC2_DIGEST_LEN];
	uint32_t block, slot, sum, block_sum;
	sqlite3_stmt *stmt;
	unsigned int i;
	int ret;

	for (i = 0; i < nr; i++)
		slots[i] = QC2_SLOT_NONE;

	pthread_mutex_lock(&conn->lock);
	ret = get_key(index, conn, object, key, err);
	if (ret <= 0)
		goto out;
	stmt = use(conn, GET_NAMES, object);
	sqlite3_bind_int64(stmt, 2, first);
	sqlite3_bind_int64(stmt, 3, (int64_t)first + nr);
	while ((ret = step(index, stmt, err)) > 0) {
		if (!get_u32(stmt, 0, &block) || block < first || block - first >= nr ||
		    !get_u32(stmt, 1, &slot) || !get_u32(stmt, 2, &sum))
			continue;
		if (slot == QC2_SLOT_ZERO)
			memset(digest, 0, sizeof(digest));
		else if (!get_blob(stmt, 3, digest, QC2_DIGEST_LEN) ||
			 !get_u32(stmt, 4, &block_sum) ||
			 block_sum != sum_block(slot, digest))
			continue;	/* nor does cache_index_each() say that it is filled */
		if (sum == sum_name(key, block, slot, digest))
			slots[block - first] = slot;
	}
out:
	pthread_mutex_unlock(&conn->lock);
	return ret;
}

int cache_index_find(struct cache_index *index, const uint8_t digest[QC2_DIGEST_LEN],
		     uint32_t *slot, struct qc2_err *err)
{
	struct conn *conn = &index->reader;
	sqlite3_stmt *stmt;
	uint32_t sum;
	int ret;

	pthread_mutex_lock(&conn->lock);
	stmt = conn->stmts[GET_SLOTS];
	sqlite3_bind_blob(stmt, 1, digest, QC2_DIGEST_LEN, SQLITE_STATIC);
	while ((ret = step(index, stmt, err)) > 0) {
		if (get_u32(stmt, 0, slot) && get_u32(stmt, 1, &sum) &&
		    sum == sum_block(*slot, digest))
			break;
	}
	if (ret > 0) {
		sqlite3_reset(stmt);
		ret = 0;
	} else {
		*slot = QC2_SLOT_NONE;
	}
	pthread_mutex_unlock(&conn->lock);
	return ret;
}

int cache_index_digest(struct cache_index *index, uint32_t slot,
		       uint8_t digest[QC2_DIGEST_LEN], struct qc2_err *err)
{
	struct conn *conn = &index->reader;
	bool bad;
	int ret;

	pthread_mutex_lock(&conn->lock);
	ret = get_digest(index, conn, slot, digest, &bad, err);
	pthread_mutex_unlock(&conn->lock);
	if (bad)
		return damaged(index, "a block's checksum", err);
	if (!ret)
		return qc2_fail(err, ENOENT, "%s: slot %u of the cache is empty", index->path,
				slot);
	return ret < 0 ? ret : 0;
}

/* The next filled slots behind @last; returns their number or a negative errno. */
static int get_filled(struct cache_index *index, int64_t last, uint32_t *slots,
		      struct qc2_err *err)
{
	struct conn *conn = &index->reader;
	uint8_t digest[QC2_DIGEST_LEN];
	int nr = 0, rows = 0, ret;
	sqlite3_stmt *stmt;
	uint32_t sum;

	pthread_mutex_lock(&conn->lock);
	stmt = use(conn, GET_FILLED, last);
	sqlite3_bind_int64(stmt, 2, BATCH);
	while ((ret = step(index, stmt, err)) > 0) {
		rows++;
		/* Not in order: damage that made the search end elsewhere. */
		if (get_u32(stmt, 0, &slots[nr]) && slots[nr] > last &&
		    get_blob(stmt, 1, digest, QC2_DIGEST_LEN) && get_u32(stmt, 2, &sum) &&
		    sum == sum_block(slots[nr], digest))
			last = slots[nr++];
	}
	pthread_mutex_unlock(&conn->lock);
	if (!ret && !nr && rows == BATCH)
		return damaged(index, "the checksums of many blocks", err);
	return ret < 0 ? ret : nr;
}

int cache_index_each(struct cache_index *index, int (*filled)(void *arg, uint32_t slot),
		     void *arg, struct qc2_err *err)
{
	uint32_t slots[BATCH];
	int64_t last = -1;
	int i, nr, ret;

	while ((nr = get_filled(index, last, slots, err)) > 0) {
		for (i = 0; i < nr; i++) {
			ret = filled(arg, slots[i]);
			if (ret)
				return ret < 0 ? ret : 0;
		}
		last = slots[nr - 1];
	}
	return nr;
}

/* 1: the next pinned object behind *@id */
static int next_pinned(struct cache_index *index, int64_t *id, uint8_t key[KEY_LEN],
		       struct qc2_err *err)
{
	struct conn *conn = &index->reader;
	sqlite3_stmt *stmt;
	bool sound = false;
	int ret = 0;

	pthread_mutex_lock(&conn->lock);
	while (!sound) {
		stmt = use(conn, GET_PINNED, *id);
		ret = step(index, stmt, err);
		if (ret <= 0)
			break;
		/* Not in order: damage that made the search end elsewhere. */
		if (sqlite3_column_int64(stmt, 3) <= *id) {
			sqlite3_reset(stmt);
			ret = damaged(index, "the number of an object", err);
			break;
		}
		*id = sqlite3_column_int64(stmt, 3);
		sound = get_row_key(stmt, *id, key);
		sqlite3_reset(stmt);
	}
	pthread_mutex_unlock(&conn->lock);
	return ret;
}

/* Slots of its next blocks behind *@block; 1: there may be more. */
static int next_slots(struct cache_index *index, int64_t object, int64_t *block,
		      uint32_t slots[BATCH], unsigned int *nr, struct qc2_err *err)
{
	struct conn *conn = &index->reader;
	int64_t last = *block;
	unsigned int rows = 0;
	sqlite3_stmt *stmt;
	uint32_t slot;
	int ret;

	*nr = 0;
	pthread_mutex_lock(&conn->lock);
	stmt = use(conn, GET_SLOTS_OBJECT, object);
	sqlite3_bind_int64(stmt, 2, last);
	sqlite3_bind_int64(stmt, 3, BATCH);
	while ((ret = step(index, stmt, err)) > 0) {
		rows++;
		if (sqlite3_column_int64(stmt, 0) > *block)
			*block = sqlite3_column_int64(stmt, 0);
		/* Checksums do not matter: a wrong one keeps a block more. */
		if (get_u32(stmt, 1, &slot) && slot != QC2_SLOT_ZERO)
			slots[(*nr)++] = slot;
	}
	pthread_mutex_unlock(&conn->lock);
	if (ret < 0)
		return ret;
	return rows == BATCH && *block > last;
}

int cache_index_pinned(struct cache_index *index,
		       int (*object)(void *arg, const uint8_t key[KEY_LEN]),
		       void (*slot)(void *arg, uint32_t slot), void *arg, struct qc2_err *err)
{
	uint32_t slots[BATCH];
	uint8_t key[KEY_LEN];
	unsigned int i, nr;
	int64_t id = 0;
	int ret;

	while ((ret = next_pinned(index, &id, key, err)) > 0) {
		int64_t block = -1;
		int more;

		ret = object(arg, key);
		if (ret)
			return ret;
		do {
			more = next_slots(index, id, &block, slots, &nr, err);
			if (more < 0)
				return more;
			for (i = 0; i < nr; i++)
				slot(arg, slots[i]);
		} while (more);
	}
	return ret;
}

int cache_index_count(struct cache_index *index, uint64_t *names, uint64_t *zeros,
		      uint64_t *blocks, struct qc2_err *err)
{
	struct conn *conn = &index->reader;
	sqlite3_stmt *stmt;
	int ret;

	*names = *zeros = *blocks = 0;
	pthread_mutex_lock(&conn->lock);
	stmt = conn->stmts[GET_COUNTS];
	ret = step(index, stmt, err);
	if (ret > 0) {
		*names = sqlite3_column_int64(stmt, 0);
		*zeros = sqlite3_column_int64(stmt, 1);
		*blocks = sqlite3_column_int64(stmt, 2);
		sqlite3_reset(stmt);
		ret = 0;
	}
	pthread_mutex_unlock(&conn->lock);
	return ret;
}

/*
 * Changing.  A transaction has the writer's lock from its begin to its end.
 */

static int begin(struct cache_index *index, struct qc2_err *err)
{
	struct conn *conn = &index->writer;
	int ret;

	pthread_mutex_lock(&conn->lock);
	ret = run(index, conn->stmts[BEGIN], err);
	if (ret)
		pthread_mutex_unlock(&conn->lock);
	return ret;
}

/* Commits if @ret is 0, else undoes; returns @ret or the error of the commit. */
static int end(struct cache_index *index, int ret, struct qc2_err *err)
{
	struct conn *conn = &index->writer;

	if (!ret)
		ret = run(index, conn->stmts[COMMIT], err);
	/* Some errors have undone all already. */
	if (ret && !sqlite3_get_autocommit(conn->db))
		run(index, conn->stmts[ROLLBACK], NULL);
	pthread_mutex_unlock(&conn->lock);
	return ret;
}

static int add_counts(struct cache_index *index, const struct counts *counts,
		      struct qc2_err *err)
{
	sqlite3_stmt *stmt = use(&index->writer, ADD_COUNTS, counts->names);

	sqlite3_bind_int64(stmt, 2, counts->zeros);
	sqlite3_bind_int64(stmt, 3, counts->blocks);
	return run(index, stmt, err);
}

static int add_object(struct cache_index *index, const uint8_t *key, const char *url,
		      int64_t now, bool pinned, int64_t *id, struct qc2_err *err)
{
	struct conn *conn = &index->writer;
	sqlite3_stmt *stmt;
	int64_t max = 0;
	int ret;

	/* One may be there that is damaged. */
	stmt = conn->stmts[DROP_OBJECT_KEY];
	sqlite3_bind_blob(stmt, 1, key, KEY_LEN, SQLITE_STATIC);
	ret = run(index, stmt, err);
	if (ret)
		return ret;

	/* A number that was used before does no harm: names are of the key, too. */
	stmt = conn->stmts[MAX_OBJECT];
	ret = step(index, stmt, err);
	if (ret < 0)
		return ret;
	if (ret > 0)
		max = sqlite3_column_int64(stmt, 0);
	sqlite3_reset(stmt);
	if (max < 0 || max == INT64_MAX)
		return damaged(index, "the number of an object", err);

	*id = max + 1;
	stmt = use(conn, ADD_OBJECT, *id);
	sqlite3_bind_blob(stmt, 2, key, KEY_LEN, SQLITE_STATIC);
	sqlite3_bind_text(stmt, 3, url, -1, SQLITE_STATIC);
	sqlite3_bind_int64(stmt, 4, now);
	sqlite3_bind_int64(stmt, 5, pinned);
	sqlite3_bind_int64(stmt, 6, sum_object(*id, key, pinned));
	return run(index, stmt, err);
}

int cache_index_object(struct cache_index *index, const uint8_t key[KEY_LEN], const char *url,
		       bool add, int64_t *id, struct qc2_err *err)
{
	int64_t used = 0, now = time(NULL);
	sqlite3_stmt *stmt;
	bool pinned;
	int ret;

	/* That it was used since the opening keeps it, whatever the clock does. */
	if (now < index->opened)
		now = index->opened;

	pthread_mutex_lock(&index->reader.lock);
	ret = get_object(index, &index->reader, key, id, &used, &pinned, err);
	pthread_mutex_unlock(&index->reader.lock);
	if (ret || !add || (*id && used >= index->opened))
		return ret;

	ret = begin(index, err);
	if (ret)
		return ret;
	if (!*id) {
		ret = add_object(index, key, url, now, false, id, err);
	} else {
		stmt = use(&index->writer, USE_OBJECT, *id);
		sqlite3_bind_int64(stmt, 2, now);
		ret = run(index, stmt, err);
	}
	ret = end(index, ret, err);
	if (ret)
		*id = 0;
	return ret;
}

static int pin_object(struct cache_index *index, const struct index_pin *pin,
		      struct qc2_err *err)
{
	struct conn *conn = &index->writer;
	sqlite3_stmt *stmt;
	int64_t id, used;
	bool pinned;
	int ret;

	ret = get_object(index, conn, pin->key, &id, &used, &pinned, err);
	if (ret)
		return ret;
	if (!id)
		return pin->pinned ? add_object(index, pin->key, pin->url, time(NULL), true, &id,
						err) : 0;
	if (pinned == pin->pinned)
		return 0;
	stmt = use(conn, PIN_OBJECT, id);
	sqlite3_bind_int64(stmt, 2, pin->pinned);
	sqlite3_bind_int64(stmt, 3, sum_object(id, pin->key, pin->pinned));
	return run(index, stmt, err);
}

int cache_index_pin(struct cache_index *index, const struct index_pin *pins, unsigned int nr,
		    struct qc2_err *err)
{
	struct conn *conn = &index->writer;
	unsigned int i;
	int ret, after;

	pthread_mutex_lock(&conn->lock);
	ret = exec(index, conn, DURABLE, err);
	pthread_mutex_unlock(&conn->lock);
	if (!ret)
		ret = begin(index, err);
	if (ret)
		return ret;
	for (i = 0; i < nr && !ret; i++)
		ret = pin_object(index, &pins[i], err);
	ret = end(index, ret, err);

	pthread_mutex_lock(&conn->lock);
	after = exec(index, conn, NOT_DURABLE, ret ? NULL : err);
	pthread_mutex_unlock(&conn->lock);
	return ret ? ret : after;
}

/* A change that goes on; with what its callers need all the time. */
struct change {
	struct cache_index *index;
	void (*gone)(void *arg, const struct index_name *name);
	void *arg;
	struct counts counts;
	/* of the last object looked up: 0 none */
	int64_t object;
	uint8_t key[KEY_LEN];
	struct qc2_err *err;
};

static int empty_slot(struct change *change, uint32_t slot)
{
	struct cache_index *index = change->index;
	struct conn *conn = &index->writer;
	struct index_name name = { .slot = slot };
	sqlite3_stmt *stmt;
	int ret;

	ret = run(index, use(conn, DROP_BLOCK, slot), change->err);
	if (ret)
		return ret;
	change->counts.blocks -= sqlite3_changes(conn->db);

	stmt = use(conn, DROP_NAMES_SLOT, slot);
	while ((ret = step(index, stmt, change->err)) > 0) {
		change->counts.names--;
		name.object = sqlite3_column_int64(stmt, 0);
		if (get_u32(stmt, 1, &name.block) && change->gone)
			change->gone(change->arg, &name);
	}
	return ret;
}

static int fill_slot(struct change *change, const struct index_block *block)
{
	struct cache_index *index = change->index;
	uint8_t digest[QC2_DIGEST_LEN];
	sqlite3_stmt *stmt;
	bool bad;
	int ret;

	/* Names stay true as long as the content is the same. */
	ret = get_digest(index, &index->writer, block->slot, digest, &bad, change->err);
	if (ret > 0 && !memcmp(digest, block->digest, QC2_DIGEST_LEN))
		return 0;
	if (ret >= 0)
		ret = empty_slot(change, block->slot);
	if (ret)
		return ret;

	change->counts.blocks++;
	stmt = use(&index->writer, ADD_BLOCK, block->slot);
	sqlite3_bind_blob(stmt, 2, block->digest, QC2_DIGEST_LEN, SQLITE_STATIC);
	sqlite3_bind_int64(stmt, 3, sum_block(block->slot, block->digest));
	return run(index, stmt, change->err);
}

static int drop_name(struct change *change, const struct index_name *name)
{
	sqlite3_stmt *stmt = use(&change->index->writer, DROP_NAME, name->object);
	int ret;

	sqlite3_bind_int64(stmt, 2, name->block);
	while ((ret = step(change->index, stmt, change->err)) > 0) {
		change->counts.names--;
		change->counts.zeros -= sqlite3_column_int64(stmt, 0) == QC2_SLOT_ZERO;
	}
	return ret;
}

/* Because of damage.  Who believes that it is there would not hear of its end. */
static int cannot_set(struct change *change, const struct index_name *name)
{
	if (change->gone)
		change->gone(change->arg, name);
	return 0;
}

static int set_name(struct change *change, const struct index_name *name)
{
	const bool zero = name->slot == QC2_SLOT_ZERO;
	struct cache_index *index = change->index;
	uint8_t digest[QC2_DIGEST_LEN];
	sqlite3_stmt *stmt;
	bool bad;
	int ret;

	ret = drop_name(change, name);
	if (ret)
		return ret;
	if (name->object != change->object) {
		change->object = 0;
		ret = get_key(index, &index->writer, name->object, change->key, change->err);
		if (ret <= 0)
			return ret ? ret : cannot_set(change, name);
		change->object = name->object;
	}
	if (zero) {
		memcpy(digest, zero_digest, sizeof(digest));
	} else {
		ret = get_digest(index, &index->writer, name->slot, digest, &bad, change->err);
		if (ret <= 0)
			return ret ? ret : cannot_set(change, name);
	}

	change->counts.names++;
	change->counts.zeros += zero;
	stmt = use(&index->writer, ADD_NAME, name->object);
	sqlite3_bind_int64(stmt, 2, name->block);
	sqlite3_bind_int64(stmt, 3, name->slot);
	sqlite3_bind_int64(stmt, 4, sum_name(change->key, name->block, name->slot, digest));
	return run(index, stmt, change->err);
}

int cache_index_commit(struct cache_index *index,
		       const uint32_t *evicted, unsigned int nr_evicted,
		       void (*gone)(void *arg, const struct index_name *name), void *arg,
		       const struct index_block *blocks, unsigned int nr_blocks,
		       const struct index_name *names, unsigned int nr_names,
		       struct qc2_err *err)
{
	struct change change = { .index = index, .gone = gone, .arg = arg, .err = err };
	unsigned int i;
	int ret;

	ret = begin(index, err);
	if (ret)
		return ret;
	for (i = 0; i < nr_evicted && !ret; i++)
		ret = empty_slot(&change, evicted[i]);
	for (i = 0; i < nr_blocks && !ret; i++)
		ret = fill_slot(&change, &blocks[i]);
	for (i = 0; i < nr_names && !ret; i++)
		ret = set_name(&change, &names[i]);
	if (!ret)
		ret = add_counts(index, &change.counts, err);
	return end(index, ret, err);
}

int cache_index_sync(struct cache_index *index, struct qc2_err *err)
{
	/* Syncs the log before anything else; how far it gets then does not matter. */
	int rc = sqlite3_wal_checkpoint_v2(index->writer.db, NULL, SQLITE_CHECKPOINT_PASSIVE,
					   NULL, NULL);

	return rc ? fail(index, index->writer.db, rc, err) : 0;
}

/* The value of a pragma or an expression: a number. */
static int get_number(struct cache_index *index, struct conn *conn, const char *text,
		      int64_t *value, struct qc2_err *err)
{
	sqlite3_stmt *stmt;
	int rc = sqlite3_prepare_v2(conn->db, text, -1, &stmt, NULL), ret;

	if (rc)
		return fail(index, conn->db, rc, err);
	ret = step(index, stmt, err);
	*value = ret > 0 ? sqlite3_column_int64(stmt, 0) : 0;
	sqlite3_finalize(stmt);
	return ret < 0 ? ret : 0;
}

static int disown_some(struct cache_index *index, int64_t object, struct qc2_err *err)
{
	struct conn *conn = &index->writer;
	sqlite3_stmt *stmt = use(conn, DROP_NAMES_OBJECT, object);
	struct counts counts = { 0 };
	int64_t zeros[2];
	char text[128];
	int ret;

	snprintf(text, sizeof(text), "SELECT count(*) FROM name WHERE object = %lld AND slot = "
		 ZERO, (long long)object);
	ret = get_number(index, conn, text, &zeros[0], err);
	sqlite3_bind_int64(stmt, 2, BATCH);
	if (!ret)
		ret = run(index, stmt, err);
	counts.names = -sqlite3_changes(conn->db);
	if (!ret)
		ret = get_number(index, conn, text, &zeros[1], err);
	if (ret)
		return ret;
	counts.zeros = zeros[1] - zeros[0];
	ret = add_counts(index, &counts, err);
	return ret ? ret : counts.names == -BATCH;
}

int cache_index_disown(struct cache_index *index, int64_t object, struct qc2_err *err)
{
	int ret, more;

	do {
		ret = begin(index, err);
		if (ret)
			return ret;
		more = disown_some(index, object, err);
		ret = end(index, more < 0 ? more : 0, err);
	} while (!ret && more);
	return ret;
}

/* Removes an object that nothing needs, or some of its names; 1: there may be more. */
static int tidy_some(struct cache_index *index, int64_t before, struct qc2_err *err)
{
	struct conn *conn = &index->writer;
	struct counts counts = { 0 };
	sqlite3_stmt *stmt;
	int64_t id;
	int ret;

	stmt = use(conn, GET_UNUSED, before);
	ret = step(index, stmt, err);
	if (ret <= 0)
		return ret;
	id = sqlite3_column_int64(stmt, 0);
	sqlite3_reset(stmt);

	stmt = use(conn, DROP_NAMES_OBJECT, id);
	sqlite3_bind_int64(stmt, 2, BATCH);
	ret = run(index, stmt, err);
	if (ret)
		return ret;
	counts.names = -sqlite3_changes(conn->db);
	counts.zeros = counts.names;
	if (counts.names > -BATCH) {
		ret = run(index, use(conn, DROP_OBJECT, id), err);
		if (!ret && !sqlite3_changes(conn->db))
			ret = damaged(index, "an object that cannot be removed", err);
	}
	if (!ret)
		ret = add_counts(index, &counts, err);
	return ret ? ret : 1;
}

int cache_index_tidy(struct cache_index *index, struct qc2_err *err)
{
	int64_t before = time(NULL) - UNUSED_SECONDS;
	int ret, more;

	if (before > index->opened)
		before = index->opened;
	do {
		ret = begin(index, err);
		if (ret)
			return ret;
		more = tidy_some(index, before, err);
		ret = end(index, more < 0 ? more : 0, err);
	} while (!ret && more);
	return ret;
}

/*
 * Opening, checking and closing
 */

int cache_index_remove(const char *path, struct qc2_err *err)
{
	static const char *const suffixes[] = { "-wal", "-journal" };
	sqlite3_vfs *vfs = sqlite3_vfs_find(VFS);
	unsigned int i;
	char *file;
	int rc;

	/*
	 * The database first: it is damaged without its log, the log does nothing without it.
	 * It stays beside, as it may be somebody's file.
	 */
	if (asprintf(&file, "%s.damaged", path) < 0)
		return qc2_fail(err, ENOMEM, "%s: out of memory", path);
	rc = rename(path, file);
	free(file);
	if (rc && errno != ENOENT)
		return qc2_fail(err, errno, "%s: cannot be renamed: %s", path, strerror(errno));
	for (i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		if (asprintf(&file, "%s%s", path, suffixes[i]) < 0)
			return qc2_fail(err, ENOMEM, "%s: out of memory", path);
		errno = EIO;
		rc = vfs->xDelete(vfs, file, 1);
		free(file);
		if (rc && rc != SQLITE_IOERR_DELETE_NOENT)
			return qc2_fail(err, errno, "%s%s: cannot be removed: %s", path,
					suffixes[i], strerror(errno));
	}
	return 0;
}

static void disconnect(struct conn *conn)
{
	unsigned int i;

	for (i = 0; i < NR_STMTS; i++) {
		sqlite3_finalize(conn->stmts[i]);
		conn->stmts[i] = NULL;
	}
	sqlite3_close(conn->db);
	conn->db = NULL;
}

static int connect_db(struct cache_index *index, struct conn *conn, struct qc2_err *err)
{
	int rc = sqlite3_open_v2(index->path, &conn->db, SQLITE_OPEN_READWRITE |
				 SQLITE_OPEN_NOMUTEX, VFS);

	if (rc)
		return fail(index, conn->db, rc, err);
	sqlite3_extended_result_codes(conn->db, 1);
	sqlite3_db_config(conn->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	sqlite3_db_config(conn->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
	sqlite3_db_config(conn->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	/* Temporary files would be elsewhere, where there may be no space. */
	return exec(index, conn, "PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;"
		    "PRAGMA cell_size_check = ON; PRAGMA secure_delete = ON;", err);
}

static int prepare(struct cache_index *index, struct conn *conn, unsigned int nr,
		   struct qc2_err *err)
{
	unsigned int i;
	int rc;

	for (i = 0; i < nr; i++) {
		rc = sqlite3_prepare_v3(conn->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
					&conn->stmts[i], NULL);
		if (rc)
			return fail(index, conn->db, rc, err);
	}
	return 0;
}

static int is_stopped(void *arg)
{
	return atomic_load(&((struct cache_index *)arg)->stopped);
}

void cache_index_stop(struct cache_index *index)
{
	atomic_store(&index->stopped, true);
}

int cache_index_check(struct cache_index *index, struct qc2_err *err)
{
	/* One of its own: it takes long, and nobody has to wait for it. */
	struct conn conn = { 0 };
	const char *text = "";
	sqlite3_stmt *stmt;
	int ret, rc;

	ret = connect_db(index, &conn, err);
	if (ret)
		goto out;
	sqlite3_progress_handler(conn.db, STEPS, is_stopped, index);
	rc = sqlite3_prepare_v2(conn.db, "PRAGMA integrity_check(1)", -1, &stmt, NULL);
	if (rc) {
		ret = fail(index, conn.db, rc, err);
		goto out;
	}
	ret = step(index, stmt, err);
	if (ret > 0)
		text = (const char *)sqlite3_column_text(stmt, 0);
	if (atomic_load(&index->stopped))
		ret = qc2_fail(err, ECANCELED, "%s: is not checked to the end", index->path);
	else if (ret >= 0)
		ret = text && !strcmp(text, "ok") ? 0 : damaged(index, text ? text : "", err);
	sqlite3_finalize(stmt);
out:
	disconnect(&conn);
	return ret;
}

static int create(struct cache_index *index, struct qc2_err *err)
{
	struct conn *conn = &index->writer;
	sqlite3_stmt *stmt;
	unsigned int i;
	char text[128];
	int ret, rc;

	ret = exec(index, conn, "BEGIN IMMEDIATE", err);
	for (i = 0; i < sizeof(schema) / sizeof(schema[0]) && !ret; i++)
		ret = exec(index, conn, schema[i], err);
	snprintf(text, sizeof(text), "PRAGMA application_id = %d; PRAGMA user_version = %d",
		 APPLICATION_ID, VERSION);
	if (!ret)
		ret = exec(index, conn, text, err);
	if (ret)
		return ret;

	rc = sqlite3_prepare_v2(conn->db, "INSERT INTO meta VALUES(?1, ?2, ?3, 0, 0, 0)", -1,
				&stmt, NULL);
	if (rc)
		return fail(index, conn->db, rc, err);
	/* Nothing is in it, so there is nothing to distrust. */
	sqlite3_bind_blob(stmt, 1, index->cache_id, QC2_CACHE_ID_LEN, SQLITE_STATIC);
	sqlite3_bind_text(stmt, 2, STATE_CLEAN, -1, SQLITE_STATIC);
	sqlite3_bind_int64(stmt, 3, sum_meta(index->cache_id, STATE_CLEAN));
	ret = run(index, stmt, err);
	sqlite3_finalize(stmt);
	return ret ? ret : exec(index, conn, "COMMIT", err);
}

static int check_schema(struct cache_index *index, struct qc2_err *err)
{
	const unsigned int nr = sizeof(schema) / sizeof(schema[0]);
	struct conn *conn = &index->writer;
	sqlite3_stmt *stmt;
	unsigned int i = 0;
	int rc, ret;

	rc = sqlite3_prepare_v2(conn->db, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"
				" ORDER BY name", -1, &stmt, NULL);
	if (rc)
		return fail(index, conn->db, rc, err);
	while ((ret = step(index, stmt, err)) > 0) {
		const char *text = (const char *)sqlite3_column_text(stmt, 0);

		if (i == nr || !text || strcmp(text, schema[i++])) {
			i = nr + 1;
			break;
		}
	}
	sqlite3_finalize(stmt);
	if (ret >= 0)
		ret = i == nr ? 0 : damaged(index, "its tables", err);
	return ret;
}

/* Is it one of ours?  A file that is empty becomes one. */
static int check_format(struct cache_index *index, struct qc2_err *err)
{
	struct conn *conn = &index->writer;
	int64_t application, version, tables;
	bool fresh;
	int ret;

	ret = get_number(index, conn, "PRAGMA application_id", &application, err);
	if (!ret)
		ret = get_number(index, conn, "PRAGMA user_version", &version, err);
	if (!ret)
		ret = get_number(index, conn, "SELECT count(*) FROM sqlite_schema", &tables, err);
	if (ret)
		return ret;
	fresh = !application && !version && !tables;
	if (!fresh && application != APPLICATION_ID)
		return qc2_fail(err, EEXIST, "%s: is a database of another program; give another path for index in section [cache]",
				index->path);
	if (version > VERSION)
		return qc2_fail(err, EOPNOTSUPP, "%s: the index of the cache has the format of a newer chaind, version %lld; remove it to start with an empty cache",
				index->path, (long long)version);

	/* Not before: it writes. */
	ret = exec(index, conn, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
		   "PRAGMA cache_size = -16384; PRAGMA journal_size_limit = 16777216", err);
	if (!ret && fresh)
		ret = create(index, err);
	return ret ? ret : check_schema(index, err);
}

/* Durable if synchronous is FULL */
static int mark(struct cache_index *index, const char *state, struct qc2_err *err)
{
	sqlite3_stmt *stmt = index->writer.stmts[MARK];

	sqlite3_bind_text(stmt, 1, state, -1, SQLITE_STATIC);
	sqlite3_bind_int64(stmt, 2, sum_meta(index->cache_id, state));
	return run(index, stmt, err);
}

/* *@other: it is the index of another cache */
static int read_state(struct cache_index *index, bool *trusted, bool *other,
		      struct qc2_err *err)
{
	char state[16] = "";
	uint8_t cache_id[QC2_CACHE_ID_LEN];
	const char *text = NULL;
	sqlite3_stmt *stmt;
	uint32_t sum;
	int rc, ret;

	rc = sqlite3_prepare_v2(index->writer.db, "SELECT cache, state, sum FROM meta", -1, &stmt,
				NULL);
	if (rc)
		return fail(index, index->writer.db, rc, err);
	ret = step(index, stmt, err);
	if (ret > 0 && get_blob(stmt, 0, cache_id, QC2_CACHE_ID_LEN) && get_u32(stmt, 2, &sum))
		text = (const char *)sqlite3_column_text(stmt, 1);
	if (text)
		snprintf(state, sizeof(state), "%s", text);
	sqlite3_finalize(stmt);
	if (ret < 0)
		return ret;
	if (!text || sum != sum_meta(cache_id, state))
		return damaged(index, "its state", err);

	*other = memcmp(cache_id, index->cache_id, QC2_CACHE_ID_LEN);
	if (*other)
		return 0;
	*trusted = !strcmp(state, STATE_CLEAN);
	return mark(index, STATE_OPEN, err);
}

static int open_once(struct cache_index *index, bool *trusted, bool *other, struct qc2_err *err)
{
	int fd, ret;

	/* SQLite creates it for all to read, and its log as the database is. */
	fd = open(index->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	else if (errno != EEXIST)
		return qc2_fail(err, errno, "%s: the index of the cache cannot be created: %s",
				index->path, strerror(errno));

	ret = connect_db(index, &index->writer, err);
	if (!ret)
		ret = check_format(index, err);
	if (!ret)
		ret = prepare(index, &index->writer, NR_STMTS, err);
	if (!ret)
		ret = read_state(index, trusted, other, err);
	if (ret || *other)
		return ret;
	ret = exec(index, &index->writer, NOT_DURABLE, err);
	if (!ret)
		ret = connect_db(index, &index->reader, err);
	if (!ret)
		ret = exec(index, &index->reader, "PRAGMA query_only = ON;"
			   "PRAGMA cache_size = -4096", err);
	return ret ? ret : prepare(index, &index->reader, BEGIN, err);
}

int cache_index_open(struct cache_index **out, const char *path,
		     const uint8_t cache_id[QC2_CACHE_ID_LEN], bool *trusted,
		     struct qc2_err *err)
{
	struct cache_index *index = calloc(1, sizeof(*index));
	bool other = false;
	int ret;

	*out = NULL;
	if (index)
		index->path = strdup(path);
	if (!index || !index->path) {
		free(index);
		return qc2_fail(err, ENOMEM, "%s: out of memory", path);
	}
	pthread_mutex_init(&index->writer.lock, NULL);
	pthread_mutex_init(&index->reader.lock, NULL);
	memcpy(index->cache_id, cache_id, QC2_CACHE_ID_LEN);
	index->opened = time(NULL);

	ret = open_once(index, trusted, &other, err);
	if (!ret && other) {
		disconnect(&index->writer);
		ret = cache_index_remove(path, err);
		if (!ret)
			ret = open_once(index, trusted, &other, err);
	}
	if (ret)
		cache_index_close(index, false);
	else
		*out = index;
	return ret;
}

void cache_index_close(struct cache_index *index, bool clean)
{
	if (!index)
		return;
	disconnect(&index->reader);
	/* If this fails it counts as not closed in order. */
	if (clean && !exec(index, &index->writer, DURABLE, NULL))
		mark(index, STATE_CLEAN, NULL);
	disconnect(&index->writer);
	pthread_mutex_destroy(&index->writer.lock);
	pthread_mutex_destroy(&index->reader.lock);
	free(index->path);
	free(index);
}

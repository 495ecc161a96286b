/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The index of the cache: what it answers, what survives a stop at every write, a loss of
 * power, an error of every write, and damage of the file.
 *
 * Tests compare the whole of what an index says with a model: a plain table of what each
 * slot contains and which block is where.  Contents are numbers; the digest of a content is
 * made from its number.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>

#include "../../userspace/chaind/cache_index.h"
#include "crash_vfs.h"

#define SLOTS	48
#define OBJECTS	3
#define BLOCKS	40

static char dir[] = "/tmp/test_cache_index.XXXXXX";
static char path[64], wal_path[64], journal_path[64];
static const uint8_t cache_a[QC2_CACHE_ID_LEN] = "one cache", cache_b[QC2_CACHE_ID_LEN] = "another";
static struct qc2_err err;

/*
 * The model
 */

struct model {
	bool objects[OBJECTS];
	uint32_t content[SLOTS];		/* 0: empty */
	uint32_t names[OBJECTS][BLOCKS];
};

static void model_init(struct model *model)
{
	memset(model, 0, sizeof(*model));
	memset(model->names, 0xff, sizeof(model->names));	/* QC2_SLOT_NONE */
}

static void make_digest(uint32_t content, uint8_t digest[QC2_DIGEST_LEN])
{
	memset(digest, content * 37, QC2_DIGEST_LEN);
	memcpy(digest, &content, sizeof(content));
}

/* UINT32_MAX: none that make_digest() makes */
static uint32_t content_of(const uint8_t digest[QC2_DIGEST_LEN])
{
	uint8_t want[QC2_DIGEST_LEN];
	uint32_t content;

	memcpy(&content, digest, sizeof(content));
	make_digest(content, want);
	return memcmp(digest, want, QC2_DIGEST_LEN) ? UINT32_MAX : content;
}

static void make_key(unsigned int object, uint8_t key[32])
{
	memset(key, 'A' + object, 32);
}

/* One change, in numbers of the model. */
struct change {
	uint32_t evicted[4];
	unsigned int nr_evicted;
	struct {
		uint32_t slot, content;
	} blocks[8];
	unsigned int nr_blocks;
	struct index_name names[8];		/* .object: of the model, from 0 */
	unsigned int nr_names;
};

static void model_empty(struct model *model, uint32_t slot)
{
	unsigned int o, b;

	model->content[slot] = 0;
	for (o = 0; o < OBJECTS; o++) {
		for (b = 0; b < BLOCKS; b++) {
			if (model->names[o][b] == slot)
				model->names[o][b] = QC2_SLOT_NONE;
		}
	}
}

static void model_change(struct model *model, const struct change *change)
{
	unsigned int i;

	for (i = 0; i < change->nr_evicted; i++)
		model_empty(model, change->evicted[i]);
	for (i = 0; i < change->nr_blocks; i++) {
		if (model->content[change->blocks[i].slot] != change->blocks[i].content)
			model_empty(model, change->blocks[i].slot);
		model->content[change->blocks[i].slot] = change->blocks[i].content;
	}
	for (i = 0; i < change->nr_names; i++) {
		const struct index_name *name = &change->names[i];
		bool true_name = model->objects[name->object] &&
				 (name->slot == QC2_SLOT_ZERO || model->content[name->slot]);

		model->names[name->object][name->block] = true_name ? name->slot : QC2_SLOT_NONE;
	}
}

/*
 * The index, with names of the model
 */

static int index_open(struct cache_index **index, bool *trusted)
{
	return cache_index_open(index, path, cache_a, trusted, &err);
}

static int index_object(struct cache_index *index, unsigned int object, bool add, int64_t *id)
{
	uint8_t key[32];

	make_key(object, key);
	return cache_index_object(index, key, "http://host/image", add, id, &err);
}

static int index_change(struct cache_index *index, const struct change *change,
			void (*gone)(void *arg, const struct index_name *name), void *arg)
{
	struct index_block blocks[8];
	struct index_name names[8];
	unsigned int i;
	int ret;

	for (i = 0; i < change->nr_blocks; i++) {
		blocks[i].slot = change->blocks[i].slot;
		make_digest(change->blocks[i].content, blocks[i].digest);
	}
	for (i = 0; i < change->nr_names; i++) {
		names[i] = change->names[i];
		ret = index_object(index, change->names[i].object, false, &names[i].object);
		if (ret)
			return ret;
	}
	return cache_index_commit(index, change->evicted, change->nr_evicted, gone, arg, blocks,
				  change->nr_blocks, names, change->nr_names, &err);
}

struct filled {
	bool slots[SLOTS];
	int64_t last;
};

static int note_filled(void *arg, uint32_t slot)
{
	struct filled *filled = arg;

	assert_true(slot > filled->last);
	filled->last = slot;
	if (slot < SLOTS)
		filled->slots[slot] = true;
	return 0;
}

/*
 * What the index says, in the form of a model.  A negative errno if it gives an error,
 * except for the digest of one slot, which is content UINT32_MAX then.
 */
static int index_dump(struct cache_index *index, struct model *model)
{
	struct filled filled = { .last = -1 };
	uint8_t digest[QC2_DIGEST_LEN];
	unsigned int o, s;
	int64_t id;
	int ret;

	model_init(model);
	for (o = 0; o < OBJECTS; o++) {
		ret = index_object(index, o, false, &id);
		if (ret)
			return ret;
		model->objects[o] = id != 0;
		if (!id)
			continue;
		ret = cache_index_names(index, id, 0, BLOCKS, model->names[o], &err);
		if (ret)
			return ret;
	}
	ret = cache_index_each(index, note_filled, &filled, &err);
	if (ret)
		return ret;
	for (s = 0; s < SLOTS; s++) {
		ret = cache_index_digest(index, s, digest, &err);
		if (ret == -ENOENT)
			continue;
		model->content[s] = ret ? UINT32_MAX : content_of(digest);
		if (!ret && !filled.slots[s])
			return -ENOTRECOVERABLE;
	}
	return 0;
}

static bool model_equal(const struct model *a, const struct model *b)
{
	return !memcmp(a, b, sizeof(*a));
}

/* The whole index is as the model, its counts and what it finds by content, too. */
static void check_index(struct cache_index *index, const struct model *model, uint32_t contents)
{
	uint64_t names, zeros, blocks, want_names = 0, want_zeros = 0, want_blocks = 0;
	uint8_t digest[QC2_DIGEST_LEN];
	bool have[contents + 1];
	struct model is;
	unsigned int o, b;
	uint32_t c, slot;

	assert_ok(index_dump(index, &is), err);
	assert_memory_equal(&is, model, sizeof(is));

	memset(have, 0, sizeof(have));
	for (slot = 0; slot < SLOTS; slot++) {
		want_blocks += !!model->content[slot];
		have[model->content[slot]] = true;
	}
	for (c = 1; c <= contents; c++) {
		make_digest(c, digest);
		assert_ok(cache_index_find(index, digest, &slot, &err), err);
		if (have[c])
			assert_int_equal(model->content[slot], c);
		else
			assert_int_equal(slot, QC2_SLOT_NONE);
	}
	for (o = 0; o < OBJECTS; o++) {
		for (b = 0; b < BLOCKS; b++) {
			want_names += model->names[o][b] != QC2_SLOT_NONE;
			want_zeros += model->names[o][b] == QC2_SLOT_ZERO;
		}
	}
	assert_ok(cache_index_count(index, &names, &zeros, &blocks, &err), err);
	assert_int_equal(names, want_names);
	assert_int_equal(zeros, want_zeros);
	assert_int_equal(blocks, want_blocks);
}

/*
 * Setting up
 */

static void write_text(const char *to, const char *text)
{
	crash_write_file(to, (const void *)text, strlen(text));
}

static int start(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/index", dir);
	snprintf(wal_path, sizeof(wal_path), "%s/index-wal", dir);
	snprintf(journal_path, sizeof(journal_path), "%s/index-journal", dir);
	crash_install();
	return 0;
}

static int stop(void **state)
{
	char damaged[sizeof(path) + 16];

	snprintf(damaged, sizeof(damaged), "%s.damaged", path);
	unlink(damaged);
	return rmdir(dir);
}

static int clear(void **state)
{
	crash_reset();
	unlink(path);
	unlink(wal_path);
	unlink(journal_path);
	return 0;
}

static struct cache_index *must_open(bool want_trusted)
{
	struct cache_index *index;
	bool trusted = !want_trusted;

	assert_ok(index_open(&index, &trusted), err);
	assert_int_equal(trusted, want_trusted);
	return index;
}

/* Objects 0 and 1; slots 0 to 3 with contents 1 to 4; names of object 0, a zero, a clone. */
static const struct change some = {
	.nr_blocks = 4,
	.blocks = { { 0, 1 }, { 1, 2 }, { 2, 3 }, { 3, 4 } },
	.nr_names = 6,
	.names = { { 0, 10, 0 }, { 0, 11, 1 }, { 0, 12, 2 }, { 0, 13, QC2_SLOT_ZERO },
		   { 1, 0, 2 }, { 1, 1, 3 } },
};

static struct cache_index *make_some(struct model *model)
{
	struct cache_index *index = must_open(true);
	int64_t id;

	model_init(model);
	assert_ok(index_object(index, 0, true, &id), err);
	assert_ok(index_object(index, 1, true, &id), err);
	model->objects[0] = model->objects[1] = true;
	assert_ok(index_change(index, &some, NULL, NULL), err);
	model_change(model, &some);
	return index;
}

static void change_both(struct cache_index *index, struct model *model,
			const struct change *change)
{
	assert_ok(index_change(index, change, NULL, NULL), err);
	model_change(model, change);
	check_index(index, model, 99);
}

/*
 * What it answers
 */

static void test_answers(void **state)
{
	struct cache_index *index = must_open(true);
	uint8_t digest[QC2_DIGEST_LEN];
	uint32_t slots[3];
	struct model model;
	struct stat st;
	int64_t id, again;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(wal_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);

	model_init(&model);
	check_index(index, &model, 9);
	assert_ok(index_object(index, 0, false, &id), err);
	assert_int_equal(id, 0);
	cache_index_close(index, true);

	index = make_some(&model);
	check_index(index, &model, 9);
	assert_ok(index_object(index, 0, true, &id), err);
	assert_ok(index_object(index, 0, false, &again), err);
	assert_true(id && id == again);

	/* A part of the names; none at the end of all numbers; of no object */
	assert_ok(cache_index_names(index, id, 12, 3, slots, &err), err);
	assert_int_equal(slots[0], 2);
	assert_int_equal(slots[1], QC2_SLOT_ZERO);
	assert_int_equal(slots[2], QC2_SLOT_NONE);
	assert_ok(cache_index_names(index, id, UINT32_MAX - 2, 3, slots, &err), err);
	assert_int_equal(slots[2], QC2_SLOT_NONE);
	assert_ok(cache_index_names(index, 99, 12, 1, slots, &err), err);
	assert_int_equal(slots[0], QC2_SLOT_NONE);

	assert_int_equal(cache_index_digest(index, 4, digest, &err), -ENOENT);
	assert_in(err.msg, "slot 4 ");
	assert_ok(cache_index_check(index, &err), err);
	cache_index_close(index, true);
}

static void note_gone(void *arg, const struct index_name *name)
{
	struct change *seen = arg;

	assert_true(seen->nr_names < 8);
	seen->names[seen->nr_names++] = *name;
}

static void test_evict(void **state)
{
	const struct change evict = { .nr_evicted = 2, .evicted = { 2, 40 } };
	const struct change refill = { .nr_evicted = 1, .evicted = { 1 },
		.nr_blocks = 1, .blocks = { { 1, 5 } }, .nr_names = 1, .names = { { 1, 5, 1 } } };
	struct change seen = { 0 };
	struct cache_index *index;
	struct model model;

	index = make_some(&model);
	assert_ok(index_change(index, &evict, note_gone, &seen), err);
	model_change(&model, &evict);
	check_index(index, &model, 9);
	assert_int_equal(seen.nr_names, 2);
	assert_int_equal(seen.names[0].slot, 2);
	assert_int_equal(seen.names[0].block + seen.names[1].block, 12 + 0);
	assert_int_not_equal(seen.names[0].object, seen.names[1].object);

	/* Emptied and filled in one change: its old name does not lead there. */
	change_both(index, &model, &refill);
	assert_int_equal(model.names[0][11], QC2_SLOT_NONE);
	assert_int_equal(model.names[1][5], 1);
	cache_index_close(index, true);
}

static void test_replace(void **state)
{
	const struct change same = { .nr_blocks = 1, .blocks = { { 2, 3 } } };
	const struct change other = { .nr_blocks = 1, .blocks = { { 2, 9 } } };
	const struct change names = { .nr_names = 4, .names = { { 0, 10, 1 },
		{ 0, 11, QC2_SLOT_ZERO }, { 0, 13, 3 }, { 1, 7, QC2_SLOT_ZERO } } };
	const struct change twins = { .nr_blocks = 2, .blocks = { { 20, 7 }, { 21, 7 } } };
	const struct change twin_gone = { .nr_evicted = 1, .evicted = { 20 } };
	const struct change nowhere = { .nr_names = 2, .names = { { 0, 10, 30 }, { 1, 20, 31 } } };
	struct index_name unknown = { .object = 77, .block = 1, .slot = 1 };
	struct cache_index *index;
	struct model model;
	uint32_t slot;

	index = make_some(&model);
	change_both(index, &model, &same);
	assert_int_equal(model.names[0][12], 2);
	change_both(index, &model, &other);
	assert_int_equal(model.names[0][12], QC2_SLOT_NONE);
	change_both(index, &model, &names);
	change_both(index, &model, &names);
	change_both(index, &model, &twins);
	change_both(index, &model, &twin_gone);

	/* A name for a slot that is empty is left out, and what the block had is gone. */
	change_both(index, &model, &nowhere);
	assert_int_equal(model.names[0][10], QC2_SLOT_NONE);
	assert_ok(cache_index_commit(index, NULL, 0, NULL, NULL, NULL, 0, &unknown, 1, &err), err);
	assert_ok(cache_index_names(index, 77, 1, 1, &slot, &err), err);
	assert_int_equal(slot, QC2_SLOT_NONE);
	check_index(index, &model, 9);
	cache_index_close(index, true);
}

static int count_to_limit(void *arg, uint32_t slot)
{
	int *limit = arg;

	return --limit[0] ? 0 : limit[1];
}

/* More slots than are read at once; stopping */
static void test_each(void **state)
{
	enum { NR = 10000 };
	struct cache_index *index = must_open(true);
	struct index_block *blocks = calloc(NR, sizeof(*blocks));
	uint64_t names, zeros, filled;
	int limit[2] = { 0, 0 };
	unsigned int i;

	for (i = 0; i < NR; i++) {
		blocks[i].slot = 3 * (NR - i);
		make_digest(i, blocks[i].digest);
	}
	assert_ok(cache_index_commit(index, NULL, 0, NULL, NULL, blocks, NR, NULL, 0, &err), err);
	free(blocks);
	assert_ok(cache_index_count(index, &names, &zeros, &filled, &err), err);
	assert_int_equal(filled, NR);

	assert_ok(cache_index_each(index, count_to_limit, limit, &err), err);
	assert_int_equal(limit[0], -NR);
	limit[0] = 5000;
	limit[1] = 1;
	assert_ok(cache_index_each(index, count_to_limit, limit, &err), err);
	assert_int_equal(limit[0], 0);
	limit[0] = 5000;
	limit[1] = -ENOMEM;
	assert_int_equal(cache_index_each(index, count_to_limit, limit, &err), -ENOMEM);
	cache_index_close(index, true);
}

/* For what no function of the index does; nobody has it open. */
static void run_sql(const char *text)
{
	char *message = NULL;
	sqlite3 *db;

	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix-excl"), 0);
	if (sqlite3_exec(db, text, NULL, NULL, &message))
		fail_msg("%s: %s", text, message);
	sqlite3_close(db);
}

static void test_tidy(void **state)
{
	const struct change fewer = { .nr_evicted = 2, .evicted = { 2, 3 } };
	enum { ZEROS = 9000 };
	struct index_name *zeros = calloc(ZEROS, sizeof(*zeros));
	uint64_t nr_names, nr_zeros, nr_blocks;
	struct cache_index *index;
	struct model model;
	unsigned int i;
	int64_t id, two;

	/* Object 0 has names, 1 none, 2 many zeros; all were used just now. */
	index = make_some(&model);
	change_both(index, &model, &fewer);
	assert_ok(index_object(index, 2, true, &two), err);
	for (i = 0; i < ZEROS; i++)
		zeros[i] = (struct index_name){ two, i, QC2_SLOT_ZERO };
	assert_ok(cache_index_commit(index, NULL, 0, NULL, NULL, NULL, 0, zeros, ZEROS, &err),
		  err);
	free(zeros);
	assert_ok(cache_index_tidy(index, &err), err);
	assert_ok(index_object(index, 1, false, &id), err);
	assert_int_not_equal(id, 0);
	cache_index_close(index, true);

	/* Long unused, except for one that is asked for in this session. */
	run_sql("UPDATE object SET used = 0");
	index = must_open(true);
	assert_ok(index_object(index, 1, true, &id), err);
	assert_ok(cache_index_tidy(index, &err), err);
	assert_ok(index_object(index, 1, false, &id), err);
	assert_int_not_equal(id, 0);
	assert_ok(index_object(index, 2, false, &id), err);
	assert_int_equal(id, 0);
	check_index(index, &model, 9);
	cache_index_close(index, true);

	run_sql("UPDATE object SET used = 0");
	index = must_open(true);
	assert_ok(cache_index_tidy(index, &err), err);
	assert_ok(index_object(index, 1, false, &id), err);
	assert_int_equal(id, 0);
	assert_ok(cache_index_count(index, &nr_names, &nr_zeros, &nr_blocks, &err), err);
	assert_int_equal(nr_zeros, 1);
	cache_index_close(index, true);
}

/*
 * Pins
 */

/* What cache_index_pinned() says, by numbers of the model. */
struct pinned {
	unsigned int objects[OBJECTS];		/* how often */
	unsigned int slots[SLOTS];		/* by how many names */
	unsigned int nr_slots;
	int stop;
};

static int note_object(void *arg, const uint8_t key[32])
{
	struct pinned *pinned = arg;

	assert_in_range(key[0], 'A', 'A' + OBJECTS - 1);
	pinned->objects[key[0] - 'A']++;
	return pinned->stop;
}

static void note_slot(void *arg, uint32_t slot)
{
	struct pinned *pinned = arg;

	pinned->nr_slots++;
	if (slot < SLOTS)
		pinned->slots[slot]++;
}

/* So many slots, of so many pinned objects, the last bit being object 0. */
static void check_pinned(struct cache_index *index, unsigned int objects, uint64_t slots)
{
	struct pinned is = { 0 };
	unsigned int i;

	assert_ok(cache_index_pinned(index, note_object, note_slot, &is, &err), err);
	for (i = 0; i < OBJECTS; i++)
		assert_int_equal(is.objects[i], objects >> i & 1);
	for (i = 0; i < SLOTS; i++)
		assert_int_equal(!!is.slots[i], slots >> i & 1);
}

static void pin(struct cache_index *index, unsigned int objects, bool pinned)
{
	struct index_pin pins[OBJECTS];
	unsigned int i, nr = 0;

	for (i = 0; i < OBJECTS; i++) {
		pins[nr] = (struct index_pin){ .url = "http://host/image", .pinned = pinned };
		make_key(i, pins[nr].key);
		nr += objects >> i & 1;
	}
	assert_ok(cache_index_pin(index, pins, nr, &err), err);
}

static void test_pins(void **state)
{
	const struct change more = {
		.nr_evicted = 1, .evicted = { 0 },
		.nr_blocks = 1, .blocks = { { 9, 10 } },
		.nr_names = 2, .names = { { 0, 30, 9 }, { 2, 5, 3 } },
	};
	struct cache_index *index;
	struct model model;

	index = make_some(&model);
	check_pinned(index, 0, 0);
	/* An object that is there, and one that is not. */
	pin(index, 5, true);
	pin(index, 1, true);
	model.objects[2] = true;
	check_pinned(index, 5, 7);
	check_index(index, &model, 9);
	change_both(index, &model, &more);
	check_pinned(index, 5, 0x20e);
	/* A slot of two. */
	pin(index, 2, true);
	pin(index, 4, false);
	check_pinned(index, 3, 0x20e);
	cache_index_close(index, true);

	index = must_open(true);
	check_pinned(index, 3, 0x20e);
	check_index(index, &model, 10);
	pin(index, 1, false);
	check_pinned(index, 2, 0xc);
	/* The checksums are those of objects that are not pinned again. */
	check_index(index, &model, 10);
	pin(index, 7, false);
	check_pinned(index, 0, 0);
	check_index(index, &model, 10);
	cache_index_close(index, true);
}

/* More names than are read at once, zeros among them. */
static void test_many_pinned(void **state)
{
	enum { NAMES = 9000 };
	struct index_name *names = calloc(NAMES, sizeof(*names));
	struct cache_index *index;
	struct pinned is = { 0 };
	struct model model;
	unsigned int i;
	int64_t id;

	index = make_some(&model);
	assert_ok(index_object(index, 0, true, &id), err);
	for (i = 0; i < NAMES; i++)
		names[i] = (struct index_name){ id, i, i % 3 ? QC2_SLOT_ZERO : i % 4 };
	assert_ok(cache_index_commit(index, NULL, 0, NULL, NULL, NULL, 0, names, NAMES, &err),
		  err);
	free(names);
	pin(index, 1, true);
	assert_ok(cache_index_pinned(index, note_object, note_slot, &is, &err), err);
	assert_int_equal(is.nr_slots, NAMES / 3);
	for (i = 0; i < 4; i++)
		assert_int_equal(is.slots[i], NAMES / 3 / 4);

	memset(&is, 0, sizeof(is));
	is.stop = -ENOMEM;
	assert_int_equal(cache_index_pinned(index, note_object, note_slot, &is, &err), -ENOMEM);
	assert_int_equal(is.nr_slots, 0);
	cache_index_close(index, true);
}

static void test_pin_stays(void **state)
{
	const struct change none = { .nr_evicted = 4, .evicted = { 0, 1, 2, 3 } };
	struct cache_index *index;
	struct model model;
	int64_t id;

	/* Of two that nothing is cached of, the pinned one. */
	index = make_some(&model);
	change_both(index, &model, &none);
	assert_ok(cache_index_disown(index, 1, &err), err);
	pin(index, 1, true);
	cache_index_close(index, true);
	run_sql("UPDATE object SET used = 0");
	index = must_open(true);
	assert_ok(cache_index_tidy(index, &err), err);
	assert_ok(index_object(index, 0, false, &id), err);
	assert_int_not_equal(id, 0);
	assert_ok(index_object(index, 1, false, &id), err);
	assert_int_equal(id, 0);
	check_pinned(index, 1, 0);
	cache_index_close(index, true);

	/* A pin that damage made, and one that it took away: the object is not known. */
	run_sql("UPDATE object SET pinned = 1 - pinned");
	index = must_open(true);
	check_pinned(index, 0, 0);
	assert_ok(index_object(index, 0, false, &id), err);
	assert_int_equal(id, 0);
	pin(index, 1, true);
	check_pinned(index, 1, 0);
	cache_index_close(index, true);
	run_sql("UPDATE object SET pinned = 2");
	index = must_open(true);
	check_pinned(index, 0, 0);
	cache_index_close(index, true);
}

/*
 * Opening again
 */

static void test_trust(void **state)
{
	struct cache_index *index;
	struct model model;

	index = make_some(&model);
	cache_index_close(index, true);
	index = must_open(true);
	check_index(index, &model, 9);

	/* A daemon that dies: what it wrote may not be there, for the next one neither. */
	cache_index_close(index, false);
	index = must_open(false);
	cache_index_close(index, false);
	index = must_open(false);
	check_index(index, &model, 9);
	cache_index_close(index, true);
	index = must_open(true);
	cache_index_close(index, false);
}

static void test_other_cache(void **state)
{
	struct cache_index *index;
	struct model model;
	bool trusted = false;

	index = make_some(&model);
	cache_index_close(index, false);
	assert_ok(cache_index_open(&index, path, cache_b, &trusted, &err), err);
	assert_true(trusted);
	model_init(&model);
	check_index(index, &model, 9);
	cache_index_close(index, false);

	index = must_open(true);
	check_index(index, &model, 9);
	cache_index_close(index, true);
}

static void must_not_open(int ret, const char *text)
{
	struct cache_index *index = (void *)1;
	bool trusted;

	assert_int_equal(index_open(&index, &trusted), ret);
	assert_null(index);
	assert_in(err.msg, path);
	assert_in(err.msg, text);
}

static void test_formats(void **state)
{
	struct cache_index *index;
	struct model model;
	char big[8192];
	bool trusted;
	sqlite3 *db;

	/* An empty file is what is left when a new one was not begun. */
	write_text(path, "");
	cache_index_close(must_open(true), true);

	run_sql("PRAGMA user_version = 2");
	must_not_open(-EOPNOTSUPP, "newer chaind");
	run_sql("PRAGMA user_version = 1; CREATE INDEX more ON object(used)");
	must_not_open(-EUCLEAN, "damaged (its tables)");
	assert_ok(cache_index_remove(path, &err), err);
	assert_int_not_equal(access(path, F_OK), 0);
	cache_index_close(must_open(true), true);

	memset(big, 'x', sizeof(big));
	crash_write_file(path, (uint8_t *)big, sizeof(big));
	must_not_open(-EUCLEAN, "not a database");
	assert_ok(cache_index_remove(path, &err), err);

	assert_int_equal(sqlite3_open(path, &db), 0);
	assert_int_equal(sqlite3_exec(db, "CREATE TABLE t(a)", NULL, NULL, NULL), 0);
	sqlite3_close(db);
	must_not_open(-EEXIST, "of another program");
	assert_ok(cache_index_remove(path, &err), err);

	cache_index_close(make_some(&model), true);
	assert_int_equal(truncate(path, 8192), 0);
	must_not_open(-EUCLEAN, "damaged");
	assert_ok(cache_index_remove(path, &err), err);

	snprintf(big, sizeof(big), "%s/none/index", dir);
	assert_int_equal(cache_index_open(&index, big, cache_a, &trusted, &err), -ENOENT);
	assert_in(err.msg, "cannot be created");
}

/* Only one process at a time; a child opens what its parent has open. */
static void test_in_use(void **state)
{
	struct cache_index *index;
	int go[2], status;
	bool trusted;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(go), 0);
	pid = fork();
	if (!pid) {
		if (read(go[0], &byte, 1) != 1)
			_exit(2);
		_exit(index_open(&index, &trusted) != -EBUSY);
	}
	index = must_open(true);
	assert_int_equal(write(go[1], "", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(go[0]);
	close(go[1]);
	cache_index_close(index, true);
}

static void *read_all(void *arg)
{
	struct model model;

	/* From another thread, in the middle of a change: the state before it. */
	assert_ok(index_dump(arg, &model), err);
	assert_int_equal(model.names[0][12], 2);
	assert_int_equal(model.content[2], 3);
	return NULL;
}

static void read_meanwhile(void *arg, const struct index_name *name)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, read_all, arg), 0);
	pthread_join(thread, NULL);
}

static void test_read_in_change(void **state)
{
	const struct change evict = { .nr_evicted = 1, .evicted = { 2 } };
	struct cache_index *index;
	struct model model;

	index = make_some(&model);
	assert_ok(index_change(index, &evict, read_meanwhile, index), err);
	model_change(&model, &evict);
	check_index(index, &model, 9);
	cache_index_close(index, true);
}

/*
 * Damage
 */

/* Rows that are not what was written; nothing else is wrong with the database. */
static void test_damaged_rows(void **state)
{
	static const struct {
		const char *text;
		int object, block, slot;	/* not found by name; -1: nothing */
		uint32_t content;		/* not found by content; 0: nothing */
	} rows[] = {
		{ "UPDATE name SET slot = 1 WHERE slot = 0", 0, 10, -1, 0 },
		{ "UPDATE name SET slot = 4294967294 WHERE slot = 0", 0, 10, -1, 0 },
		{ "UPDATE name SET slot = -1 WHERE slot = 0", 0, 10, -1, 0 },
		{ "UPDATE name SET slot = 1 << 40 WHERE slot = 0", 0, 10, -1, 0 },
		{ "UPDATE name SET slot = 'a' WHERE slot = 0", 0, 10, -1, 0 },
		{ "UPDATE name SET sum = sum + 1 WHERE slot = 0", 0, 10, -1, 0 },
		{ "UPDATE name SET block = 9 WHERE slot = 0", 0, 10, -1, 0 },
		{ "UPDATE name SET object = 2 WHERE slot = 0", 0, 10, -1, 0 },
		{ "UPDATE name SET slot = 0 WHERE block = 13", 0, 13, -1, 0 },
		{ "UPDATE block SET digest = (SELECT digest FROM block WHERE slot = 1)"
		  " WHERE slot = 0", 0, 10, 0, 1 },
		{ "UPDATE block SET digest = x'00' WHERE slot = 0", 0, 10, 0, 1 },
		{ "UPDATE block SET sum = sum + 1 WHERE slot = 0", -1, 0, 0, 1 },
		{ "UPDATE block SET slot = 9 WHERE slot = 0", 0, 10, 9, 1 },
	};
	uint8_t digest[QC2_DIGEST_LEN];
	struct cache_index *index;
	struct model model, is;
	uint32_t found;
	unsigned int i;
	int64_t id;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		cache_index_close(make_some(&model), true);
		run_sql(rows[i].text);
		index = must_open(true);
		if (rows[i].slot >= 0)
			assert_int_equal(cache_index_digest(index, rows[i].slot, digest, &err),
					 -EUCLEAN);
		if (rows[i].content) {
			make_digest(rows[i].content, digest);
			assert_ok(cache_index_find(index, digest, &found, &err), err);
			assert_int_equal(found, QC2_SLOT_NONE);
		}
		if (rows[i].object >= 0) {
			assert_ok(index_object(index, rows[i].object, false, &id), err);
			assert_ok(cache_index_names(index, id, rows[i].block, 1, &found, &err), err);
			assert_int_equal(found, QC2_SLOT_NONE);
		}

		/* Written again, it is whole again. */
		assert_ok(index_change(index, &some, NULL, NULL), err);
		index_dump(index, &is);
		assert_memory_equal(is.names, model.names, sizeof(is.names));
		assert_int_equal(is.content[0], 1);
		cache_index_close(index, true);
		clear(NULL);
	}
}

static void test_damaged_object(void **state)
{
	struct cache_index *index;
	struct model model, is;
	int64_t id;

	/* Object 0 under the number of another, or with its sum: not known; made anew. */
	cache_index_close(make_some(&model), true);
	run_sql("UPDATE object SET id = 7 WHERE id = 2");
	index = must_open(true);
	assert_ok(index_object(index, 1, false, &id), err);
	assert_int_equal(id, 0);
	assert_ok(index_object(index, 1, true, &id), err);
	assert_int_not_equal(id, 0);
	assert_int_not_equal(id, 7);

	/* If it gets a number that has names of another, they are not its own. */
	assert_ok(index_dump(index, &is), err);
	assert_int_equal(is.names[1][0], id == 2 ? 2U : QC2_SLOT_NONE);
	cache_index_close(index, true);

	run_sql("DELETE FROM object; UPDATE name SET object = 1");
	index = must_open(true);
	assert_ok(index_object(index, 2, true, &id), err);
	assert_int_equal(id, 1);
	assert_ok(index_dump(index, &is), err);
	assert_int_equal(is.names[2][10], QC2_SLOT_NONE);
	cache_index_close(index, true);

	run_sql("UPDATE meta SET state = 'clean '");
	must_not_open(-EUCLEAN, "its state");
}

/* What is said is true; what is not said does no harm. */
static void check_no_lie(const struct model *is, const struct model *model)
{
	unsigned int o, b, s;

	for (o = 0; o < OBJECTS; o++) {
		for (b = 0; b < BLOCKS; b++) {
			if (is->names[o][b] != QC2_SLOT_NONE)
				assert_int_equal(is->names[o][b], model->names[o][b]);
		}
	}
	for (s = 0; s < SLOTS; s++) {
		if (is->content[s] && is->content[s] != UINT32_MAX)
			assert_int_equal(is->content[s], model->content[s]);
	}
}

static void check_finds_no_lie(struct cache_index *index, const struct model *model,
			       uint32_t contents)
{
	uint8_t digest[QC2_DIGEST_LEN];
	uint32_t c, slot;

	for (c = 1; c <= contents; c++) {
		make_digest(c, digest);
		if (!cache_index_find(index, digest, &slot, &err) && slot != QC2_SLOT_NONE) {
			assert_true(slot < SLOTS);
			assert_int_equal(model->content[slot], c);
		}
	}
}

/* Number @i of the changes that the tests of trouble make; contents are new each time. */
static void make_change(struct change *change, unsigned int i, uint64_t *random)
{
	unsigned int j;

	memset(change, 0, sizeof(*change));
	change->nr_evicted = test_random(random) % 4;
	change->nr_blocks = 1 + test_random(random) % 8;
	change->nr_names = test_random(random) % 9;
	for (j = 0; j < change->nr_evicted; j++)
		change->evicted[j] = test_random(random) % SLOTS;
	for (j = 0; j < change->nr_blocks; j++) {
		change->blocks[j].slot = test_random(random) % SLOTS;
		change->blocks[j].content = 1 + 8 * i + j;
	}
	for (j = 0; j < change->nr_names; j++) {
		change->names[j].object = test_random(random) % OBJECTS;
		change->names[j].block = test_random(random) % BLOCKS;
		change->names[j].slot = (test_random(random) % 5) ? test_random(random) % SLOTS :
				       QC2_SLOT_ZERO;
	}
}

/* Flips bits of a good index, one place at a time, all over the file. */
static void test_flips(void **state)
{
	enum { CHANGES = 30, MORE = 4, STEP = 23 };
	struct model model, later, is;
	unsigned int i, refused = 0, errors = 0, less = 0, same = 0, found = 0;
	struct cache_index *index;
	uint64_t random = 1, after;
	struct change change;
	uint8_t *good, *bad;
	size_t size, at;
	struct stat st;
	bool trusted;
	int64_t id;
	int fd;

	index = must_open(true);
	model_init(&model);
	for (i = 0; i < OBJECTS; i++) {
		assert_ok(index_object(index, i, true, &id), err);
		model.objects[i] = true;
	}
	for (i = 0; i < CHANGES; i++) {
		make_change(&change, i, &random);
		assert_ok(index_change(index, &change, NULL, NULL), err);
		model_change(&model, &change);
	}
	cache_index_close(index, true);
	fd = open(path, O_RDONLY);
	assert_int_equal(fstat(fd, &st), 0);
	size = st.st_size;
	good = malloc(size);
	bad = malloc(size);
	assert_int_equal(read(fd, good, size), size);
	close(fd);

	for (at = 0; at < size; at += at < 200 ? 1 : 1 + test_random(&random) % (2 * STEP - 1)) {
		memcpy(bad, good, size);
		bad[at] ^= test_random(&random) % 2 ? 1U << test_random(&random) % 8 :
			   1 + test_random(&random) % 255;
		crash_reset();
		unlink(wal_path);
		crash_write_file(path, bad, size);
		if (index_open(&index, &trusted)) {
			refused++;
			continue;
		}
		if (index_dump(index, &is)) {
			errors++;
		} else {
			check_no_lie(&is, &model);
			same += model_equal(&is, &model);
			less += !model_equal(&is, &model);
		}
		check_finds_no_lie(index, &model, 8 * CHANGES);

		/* It goes on being used if nothing is wrong with its structure. */
		if (cache_index_check(index, &err)) {
			found++;
			cache_index_close(index, true);
			continue;
		}
		later = model;
		after = at;
		for (i = CHANGES; i < CHANGES + MORE; i++) {
			make_change(&change, i, &after);
			if (index_change(index, &change, NULL, NULL))
				break;
			model_change(&later, &change);
		}
		if (!index_dump(index, &is))
			check_no_lie(&is, &later);
		check_finds_no_lie(index, &later, 8 * (CHANGES + MORE));
		cache_index_close(index, true);
	}
	print_message("%zu bytes: %u times refused, %u errors, %u times less, %u times all; %u found by the check\n",
		      size, refused, errors, less, same, found);
	assert_true(refused && less && same && found);
	free(good);
	free(bad);
}

/*
 * Trouble at every write.  The work: open; objects; changes; now and then a close, in order
 * or not, and an open; a tidy.  After each step the model is kept, so that what is found
 * after a crash can be looked up among them.
 */

#define STEPS		24
#define CONTENTS	(8 * STEPS)

struct work {
	struct cache_index *index;
	struct model states[STEPS + 1];	/* after step i; 0 is the empty index */
	unsigned int done;		/* steps that returned success */
	unsigned int closed;		/* @done when it was last known to be durable */
	bool in_use;			/* opened, and no close in order begun */
	uint64_t random;
	int failed;			/* the last error */
	unsigned int at;		/* crash.at */
};

static int work_open(struct work *work)
{
	bool trusted;
	int ret = index_open(&work->index, &trusted);

	if (!ret) {
		work->in_use = true;
		work->closed = work->done;
	} else {
		work->failed = ret;
	}
	return ret;
}

static void work_close(struct work *work, bool clean)
{
	if (clean)
		work->in_use = false;
	cache_index_close(work->index, clean);
	work->index = NULL;
}

/* Step number work->done + 1. */
static int work_step(struct work *work, struct model *model)
{
	unsigned int nr = work->done + 1;
	struct change change;
	int64_t id;
	int ret;

	if (nr <= OBJECTS) {
		ret = index_object(work->index, nr - 1, true, &id);
		if (!ret)
			assert_int_not_equal(id, 0);
		model->objects[nr - 1] = true;
		return ret;
	}
	make_change(&change, nr - 1, &work->random);
	model_change(model, &change);
	return index_change(work->index, &change, NULL, NULL);
}

/* Returns whether it came to its end; @retry: what fails is tried again until it works. */
static bool work_run(struct work *work, bool retry)
{
	struct model model, is;
	uint64_t random;
	int ret;

	memset(work, 0, sizeof(*work));
	model_init(&work->states[0]);
	work->random = 4711;
	work->at = crash.at;
	while (work_open(work)) {
		if (!retry)
			return false;
	}
	while (work->done < STEPS) {
		for (;;) {
			model = work->states[work->done];
			random = work->random;
			ret = work_step(work, &model);
			if (!ret)
				break;
			if (!retry) {
				work->states[work->done + 1] = model;
				return false;
			}
			work->failed = ret;
			/* All of it was undone. */
			assert_ok(index_dump(work->index, &is), err);
			assert_memory_equal(&is, &work->states[work->done], sizeof(is));
			work->random = random;
		}
		work->states[++work->done] = model;
		if (work->done % 8)
			continue;
		work_close(work, work->done % 16 == 0);
		while (work_open(work)) {
			if (!retry)
				return false;
		}
	}
	while (cache_index_tidy(work->index, &err)) {
		if (!retry)
			return false;
	}
	work_close(work, true);
	return !crash.stopped;
}

/* After a crash: the index is that after step @from, or one up to @to. */
static void work_check(struct work *work, unsigned int from, unsigned int to, bool power)
{
	struct model is;
	unsigned int i;
	bool trusted;

	if (to > STEPS)
		to = STEPS;
	assert_ok(index_open(&work->index, &trusted), err);
	assert_ok(index_dump(work->index, &is), err);
	for (i = from; i <= to; i++) {
		if (model_equal(&is, &work->states[i]))
			break;
	}
	if (i > to)
		fail_msg("event %u: no state from %u to %u", work->at, from, to);
	check_index(work->index, &work->states[i], CONTENTS);
	if (work->in_use)
		assert_false(trusted);
	/* It was closed in order, and nothing came after it. */
	if (trusted)
		assert_int_equal(i, work->done);

	/* It can be used. */
	assert_ok(cache_index_commit(work->index, (uint32_t[]){ 0 }, 1, NULL, NULL, NULL, 0, NULL,
				     0, &err), err);
	model_empty(&work->states[i], 0);
	check_index(work->index, &work->states[i], CONTENTS);
	cache_index_close(work->index, true);
}

static unsigned int count_events(void)
{
	struct work *work = malloc(sizeof(*work));
	unsigned int events;

	assert_true(work_run(work, false));
	events = crash.events;
	free(work);
	clear(NULL);
	/* The changes, and what writes the log back */
	assert_true(events > 10 * STEPS);
	return events;
}

/* The process dies: all that was committed is there, and the commit begun whole or not. */
static void test_die_at_every_write(void **state)
{
	struct work *work = malloc(sizeof(*work));
	unsigned int at, last = count_events();

	for (at = 1; at <= last; at++) {
		crash.at = at;
		assert_false(work_run(work, false) && !crash.stopped);
		cache_index_close(work->index, false);
		assert_true(crash.stopped);
		crash_reset();
		work_check(work, work->done, work->done + 1, false);
		clear(NULL);
	}
	print_message("stopped at each of %u writes\n", last);
	free(work);
}

/* Power is lost: some number of the last commits is not there, the others are, whole. */
static void lose_power_at_every_write(enum crash_fate fate, uint64_t seed)
{
	struct work *work = malloc(sizeof(*work));
	unsigned int at, last = count_events();

	for (at = 1; at <= last; at++) {
		crash.at = at;
		work_run(work, false);
		cache_index_close(work->index, false);
		assert_true(crash.stopped);
		crash_power_loss(fate, &seed);
		work_check(work, work->closed, work->done + 1, true);
		clear(NULL);
	}
	free(work);
}

static void test_lose_power_drop(void **state)
{
	lose_power_at_every_write(CRASH_DROP, 0);
}

static void test_lose_power_torn(void **state)
{
	lose_power_at_every_write(CRASH_RANDOM, 1);
}

/* One write fails: an error that fits, nothing half done, and it works when tried again. */
static void test_error_at_every_write(void **state)
{
	static const struct {
		int sqlite, errnum;
	} errors[] = { { SQLITE_FULL, ENOSPC }, { SQLITE_IOERR_WRITE, EIO } };
	struct work *work = malloc(sizeof(*work));
	unsigned int at, last = count_events(), i, seen;

	for (i = 0; i < 2; i++) {
		seen = 0;
		for (at = 1; at <= last; at++) {
			crash.at = at;
			crash.error = errors[i].sqlite;
			assert_true(work_run(work, true));
			if (work->failed)
				assert_int_equal(work->failed, -errors[i].errnum);
			seen += !!work->failed;
			crash_reset();
			work_check(work, STEPS, STEPS, false);
			clear(NULL);
		}
		/* Not each shows: that the log cannot be written back matters later. */
		print_message("%s: %u of %u writes\n", strerror(errors[i].errnum), seen, last);
		assert_true(seen > last / 4);
	}
	free(work);
}

#define test(name)	cmocka_unit_test_setup_teardown(name, clear, clear)

/* An argument: which tests. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		test(test_answers),
		test(test_evict),
		test(test_replace),
		test(test_each),
		test(test_tidy),
		test(test_pins),
		test(test_many_pinned),
		test(test_pin_stays),
		test(test_trust),
		test(test_other_cache),
		test(test_formats),
		test(test_in_use),
		test(test_read_in_change),
		test(test_damaged_rows),
		test(test_damaged_object),
		test(test_flips),
		test(test_die_at_every_write),
		test(test_lose_power_drop),
		test(test_lose_power_torn),
		test(test_error_at_every_write),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, start, stop);
}

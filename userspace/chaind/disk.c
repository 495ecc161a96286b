/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Disks: attaching, closing, taking over; opening.c opens their chains.  Main
 * thread only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk.h"
#include "fill.h"
#include "miss.h"
#include "opening.h"
#include "replica.h"
#include "table.h"

#define MAX_RETRY_MS		10000
/* A chain that cannot be read is looked at again after this, if a read wants it. */
#define FAILED_US		5000000

static int start_opening(struct disk *disk, struct qc2_err *err);
static int on_retry(sd_event_source *source, uint64_t usec, void *arg);

static struct disk *disk_new(struct chaind *chaind)
{
	struct disk *disk = calloc(1, sizeof(*disk));
	int ret;

	if (!disk)
		return NULL;
	disk->chaind = chaind;
	plan_init(&disk->plan);
	TAILQ_INIT(&disk->requests);
	disk->stats = fetch_stats_new();
	ret = sd_event_add_time_relative(chaind->event, &disk->retry_timer,
					 CLOCK_MONOTONIC, 0, 0, on_retry, disk);
	if (ret >= 0)
		ret = sd_event_source_set_enabled(disk->retry_timer,
						  SD_EVENT_OFF);
	if (!disk->stats || ret < 0) {
		sd_event_source_disable_unref(disk->retry_timer);
		fetch_stats_put(disk->stats);
		free(disk);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&chaind->disks, disk, entry);
	return disk;
}

static void free_chain(struct disk *disk)
{
	size_t i;

	if (!disk->chain)
		return;

	for (i = 0; disk->objects && i < 2 * disk->chain->nr_links; i++) {
		if (disk->objects[i])
			object_put(disk->objects[i]);
	}
	free(disk->objects);
	disk->objects = NULL;
	disk->live_sectors = 0;
	qc2_chain_put(disk->chain);
	disk->chain = NULL;
}

static void end_opening(struct disk *disk)
{
	if (disk->opening)
		opening_end(disk->opening);
	disk->opening = NULL;
}

static void disk_free(struct disk *disk)
{
	TAILQ_REMOVE(&disk->chaind->disks, disk, entry);
	if (disk->fill)
		fill_disk_gone(disk->fill);
	end_opening(disk);
	miss_drop(disk);
	sd_event_source_disable_unref(disk->retry_timer);
	fetch_stats_put(disk->stats);
	free_chain(disk);
	qc2_chain_put(disk->suspect);
	qc2_digests_free(disk->digests);
	disk_info_free(&disk->info);
	free(disk);
}

struct disk *disk_find(struct chaind *chaind, const char *name)
{
	struct disk *disk;

	TAILQ_FOREACH(disk, &chaind->disks, entry) {
		if (!disk->unnamed && !strcmp(disk->info.name, name))
			return disk;
	}
	return NULL;
}

struct disk *disk_find_dev(struct chaind *chaind, uint32_t dev)
{
	struct disk *disk;

	TAILQ_FOREACH(disk, &chaind->disks, entry) {
		if (disk->registered && disk->info.dev == dev)
			return disk;
	}
	return NULL;
}

static void retry_later(struct disk *disk)
{
	unsigned int ms = qc2_backoff_ms(++disk->tries, MAX_RETRY_MS);

	sd_event_source_set_time_relative(disk->retry_timer, ms * 1000ULL);
	sd_event_source_set_enabled(disk->retry_timer, SD_EVENT_ONESHOT);
}

static void set_failed(struct disk *disk, int ret)
{
	disk->state = DISK_FAILED;
	disk->failed = ret;
	disk->failed_until_us = now_us() + FAILED_US;
	log_err("disk %s: %s%s", disk->info.name, disk->error.msg,
		disk->unnamed ? "" : "; its reads outside of the tip fail");
	miss_retry(disk);
	fill_look(disk->fill);
}

bool disk_revive(struct disk *disk)
{
	struct qc2_err err;

	/* Of a disk that runs the images must be those it was started with. */
	if (disk->failed == -ESTALE || now_us() < disk->failed_until_us)
		return false;
	end_opening(disk);
	free_chain(disk);
	return !start_opening(disk, &err);
}

/* The objects of a link; each may be there already for another disk. */
static int make_link_objects(struct disk *disk, size_t i)
{
	const struct qc2_link *link = &disk->chain->links[i];
	struct object **data = &disk->objects[qc2_object_data(i)];
	struct object **unpacked = &disk->objects[qc2_object_unpacked(i)];

	if (!*data)
		*data = link->data_url ?
			object_get(link->data_url, link->data_size, link->data_version) :
			object_get(link->url, link->size, link->version);
	if (link->packed && !*unpacked)
		*unpacked = object_get_unpacked(link->url, link->size, link->version,
						i ? NULL : disk->chain->snapshot,
						link->packed, link->virtual_size);
	if (!*data || (link->packed && !*unpacked))
		return -ENOMEM;
	replicas_find(disk->chaind->replicas, *data);
	if (*unpacked)
		replicas_find(disk->chaind->replicas, *unpacked);
	return 0;
}

/* Those to which what is known of the index leads. */
static int make_objects(struct disk *disk)
{
	const struct qc2_chain *chain = disk->chain;
	size_t i;

	if (!disk->objects)
		disk->objects = calloc(2 * chain->nr_links, sizeof(*disk->objects));
	if (!disk->objects)
		return -ENOMEM;
	disk->live_sectors = 0;
	for (i = 0; i < chain->nr_links; i++) {
		if (make_link_objects(disk, i))
			return -ENOMEM;
		disk->live_sectors += chain->links[i].live_sectors;
	}
	return 0;
}

/* The same chain, complete, of another disk; else the chain itself. */
static struct qc2_chain *find_complete(const struct disk *disk,
				       struct qc2_chain *chain)
{
	struct disk *other;

	TAILQ_FOREACH(other, &disk->chaind->disks, entry) {
		if (other->chain && other->chain->index &&
		    !(other->chain->from_manifest && disk->no_manifest) &&
		    !memcmp(other->chain->id, chain->id, QC2_CHAIN_ID_LEN))
			return other->chain;
	}
	return chain;
}

/* Of a disk that is running the chain must be the one it was started with. */
static int take_chain(struct disk *disk, struct qc2_chain *chain,
		      struct qc2_err *err)
{
	struct disk_info *info = &disk->info;

	disk->chain = qc2_chain_ref(find_complete(disk, chain));
	if (make_objects(disk)) {
		free_chain(disk);
		return qc2_fail(err, ENOMEM, "%s: out of memory", info->url);
	}
	if (info->dev && memcmp(chain->id, info->chain_id, QC2_CHAIN_ID_LEN)) {
		free_chain(disk);
		return qc2_fail(err, ESTALE,
				"%s: the image or one below it was changed since the disk was started",
				info->url);
	}
	memcpy(info->chain_id, chain->id, QC2_CHAIN_ID_LEN);
	return 0;
}

static void tell_opener(struct disk *disk, int ret, const struct qc2_err *err)
{
	void (*opened)(void *, struct disk *, int, const struct qc2_err *) =
		disk->opened;

	disk->opened = NULL;
	if (opened)
		opened(disk->opened_arg, disk, ret, err);
}

static void opening_ended(struct disk *disk, int ret)
{
	if (!ret) {
		disk->error.msg[0] = '\0';
		disk->state = disk->registered ? DISK_ATTACHED : DISK_OPEN;
		disk->tries = 0;
		log_info("disk %s: %s is open, %zu links%s", disk->info.name,
			 disk->info.url, disk->chain->nr_links,
			 disk->chain->from_manifest ? ", by its manifest" : "");
		miss_retry(disk);
		fill_look(disk->fill);
		tell_opener(disk, 0, NULL);
	} else if (!disk->info.dev) {
		disk->failed = ret;
		tell_opener(disk, ret, &disk->error);
		disk_free(disk);
	} else if (ret == -EAGAIN || ret == -ENOMEM) {
		log_warn("disk %s: %s; trying again", disk->info.name,
			 disk->error.msg);
		retry_later(disk);
	} else {
		set_failed(disk, ret);
	}
}

/*
 * ---------------------------------------------------------------------------
 * Manifests that are wrong
 * ---------------------------------------------------------------------------
 */

/* Which were; their chains are walked as long as this process runs. */
static struct wrong_manifest {
	uint8_t chain_id[QC2_CHAIN_ID_LEN];
	char *version;			/* of the manifest */
	bool stale;			/* an image was changed; a walk finds another chain */
} *wrong;
static size_t nr_wrong;

static const struct wrong_manifest *find_wrong(const struct qc2_chain *chain)
{
	size_t i;

	for (i = 0; i < nr_wrong; i++)
		if (!memcmp(wrong[i].chain_id, chain->id, QC2_CHAIN_ID_LEN) &&
		    !strcmp(wrong[i].version, chain->manifest->version))
			return &wrong[i];
	return NULL;
}

static void set_wrong(const struct qc2_chain *chain, bool stale)
{
	struct wrong_manifest *more;
	char *version;

	if (find_wrong(chain))
		return;
	version = strdup(chain->manifest->version);
	more = reallocarray(wrong, nr_wrong + 1, sizeof(*wrong));
	if (more)
		wrong = more;
	if (!more || !version) {
		free(version);
		return;
	}
	memcpy(wrong[nr_wrong].chain_id, chain->id, QC2_CHAIN_ID_LEN);
	wrong[nr_wrong].stale = stale;
	wrong[nr_wrong++].version = version;
}

static void set_trouble(struct qc2_chain *chain)
{
	if (!chain->manifest_trouble)
		chain->manifest_trouble =
			strdup("it was wrong when the disk was read before; publish it anew");
}

static bool same_index(const struct qc2_index *a, const struct qc2_index *b)
{
	return a->nr_extents == b->nr_extents &&
	       !memcmp(a->extents, b->extents, a->nr_extents * sizeof(*a->extents));
}

/* Whether both say the same about the same images. */
static bool same_map(const struct qc2_chain *a, const struct qc2_chain *b)
{
	size_t i;

	if (memcmp(a->id, b->id, QC2_CHAIN_ID_LEN) || !same_index(a->index, b->index))
		return false;
	for (i = 0; i < a->nr_links; i++) {
		const struct qc2_link *x = &a->links[i], *y = &b->links[i];

		if (x->virtual_size != y->virtual_size || !x->packed != !y->packed ||
		    (x->packed && !qc2_packed_same(x->packed, y->packed)))
			return false;
	}
	return true;
}

/* What its digests were taken for may be something else, for all who read it. */
static void disown_objects(struct disk *disk)
{
	struct disk *other;
	size_t i;

	for (i = 0; i < 2 * disk->chain->nr_links; i++) {
		if (disk->objects[i])
			cache_disown(disk->chaind->cache, disk->objects[i]);
	}
	TAILQ_FOREACH(other, &disk->chaind->disks, entry) {
		if (other->registered)
			table_drop_map(other->info.dev);
	}
}

/* Other disks that were opened with the manifest of a chain have it looked at, too. */
static void distrust_others(const struct disk *disk, const struct qc2_chain *chain)
{
	struct disk *other;

	TAILQ_FOREACH(other, &disk->chaind->disks, entry) {
		if (other != disk && other->registered && other->chain &&
		    other->chain->manifest &&
		    !memcmp(other->chain->id, chain->id, QC2_CHAIN_ID_LEN) &&
		    !strcmp(other->chain->manifest->version, chain->manifest->version))
			disk_distrust(other, -EBADMSG);
	}
}

/*
 * The walk has ended.  If it found what the manifest says, that is right, its digests
 * too, and an image is damaged.  If it found nothing, or another chain, the disk goes
 * on as it was, without the block.  Returns the chain to go on with, with a reference.
 */
static struct qc2_chain *judge(struct disk *disk, struct qc2_chain *chain,
			       const struct qc2_err *err)
{
	struct qc2_chain *suspect = disk->suspect;

	disk->suspect = NULL;
	if (!chain || memcmp(suspect->id, chain->id, QC2_CHAIN_ID_LEN)) {
		log_warn("disk %s: data that has another digest cannot be read: %s",
			 disk->info.name, chain ? "an image was changed" : err->msg);
		return suspect;
	}
	if (same_map(suspect, chain)) {
		log_warn("disk %s: its manifest is right; an image of the chain is damaged",
			 disk->info.name);
	} else {
		set_wrong(suspect, false);
		set_trouble(chain);
		disk->disown = true;
		qc2_digests_free(disk->digests);
		disk->digests = NULL;
		distrust_others(disk, suspect);
	}
	qc2_chain_put(suspect);
	return qc2_chain_ref(chain);
}

bool disk_distrust(struct disk *disk, int why)
{
	const struct wrong_manifest *known;
	struct qc2_err err;

	if (!disk->chain->from_manifest)
		return false;
	/*
	 * What a walk finds is another chain, which is nothing for a disk that runs.
	 * Where it was another disk that found the digests wrong, this one has still
	 * to be walked.
	 */
	known = find_wrong(disk->chain);
	if (known && (known->stale || why == -ESTALE))
		return false;
	if (why == -ESTALE) {
		set_wrong(disk->chain, true);
		log_warn("disk %s: an image was changed since the manifest of its chain was published; the next start does without it",
			 disk->info.name);
		return false;
	}
	if (disk->no_manifest)
		return false;
	log_warn("disk %s: data has another digest than its manifest says; the chain is walked",
		 disk->info.name);
	end_opening(disk);
	disk->no_manifest = true;
	disk->suspect = qc2_chain_ref(disk->chain);
	free_chain(disk);
	/* What was answered so far may be wrong, too. */
	if (disk->info.dev)
		table_drop_map(disk->info.dev);
	if (start_opening(disk, &err))
		retry_later(disk);
	return true;
}

static void verify_with(struct disk *disk, struct qc2_digests *digests)
{
	qc2_digests_free(disk->digests);
	disk->digests = digests;
	log_info("disk %s: what is fetched is verified with %zu digests", disk->info.name,
		 digests->nr);
}

void disk_walked(struct disk *disk, struct qc2_chain *chain, int ret,
		 const struct qc2_err *err)
{
	if (!ret && chain->from_manifest && find_wrong(chain)) {
		end_opening(disk);
		disk->no_manifest = true;
		ret = start_opening(disk, &disk->error);
		if (ret)
			opening_ended(disk, ret);
		return;
	}
	if (disk->suspect && ret != -EAGAIN && ret != -ENOMEM) {
		chain = judge(disk, ret ? NULL : chain, err);
		end_opening(disk);
		ret = take_chain(disk, chain, &disk->error);
		qc2_chain_put(chain);
		if (!ret && disk->disown)
			disown_objects(disk);
		disk->disown = false;
		opening_ended(disk, ret);
		return;
	}
	if (!ret && disk->no_manifest)
		set_trouble(chain);
	if (ret)
		disk->error = *err;
	else
		ret = take_chain(disk, chain, &disk->error);
	if (!ret && disk->chain->manifest_trouble)
		log_warn("disk %s: manifest not used, the chain is walked: %s",
			 disk->info.name, disk->chain->manifest_trouble);
	if (!ret && disk->chain->manifest && disk->chain->manifest->digests) {
		verify_with(disk, disk->chain->manifest->digests);
		disk->chain->manifest->digests = NULL;
		end_opening(disk);
	} else if (ret || (disk->chain->index && !opening_wants_digests(disk->opening))) {
		end_opening(disk);
	}
	opening_ended(disk, ret);
}

void disk_indexed(struct disk *disk)
{
	miss_retry(disk);
}

void disk_complete(struct disk *disk, int ret, const struct qc2_err *err)
{
	end_opening(disk);
	if (ret)
		disk->error = *err;
	else if (make_objects(disk))
		ret = qc2_fail(&disk->error, ENOMEM, "%s: out of memory",
			       disk->info.url);
	else
		disk->error.msg[0] = '\0';
	if (ret) {
		set_failed(disk, ret);
		return;
	}
	log_info("disk %s: the index has %zu extents", disk->info.name,
		 disk->chain->index->nr_extents);
	miss_retry(disk);
	fill_look(disk->fill);
}

void disk_verifies(struct disk *disk, struct qc2_digests *digests,
		   const struct qc2_err *err)
{
	end_opening(disk);
	if (digests)
		verify_with(disk, digests);
	else
		log_warn("disk %s: what is fetched is not verified: %s",
			 disk->info.name, err->msg);
	fill_look(disk->fill);
}

const struct qc2_index *disk_index(struct disk *disk, uint64_t sector,
				   uint64_t nr_sectors, uint64_t *to)
{
	if (!disk->chain->index)
		return opening_index(disk->opening, sector, nr_sectors, to);
	*to = disk->chain->nr_sectors;
	return disk->chain->index;
}

static int start_opening(struct disk *disk, struct qc2_err *err)
{
	disk->opening = opening_new(disk);
	if (!disk->opening)
		return qc2_fail(err, ENOMEM, "out of memory");
	disk->state = DISK_OPENING;
	return 0;
}

static int open_new(struct chaind *chaind, const char *name, const char *url,
		    struct disk **out, struct qc2_err *err)
{
	struct disk *disk;
	int ret;

	ret = cache_check_present(chaind->cache, err);
	if (ret)
		return ret;
	disk = disk_new(chaind);
	if (!disk)
		return qc2_fail(err, ENOMEM, "out of memory");
	ret = -ENOMEM;
	disk->info.name = strdup(name);
	disk->info.url = strdup(url);
	if (!disk->info.name || !disk->info.url)
		qc2_fail(err, ENOMEM, "out of memory");
	else
		ret = start_opening(disk, err);
	if (ret) {
		disk_free(disk);
		return ret;
	}
	*out = disk;
	return 0;
}

int disk_open(struct chaind *chaind, const char *name, const char *url,
	      void (*opened)(void *arg, struct disk *disk, int ret,
			     const struct qc2_err *err),
	      void *arg, struct qc2_err *err)
{
	struct disk *disk;
	int ret;

	if (!disk_name_ok(name))
		return qc2_fail(err, EINVAL,
				"\"%.120s\" is no name for a disk: letters, digits and ._- only, no . or - at the front, at most %d characters",
				name, DISK_NAME_MAX);
	if (disk_find(chaind, name))
		return qc2_fail(err, EEXIST, "there is a disk %s already",
				name);
	ret = open_new(chaind, name, url, &disk, err);
	if (ret)
		return ret;
	disk->opened = opened;
	disk->opened_arg = arg;
	return 0;
}

int disk_open_unnamed(struct chaind *chaind, const char *label, const char *url,
		      struct disk **disk, struct qc2_err *err)
{
	int ret = open_new(chaind, label, url, disk, err);

	if (!ret)
		(*disk)->unnamed = true;
	return ret;
}

void disk_open_abandon(struct chaind *chaind, void *arg)
{
	struct disk *disk;

	TAILQ_FOREACH(disk, &chaind->disks, entry) {
		if (disk->opened && disk->opened_arg == arg) {
			disk_free(disk);
			return;
		}
	}
}

static int check_stores(struct disk *disk, uint32_t dev, struct qc2_err *err)
{
	const struct cache *cache = disk->chaind->cache;

	return table_check_stores(dev, cache_dev(cache), cache_bypass_dev(cache),
				  &disk->has_bypass, err);
}

static int check_device(struct disk *disk, uint32_t dev,
			struct kernel_device *found, struct qc2_err *err)
{
	uint64_t size = disk->chain->nr_sectors;
	int ret;

	ret = kernel_find(disk->chaind->kernel, dev, 0, found, err);
	if (ret)
		return ret;
	if (memcmp(found->chain_id, disk->chain->id, QC2_CHAIN_ID_LEN))
		return qc2_fail(err, EINVAL,
				"%s: its table has another chain id than %s",
				found->name, disk->info.url);
	if (found->nr_sectors != size)
		return qc2_fail(err, EINVAL,
				"%s: its table has %llu sectors, %s has %llu",
				found->name,
				(unsigned long long)found->nr_sectors,
				disk->info.url, (unsigned long long)size);
	return check_stores(disk, dev, err);
}

static void clear_device(struct disk *disk)
{
	struct disk_info *info = &disk->info;

	state_remove(disk->chaind->cfg.run_dir, info->name);
	free(info->tip);
	free(info->dm_name);
	info->tip = NULL;
	info->dm_name = NULL;
	info->dev = 0;
	disk->registered = false;
	if (disk->state == DISK_ATTACHED)
		disk->state = DISK_OPEN;
}

int disk_attach(struct disk *disk, uint32_t dev, const char *tip,
		struct qc2_err *err)
{
	struct disk_info *info = &disk->info;
	struct kernel_device found;
	struct disk *other;
	int ret;

	if (disk->state == DISK_ATTACHED && info->dev == dev)
		return 0;
	if (disk->state == DISK_FAILED)
		return qc2_fail(err, EIO, "%s", disk->error.msg);
	if (disk->state != DISK_OPEN || info->dev)
		return qc2_fail(err, EBUSY,
				"disk %s is attached to %u:%u, or not open yet",
				info->name, info->dev >> 20,
				info->dev & 0xfffff);
	ret = check_device(disk, dev, &found, err);
	if (ret)
		return ret;
	other = disk_find_dev(disk->chaind, dev);
	if (other && !strcmp(other->info.dm_name, found.name))
		return qc2_fail(err, EBUSY, "%s is attached to disk %s",
				found.name, other->info.name);
	if (other) {
		struct qc2_err gone;

		qc2_fail(&gone, ENODEV, "its number is %s's now", found.name);
		disk_device_gone(other, &gone);
	}
	info->dev = dev;
	info->tip = strdup(tip);
	info->dm_name = strdup(found.name);
	ret = info->tip && info->dm_name ?
	      state_save(disk->chaind->cfg.run_dir, info, err) :
	      qc2_fail(err, ENOMEM, "out of memory");
	if (!ret)
		ret = kernel_register(disk->chaind->kernel, dev, err);
	if (ret) {
		clear_device(disk);
		return ret;
	}
	disk->registered = true;
	disk->state = DISK_ATTACHED;
	log_info("disk %s: attached to %s (%u:%u)", info->name, info->dm_name,
		 dev >> 20, dev & 0xfffff);
	return 0;
}

void disk_close(struct disk *disk)
{
	struct qc2_err err;

	if (disk->registered)
		kernel_unregister(disk->chaind->kernel, disk->info.dev);
	state_remove(disk->chaind->cfg.run_dir, disk->info.name);
	log_info("disk %s: closed", disk->info.name);
	tell_opener(disk, qc2_fail(&err, ECANCELED,
				   "disk %s was closed while it was being opened",
				   disk->info.name), &err);
	disk_free(disk);
}

void disk_device_gone(struct disk *disk, const struct qc2_err *err)
{
	log_warn("disk %s: its device %s (%u:%u) is gone: %s", disk->info.name,
		 disk->info.dm_name, disk->info.dev >> 20,
		 disk->info.dev & 0xfffff, err->msg);
	miss_drop(disk);
	clear_device(disk);
	if (disk->state == DISK_FAILED || disk->state == DISK_OPENING)
		disk_free(disk);
}

int disk_check_table(struct disk *disk, uint64_t generation)
{
	struct disk_info *info = &disk->info;
	struct kernel_device found;
	struct qc2_err err;
	int ret;

	ret = kernel_find(disk->chaind->kernel, info->dev, generation, &found,
			  &err);
	if (!ret && memcmp(found.chain_id, info->chain_id, QC2_CHAIN_ID_LEN))
		ret = qc2_fail(&err, EINVAL,
			       "its new table has another chain id");
	if (!ret && disk->chain &&
	    found.nr_sectors != disk->chain->nr_sectors)
		ret = qc2_fail(&err, EINVAL, "its new table has another size");
	if (!ret)
		ret = check_stores(disk, info->dev, &err);
	if (ret == -EINVAL) {
		log_err("disk %s: %s: not served any more, its reads wait",
			info->name, err.msg);
		kernel_unregister(disk->chaind->kernel, info->dev);
		disk_device_gone(disk, &err);
	}
	return ret;
}

/*
 * ---------------------------------------------------------------------------
 * Disks of an earlier daemon
 * ---------------------------------------------------------------------------
 */

/*
 * Registers with the kernel, so that requests are pulled, and shown as
 * waiting.  Return: 0, -EAGAIN to be tried again, or -ENODEV if the disk is no
 * more.
 */
static int reattach(struct disk *disk)
{
	struct disk_info *info = &disk->info;
	struct kernel_device found;
	struct qc2_err err;
	int ret;

	ret = kernel_find(disk->chaind->kernel, info->dev, 0, &found,
			  &err);
	if (!ret && (strcmp(found.name, info->dm_name) ||
		     memcmp(found.chain_id, info->chain_id, QC2_CHAIN_ID_LEN)))
		ret = qc2_fail(&err, ENODEV,
			       "device %u:%u is another one now (%s)",
			       info->dev >> 20, info->dev & 0xfffff,
			       found.name);
	if (ret == -ENOENT || ret == -ENODEV) {
		log_info("disk %s: not running any more: %s", info->name,
			 err.msg);
		return -ENODEV;
	}
	if (!ret)
		ret = check_stores(disk, info->dev, &err);
	/* An earlier daemon's socket may just be closing (-EBUSY). */
	if (!ret)
		ret = kernel_register(disk->chaind->kernel, info->dev, &err);
	if (ret) {
		disk->error = err;
		if (!disk->tries)
			log_err("disk %s: %s; trying again", info->name,
				err.msg);
		return -EAGAIN;
	}
	disk->registered = true;
	if (disk->state == DISK_OPEN)
		disk->state = DISK_ATTACHED;
	log_info("disk %s: taken over, %s (%u:%u)", info->name, info->dm_name,
		 info->dev >> 20, info->dev & 0xfffff);
	return 0;
}

/* Does what is left to do for a disk that was taken over. */
static void go_on(struct disk *disk)
{
	int ret = 0;

	if (!disk->registered && disk->info.dev)
		ret = reattach(disk);
	if (ret == -ENODEV) {
		state_remove(disk->chaind->cfg.run_dir, disk->info.name);
		disk_free(disk);
		return;
	}
	if (ret || (!disk->chain && !disk->opening &&
		    start_opening(disk, &disk->error)))
		retry_later(disk);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *arg)
{
	go_on(arg);
	return 0;
}

static void restore(void *arg, struct disk_info *info)
{
	struct chaind *chaind = arg;
	struct disk *disk = disk_new(chaind);

	if (!disk) {
		log_err("disk %s: out of memory", info->name);
		disk_info_free(info);
		return;
	}
	disk->info = *info;
	go_on(disk);
}

void disks_restore(struct chaind *chaind)
{
	struct qc2_err err;

	if (state_load_all(chaind->cfg.run_dir, restore, chaind, &err))
		log_err("%s; disks that run stay without a daemon", err.msg);
}

struct cache_check {
	dev_t dev;
	bool any;
	int ret;
	struct qc2_err *err;
};

static void check_cache(void *arg, struct disk_info *info)
{
	struct cache_check *check = arg;
	struct qc2_err why;
	bool has_bypass;

	if (table_is_ours(info->dev >> 20, info->dev & 0xfffff)) {
		check->any = true;
		if (check->dev && table_check_stores(info->dev, check->dev, 0, &has_bypass,
						     &why) == -EINVAL)
			check->ret = qc2_fail(check->err, EBUSY, "disk %s cannot use it: %s",
					      info->name, why.msg);
	}
	disk_info_free(info);
}

bool disks_run(const struct chaind *chaind)
{
	struct cache_check check = { 0 };
	struct qc2_err err;

	state_load_all(chaind->cfg.run_dir, check_cache, &check, &err);
	return check.any;
}

int disks_check_cache(void *arg, dev_t dev, struct qc2_err *err)
{
	const struct chaind *chaind = arg;
	struct cache_check check = { .dev = dev, .err = err };
	int ret = state_load_all(chaind->cfg.run_dir, check_cache, &check, err);

	return ret ? ret : check.ret;
}

void disks_cancel_opening(struct chaind *chaind)
{
	struct disk *disk;

	TAILQ_FOREACH(disk, &chaind->disks, entry) {
		if (disk->opening)
			opening_cancel(disk->opening);
	}
}

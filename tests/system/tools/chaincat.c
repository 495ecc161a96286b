/* SPDX-License-Identifier: GPL-2.0 */
/*
 * chaincat TOP OUT: writes the disk that a local chain holds to a file, by the
 * library and nothing else.  Tests compare it with qemu-img convert.  TOP is
 * the path of an image, or a file:// URL, which may end in "#format=raw".
 */
#include <inttypes.h>

#include "../../unit/file_source.h"
#include "chain.h"

#define CHUNK	(1 << 20)

static int copy_extent(const struct qc2_extent *ext, struct qc2_source *src,
		       FILE *out, uint8_t *buf, struct qc2_err *err)
{
	uint64_t left = (uint64_t)ext->nr_sectors * 512, offset = ext->offset;
	uint64_t have, len;
	int ret;

	if (fseeko(out, ext->sector * 512, SEEK_SET))
		return qc2_fail(err, errno, "output: %s", strerror(errno));
	for (; left; left -= len, offset += len) {
		len = left < CHUNK ? left : CHUNK;
		/* An extent can reach past the end of the object; index.h. */
		have = src->size - offset < len ? src->size - offset : len;
		memset(buf + have, 0, len - have);
		ret = src->ops->read(src, offset, buf, have, err);
		if (ret)
			return ret;
		if (fwrite(buf, 1, len, out) != len)
			return qc2_fail(err, EIO, "output: %s",
					strerror(errno));
	}
	return 0;
}

/* One link after another, so that few files are open. */
static int copy_chain(const struct qc2_chain *chain, FILE *out,
		      struct qc2_err *err)
{
	const struct qc2_index *idx = chain->index;
	uint8_t *buf = malloc(CHUNK);
	struct qc2_source *src;
	size_t link, i;
	int ret = 0;

	for (link = 0; link < chain->nr_links && !ret; link++) {
		ret = file_opener.open(&file_opener, chain->links[link].url,
				       &src, err);
		if (ret)
			break;
		i = qc2_index_find_object(idx, link, 0);
		for (; i < idx->nr_by_object && !ret; i++) {
			const struct qc2_extent *ext =
				&idx->extents[idx->by_object[i]];

			if (ext->link != link)
				break;
			ret = copy_extent(ext, src, out, buf, err);
		}
		src->ops->close(src);
	}
	free(buf);
	return ret;
}

int main(int argc, char **argv)
{
	const struct qc2_chain_limits limits = { .max_depth = 4096 };
	struct qc2_chain *chain;
	struct qc2_err err;
	char *path, *url;
	FILE *out;
	int ret;

	if (argc != 3) {
		fprintf(stderr, "usage: chaincat TOP OUT\n");
		return 2;
	}
	if (strstr(argv[1], "://")) {
		url = strdup(argv[1]);
	} else {
		path = realpath(argv[1], NULL);
		if (!path) {
			perror(argv[1]);
			return 1;
		}
		ret = qc2_url_from_path(path, &url, &err);
		free(path);
		if (ret)
			goto fail;
	}
	ret = qc2_chain_open(&file_opener, url, &limits, &chain, &err);
	free(url);
	if (ret)
		goto fail;
	out = fopen(argv[2], "w");
	if (!out || ftruncate(fileno(out), chain->index->nr_sectors * 512)) {
		perror(argv[2]);
		return 1;
	}
	ret = copy_chain(chain, out, &err);
	qc2_chain_free(chain);
	if (fclose(out) && !ret)
		ret = qc2_fail(&err, EIO, "%s: write failed", argv[2]);
	if (!ret)
		return 0;
fail:
	fprintf(stderr, "chaincat: %s\n", err.msg);
	return 1;
}

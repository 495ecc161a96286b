/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One qcow2 image: header, extensions, names, L1 and L2 tables.  The input has
 * the image, and of an external data file the size.
 */
#include "images.h"

/* What the header is promised to be. */
static void check_header(const struct qc2_qcow2 *img)
{
	assert(img->version == 2 || img->version == 3);
	assert(img->cluster_bits >= 9 && img->cluster_bits <= 21);
	assert(!img->extended_l2 || img->cluster_bits >= 14);
	assert(!img->backing_name || img->backing_name[0]);
	assert(!img->data_name || img->data_name[0]);
	assert(img->version == 3 ||
	       (!img->data_name && !img->extended_l2 && !img->compression));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct qc2_err err = { "" };
	struct qc2_source *src;
	struct qc2_qcow2 *img;
	struct images images;

	images_init(&images, 2, &in);
	src = image_open(&images, 0, "mem:image");
	if (!qc2_qcow2_open(src, &img, &err)) {
		check_header(img);
		list_image(img, images.sizes[img->data_name ? 1 : 0]);
		qc2_qcow2_close(img);
	} else {
		assert(strstr(err.msg, "mem:image"));
	}
	src->ops->close(src);
	assert(!images.open);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The table of internal snapshots, and listing one.  The input has a byte with
 * the length of the name, the name, and the image.
 */
#include "images.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct qc2_err err = { "" };
	struct qc2_source *src;
	struct qc2_qcow2 *img;
	struct images images;
	char name[8] = "";
	size_t len = take(&in, 1) % sizeof(name), i;

	for (i = 0; i < len; i++)
		name[i] = take(&in, 1);
	images_init(&images, 1, &in);
	src = image_open(&images, 0, "mem:image");
	if (!qc2_qcow2_open(src, &img, &err)) {
		if (!qc2_qcow2_snapshot(img, name, &err))
			list_image(img, src->size);
		else
			assert(strstr(err.msg, "mem:image"));
		qc2_qcow2_close(img);
	}
	src->ops->close(src);
	assert(!images.open);
	return 0;
}

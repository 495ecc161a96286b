/* SPDX-License-Identifier: GPL-2.0 */
/* XML answers of object stores: errors, lists, and what an upload is answered with. */
#include <errno.h>

#include "fuzz.h"
#include "xml.h"

static int on_element(void *arg, const char *path, const char *text)
{
	unsigned int *left = arg, depth = 1;

	assert(*path && *path != '/' && path[strlen(path) - 1] != '/');
	for (const char *p = path; *p; p++)
		depth += *p == '/';
	assert(depth <= 16 && strlen(path) < 512 && strlen(text) < 16384);
	/* Sometimes the caller has enough. */
	return (*left)-- ? 0 : -ECANCELED;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned int left = take(&in, 1);
	int ret;

	ret = qc2_xml_parse(in.p, in.len, on_element, &left);
	assert(!ret || ret == -EBADMSG || ret == -ECANCELED);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Runs a fuzz target over the files in some directories, without libFuzzer.
 * Names each file first, so that the last name is that of a crash.
 */
#include <dirent.h>

#include "fuzz.h"

static void run_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data;
	long size;

	printf("%s\n", path);
	fflush(stdout);
	assert(file && !fseek(file, 0, SEEK_END));
	size = ftell(file);
	rewind(file);
	/* Exactly as long, so that reading behind the end is seen. */
	data = malloc(size);
	assert(data && fread(data, 1, size, file) == (size_t)size);
	fclose(file);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
}

int main(int argc, char **argv)
{
	unsigned int nr = 0;

	for (int i = 1; i < argc; i++) {
		DIR *dir = opendir(argv[i]);
		struct dirent *entry;
		char path[4096];

		if (!dir) {
			perror(argv[i]);
			return 1;
		}
		while ((entry = readdir(dir))) {
			if (entry->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "%s/%s", argv[i], entry->d_name);
			run_file(path);
			nr++;
		}
		closedir(dir);
	}
	printf("%u inputs\n", nr);
	return nr ? 0 : 1;
}

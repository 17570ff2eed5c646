/*
 * tests/fuzz/replay.c - what stands in for libFuzzer outside the fuzz build: runs the target over
 * every file named, and over the files of every directory named. A missing corpus is no error.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/io.h"

#define REPLAY_FILE_MAX (16ul << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(int dirfd, const char *name)
{
	char *data;
	size_t size;
	int err = io_read_file_at(dirfd, name, REPLAY_FILE_MAX, &data, &size);

	if (err) {
		fprintf(stderr, "%s: error %d\n", name, -err);
		return 1;
	}
	LLVMFuzzerTestOneInput((const uint8_t *)data, size);
	free(data);
	return 0;
}

static int replay_dir(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int failed = 0;

	if (!dir)
		return 1;
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			failed |= replay_file(dirfd(dir), entry->d_name);
	closedir(dir);
	return failed;
}

int main(int argc, char **argv)
{
	int failed = 0;

	LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st) < 0)
			continue;
		failed |=
			S_ISDIR(st.st_mode) ? replay_dir(argv[i]) : replay_file(AT_FDCWD, argv[i]);
	}
	return failed;
}

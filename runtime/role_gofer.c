/*
 * runtime/role_gofer.c - the binary, re-executed as a gofer: the connection is descriptor 10, the log 11 (if open), each
 * argument an attach point: "ro|rw[,file][,fifo]:/host/path".
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "gofer/gofer.h"
#include "runtime/cli.h"

#define ROLE_SOCK_FD 10
#define ROLE_LOG_FD 11

int role_gofer_main(int argc, char **argv)
{
	struct gofer_config config = {
		.sock_fd = ROLE_SOCK_FD, .log_fd = -1, .log_level = LOG_INFO_LEVEL};
	struct gofer_attach *attaches = calloc((size_t)argc, sizeof(*attaches));

	if (!attaches || argc < 2 || argc - 1 > GOFER_ATTACHES_MAX)
		return 1;
	for (int i = 1; i < argc; i++) {
		char *colon = strchr(argv[i], ':');

		if (!colon || (strncmp(argv[i], "ro", 2) != 0 && strncmp(argv[i], "rw", 2) != 0))
			return 1;
		attaches[i - 1] = (struct gofer_attach){
			.host_path = colon + 1,
			.readonly = argv[i][1] == 'o',
			.is_file = strncmp(argv[i] + 2, ",file", 5) == 0,
			.fifos = colon - argv[i] > 5 && strncmp(colon - 5, ",fifo", 5) == 0,
			.recursive = true};
	}
	if (fcntl(ROLE_LOG_FD, F_GETFD) >= 0)
		config.log_fd = ROLE_LOG_FD;
	config.attaches = attaches;
	config.attach_count = (size_t)argc - 1;
	return gofer_main(&config) == 0 ? 0 : 1;
}

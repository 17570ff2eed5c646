/*
 * runtime/role_gofer.c - the binary, re-executed as a gofer: the connection is descriptor 10, the log 11 (if open), each
 * argument an attach point: "ro|rw[,file][,alone][,fifo][,uds-open][,uds-create][,overlay]:/host/path" (an overlay's: its mount data). Behind them
 * perhaps "--debug".
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "gofer/gofer.h"
#include "runtime/cli.h"
#include "runtime/oci.h"

#define ROLE_SOCK_FD 10
#define ROLE_LOG_FD 11

_Static_assert(OCI_ATTACHES_MAX <= GOFER_ATTACHES_MAX, "the monitor gives no more");

/* Return false: not of that form. */
static bool parse_attach(char *arg, struct gofer_attach *ret)
{
	char *colon = strchr(arg, ':'), *rest, *word;

	if (!colon)
		return false;
	*colon = '\0';
	*ret = (struct gofer_attach){.host_path = colon + 1, .recursive = true};
	word = strtok_r(arg, ",", &rest);
	if (!word || (strcmp(word, "ro") != 0 && strcmp(word, "rw") != 0))
		return false;
	ret->readonly = word[1] == 'o';
	while ((word = strtok_r(NULL, ",", &rest))) {
		ret->is_file |= strcmp(word, "file") == 0;
		ret->overlay |= strcmp(word, "overlay") == 0;
		ret->fifos |= strcmp(word, "fifo") == 0;
		ret->uds_open |= strcmp(word, "uds-open") == 0;
		ret->uds_create |= strcmp(word, "uds-create") == 0;
		if (strcmp(word, "alone") == 0)
			ret->recursive = false;
	}
	return true;
}

int role_gofer_main(int argc, char **argv)
{
	struct gofer_config config = {
		.sock_fd = ROLE_SOCK_FD, .log_fd = -1, .log_level = LOG_INFO_LEVEL};
	struct gofer_attach *attaches = calloc((size_t)argc, sizeof(*attaches));

	if (argc > 1 && strcmp(argv[argc - 1], "--debug") == 0) {
		config.log_level = LOG_DEBUG_LEVEL;
		argc--;
	}
	if (!attaches || argc < 2 || argc - 1 > GOFER_ATTACHES_MAX)
		return 1;
	for (int i = 1; i < argc; i++)
		if (!parse_attach(argv[i], &attaches[i - 1]))
			return 1;
	if (fcntl(ROLE_LOG_FD, F_GETFD) >= 0)
		config.log_fd = ROLE_LOG_FD;
	config.attaches = attaches;
	config.attach_count = (size_t)argc - 1;
	return gofer_main(&config) == 0 ? 0 : 1;
}

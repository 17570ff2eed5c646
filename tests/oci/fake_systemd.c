/*
 * tests/oci/fake_systemd.c - fake_systemd SOCKET LOG: answers as a systemd whose unit of that name is another's, and writes each method's name to
 * LOG. Who asks first for a unit is killed with SIGKILL while it waits for the answer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

static FILE *log_file;
static int client;

static int on_message(sd_bus_message *m, void *arg, sd_bus_error *error)
{
	static int starts;
	const char *member = sd_bus_message_get_member(m);
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);

	(void)arg;
	(void)error;
	if (!member || sd_bus_message_is_method_call(m, NULL, NULL) <= 0)
		return 0;
	fprintf(log_file, "%s\n", member);
	fflush(log_file);
	if (strcmp(member, "StopUnit") == 0)
		return sd_bus_reply_method_errorf(m, "org.freedesktop.systemd1.NoSuchUnit",
						  "not loaded");
	if (strcmp(member, "StartTransientUnit") != 0)
		return sd_bus_reply_method_return(m, "");
	if (starts++)
		return sd_bus_reply_method_errorf(m, "org.freedesktop.systemd1.UnitExists",
						  "it was already loaded");
	if (getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid > 1)
		kill(peer.pid, SIGKILL);
	return 1;
}

static void serve(void)
{
	sd_id128_t id = {.bytes = {1}};
	sd_bus *bus = NULL;
	int n = sd_bus_new(&bus);

	if (n >= 0)
		n = sd_bus_set_fd(bus, client, client);
	if (n >= 0)
		n = sd_bus_set_server(bus, 1, id);
	if (n >= 0)
		n = sd_bus_add_filter(bus, NULL, on_message, NULL);
	if (n >= 0)
		n = sd_bus_start(bus);
	while (n >= 0) {
		n = sd_bus_process(bus, NULL);
		if (n == 0)
			n = sd_bus_wait(bus, UINT64_MAX);
		if (n == -EINTR)
			n = 0;
	}
	sd_bus_unref(bus);
}

int main(int argc, char **argv)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (argc != 3 || strlen(argv[1]) >= sizeof(addr.sun_path))
		return 2;
	log_file = fopen(argv[2], "we");
	strcpy(addr.sun_path, argv[1]);
	if (!log_file || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 8) < 0)
		return 2;
	while ((client = accept(fd, NULL, NULL)) >= 0)
		serve();
	return 2;
}

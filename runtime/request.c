/* runtime/request.c - a request over the control socket, with a time limit. */
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "runtime/cli.h"
#include "runtime/request.h"
#include "runtime/state.h"

#define REQUEST_TIMEOUT_S 10

int request_send(const char *id, const struct control_msg *msg, struct control_msg *ret_reply)
{
	struct timeval tv = {.tv_sec = REQUEST_TIMEOUT_S};
	struct state_dir s;
	int sock, err;

	err = state_open(cli.root, id, &s);
	if (err)
		return err;
	sock = state_connect(&s);
	if (sock < 0) {
		cli_error("container %s: control socket: %s", id, strerror(-sock));
		err = sock;
		goto out;
	}
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	err = control_send(sock, msg);
	if (!err)
		err = control_recv(sock, ret_reply);
	/* The signal ended the container before the sentry could answer. */
	if (err == -EPIPE && msg->op == CONTROL_SIGNAL) {
		*ret_reply = (struct control_msg){.op = CONTROL_REPLY};
		err = 0;
	}
	if (err)
		cli_error("container %s: %s", id,
			  err == -EAGAIN ? "the sentry does not answer" : strerror(-err));
	close(sock);
	if (!err && ret_reply->exit_code) {
		cli_error("container %s: %s", id, ret_reply->text ? ret_reply->text : "refused");
		control_msg_fini(ret_reply);
		err = -EREMOTEIO;
	}
out:
	state_close(&s);
	return err;
}

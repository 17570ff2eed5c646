/* wire/control.c - control messages as JSON. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "wire/control.h"

static const char *const op_names[CONTROL_OPS] = {
	[CONTROL_STARTED] = "started", [CONTROL_ERROR] = "error",   [CONTROL_EXIT] = "exit",
	[CONTROL_REPLY] = "reply",     [CONTROL_SIGNAL] = "signal", [CONTROL_RESIZE] = "resize",
	[CONTROL_DEBUG] = "debug",     [CONTROL_STATE] = "state",   [CONTROL_CREATED] = "created",
	[CONTROL_START] = "start",     [CONTROL_EXEC] = "exec",	    [CONTROL_UPDATE] = "update",
	[CONTROL_PS] = "ps",	       [CONTROL_STATS] = "stats",   [CONTROL_ADD] = "add",
	[CONTROL_FREEZE] = "freeze",   [CONTROL_ROOM] = "room",
};

void control_msg_fini(struct control_msg *msg)
{
	free(msg->text);
	msg->text = NULL;
}

void control_encode(const struct control_msg *msg, struct buf *out)
{
	json_t *j =
		json_pack("{si ss si si si si si si si sI sI sb}", "v", CONTROL_VERSION, "op",
			  op_names[msg->op], "signo", msg->signo, "status", msg->status,
			  "exit_code", msg->exit_code, "pid", msg->pid, "rows", (int)msg->rows,
			  "cols", (int)msg->cols, "flags", (int)msg->flags, "memory",
			  (json_int_t)msg->memory, "pids", (json_int_t)msg->pids, "all", msg->all);
	char *text;

	if (j && msg->text) {
		/* Whatever is not UTF-8 (file names in strace, comm) is shown as '?'. */
		json_t *s = json_string(msg->text);

		if (!s) {
			char *copy = strdup(msg->text);

			for (char *p = copy; p && *p; p++)
				if ((unsigned char)*p >= 0x80)
					*p = '?';
			s = copy ? json_string(copy) : NULL;
			free(copy);
		}
		json_object_set_new(j, "text", s ? s : json_null());
	}
	text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	if (text)
		buf_puts(out, text);
	else
		out->error = -ENOMEM;
	free(text);
}

static int int_of(const json_t *j, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(j, key));

	return v < INT32_MIN || v > INT32_MAX ? 0 : (int)v;
}

int control_decode(const char *json, size_t size, struct control_msg *ret)
{
	json_t *j = size <= CONTROL_MSG_MAX ? json_loadb(json, size, 0, NULL) : NULL;
	const char *op = json_string_value(json_object_get(j, "op"));
	const char *text = json_string_value(json_object_get(j, "text"));
	int err = -EINVAL;

	memset(ret, 0, sizeof(*ret));
	ret->op = CONTROL_OPS;
	for (int i = 0; op && i < CONTROL_OPS; i++)
		if (strcmp(op, op_names[i]) == 0)
			ret->op = (enum control_op)i;
	if (ret->op == CONTROL_OPS || int_of(j, "v") < 1)
		goto out;
	ret->signo = int_of(j, "signo");
	ret->status = int_of(j, "status");
	ret->exit_code = int_of(j, "exit_code");
	ret->pid = int_of(j, "pid");
	ret->rows = (unsigned)int_of(j, "rows") & 0xffff;
	ret->cols = (unsigned)int_of(j, "cols") & 0xffff;
	ret->flags = (unsigned)int_of(j, "flags");
	ret->memory = (uint64_t)json_integer_value(json_object_get(j, "memory"));
	ret->pids = (uint64_t)json_integer_value(json_object_get(j, "pids"));
	ret->all = json_is_true(json_object_get(j, "all"));
	if (text) {
		ret->text = strdup(text);
		if (!ret->text) {
			err = -ENOMEM;
			goto out;
		}
	}
	err = 0;
out:
	json_decref(j);
	return err;
}

int control_send_fds(int sock, const struct control_msg *msg, const int *fds, size_t count)
{
	struct buf b;
	ssize_t n;
	int err;

	if (count > CONTROL_FDS_MAX)
		return -E2BIG;
	buf_init(&b, CONTROL_MSG_MAX);
	control_encode(msg, &b);
	err = buf_error(&b);
	if (!err) {
		do
			n = count ? io_send_fds(sock, b.data, b.len, fds, count)
				  : send(sock, b.data, b.len, MSG_NOSIGNAL);
		while (count ? n == -EINTR : n < 0 && errno == EINTR);
		err = n >= 0 ? 0 : count ? (int)n : -errno;
	}
	buf_fini(&b);
	return err;
}

int control_send(int sock, const struct control_msg *msg)
{
	return control_send_fds(sock, msg, NULL, 0);
}

int control_recv_fds(int sock, struct control_msg *ret, int *ret_fds, size_t *ret_count)
{
	char *json = malloc(CONTROL_MSG_MAX);
	bool reset = false, again;
	size_t count;
	ssize_t n;
	int err;

	*ret_count = 0;
	if (!json)
		return -ENOMEM;
	do {
		count = CONTROL_FDS_MAX;
		n = io_recv_fds(sock, json, CONTROL_MSG_MAX, ret_fds, &count);
		/* Told once, when the peer closed with a message of ours unread: what it said before comes after. */
		again = n == -EINTR || (n == -ECONNRESET && !reset);
		reset |= n == -ECONNRESET;
	} while (again);
	err = n < 0 ? (int)n : n == 0 ? -EPIPE : control_decode(json, (size_t)n, ret);
	free(json);
	if (n < 0)
		count = 0;
	if (err)
		for (size_t i = 0; i < count; i++)
			close(ret_fds[i]);
	else
		*ret_count = count;
	return err;
}

int control_recv(int sock, struct control_msg *ret)
{
	int fds[CONTROL_FDS_MAX];
	size_t count;
	int err = control_recv_fds(sock, ret, fds, &count);

	/* Nobody asked for descriptors. */
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
	return err;
}

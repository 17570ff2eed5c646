/* wire/control.c - control messages as JSON. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "wire/control.h"

static const char *const op_names[CONTROL_OPS] = {
	[CONTROL_STARTED] = "started", [CONTROL_ERROR] = "error",   [CONTROL_EXIT] = "exit",
	[CONTROL_REPLY] = "reply",     [CONTROL_SIGNAL] = "signal", [CONTROL_RESIZE] = "resize",
	[CONTROL_DEBUG] = "debug",     [CONTROL_STATE] = "state",
};

void control_msg_fini(struct control_msg *msg)
{
	free(msg->text);
	msg->text = NULL;
}

void control_encode(const struct control_msg *msg, struct buf *out)
{
	json_t *j = json_pack("{si ss si si si si si si sb}", "v", CONTROL_VERSION, "op",
			      op_names[msg->op], "signo", msg->signo, "status", msg->status,
			      "exit_code", msg->exit_code, "pid", msg->pid, "rows", (int)msg->rows,
			      "cols", (int)msg->cols, "all", msg->all);
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

int control_send(int sock, const struct control_msg *msg)
{
	struct buf b;
	ssize_t n;
	int err;

	buf_init(&b, CONTROL_MSG_MAX);
	control_encode(msg, &b);
	err = buf_error(&b);
	if (!err) {
		do
			n = send(sock, b.data, b.len, MSG_NOSIGNAL);
		while (n < 0 && errno == EINTR);
		err = n < 0 ? -errno : 0;
	}
	buf_fini(&b);
	return err;
}

int control_recv(int sock, struct control_msg *ret)
{
	char *json = malloc(CONTROL_MSG_MAX);
	ssize_t n;
	int err;

	if (!json)
		return -ENOMEM;
	do
		n = recv(sock, json, CONTROL_MSG_MAX, 0);
	while (n < 0 && errno == EINTR);
	err = n < 0 ? -errno : n == 0 ? -EPIPE : control_decode(json, (size_t)n, ret);
	free(json);
	return err;
}

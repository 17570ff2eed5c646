/* runtime/request.h - one question to a running sentry. */
#ifndef MOAT_RUNTIME_REQUEST_H
#define MOAT_RUNTIME_REQUEST_H

#include "wire/control.h"

/* Sends msg to container `id`, waits for the reply. Prints its own errors. Return 0 with *ret_reply (control_msg_fini), or -errno. */
must_check int request_send(const char *id, const struct control_msg *msg,
			    struct control_msg *ret_reply);

#endif

/* platform/systrap/pristine.h - what the sentry and the pristine process say to one another. */
#ifndef MOAT_PLATFORM_SYSTRAP_PRISTINE_H
#define MOAT_PLATFORM_SYSTRAP_PRISTINE_H

#include <linux/filter.h>
#include <stdint.h>

#include "platform/systrap/layout.h"

#define STUB_FILTER_MAX 64

/* At STUB_DATA. Read-only once the first process has it. */
struct stub_data {
	uint64_t sigmask; /* of application threads */
	uint64_t pad;
	struct sock_fprog app_filter; /* `filter` as the stub sees it */
	struct sock_fprog stub_filter;
	struct sock_filter app_insns[STUB_FILTER_MAX];
	struct sock_filter stub_insns[STUB_FILTER_MAX];
};

/* What boots the pristine process; on its first stack. */
struct pristine_args {
	uint64_t scratch, scratch_size; /* the only mapping that is kept */
	int32_t parent;
	int32_t control_fd, private_fd, shared_fd, code_fd;
};

enum pristine_op {
	PRISTINE_MAKE, /* a stub in `slot`, its orders at shared offset `offset` */
	PRISTINE_REAP, /* kills `pid`, waits until nothing of it is left */
};

struct pristine_request {
	uint32_t op;
	uint32_t slot;
	int32_t pid;
	uint32_t pad;
	uint64_t offset;
};

/* MAKE carries the sentry's end of the stub's socket. */
struct pristine_reply {
	uint32_t op;
	uint32_t slot;
	int32_t pid; /* or -errno */
};

/* pristine.c, in the stub's section. */
void pristine_boot(const struct pristine_args *args);
/* stub.S */
extern const char stub_handler[], stub_wait[], stub_wait_end[], stub_ip_wake[], stub_ip_wait[],
	stub_ip_mask[], stub_orders[], stub_ip_order[], stub_restorer[];
void stub_call_on(void *stack, void (*fn)(const struct pristine_args *args),
		  const struct pristine_args *args);

#endif

/* sentry/fs/proc_ipc.c - /proc/sysvipc, and System V IPC's limits in /proc/sys/kernel: those of the reader's namespace. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>

#include "sentry/fs/proc.h"
#include "sentry/ipc/ipc.h"
#include "sentry/ipc/mq.h"

/* ---- /proc/sysvipc ---- */

static int table_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	switch (n->name[1]) {
	case 'h':
		shm_show(ipc_current(), b);
		break;
	case 'e':
		sem_show(ipc_current(), b);
		break;
	default:
		msg_show(ipc_current(), b);
	}
	return 0;
}

static const struct synth_node_ops table_ops = {
	.show = table_show,
	.splice = SYNTH_SPLICE_NO,
	.setattr = synth_setattr_eperm,
};

const struct synth_entry proc_sysvipc_entries[] = {
	{.name = "msg", .mode = S_IFREG | 0444, .ops = &table_ops},
	{.name = "sem", .mode = S_IFREG | 0444, .ops = &table_ops},
	{.name = "shm", .mode = S_IFREG | 0444, .ops = &table_ops},
	{0},
};

/* ---- /proc/sys/kernel: data is the enum ipc_limit ---- */

static enum ipc_limit limit_of(const struct synth_node *n)
{
	return (enum ipc_limit)(uintptr_t)n->entry->data;
}

static int limit_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	buf_printf(b, "%llu\n", (unsigned long long)ipc_limit(ipc_current(), limit_of(n)));
	return 0;
}

static ssize_t limit_store(struct synth_node *n, unused_arg struct synth_file *sf, const char *data,
			   size_t size, unused_arg int64_t off)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(data, &end, 0);
	if (end == data || errno || end[strspn(end, " \t\n")] || strchr(data, '-'))
		return -EINVAL;
	return ipc_set_limit(ipc_current(), limit_of(n), v) ? -EINVAL : (ssize_t)size;
}

const struct synth_node_ops proc_ipc_limit_ops = {
	.show = limit_show,
	.store = limit_store,
	.setattr = synth_setattr_eperm,
};

/* ---- /proc/sys/kernel/X_next_id: data is the enum ipc_table ---- */

static int next_id_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	enum ipc_table which = (enum ipc_table)(uintptr_t)n->entry->data;

	buf_printf(b, "%d\n", ipc_next_id(ipc_current(), which));
	return 0;
}

static ssize_t next_id_store(struct synth_node *n, unused_arg struct synth_file *sf,
			     const char *data, size_t size, unused_arg int64_t off)
{
	enum ipc_table which = (enum ipc_table)(uintptr_t)n->entry->data;
	const struct cred *c = cred_current();
	int64_t v;

	if (!cred_has_cap(c, CAP_CHECKPOINT_RESTORE) && !cred_has_cap(c, CAP_SYS_ADMIN))
		return -EPERM;
	if (synth_parse_i64(data, size, 0, INT32_MAX, &v))
		return -EINVAL;
	ipc_set_next_id(ipc_current(), which, (int32_t)v);
	return (ssize_t)size;
}

const struct synth_node_ops proc_ipc_next_id_ops = {
	.show = next_id_show,
	.store = next_id_store,
	.setattr = synth_setattr_eperm,
};

/* ---- /proc/sys/fs/mqueue: data is the enum mq_limit ---- */

static int mq_limit_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	enum mq_limit which = (enum mq_limit)(uintptr_t)n->entry->data;

	buf_printf(b, "%llu\n",
		   (unsigned long long)mq_limit(ipc_namespace_mq(ipc_current()), which));
	return 0;
}

static ssize_t mq_limit_store(struct synth_node *n, unused_arg struct synth_file *sf,
			      const char *data, size_t size, unused_arg int64_t off)
{
	enum mq_limit which = (enum mq_limit)(uintptr_t)n->entry->data;
	uint64_t v;
	int err = synth_parse_u64(data, size, INT32_MAX, &v);

	if (!err)
		err = mq_set_limit(ipc_namespace_mq(ipc_current()), which, v);
	return err ? -EINVAL : (ssize_t)size;
}

static const struct synth_node_ops mq_limit_ops = {
	.show = mq_limit_show,
	.store = mq_limit_store,
	.setattr = synth_setattr_eperm,
};

#define MQ_FILE(n, which)                                                \
	{                                                                \
		.name = n, .mode = S_IFREG | 0644, .ops = &mq_limit_ops, \
		.data = (const void *)(uintptr_t)(which)                 \
	}

const struct synth_entry proc_mqueue_entries[] = {
	MQ_FILE("msg_default", MQ_LIMIT_MSG_DEFAULT),
	MQ_FILE("msg_max", MQ_LIMIT_MSG),
	MQ_FILE("msgsize_default", MQ_LIMIT_MSGSIZE_DEFAULT),
	MQ_FILE("msgsize_max", MQ_LIMIT_MSGSIZE),
	MQ_FILE("queues_max", MQ_LIMIT_QUEUES),
	{0},
};

/* Four numbers in one file. */
static const enum ipc_limit sem_limits_order[] = {
	IPC_LIMIT_SEMMSL,
	IPC_LIMIT_SEMMNS,
	IPC_LIMIT_SEMOPM,
	IPC_LIMIT_SEMMNI,
};

static int sem_limits_show(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
			   struct buf *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(sem_limits_order); i++)
		buf_printf(b, "%s%llu", i ? "\t" : "",
			   (unsigned long long)ipc_limit(ipc_current(), sem_limits_order[i]));
	buf_putc(b, '\n');
	return 0;
}

static ssize_t sem_limits_store(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
				const char *data, size_t size, unused_arg int64_t off)
{
	char *at = (char *)data, *end;

	/* Fewer numbers change fewer limits. */
	for (size_t i = 0; i < ARRAY_SIZE(sem_limits_order); i++, at = end) {
		unsigned long long v;

		errno = 0;
		v = strtoull(at, &end, 0);
		if (end == at)
			break;
		if (errno || ipc_set_limit(ipc_current(), sem_limits_order[i], v))
			return -EINVAL;
	}
	return at[strspn(at, " \t\n")] ? -EINVAL : (ssize_t)size;
}

const struct synth_node_ops proc_ipc_sem_ops = {
	.show = sem_limits_show,
	.store = sem_limits_store,
	.setattr = synth_setattr_eperm,
};

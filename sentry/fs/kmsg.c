/*
 * sentry/fs/kmsg.c - the sandbox's kernel log: /dev/kmsg, /proc/kmsg, syslog(2)'s data.
 *
 * A ring of the last KMSG_RECORDS records. Readers of /dev/kmsg get one record a read and -EPIPE once when what they wanted
 * was overwritten.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>

#include "base/buf.h"
#include "sentry/fs/internal.h"
#include "sentry/task.h"

#define KMSG_RECORDS 512
#define KMSG_TEXT_MAX 240

struct kmsg_record {
	uint64_t seq;
	int64_t ns;
	int prio; /* facility << 3 | level */
	char text[KMSG_TEXT_MAX];
};

static struct mutex kmsg_lock = MUTEX_INIT(LOCK_LEAF, "kmsg");
static struct kmsg_record kmsg_ring[KMSG_RECORDS]; /* guarded by kmsg_lock */
static uint64_t kmsg_next, kmsg_cleared; /* guarded by kmsg_lock */
static struct wait_queue kmsg_wait;

struct kmsg_file {
	struct file f;
	_Atomic uint64_t seq;
};

static void kmsg_init(void)
{
	static _Atomic bool done;
	static struct mutex once = MUTEX_INIT(LOCK_LEAF, "kmsg_once");

	if (atomic_load_explicit(&done, memory_order_acquire))
		return;
	mutex_lock(&once);
	if (!atomic_load_explicit(&done, memory_order_relaxed)) {
		wait_queue_init(&kmsg_wait);
		atomic_store_explicit(&done, true, memory_order_release);
	}
	mutex_unlock(&once);
}

static void kmsg_add(int prio, const char *text, size_t len)
{
	struct kmsg_record *r;

	kmsg_init();
	while (len && text[len - 1] == '\n')
		len--;
	len = MIN(len, (size_t)KMSG_TEXT_MAX - 1);
	mutex_lock(&kmsg_lock);
	r = &kmsg_ring[kmsg_next % KMSG_RECORDS];
	r->seq = kmsg_next++;
	r->ns = time_monotonic_ns() - kernel.boot_monotonic_ns;
	r->prio = prio;
	for (size_t i = 0; i < len; i++)
		r->text[i] = text[i] == '\n' ? ' ' : text[i];
	r->text[len] = 0;
	mutex_unlock(&kmsg_lock);
	wait_queue_wake(&kmsg_wait, POLLIN | POLLRDNORM);
}

void kmsg_printf(int level, const char *fmt, ...)
{
	char text[KMSG_TEXT_MAX];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len > 0)
		kmsg_add(level & 7, text, MIN((size_t)len, sizeof(text) - 1));
}

static uint64_t kmsg_first_locked(void)
{
	return kmsg_next > KMSG_RECORDS ? kmsg_next - KMSG_RECORDS : 0;
}

static void kmsg_render_from(uint64_t from, struct buf *b)
{
	for (;;) {
		struct kmsg_record r;
		bool have;

		mutex_lock(&kmsg_lock);
		from = MAX(from, kmsg_first_locked());
		have = from < kmsg_next;
		if (have)
			r = kmsg_ring[from % KMSG_RECORDS];
		mutex_unlock(&kmsg_lock);
		if (!have)
			return;
		buf_printf(b, "<%d>[%5lld.%06lld] %s\n", r.prio, (long long)(r.ns / 1000000000),
			   (long long)(r.ns % 1000000000 / 1000), r.text);
		from++;
	}
}

void kmsg_read_all(struct buf *b)
{
	mutex_lock(&kmsg_lock);
	uint64_t from = kmsg_cleared;
	mutex_unlock(&kmsg_lock);
	kmsg_render_from(from, b);
}

size_t kmsg_size_buffer(void)
{
	return sizeof(kmsg_ring);
}

void kmsg_clear(void)
{
	mutex_lock(&kmsg_lock);
	kmsg_cleared = kmsg_next;
	mutex_unlock(&kmsg_lock);
}

size_t kmsg_unread(void)
{
	struct buf b;
	size_t len;

	buf_init(&b, BUF_DEFAULT_MAX);
	kmsg_read_all(&b);
	len = b.len;
	buf_fini(&b);
	return len;
}

/* ---- /dev/kmsg ---- */

static ssize_t kmsg_read(struct file *f, struct io_iter *it, unused_arg int64_t off,
			 unused_arg int rwf)
{
	struct kmsg_file *kf = (struct kmsg_file *)f;
	uint64_t seq = atomic_load_explicit(&kf->seq, memory_order_relaxed);
	char line[KMSG_TEXT_MAX * 4 + 64];
	struct kmsg_record r;
	bool lost, have;
	int len;

	mutex_lock(&kmsg_lock);
	lost = seq < kmsg_first_locked();
	if (lost)
		seq = kmsg_first_locked();
	have = seq < kmsg_next;
	if (have)
		r = kmsg_ring[seq % KMSG_RECORDS];
	mutex_unlock(&kmsg_lock);
	if (lost) {
		atomic_store_explicit(&kf->seq, seq, memory_order_relaxed);
		return -EPIPE;
	}
	if (!have)
		return -EAGAIN;
	len = snprintf(line, sizeof(line), "%d,%llu,%lld,-;", r.prio, (unsigned long long)r.seq,
		       (long long)(r.ns / 1000));
	for (const char *p = r.text; *p; p++) {
		unsigned char c = (unsigned char)*p;

		if (c < ' ' || c >= 127 || c == '\\')
			len += snprintf(line + len, sizeof(line) - (size_t)len, "\\x%02x", c);
		else
			line[len++] = *p;
	}
	line[len++] = '\n';
	if (it->remaining < (uint64_t)len)
		return -EINVAL;
	if (io_iter_put(it, line, (size_t)len) != (size_t)len)
		return -EFAULT;
	atomic_store_explicit(&kf->seq, seq + 1, memory_order_relaxed);
	return len;
}

static ssize_t kmsg_write(unused_arg struct file *f, struct io_iter *it,
			  unused_arg int64_t *inout_off, unused_arg int rwf)
{
	char text[KMSG_TEXT_MAX];
	uint64_t total = it->remaining;
	size_t len;
	int prio = 1 << 3 | 4; /* LOG_USER, the default level */
	char *p = text, *end;

	if (total > 1024 - 32)
		return -EINVAL;
	len = io_iter_get(it, text, MIN(total, (uint64_t)sizeof(text) - 1));
	if (!len && total)
		return -EFAULT;
	text[len] = 0;
	io_iter_advance(it, it->remaining);
	if (text[0] == '<') {
		unsigned long v = strtoul(text + 1, &end, 10);

		if (*end == '>') {
			prio = (int)(v & 0x3ff);
			if (!(prio >> 3))
				prio |= 1 << 3; /* user space cannot claim to be the kernel */
			p = end + 1;
		}
	}
	kmsg_add(prio, p, strlen(p));
	return (ssize_t)total;
}

static int64_t kmsg_seek(struct file *f, int64_t off, int whence)
{
	struct kmsg_file *kf = (struct kmsg_file *)f;
	uint64_t seq;

	if (off)
		return -ESPIPE;
	mutex_lock(&kmsg_lock);
	switch (whence) {
	case SEEK_SET:
		seq = kmsg_first_locked();
		break;
	case SEEK_DATA:
		seq = kmsg_cleared;
		break;
	case SEEK_END:
		seq = kmsg_next;
		break;
	default:
		mutex_unlock(&kmsg_lock);
		return -EINVAL;
	}
	mutex_unlock(&kmsg_lock);
	atomic_store_explicit(&kf->seq, seq, memory_order_relaxed);
	return 0;
}

static uint32_t kmsg_poll(struct file *f)
{
	struct kmsg_file *kf = (struct kmsg_file *)f;
	uint32_t events = POLLOUT | POLLWRNORM;

	mutex_lock(&kmsg_lock);
	if (atomic_load_explicit(&kf->seq, memory_order_relaxed) < kmsg_next)
		events |= POLLIN | POLLRDNORM;
	mutex_unlock(&kmsg_lock);
	return events;
}

static void kmsg_poll_add(unused_arg struct file *f, struct waiter *w)
{
	wait_queue_add(&kmsg_wait, w);
}

static void kmsg_poll_remove(unused_arg struct file *f, struct waiter *w)
{
	wait_queue_remove(w);
}

static void kmsg_release(struct file *f)
{
	file_free(f);
}

static const struct file_ops kmsg_ops = {
	.name = "kmsg",
	.no_splice_read = true,
	.no_read_flags = true,
	.release = kmsg_release,
	.read_iter = kmsg_read,
	.write_iter = kmsg_write,
	.seek = kmsg_seek,
	.poll = kmsg_poll,
	.poll_add = kmsg_poll_add,
	.poll_remove = kmsg_poll_remove,
};

int kmsg_open(const struct vfs_path *place, unsigned flags, struct file **ret)
{
	struct kmsg_file *kf;
	unsigned accmode = flags & O_ACCMODE;
	unsigned mode = FILE_STREAM;

	kmsg_init();
	if (accmode != O_WRONLY)
		mode |= FILE_READ;
	if (accmode != O_RDONLY)
		mode |= FILE_WRITE;
	kf = calloc(1, sizeof(*kf));
	if (!kf)
		return -ENOMEM;
	mutex_lock(&kmsg_lock);
	kf->seq = kmsg_first_locked();
	mutex_unlock(&kmsg_lock);
	file_init(&kf->f, &kmsg_ops, place, flags, mode);
	*ret = &kf->f;
	return 0;
}

/* fsimpl/anon/fscontext.c - the descriptor of fsopen(2) and fspick(2). Reading it takes the oldest message. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/anon/anon.h"
#include "fsimpl/anon/fscontext.h"

struct fscontext_file {
	struct file f;
	struct op_lock lock; /* uapi_mutex: guards config; held while a filesystem is made */
	struct fs_config *config; /* owned */
};

static struct fscontext_file *fscontext_of(struct file *f)
{
	return container_of(f, struct fscontext_file, f);
}

static void fscontext_release(struct file *f)
{
	struct fscontext_file *cf = fscontext_of(f);

	fs_config_destroy(cf->config);
	file_free(f);
}

static ssize_t fscontext_read(struct file *f, struct io_iter *it, unused_arg int64_t off,
			      unused_arg int rwf)
{
	struct fscontext_file *cf = fscontext_of(f);
	const char *msg;
	ssize_t ret;
	char *taken;

	ret = op_lock_killable(&cf->lock);
	if (ret)
		return ret;
	msg = fs_config_message(cf->config);
	if (!msg) {
		op_unlock(&cf->lock);
		return -ENODATA;
	}
	/* A message that does not fit stays. */
	if (strlen(msg) > it->remaining) {
		op_unlock(&cf->lock);
		return -EMSGSIZE;
	}
	taken = fs_config_pop_message(cf->config);
	op_unlock(&cf->lock);
	ret = (ssize_t)strlen(taken);
	if (io_iter_put(it, taken, (size_t)ret) != (size_t)ret)
		ret = -EFAULT;
	free(taken);
	return ret;
}

static const struct file_ops fscontext_ops = {
	.name = "anon_inode:[fscontext]",
	.no_read_flags = true,
	.release = fscontext_release,
	.read_iter = fscontext_read,
	.stat = anon_file_stat,
	.set_stat = anon_file_set_stat,
};

int fscontext_create(struct fs_config *c, struct file **ret)
{
	struct anon_args args = {.kind = ANON_INODE, .name = "[fscontext]", .mode = 0600};
	struct fscontext_file *cf = calloc(1, sizeof(*cf));
	int err;

	if (!cf)
		return -ENOMEM;
	op_lock_init(&cf->lock);
	err = anon_file_init(&cf->f, &fscontext_ops, &args, O_RDWR,
			     FILE_READ | FILE_WRITE | FILE_STREAM);
	if (err) {
		free(cf);
		return err;
	}
	cf->config = c;
	*ret = &cf->f;
	return 0;
}

int fscontext_lock(struct file *f, struct fs_config **ret)
{
	int err;

	if (f->ops != &fscontext_ops)
		return -EINVAL;
	err = op_lock_killable(&fscontext_of(f)->lock);
	if (!err)
		*ret = fscontext_of(f)->config;
	return err;
}

void fscontext_unlock(struct file *f)
{
	op_unlock(&fscontext_of(f)->lock);
}

bool fscontext_is(const struct file *f)
{
	return f->ops == &fscontext_ops;
}

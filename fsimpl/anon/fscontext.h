/* fsimpl/anon/fscontext.h - the descriptor of fsopen(2) and fspick(2): a struct fs_config and its messages. */
#ifndef MOAT_FSIMPL_FSCONTEXT_H
#define MOAT_FSIMPL_FSCONTEXT_H

#include "vfs/fs_config.h"

/* Takes c on success. Returns a reference. */
must_check int fscontext_create(struct fs_config *c, struct file **ret);
/* The config behind f with its lock held, or -EINVAL (no such file), -EINTR. fscontext_unlock() ends it. */
must_check int fscontext_lock(struct file *f, struct fs_config **ret);
void fscontext_unlock(struct file *f);
bool fscontext_is(const struct file *f);

#endif

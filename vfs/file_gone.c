#include "vfs/vfs_internal.h"

void vfs_file_gone(struct file *f unused_arg)
{
}

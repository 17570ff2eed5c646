/* tests/fs/backend_virtiofs.h - what tests of the virtio-fs client see besides the filesystem. */
#ifndef MOAT_TESTS_FS_BACKEND_VIRTIOFS_H
#define MOAT_TESTS_FS_BACKEND_VIRTIOFS_H

#include "fsimpl/virtiofs/virtiofs.h"

/* The device of the filesystem that was created last; borrowed while that lives. */
struct virtiofs_device *backend_virtiofs_device(void);

#endif

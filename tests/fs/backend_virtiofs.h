/* tests/fs/backend_virtiofs.h - what tests of the virtio-fs client see besides the filesystem. */
#ifndef MOAT_TESTS_FS_BACKEND_VIRTIOFS_H
#define MOAT_TESTS_FS_BACKEND_VIRTIOFS_H

#include "fsimpl/virtiofs/virtiofs.h"

/* The device of the filesystem that was created last; borrowed while that lives. */
struct virtiofs_device *backend_virtiofs_device(void);
/* Set before a filesystem is made: its device starts another daemon when it loses this one. */
extern bool backend_virtiofs_reconnects;
/* While it is set none is started. */
extern _Atomic bool backend_virtiofs_hold;
/* Ends the daemon of the filesystem that was created last, as kill -9 does. */
void backend_virtiofs_kill(void);
/* The directory of the host that it shows. */
const char *backend_virtiofs_dir(void);

#endif

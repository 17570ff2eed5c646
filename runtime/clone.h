/* runtime/clone.h - processes in namespaces of their own. */
#ifndef MOAT_RUNTIME_CLONE_H
#define MOAT_RUNTIME_CLONE_H

#include <sys/types.h>

#include "base/compiler.h"

/*
 * fork(2) by clone3(2), with CLONE_NEW* and CLONE_PARENT as flags, for a caller of one thread. By clone(2) where there is no clone3: seccomp profiles of
 * container engines say ENOSYS for it, since they cannot look at its flags. Return the pid, 0 in the child, -errno.
 */
must_check pid_t clone_process(unsigned long flags, int exit_signal);

#endif

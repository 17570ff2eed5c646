/* runtime/clone.c - see clone.h. */
#include <errno.h>
#include <linux/sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/clone.h"

pid_t clone_process(unsigned long flags, int exit_signal)
{
	struct clone_args args = {.flags = flags, .exit_signal = (uint64_t)exit_signal};
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

	if (pid < 0 && errno == ENOSYS)
		pid = (pid_t)syscall(SYS_clone, flags | (unsigned long)exit_signal, NULL, NULL,
				     NULL, 0ul);
	return pid < 0 ? -errno : pid;
}

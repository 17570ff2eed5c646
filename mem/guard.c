/*
 * mem/guard.c - the fault handler that makes guard.S's routines return an error.
 *
 * The handler only compares rip with a table in read-only data: async-signal-safe, and no lock. A fault
 * elsewhere is handed to whoever was installed before (a sanitizer, the crash handler), or else
 * happens again with the default action, so that the core shows the real place.
 */
#include "mem/guard.h"

#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>

struct guard_entry {
	int32_t from, to, fixup; /* offsets from the table's start */
};

extern const struct guard_entry guard_table[] __attribute__((visibility("hidden")));
extern const struct guard_entry guard_table_end[] __attribute__((visibility("hidden")));

static struct sigaction previous_bus, previous_segv;

bool guard_fixup(void *ucontext)
{
	ucontext_t *uc = ucontext;
	int64_t rip = uc->uc_mcontext.gregs[REG_RIP] - (int64_t)(uintptr_t)guard_table;
	const struct guard_entry *entry;

	for (entry = guard_table; entry < guard_table_end; entry++) {
		if (rip < entry->from || rip >= entry->to)
			continue;
		uc->uc_mcontext.gregs[REG_RIP] = (int64_t)(uintptr_t)guard_table + entry->fixup;
		return true;
	}
	return false;
}

static void guard_handler(int signo, siginfo_t *info, void *ucontext)
{
	const struct sigaction *prev = signo == SIGBUS ? &previous_bus : &previous_segv;

	if (guard_fixup(ucontext))
		return;
	if (prev->sa_flags & SA_SIGINFO) {
		prev->sa_sigaction(signo, info, ucontext);
	} else if (prev->sa_handler != SIG_DFL && prev->sa_handler != SIG_IGN) {
		prev->sa_handler(signo);
	} else {
		struct sigaction dfl = {.sa_handler = SIG_DFL};

		sigaction(signo, &dfl, NULL);
		/* Returns to the faulting instruction; one sent by kill() would be lost, so send it on. */
		if (info->si_code <= 0)
			raise(signo);
	}
}

static int guard_install_one(int signo, struct sigaction *previous)
{
	struct sigaction sa = {
		.sa_sigaction = guard_handler,
		.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER,
	};
	struct sigaction old;

	sigemptyset(&sa.sa_mask);
	if (sigaction(signo, NULL, &old) < 0)
		return -errno;
	if ((old.sa_flags & SA_SIGINFO) && old.sa_sigaction == guard_handler)
		return 0;
	*previous = old;
	return sigaction(signo, &sa, NULL) < 0 ? -errno : 0;
}

int guard_install(void)
{
	int err = guard_install_one(SIGBUS, &previous_bus);

	return err ? err : guard_install_one(SIGSEGV, &previous_segv);
}

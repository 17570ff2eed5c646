/*
 * sentry/boot/crash.c - when the sentry itself is broken: where, and the last log lines, into the log. Then it dies as the signal demands.
 */
#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/log.h"
#include "sentry/boot/internal.h"

#define CRASH_FRAMES 48

static int crash_fd = STDERR_FILENO;

static void on_crash(int signo, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;
	void *frames[CRASH_FRAMES];
	char line[200];
	int n;

	n = snprintf(line, sizeof(line), "sentry crash: signal %d code %d addr %p rip %llx\n",
		     signo, info->si_code, info->si_addr,
		     (unsigned long long)uc->uc_mcontext.gregs[REG_RIP]);
	(void)!write(crash_fd, line, (size_t)n);
	backtrace_symbols_fd(frames, backtrace(frames, CRASH_FRAMES), crash_fd);
	log_dump_recorder(crash_fd);
	signal(signo, SIG_DFL);
	raise(signo);
}

void crash_handler_install(int log_fd)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
	struct sigaction sa = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_NODEFER};
	void *frames[2];

	if (log_fd >= 0)
		crash_fd = log_fd;
	/* The first call loads the unwinder, which a confined process cannot. */
	(void)backtrace(frames, 2);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &sa, NULL);
}

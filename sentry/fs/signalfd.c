/* sentry/fs/signalfd.c - a signal as signalfd(2)'s reader sees it (fs/signalfd.c: signalfd_copyinfo). */
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#include "sentry/fs/internal.h"
#include "sentry/signal.h"

static void encode_by_signal(const struct moat_siginfo *info, struct signalfd_siginfo *out)
{
	switch (info->si_signo) {
	case SIGCHLD:
		out->ssi_pid = (uint32_t)info->chld.pid;
		out->ssi_uid = info->chld.uid;
		out->ssi_status = info->chld.status;
		out->ssi_utime = (uint64_t)info->chld.utime;
		out->ssi_stime = (uint64_t)info->chld.stime;
		break;
	case SIGILL:
	case SIGFPE:
	case SIGSEGV:
	case SIGBUS:
	case SIGTRAP:
		out->ssi_addr = info->fault.addr;
		out->ssi_addr_lsb = (uint16_t)info->fault.addr_lsb;
		break;
	case SIGIO:
		out->ssi_band = (uint32_t)info->poll.band;
		out->ssi_fd = info->poll.fd;
		break;
	case SIGSYS:
		out->ssi_call_addr = info->sys.call_addr;
		out->ssi_syscall = info->sys.syscall;
		out->ssi_arch = info->sys.arch;
		break;
	default:
		out->ssi_pid = (uint32_t)info->rt.pid;
		out->ssi_uid = info->rt.uid;
	}
}

void signalfd_encode(const struct moat_siginfo *info, void *ret)
{
	struct signalfd_siginfo out;

	memset(&out, 0, sizeof(out));
	out.ssi_signo = (uint32_t)info->si_signo;
	out.ssi_errno = info->si_errno;
	out.ssi_code = info->si_code;
	if (info->si_code == SI_TIMER) {
		out.ssi_tid = (uint32_t)info->timer.timerid;
		out.ssi_overrun = (uint32_t)info->timer.overrun;
		out.ssi_ptr = info->timer.value;
		out.ssi_int = (int32_t)info->timer.value;
	} else if (info->si_code <= 0) {
		out.ssi_pid = (uint32_t)info->rt.pid;
		out.ssi_uid = info->rt.uid;
		if (info->si_code == SI_QUEUE || info->si_code == SI_MESGQ) {
			out.ssi_ptr = info->rt.value;
			out.ssi_int = (int32_t)info->rt.value;
		}
	} else if (info->si_code == SI_KERNEL) {
		out.ssi_pid = (uint32_t)info->rt.pid;
		out.ssi_uid = info->rt.uid;
	} else {
		encode_by_signal(info, &out);
	}
	memcpy(ret, &out, sizeof(out));
}

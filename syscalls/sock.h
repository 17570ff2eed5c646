/* syscalls/sock.h - shared by sys_socket.c and sys_sockmsg.c. */
#ifndef MOAT_SYSCALLS_SOCK_H
#define MOAT_SYSCALLS_SOCK_H

#include "fsimpl/socket/socket.h"
#include "syscalls/util.h"

/* The socket at fd: a reference; NULL with *ret_err -EBADF or -ENOTSOCK. */
struct file *sock_fd(struct task *t, int fd, int *ret_err);
bool sock_may_wait(struct file *f, int msg_flags);
int64_t sock_deadline(int64_t timeout_ns); /* 0: TIME_FOREVER */
/* Until ready: 0 (try again), -EAGAIN at the deadline, -EINTR or -ERESTARTSYS_. *inout_spins starts at 0. */
must_check int sock_wait(struct file *f, uint32_t events, int64_t deadline, unsigned *inout_spins);
must_check int sock_addr_in(struct task *t, uint64_t uaddr, int len, struct socket_addr *ret);
must_check int sock_addr_out(struct task *t, const struct socket_addr *addr, uint64_t uaddr,
			     uint64_t ulen);
/* socket_hooks.pidfd_install */
int sock_pidfd_install(int32_t pid, bool nonblock);
/* Who looks up the path in an AF_UNIX address: p->lk until sys_path_put(p), if *ret_path (false at first). */
must_check int sock_addr_lookup(struct task *t, const struct socket_addr *addr, struct sys_path *p,
				bool *ret_path);

#endif

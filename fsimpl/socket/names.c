/*
 * fsimpl/socket/names.c - what sockets are called: abstract names (unix(7)) in a table, paths as endpoints in filesystems.
 *
 * An endpoint is what the filesystem's inode holds; it points to the socket weakly and says ECONNREFUSED once that is closed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "fsimpl/socket/internal.h"

#define NAME_BUCKETS 256
#define PATH_OFFSET offsetof(struct sockaddr_un, sun_path)

static REF_TYPE(uaddr_type, "unix address");
static REF_TYPE(uendpoint_type, "unix endpoint");
static struct mutex names_lock = MUTEX_INIT(LOCK_SOCKET_NS, "unix_names");
static LIST_HEAD(, usock) names[NAME_BUCKETS]; /* guarded by names_lock */

struct uaddr *uaddr_ref(struct uaddr *a)
{
	if (a)
		ref_get(&a->ref);
	return a;
}

void uaddr_unref(struct uaddr *a)
{
	if (a && ref_put(&a->ref)) {
		ref_fini(&a->ref, &uaddr_type);
		free(a);
	}
}

static struct uaddr *uaddr_create(const struct sockaddr_un *un, unsigned len)
{
	struct uaddr *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	ref_init(&a->ref, &uaddr_type);
	memcpy(&a->un, un, MIN((size_t)len, sizeof(*un)));
	a->len = len;
	return a;
}

void uaddr_copy(const struct uaddr *a, struct socket_addr *ret)
{
	if (a) {
		memcpy(&ret->un, &a->un, sizeof(a->un));
		ret->len = a->len;
	} else {
		ret->sa.sa_family = AF_UNIX;
		ret->len = sizeof(sa_family_t);
	}
}

int uaddr_parse(const struct socket_addr *addr, struct sockaddr_un *ret, unsigned *ret_len,
		bool *ret_abstract)
{
	size_t max = sizeof(ret->sun_path), n;

	if (addr->len < PATH_OFFSET || addr->len > sizeof(struct sockaddr_un) ||
	    addr->sa.sa_family != AF_UNIX)
		return -EINVAL;
	if (addr->len == PATH_OFFSET)
		return -ENODATA;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, &addr->un, addr->len);
	*ret_abstract = !ret->sun_path[0];
	if (*ret_abstract) {
		*ret_len = addr->len;
	} else {
		n = strnlen(ret->sun_path, MIN((size_t)addr->len - PATH_OFFSET, max));
		*ret_len = (unsigned)(PATH_OFFSET + n + 1);
	}
	return 0;
}

/* ---- abstract names ---- */

static unsigned name_bucket(int type, const struct sockaddr_un *un, unsigned len)
{
	return (unsigned)(hash_bytes(un->sun_path, len - PATH_OFFSET) + (unsigned)type) %
	       NAME_BUCKETS;
}

static struct usock *name_lookup_locked(int type, const struct sockaddr_un *un, unsigned len)
{
	struct usock *s;

	LIST_FOREACH (s, &names[name_bucket(type, un, len)], name_link)
		if (s->type == type && s->addr->len == len && !memcmp(&s->addr->un, un, len))
			return s;
	return NULL;
}

/* Pre: s->lock. -EADDRINUSE. */
static int name_insert(struct usock *s, struct uaddr *a)
{
	int err = 0;

	mutex_lock(&names_lock);
	if (name_lookup_locked(s->type, &a->un, a->len)) {
		err = -EADDRINUSE;
	} else {
		s->addr = a;
		s->abstract = true;
		LIST_INSERT_HEAD(&names[name_bucket(s->type, &a->un, a->len)], s, name_link);
	}
	mutex_unlock(&names_lock);
	return err;
}

int name_autobind(struct usock *s)
{
	static _Atomic uint32_t next;
	int err = -ENOSPC;

	for (int i = 0; i < 1 << 20 && err; i++) {
		struct sockaddr_un un = {.sun_family = AF_UNIX};
		struct uaddr *a;
		char digits[8];

		snprintf(digits, sizeof(digits), "%05x",
			 atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) & 0xfffff);
		memcpy(un.sun_path + 1, digits, 5);
		a = uaddr_create(&un, PATH_OFFSET + 6);
		if (!a)
			return -ENOMEM;
		mutex_lock(&s->lock);
		err = s->addr ? 0 : name_insert(s, a);
		if (s->addr != a)
			uaddr_unref(a);
		mutex_unlock(&s->lock);
	}
	return err;
}

int name_autobind_if_asked(struct usock *s)
{
	bool asked;

	mutex_lock(&s->lock);
	asked = (s->passcred || s->passpidfd) && !s->addr;
	mutex_unlock(&s->lock);
	return asked ? name_autobind(s) : 0;
}

/* ---- paths ---- */

static void uendpoint_release(struct vfs_endpoint *e)
{
	struct uendpoint *ep = container_of(e, struct uendpoint, e);

	if (ep->e.host_fd >= 0)
		close(ep->e.host_fd);
	ref_fini(&ep->e.ref, &uendpoint_type);
	free(ep);
}

static void uendpoint_unref(struct vfs_endpoint *e)
{
	if (ref_put(&e->ref))
		e->release(e);
}

/* type: SOCK_* of what is about to be bound; 0: the filesystem has nothing to do with it. */
static struct uendpoint *uendpoint_create(int type)
{
	struct uendpoint *ep = calloc(1, sizeof(*ep));

	if (!ep)
		return NULL;
	ref_init(&ep->e.ref, &uendpoint_type);
	ep->e.release = uendpoint_release;
	ep->e.type = type;
	ep->e.host_fd = -1;
	mutex_init(&ep->lock, LOCK_SOCKET_NS, "unix_endpoint");
	return ep;
}

int name_endpoint(struct usock *s, struct vfs_endpoint **ret)
{
	struct uendpoint *ep = uendpoint_create(0);

	if (!ep)
		return -ENOMEM;
	ref_get(&ep->e.ref);
	mutex_lock(&s->lock);
	s->endpoint = ep;
	mutex_unlock(&s->lock);
	mutex_lock(&ep->lock);
	ep->s = s;
	mutex_unlock(&ep->lock);
	*ret = &ep->e;
	return 0;
}

static int name_bind_path(struct usock *s, struct uaddr *a, const struct vfs_lookup *lookup,
			  uint32_t umask)
{
	struct uendpoint *ep = uendpoint_create(s->type);
	struct mknod_args args = {.mode = S_IFSOCK | 0777, .umask = umask};
	struct vfs_lookup lk = *lookup;
	char path[sizeof(a->un.sun_path) + 1] = {0};
	bool host = false;
	int err;

	if (!ep)
		return -ENOMEM;
	memcpy(path, a->un.sun_path, sizeof(a->un.sun_path));
	lk.path = path;
	lk.flags = 0;
	args.endpoint = &ep->e;
	/* It is connectable only once s says so: a connect in between is refused. */
	err = vfs_mknod(&lk, &args);
	if (err) {
		uendpoint_unref(&ep->e);
		return err == -EEXIST ? -EADDRINUSE : err;
	}
	mutex_lock(&s->lock);
	if (s->addr) {
		err = -EINVAL; /* two binds raced; the inode stays, as on Linux */
	} else {
		s->addr = a;
		s->endpoint = ep;
		/* One that is connected to the host already goes on using that. */
		if (s->host_connected)
			s->host_bound = ep->e.host_fd;
		else
			s->host_fd = ep->e.host_fd;
		host = ep->e.host_fd >= 0;
		ep->e.host_fd = -1;
		mutex_lock(&ep->lock);
		ep->s = s;
		mutex_unlock(&ep->lock);
	}
	mutex_unlock(&s->lock);
	if (err) {
		/* The inode has the endpoint for good, and nobody listens to what was bound on the host. */
		if (ep->e.host_fd >= 0)
			close(ep->e.host_fd);
		ep->e.host_fd = -1;
		uendpoint_unref(&ep->e);
	} else if (host && !usock_connects(s) && uhost_watch(s)) {
		log_warn("a socket that is bound on the host cannot be watched");
	}
	return err;
}

int name_bind(struct usock *s, const struct socket_addr *addr, const struct vfs_lookup *lookup,
	      uint32_t umask)
{
	struct sockaddr_un un;
	struct uaddr *a;
	unsigned len;
	bool abstract, bound;
	int err = uaddr_parse(addr, &un, &len, &abstract);

	if (err == -ENODATA)
		return name_autobind(s);
	if (err)
		return err;
	mutex_lock(&s->lock);
	bound = s->addr;
	mutex_unlock(&s->lock);
	if (bound)
		return -EINVAL;
	a = uaddr_create(&un, len);
	if (!a)
		return -ENOMEM;
	if (abstract) {
		mutex_lock(&s->lock);
		err = s->addr ? -EINVAL : name_insert(s, a);
		mutex_unlock(&s->lock);
	} else {
		err = name_bind_path(s, a, lookup, umask);
	}
	if (err)
		uaddr_unref(a);
	return err;
}

/* The socket is closed: nobody finds it any more. Its address stays for getpeername() of its peers. */
void name_release(struct usock *s)
{
	struct uendpoint *ep;

	mutex_lock(&s->lock);
	ep = s->endpoint;
	s->endpoint = NULL;
	if (s->abstract) {
		mutex_lock(&names_lock);
		LIST_REMOVE(s, name_link);
		mutex_unlock(&names_lock);
		s->abstract = false;
	}
	mutex_unlock(&s->lock);
	if (!ep)
		return;
	mutex_lock(&ep->lock);
	ep->s = NULL;
	mutex_unlock(&ep->lock);
	uendpoint_unref(&ep->e);
}

/* Takes e's reference. */
static int name_found_host(struct vfs_endpoint *e, const struct sockaddr_un *un, unsigned len,
			   int type, struct usock **ret, struct vfs_endpoint **ret_host,
			   struct uaddr **ret_name)
{
	struct uaddr *name = uaddr_create(un, len);
	int err = name ? 0 : -ENOMEM;

	if (!err && type != SOCK_DGRAM && ret_host) {
		*ret_host = e;
		*ret_name = name;
		return 0;
	}
	if (!err)
		err = type == SOCK_DGRAM ? uhost_datagram_peer(e, name, ret) : -ECONNREFUSED;
	uaddr_unref(name);
	uendpoint_unref(e);
	return err;
}

static int name_find_path(const struct sockaddr_un *un, unsigned len, int type,
			  const struct vfs_lookup *lookup, struct usock **ret,
			  struct vfs_endpoint **ret_host, struct uaddr **ret_name)
{
	char path[sizeof(un->sun_path) + 1] = {0};
	struct vfs_endpoint *e;
	struct uendpoint *ep;
	struct vfs_lookup lk;
	int err;

	if (!lookup)
		return -ECONNREFUSED;
	lk = *lookup;
	memcpy(path, un->sun_path, sizeof(un->sun_path));
	lk.path = path;
	lk.flags = LOOKUP_FOLLOW;
	err = vfs_get_endpoint(&lk, &e);
	if (err)
		return err;
	if (e->connect_host)
		return name_found_host(e, un, len, type, ret, ret_host, ret_name);
	if (e->release != uendpoint_release) {
		uendpoint_unref(e);
		return -ECONNREFUSED;
	}
	ep = container_of(e, struct uendpoint, e);
	mutex_lock(&ep->lock);
	*ret = ep->s;
	if (*ret && !ref_tryget(&(*ret)->ref))
		*ret = NULL;
	mutex_unlock(&ep->lock);
	uendpoint_unref(e);
	return *ret ? 0 : -ECONNREFUSED;
}

int name_find(const struct socket_addr *addr, int type, const struct vfs_lookup *lookup,
	      struct usock **ret, struct vfs_endpoint **ret_host, struct uaddr **ret_name)
{
	struct sockaddr_un un;
	unsigned len;
	bool abstract;
	int err = uaddr_parse(addr, &un, &len, &abstract);

	if (err)
		return err == -ENODATA ? -EINVAL : err;
	*ret = NULL;
	if (!abstract) {
		err = name_find_path(&un, len, type, lookup, ret, ret_host, ret_name);
		if (!err && *ret && (*ret)->type != type) {
			usock_unref(*ret);
			return -EPROTOTYPE;
		}
		return err;
	}
	mutex_lock(&names_lock);
	*ret = name_lookup_locked(type, &un, len);
	if (*ret && !ref_tryget(&(*ret)->ref))
		*ret = NULL;
	mutex_unlock(&names_lock);
	return *ret ? 0 : -ECONNREFUSED;
}

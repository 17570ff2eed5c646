/* tests/syscalls/netlink.c - AF_NETLINK (routes, sock_diag), and what /proc/net and /sys/class/net say. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "t.h"

static int nl(int protocol)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);

	CHECK(fd >= 0);
	return fd;
}

struct request {
	struct nlmsghdr h;
	char body[256];
};

static void request(int fd, int type, int flags, const void *body, size_t size)
{
	struct request r = {.h = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(size),
				  .nlmsg_type = (uint16_t)type,
				  .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
				  .nlmsg_seq = 77}};

	memcpy(r.body, body, size);
	CHECK_EQ(send(fd, &r, r.h.nlmsg_len, 0), (ssize_t)r.h.nlmsg_len);
}

/* Calls see() for each message until the end of a dump; returns the error of an NLMSG_ERROR. */
static int replies(int fd, void (*see)(struct nlmsghdr *, void *), void *arg)
{
	static char buf[65536];

	for (;;) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		CHECK(n > 0);
		for (struct nlmsghdr *h = (struct nlmsghdr *)buf; NLMSG_OK(h, n);
		     h = NLMSG_NEXT(h, n)) {
			CHECK_EQ(h->nlmsg_seq, 77);
			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR)
				return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
			see(h, arg);
			if (!(h->nlmsg_flags & NLM_F_MULTI))
				return 0;
		}
	}
}

static void see_nothing(struct nlmsghdr *h, void *arg)
{
	(void)h;
	(void)arg;
}

TEST(protocols)
{
	CHECK_ERR(socket(AF_NETLINK, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
	CHECK_ERR(socket(AF_NETLINK, SOCK_RAW, 99), EPROTONOSUPPORT);
	CHECK_ERR(socket(AF_NETLINK, SOCK_RAW, -1), EPROTONOSUPPORT);
	CHECK_ERR(socket(AF_NETLINK, SOCK_RAW, 31), EPROTONOSUPPORT);
	close(nl(NETLINK_ROUTE));
	close(nl(NETLINK_SOCK_DIAG));
	close(nl(NETLINK_KOBJECT_UEVENT));
}

static void see_lo(struct nlmsghdr *h, void *arg)
{
	struct ifinfomsg *i = NLMSG_DATA(h);
	int len = (int)IFLA_PAYLOAD(h);

	CHECK_EQ(h->nlmsg_type, RTM_NEWLINK);
	for (struct rtattr *a = IFLA_RTA(i); RTA_OK(a, len); a = RTA_NEXT(a, len))
		if (a->rta_type == IFLA_IFNAME && !strcmp(RTA_DATA(a), "lo")) {
			CHECK(i->ifi_flags & IFF_LOOPBACK);
			*(int *)arg = i->ifi_index;
		}
}

TEST(links)
{
	struct ifinfomsg i = {.ifi_family = AF_UNSPEC};
	int fd = nl(NETLINK_ROUTE), index = 0;

	request(fd, RTM_GETLINK, NLM_F_DUMP, &i, sizeof(i));
	CHECK_EQ(replies(fd, see_lo, &index), 0);
	CHECK_EQ(index, 1);
	i.ifi_index = 1;
	index = 0;
	request(fd, RTM_GETLINK, 0, &i, sizeof(i));
	CHECK_EQ(replies(fd, see_lo, &index), 0);
	CHECK_EQ(index, 1);
	i.ifi_index = 12345;
	request(fd, RTM_GETLINK, 0, &i, sizeof(i));
	CHECK_EQ(replies(fd, see_lo, &index), -ENODEV);
}

/* Another namespace by an id that is none: no answer about anybody's links, and none that could be changed. */
TEST(other_namespaces)
{
	struct {
		struct ifinfomsg i;
		struct rtattr a;
		uint32_t id;
	} q = {.a = {.rta_len = RTA_LENGTH(sizeof(q.id)), .rta_type = 46 /* IFLA_TARGET_NETNSID */},
	       .id = 12345};
	int fd = nl(NETLINK_ROUTE);

	q.i.ifi_index = 1;
	request(fd, RTM_GETLINK, 0, &q, sizeof(q));
	CHECK_EQ(replies(fd, see_nothing, NULL), -EINVAL);
}

TEST(names_and_peeks)
{
	struct sockaddr_nl a = {.nl_family = AF_NETLINK}, from;
	struct ifinfomsg i = {.ifi_index = 1};
	socklen_t len = sizeof(a);
	int fd = nl(NETLINK_ROUTE);
	char small[20], big[8192];
	ssize_t n;

	CHECK_OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_OK(getsockname(fd, (struct sockaddr *)&a, &len));
	CHECK_EQ(len, sizeof(a));
	CHECK(a.nl_pid != 0);
	CHECK_ERR(bind(fd, (struct sockaddr *)&a, 2), EINVAL);
	CHECK_ERR(recv(fd, big, sizeof(big), MSG_DONTWAIT), EAGAIN);
	request(fd, RTM_GETLINK, 0, &i, sizeof(i));
	n = recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC);
	CHECK(n > 100);
	CHECK_EQ(recv(fd, small, sizeof(small), MSG_PEEK), (ssize_t)sizeof(small));
	len = sizeof(from);
	CHECK_EQ(recvfrom(fd, big, sizeof(big), 0, (struct sockaddr *)&from, &len), n);
	CHECK_EQ(from.nl_pid, 0);
	CHECK_EQ(from.nl_family, AF_NETLINK);
	CHECK_EQ(((struct nlmsghdr *)big)->nlmsg_pid, a.nl_pid);
	CHECK_ERR(listen(fd, 1), EOPNOTSUPP);
	CHECK_ERR(accept(fd, NULL, NULL), EOPNOTSUPP);
}

TEST(changes_need_a_capability)
{
	struct ifinfomsg i = {.ifi_index = 1, .ifi_change = IFF_UP};
	int fd;

	t_become(1000, 1000);
	fd = nl(NETLINK_ROUTE);
	request(fd, RTM_NEWLINK, NLM_F_ACK, &i, sizeof(i));
	CHECK_EQ(replies(fd, see_nothing, NULL), -EPERM);
	request(fd, RTM_DELLINK, NLM_F_ACK, &i, sizeof(i));
	CHECK_EQ(replies(fd, see_nothing, NULL), -EPERM);
	request(fd, RTM_GETLINK, NLM_F_ACK, &i, sizeof(i));
	CHECK_EQ(replies(fd, see_lo, &(int){0}), 0);
}

TEST(nonsense)
{
	struct request r = {
		.h = {.nlmsg_len = 8, .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST}};
	struct sockaddr_nl to = {.nl_family = AF_NETLINK};
	int fd = nl(NETLINK_ROUTE);
	char buf[64];

	CHECK_EQ(send(fd, &r, 8, 0), 8);
	CHECK_EQ(send(fd, &r, sizeof(r.h), 0), (ssize_t)sizeof(r.h));
	r.h.nlmsg_len = 100000;
	CHECK_EQ(send(fd, &r, sizeof(r), 0), (ssize_t)sizeof(r));
	CHECK_ERR(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), EAGAIN);
	request(fd, 9999, NLM_F_ACK, "", 0);
	CHECK_EQ(replies(fd, see_nothing, NULL), -EOPNOTSUPP);
	to.nl_family = AF_INET;
	CHECK_ERR(sendto(fd, &r, sizeof(r), 0, (struct sockaddr *)&to, sizeof(to)), EINVAL);
	CHECK_ERR(send(fd, &r, 4, MSG_OOB), EOPNOTSUPP);
}

TEST(c_library)
{
	struct ifaddrs *list;
	bool found = false;

	CHECK_OK(getifaddrs(&list));
	for (struct ifaddrs *a = list; a; a = a->ifa_next)
		if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET && !strcmp(a->ifa_name, "lo"))
			found |= ((struct sockaddr_in *)a->ifa_addr)->sin_addr.s_addr ==
				 htonl(INADDR_LOOPBACK);
	CHECK(found);
	CHECK_EQ(if_nametoindex("lo"), 1);
	CHECK_EQ(if_nametoindex("nonesuch"), 0);
}

struct wanted {
	unsigned long ino;
	const char *name;
	bool found;
};

static void see_tcp(struct nlmsghdr *h, void *arg)
{
	struct inet_diag_msg *d = NLMSG_DATA(h);
	struct wanted *w = arg;

	if (d->idiag_inode == w->ino) {
		CHECK_EQ(d->idiag_state, TCP_LISTEN);
		CHECK_EQ(d->idiag_uid, 1000);
		w->found = true;
	}
}

static void see_unix(struct nlmsghdr *h, void *arg)
{
	struct unix_diag_msg *d = NLMSG_DATA(h);
	struct rtattr *a = (struct rtattr *)(d + 1);
	int len = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof(*d)));
	struct wanted *w = arg;

	if (d->udiag_ino != w->ino)
		return;
	CHECK_EQ(d->udiag_state, TCP_LISTEN);
	CHECK_EQ(d->udiag_type, SOCK_STREAM);
	for (; RTA_OK(a, len); a = RTA_NEXT(a, len))
		if (a->rta_type == UNIX_DIAG_NAME)
			w->found |= RTA_PAYLOAD(a) == strlen(w->name) + 1 &&
				    !memcmp((char *)RTA_DATA(a) + 1, w->name, strlen(w->name));
}

TEST(sock_diag)
{
	struct inet_diag_req_v2 r = {.sdiag_family = AF_INET,
				     .sdiag_protocol = IPPROTO_TCP,
				     .idiag_states = 1u << TCP_LISTEN};
	struct unix_diag_req u = {.sdiag_family = AF_UNIX,
				  .udiag_states = ~0u,
				  .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "\0diag-test"};
	int fd = nl(NETLINK_SOCK_DIAG), tcp, ux;
	struct wanted w = {0};
	struct stat st;
	char text[64];

	t_become(1000, 1000);
	tcp = socket(AF_INET, SOCK_STREAM, 0);
	CHECK_OK(bind(tcp, (struct sockaddr *)&in, sizeof(in)));
	CHECK_OK(listen(tcp, 3));
	CHECK_OK(fstat(tcp, &st));
	w.ino = st.st_ino;
	request(fd, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &r, sizeof(r));
	CHECK_EQ(replies(fd, see_tcp, &w), 0);
	CHECK(w.found);
	snprintf(text, sizeof(text), " 1000        0 %lu ", w.ino);
	CHECK(strstr(t_read("/proc/net/tcp"), text));

	ux = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_OK(bind(ux, (struct sockaddr *)&un, offsetof(struct sockaddr_un, sun_path) + 10));
	CHECK_OK(listen(ux, 3));
	CHECK_OK(fstat(ux, &st));
	w = (struct wanted){.ino = st.st_ino, .name = "diag-test"};
	request(fd, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &u, sizeof(u));
	CHECK_EQ(replies(fd, see_unix, &w), 0);
	CHECK(w.found);
	u.udiag_ino = (uint32_t)w.ino;
	u.udiag_cookie[0] = u.udiag_cookie[1] = ~0u;
	w.found = false;
	request(fd, SOCK_DIAG_BY_FAMILY, 0, &u, sizeof(u));
	CHECK_EQ(replies(fd, see_unix, &w), 0);
	CHECK(w.found);
	u.udiag_ino = 4000000000u;
	request(fd, SOCK_DIAG_BY_FAMILY, 0, &u, sizeof(u));
	CHECK_EQ(replies(fd, see_unix, &w), -ENOENT);
}

TEST(uevents_are_silent)
{
	struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_groups = 1};
	int fd = nl(NETLINK_KOBJECT_UEVENT), v = 0;
	socklen_t len = sizeof(v);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char event[4096];

	CHECK_OK(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_OK(getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &v, &len));
	CHECK_EQ(v, NETLINK_KOBJECT_UEVENT);
	/* But for what happens to the host's devices meanwhile. */
	for (int i = 0; i < 500 && poll(&p, 1, 20); i++)
		recv(fd, event, sizeof(event), MSG_DONTWAIT);
	CHECK_EQ(poll(&p, 1, 0), 0);
}

TEST(options)
{
	int fd = nl(NETLINK_ROUTE), one = 1;

	CHECK_OK(setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one)));
	CHECK_OK(setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one)));
	CHECK_OK(setsockopt(fd, SOL_NETLINK, NETLINK_PKTINFO, &one, sizeof(one)));
	CHECK_OK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){100000}, sizeof(int)));
	CHECK_ERR(setsockopt(fd, SOL_NETLINK, 99, &one, sizeof(one)), ENOPROTOOPT);
}

TEST(files)
{
	char text[4096];

	snprintf(text, sizeof(text), "%s", t_read("/proc/net/dev"));
	CHECK(strstr(text, " lo:"));
	CHECK(strstr(t_read("/proc/net/if_inet6"), "lo") || access("/proc/net/if_inet6", F_OK));
	CHECK(strstr(t_read("/proc/net/snmp"), "Tcp: "));
	CHECK(strstr(t_read("/proc/net/protocols"), "TCP "));
	CHECK(strstr(t_read("/proc/net/sockstat"), "sockets: used"));
	CHECK(!strncmp(t_read("/proc/net/route"), "Iface\tDestination", 17));
	CHECK_STR(t_read("/sys/class/net/lo/mtu"), "65536\n");
	CHECK_STR(t_read("/sys/class/net/lo/address"), "00:00:00:00:00:00\n");
	CHECK_STR(t_read("/sys/class/net/lo/ifindex"), "1\n");
	CHECK_STR(t_read("/sys/class/net/lo/type"), "772\n");
	CHECK(atoi(t_read("/proc/sys/net/core/somaxconn")) >= 128);
	CHECK(access("/sys/class/net/nonesuch", F_OK) == -1);
	CHECK(strchr(t_read("/proc/sys/net/ipv4/ip_local_port_range"), '\t') != NULL);
}

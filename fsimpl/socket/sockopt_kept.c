/*
 * fsimpl/socket/sockopt_kept.c - options that every socket of Linux has and AF_UNIX only remembers.
 *
 * Linux keeps them in the part of a socket that all families share; nothing of AF_UNIX looks at them, there as here. What
 * counts is who may set which value, and that it can be read back (tests/net/sockopts.c, beside the host).
 */
#include <linux/capability.h>

#include "fsimpl/socket/internal.h"

enum kept_kind {
	KEPT_FLAG, /* 0 or 1 */
	KEPT_INT,
	KEPT_NATURAL, /* an int from 0 */
	KEPT_BUF_LOCK, /* two bits */
	KEPT_LATCH, /* cannot be taken back */
	KEPT_NOTHING, /* any value; reads as 0 */
	KEPT_CONST, /* cannot be set */
	KEPT_UNSUPPORTED, /* a protocol's, not this one's */
};

#define RAISES 1 /* CAP_NET_ADMIN for more than there is */
#define MARKS 2 /* CAP_NET_ADMIN or CAP_NET_RAW */

static const struct kept_option {
	uint8_t opt, kind, cap;
	int constant;
	int err; /* KEPT_CONST's answer to a set */
} kept_options[UNIX_KEPT_NR] = {
	{UNIX_KEPT_BUF_LOCK_OPT, KEPT_BUF_LOCK},
	{5 /* SO_DONTROUTE */, KEPT_FLAG},
	{11 /* SO_NO_CHECK */, KEPT_FLAG},
	{14 /* SO_BSDCOMPAT */, KEPT_NOTHING},
	{36 /* SO_MARK */, KEPT_INT, MARKS},
	{40 /* SO_RXQ_OVFL */, KEPT_FLAG},
	{41 /* SO_WIFI_STATUS */, KEPT_FLAG},
	{43 /* SO_NOFCS */, KEPT_FLAG},
	{44 /* SO_LOCK_FILTER */, KEPT_LATCH},
	{45 /* SO_SELECT_ERR_QUEUE */, KEPT_FLAG},
	{46 /* SO_BUSY_POLL */, KEPT_NATURAL, RAISES},
	{48 /* SO_BPF_EXTENSIONS */, KEPT_CONST, 0, 64, -ENOPROTOOPT},
	{56 /* SO_INCOMING_NAPI_ID */, KEPT_CONST, 0, 0, -ENOPROTOOPT},
	{60 /* SO_ZEROCOPY */, KEPT_CONST, 0, 0, -EOPNOTSUPP},
	{62 /* SO_BINDTOIFINDEX */, KEPT_NATURAL},
	{69 /* SO_PREFER_BUSY_POLL */, KEPT_FLAG, RAISES},
	{74 /* SO_TXREHASH */, KEPT_UNSUPPORTED},
	{75 /* SO_RCVMARK */, KEPT_FLAG, MARKS},
	{82 /* SO_RCVPRIORITY */, KEPT_FLAG},
};

static int kept_find(int opt)
{
	for (int i = 0; i < UNIX_KEPT_NR; i++)
		if (kept_options[i].opt == opt)
			return i;
	return -1;
}

static bool capable(int cap)
{
	return cred_has_cap(cred_current(), cap);
}

static bool may_set(const struct kept_option *k, int old, int v)
{
	if (k->cap == RAISES)
		return v <= old || capable(CAP_NET_ADMIN);
	return k->cap != MARKS || capable(CAP_NET_ADMIN) || capable(CAP_NET_RAW);
}

int unix_kept_set_locked(struct usock *s, int opt, int v)
{
	int i = kept_find(opt);
	const struct kept_option *k = &kept_options[MAX(i, 0)];

	if (i < 0)
		return -ENOPROTOOPT;
	if (k->kind == KEPT_FLAG || k->kind == KEPT_LATCH)
		v = v != 0;
	if (!may_set(k, s->kept[i], v))
		return -EPERM;
	switch ((enum kept_kind)k->kind) {
	case KEPT_CONST:
		return k->err;
	case KEPT_UNSUPPORTED:
		return -EOPNOTSUPP;
	case KEPT_NOTHING:
		return 0;
	case KEPT_LATCH:
		if (s->kept[i] && !v)
			return -EPERM;
		break;
	case KEPT_NATURAL:
		if (v < 0)
			return -EINVAL;
		break;
	case KEPT_BUF_LOCK:
		if (v & ~3)
			return -EINVAL;
		break;
	case KEPT_FLAG:
	case KEPT_INT:
		break;
	}
	s->kept[i] = v;
	return 0;
}

int unix_kept_get_locked(const struct usock *s, int opt, int *ret)
{
	int i = kept_find(opt);

	if (i < 0)
		return -ENOPROTOOPT;
	if (kept_options[i].kind == KEPT_UNSUPPORTED)
		return -EOPNOTSUPP;
	*ret = kept_options[i].kind == KEPT_CONST ? kept_options[i].constant : s->kept[i];
	return 0;
}

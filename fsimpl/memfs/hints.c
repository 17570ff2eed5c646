/*
 * fsimpl/memfs/hints.c - where tmpfs's pages should come from: huge=, mpol=, noswap.
 *
 * Checked and told as Linux does, and nothing depends on them: a sandbox has one node, 0, no swap of its own, and how large its pages are is the
 * host's business.
 */
#include <string.h>

#include "fsimpl/memfs/internal.h"

#define POLICY_MAX 48 /* characters of mpol= */

enum { HUGE_NEVER };
static const char *const huge_names[] = {"never", "always", "within_size", "advise"};

enum {
	POLICY_DEFAULT,
	POLICY_PREFERRED,
	POLICY_BIND,
	POLICY_INTERLEAVE,
	POLICY_LOCAL,
	POLICY_PREFERRED_MANY,
	POLICY_WEIGHTED,
	POLICY_MASK = 15,
	POLICY_STATIC = 16,
	POLICY_RELATIVE = 32,
	POLICY_NODE = 64, /* of node 0 */
};
static const char *const policy_names[] = {
	[POLICY_DEFAULT] = "default",
	[POLICY_PREFERRED] = "prefer",
	[POLICY_BIND] = "bind",
	[POLICY_INTERLEAVE] = "interleave",
	[POLICY_LOCAL] = "local",
	[POLICY_PREFERRED_MANY] = "prefer (many)",
	[POLICY_WEIGHTED] = "weighted interleave",
};

/* Return: its index, or -1. */
static int find_name(const char *const *names, size_t count, const char *s, size_t len)
{
	for (size_t i = 0; i < count; i++)
		if (strlen(names[i]) == len && !strncmp(names[i], s, len))
			return (int)i;
	return -1;
}

int memfs_parse_huge(const char *s, const char *end, uint8_t *ret)
{
	int i = find_name(huge_names, ARRAY_SIZE(huge_names), s, (size_t)(end - s));

	if (i < 0)
		return -EINVAL;
	*ret = (uint8_t)i;
	return 0;
}

/* bitmap_parselist() of what has no bit but the first. Return: 0, POLICY_NODE, -1. */
static int parse_nodes(const char *s)
{
	size_t zeroes = strspn(s, "0"), more;

	if (!*s)
		return 0;
	if (zeroes && s[zeroes] == '-') {
		more = strspn(s + zeroes + 1, "0");
		zeroes = more ? zeroes + 1 + more : 0;
	}
	return zeroes && !s[zeroes] ? POLICY_NODE : -1;
}

static int parse_policy_flag(const char *s)
{
	if (!s)
		return 0;
	if (!strcmp(s, "static"))
		return POLICY_STATIC;
	return !strcmp(s, "relative") ? POLICY_RELATIVE : -1;
}

/* mpol_parse_str(): MODE[=FLAG][:NODES]. */
int memfs_parse_policy(const char *s, const char *end, uint8_t *ret)
{
	char text[POLICY_MAX], *flags, *list;
	int mode, nodes, flag;

	if ((size_t)(end - s) >= sizeof(text))
		return -EINVAL;
	memcpy(text, s, (size_t)(end - s));
	text[end - s] = '\0';
	flags = strchr(text, '=');
	list = strchr(text, ':');
	if (flags)
		*flags++ = '\0';
	if (list)
		*list++ = '\0';
	nodes = list ? parse_nodes(list) : 0;
	mode = find_name(policy_names, ARRAY_SIZE(policy_names), text, strlen(text));
	if (nodes < 0 || mode < 0)
		return -EINVAL;
	*ret = POLICY_DEFAULT;
	if (mode == POLICY_DEFAULT)
		return list ? -EINVAL : 0;
	if (!list && (mode == POLICY_INTERLEAVE || mode == POLICY_WEIGHTED))
		nodes = POLICY_NODE;
	flag = parse_policy_flag(flags);
	/* One node, not a list of one. */
	if (flag < 0 || (mode == POLICY_PREFERRED && list && strspn(list, "0") != strlen(list)))
		return -EINVAL;
	if (mode == POLICY_PREFERRED && !list)
		mode = POLICY_LOCAL;
	if (mode == POLICY_LOCAL ? list || flag : !nodes)
		return -EINVAL;
	*ret = (uint8_t)(mode | flag | nodes);
	return 0;
}

void memfs_show_hints(struct memfs_fs *fs, struct buf *b)
{
	uint8_t huge = atomic_load_explicit(&fs->huge, memory_order_relaxed);
	uint8_t policy = atomic_load_explicit(&fs->policy, memory_order_relaxed);

	if (huge != HUGE_NEVER)
		buf_printf(b, ",huge=%s", huge_names[huge]);
	if (policy != POLICY_DEFAULT)
		buf_printf(b, ",mpol=%s%s%s%s", policy_names[policy & POLICY_MASK],
			   policy & POLICY_STATIC ? "=static" : "",
			   policy & POLICY_RELATIVE ? "=relative" : "",
			   policy & POLICY_NODE ? ":0" : "");
	if (fs->noswap)
		buf_puts(b, ",noswap");
}

bool memfs_huge_fits(const char *s)
{
	uint8_t unused;

	return !memfs_parse_huge(s, s + strlen(s), &unused);
}

bool memfs_policy_fits(const char *s)
{
	uint8_t unused;

	return !memfs_parse_policy(s, s + strlen(s), &unused);
}

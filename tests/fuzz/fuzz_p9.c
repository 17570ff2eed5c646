// LINK: moat_wire
/* Any bytes: the decoder stays in bounds, and what it accepts encodes back to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "wire/p9.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_nodes(const struct p9_nodes *nodes)
{
	uint8_t raw[P9_NODE_SIZE];
	struct p9_node n;

	for (unsigned i = 0; i < nodes->count; i++) {
		p9_nodes_get(nodes, i, &n);
		p9_node_put(&n, raw);
		if (memcmp(raw, nodes->data + (size_t)i * P9_NODE_SIZE, sizeof(raw)) != 0)
			abort();
	}
}

static uint8_t sum;

/* Each byte is read: what points outside of the message is found here. */
static void read_str(const struct p9_str *s)
{
	for (unsigned i = 0; i < s->len; i++)
		sum ^= (uint8_t)s->data[i];
}

/* Entries from `off` on, which is the first or, as a place that was kept of another listing, in the middle of one. */
static void check_dirents(const struct p9_blob *b, bool moat, size_t off)
{
	uint8_t raw[P9_DIRENT_SIZE + P9_NODE_SIZE + 2 + P9_DIRENT_TARGET_MAX + UINT16_MAX];
	size_t at = off;
	struct p9_dirent d;

	while (p9_dirent_get(b->data, b->size, &off, moat, &d) == 1) {
		size_t put = 0;

		read_str(&d.name);
		read_str(&d.target);
		if (d.target.len && (!moat || !d.has_node || d.target.len > P9_DIRENT_TARGET_MAX))
			abort();
		(void)p9_name_ok(d.name.data, d.name.len);
		if (p9_dirent_put(raw, sizeof(raw), &put, &d, moat) != 0 || put != off - at ||
		    memcmp(raw, (const uint8_t *)b->data + at, put) != 0)
			abort();
		at = off;
	}
}

static void check_message(uint8_t *buf, size_t size)
{
	char line[512];
	struct p9_msg msg;
	size_t out_size;
	uint8_t *out;

	if (p9_decode(buf, size, &msg) != 0)
		return;
	p9_print(&msg, line, sizeof(line));
	out = malloc(size + 4);
	if (!out || p9_encode(&msg, out, size + 4, &out_size) != 0)
		abort();
	if (msg.type != P9_Tfsync && (out_size != size || memcmp(out, buf, size) != 0))
		abort();
	free(out);
	switch (msg.type) {
	case P9_Rmwalk:
		check_nodes(&msg.Rmwalk.nodes);
		break;
	case P9_Rmopen:
		check_nodes(&msg.Rmopen.nodes);
		break;
	case P9_Rreaddir:
		check_dirents(&msg.Rreaddir.data, false, 0);
		break;
	case P9_Rmreaddir:
		for (size_t off = 0; off <= MIN(msg.Rmreaddir.data.size, 16u); off++)
			check_dirents(&msg.Rmreaddir.data, true, off);
		break;
	case P9_Tmwalk: {
		unsigned count;

		(void)p9_path_ok(msg.Tmwalk.path.data, msg.Tmwalk.path.len, &count);
		break;
	}
	default:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t framed = (uint32_t)size + 4, got;
	uint8_t *buf;

	if (size > P9_MSIZE_MAX)
		return 0;
	(void)p9_frame_size(data, size, P9_MSIZE_MAX, &got);
	/* The size is put right, so that the fuzzer need not find it. */
	buf = malloc(framed);
	if (!buf)
		return 0;
	memcpy(buf, &framed, 4);
	if (size)
		memcpy(buf + 4, data, size);
	check_message(buf, framed);
	free(buf);
	return 0;
}

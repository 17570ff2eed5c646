// LINK: moat_wire
/* wire/p9: golden bytes, round trips of every message type, and every truncation rejected. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "wire/p9.h"

static void golden_twalk(void **state)
{
	static const uint8_t want[] = {0x18, 0, 0, 0, 110, 5, 0, 1,   0, 0, 0,	 2,
				       0,    0, 0, 2, 0,   1, 0, 'a', 2, 0, 'b', 'c'};
	struct p9_msg msg = {.type = P9_Twalk, .tag = 5};
	uint8_t buf[64];
	size_t size;

	(void)state;
	msg.Twalk.fid = 1;
	msg.Twalk.newfid = 2;
	msg.Twalk.names.count = 2;
	msg.Twalk.names.name[0] = p9_str("a");
	msg.Twalk.names.name[1] = p9_str("bc");
	assert_int_equal(p9_encode(&msg, buf, sizeof(buf), &size), 0);
	assert_int_equal(size, sizeof(want));
	assert_memory_equal(buf, want, sizeof(want));
}

static void golden_rgetattr_size(void **state)
{
	struct p9_msg msg = {.type = P9_Rgetattr, .tag = 1};
	uint8_t buf[256];
	size_t size;

	(void)state;
	assert_int_equal(p9_encode(&msg, buf, sizeof(buf), &size), 0);
	/* size[4] Rgetattr tag[2] valid[8] qid[13] mode[4] uid[4] gid[4] and 15 words: 160 bytes. */
	assert_int_equal(size, 160);
}

/* A body for `type` out of small values: what decodes must encode to the same bytes. */
static void round_trip_all(void **state)
{
	unsigned seen = 0;

	(void)state;
	srandom(1);
	for (unsigned type = 0; type < P9_TYPE_MAX; type++) {
		if (p9_type_name(type)[1] == '?' || type == P9_Tlerror)
			continue;
		seen++;
		bool hit = false;
		for (unsigned try = 0; try < 3000 && !hit; try++) {
			uint8_t buf[2048], out[2048];
			struct p9_msg msg;
			uint32_t size = P9_HEADER_SIZE + (uint32_t)random() % 300;
			size_t out_size;

			for (unsigned i = 0; i < sizeof(buf); i++)
				buf[i] = random() % 8 ? 0 : (uint8_t)(random() % 4);
			/* Grow until the body is complete, so every type is hit. */
			for (size = P9_HEADER_SIZE; size < 1500; size++) {
				memcpy(buf, &size, 4);
				buf[4] = (uint8_t)type;
				if (p9_decode(buf, size, &msg) == 0) {
					hit = true;
					break;
				}
			}
			if (!hit)
				continue;
			assert_int_equal(p9_encode(&msg, out, sizeof(out), &out_size), 0);
			if (type != P9_Tfsync)
				assert_int_equal(out_size, size);
			assert_memory_equal(out + 4, buf + 4, size - 4);
			for (uint32_t cut = 0; cut < size && type != P9_Tfsync; cut++) {
				uint32_t save = size;

				memcpy(buf, &cut, 4);
				assert_int_not_equal(p9_decode(buf, cut, &msg), 0);
				memcpy(buf, &save, 4);
			}
		}
		assert_true(hit);
	}
	assert_int_equal(seen, 28 * 2 + 25 * 2 + 1);
}

static void nodes_and_fids(void **state)
{
	struct p9_node n = {.qid = {P9_QTDIR, 7, 99},
			    .mode = 040755,
			    .size = 4096,
			    .mtime = {5, 6},
			    .btime = {7, 8}},
		       got;
	uint8_t raw[3 * P9_NODE_SIZE], fids[8];
	struct p9_nodes nodes = {raw, 3};
	struct p9_fids f = {fids, 2};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		n.uid = i;
		p9_node_put(&n, raw + i * P9_NODE_SIZE);
	}
	p9_nodes_get(&nodes, 2, &got);
	assert_int_equal(got.uid, 2);
	assert_int_equal(got.qid.path, 99);
	assert_int_equal(got.btime.nsec, 8);
	p9_fids_put(fids, 0, 11);
	p9_fids_put(fids, 1, 12);
	assert_int_equal(p9_fids_get(&f, 1), 12);
}

static void dirents(void **state)
{
	for (int moat = 0; moat < 2; moat++) {
		struct p9_dirent d = {.offset = 77, .type = 8, .name = p9_str("hello")}, got;
		uint8_t buf[256];
		size_t off = 0, end;

		(void)state;
		assert_int_equal(p9_dirent_put(buf, sizeof(buf), &off, &d, moat), 0);
		assert_int_equal(off, P9_DIRENT_SIZE + 5 - !moat);
		d.has_node = moat;
		d.node.size = 5;
		assert_int_equal(p9_dirent_put(buf, sizeof(buf), &off, &d, moat), 0);
		end = off;
		assert_int_equal(p9_dirent_put(buf, off + 10, &off, &d, moat), -EMSGSIZE);
		assert_int_equal(off, end);
		off = 0;
		assert_int_equal(p9_dirent_get(buf, end, &off, moat, &got), 1);
		assert_false(got.has_node);
		assert_int_equal(p9_dirent_get(buf, end, &off, moat, &got), 1);
		assert_int_equal(got.has_node, moat);
		assert_int_equal(got.offset, 77);
		assert_memory_equal(got.name.data, "hello", 5);
		assert_int_equal(p9_dirent_get(buf, end, &off, moat, &got), 0);
		off = 0;
		assert_int_equal(p9_dirent_get(buf, 12, &off, moat, &got), -EBADMSG);
	}
}

/* A listing of which some entries have attributes, cut anywhere: whole entries, and then the end or an error. */
static void mixed_dirents(void **state)
{
	static const char *const names[] = {".", "a-directory", "file", "link", "other-directory"};
	size_t off = 0, ends[ARRAY_SIZE(names)];
	uint8_t buf[512];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		struct p9_dirent d = {.offset = i,
				      .type = 4,
				      .has_node = strstr(names[i], "directory") != NULL,
				      .node.size = i,
				      .name = p9_str(names[i])};

		if (strcmp(names[i], "link") == 0) {
			d.has_node = true;
			d.target = p9_str("where/to");
		}
		assert_int_equal(p9_dirent_put(buf, sizeof(buf), &off, &d, true), 0);
		ends[i] = off;
	}
	for (size_t cut = 0; cut <= off; cut++) {
		struct p9_dirent d;
		size_t at = 0;
		unsigned i = 0;
		int got;

		for (; (got = p9_dirent_get(buf, cut, &at, true, &d)) == 1; i++) {
			assert_int_equal(at, ends[i]);
			bool is_link = strcmp(names[i], "link") == 0;

			assert_int_equal(d.has_node,
					 is_link || strstr(names[i], "directory") != NULL);
			assert_int_equal(d.target.len, is_link ? 8 : 0);
			if (is_link)
				assert_memory_equal(d.target.data, "where/to", 8);
			assert_int_equal(d.has_node ? d.node.size : i, i);
			assert_int_equal(d.name.len, strlen(names[i]));
		}
		assert_int_equal(got, cut == (i ? ends[i - 1] : 0) ? 0 : -EBADMSG);
	}
}

/* Targets of no length, or of more than there may be. */
static void dirent_targets(void **state)
{
	char target[P9_DIRENT_TARGET_MAX + 1];
	struct p9_dirent d = {.type = 10, .has_node = true, .name = p9_str("l")}, got;
	uint8_t buf[512];

	(void)state;
	memset(target, 't', sizeof(target));
	for (unsigned len = 1; len <= sizeof(target); len++) {
		size_t off = 0, at = 0;

		d.target = (struct p9_str){target, (uint16_t)len};
		assert_int_equal(p9_dirent_put(buf, sizeof(buf), &off, &d, true), 0);
		assert_int_equal(p9_dirent_get(buf, off, &at, true, &got),
				 len <= P9_DIRENT_TARGET_MAX ? 1 : -EBADMSG);
		/* Of no length: then the byte before it would have to say that there is none. */
		if (len == 1) {
			memset(buf + off - 3 - 3, 0, 2);
			at = 0;
			assert_int_equal(p9_dirent_get(buf, off, &at, true, &got), -EBADMSG);
		}
	}
	buf[13 + 8 + 1] = 3;
	assert_int_equal(p9_dirent_get(buf, sizeof(buf), &(size_t){0}, true, &got), -EBADMSG);
}

static void names(void **state)
{
	char longname[300];
	unsigned n;

	(void)state;
	memset(longname, 'a', sizeof(longname));
	assert_true(p9_name_ok("a", 1));
	assert_true(p9_name_ok("...", 3));
	assert_true(p9_name_ok(longname, 255));
	assert_false(p9_name_ok(longname, 256));
	assert_false(p9_name_ok("", 0));
	assert_false(p9_name_ok(".", 1));
	assert_false(p9_name_ok("..", 2));
	assert_false(p9_name_ok("a/b", 3));
	assert_false(p9_name_ok("a\0b", 3));
	assert_true(p9_path_ok("", 0, &n) && n == 0);
	assert_true(p9_path_ok("a/b/c", 5, &n) && n == 3);
	assert_false(p9_path_ok("a//c", 4, &n));
	assert_false(p9_path_ok("/a", 2, &n));
	assert_false(p9_path_ok("a/", 2, &n));
	assert_false(p9_path_ok("a/../c", 6, &n));
	assert_false(p9_path_ok("a/.", 3, &n));
}

static void blob_out_of_line(void **state)
{
	struct p9_msg msg = {.type = P9_Rread}, got;
	uint8_t buf[64];
	size_t size;

	(void)state;
	msg.Rread.data.size = 5;
	assert_int_equal(p9_encode(&msg, buf, sizeof(buf), &size), 0);
	assert_int_equal(size, 11);
	memcpy(buf + size, "hello", 5);
	assert_int_equal(p9_decode(buf, 16, &got), 0);
	assert_memory_equal(got.Rread.data.data, "hello", 5);
}

static void bad_frames(void **state)
{
	uint8_t buf[16] = {6, 0, 0, 0, 120};
	struct p9_msg msg;
	uint32_t size;

	(void)state;
	assert_int_equal(p9_frame_size(buf, 3, 8192, &size), -EAGAIN);
	assert_int_equal(p9_frame_size(buf, 16, 8192, &size), -EBADMSG);
	buf[0] = 7;
	assert_int_equal(p9_frame_size(buf, 16, 8192, &size), 0);
	buf[4] = 3;
	assert_int_equal(p9_decode(buf, 7, &msg), -EOPNOTSUPP);
	buf[4] = P9_Rclunk;
	assert_int_equal(p9_decode(buf, 7, &msg), 0);
	buf[0] = 8;
	assert_int_equal(p9_decode(buf, 8, &msg), -EBADMSG); /* a byte too much */
	assert_int_equal(p9_decode(buf, 9, &msg), -EBADMSG);
}

static void printing(void **state)
{
	struct p9_msg msg = {.type = P9_Tmwalk, .tag = 3};
	char line[256];

	(void)state;
	msg.Tmwalk.path = p9_str("a/\n");
	assert_string_equal(p9_print(&msg, line, 9), "Tmwalk t");
	p9_print(&msg, line, sizeof(line));
	assert_non_null(strstr(line, "Tmwalk tag 3 fid=0"));
	assert_null(strchr(line, '\n'));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_twalk),	    cmocka_unit_test(golden_rgetattr_size),
		cmocka_unit_test(round_trip_all),   cmocka_unit_test(nodes_and_fids),
		cmocka_unit_test(dirents),	    cmocka_unit_test(mixed_dirents),
		cmocka_unit_test(dirent_targets),   cmocka_unit_test(names),
		cmocka_unit_test(blob_out_of_line), cmocka_unit_test(bad_frames),
		cmocka_unit_test(printing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/fs/differential_layers.c - an overlay whose layers are filled from the seed, the same on both sides. */
#include "tests/fs/differential.h"

#include "fsimpl/overlay/overlay.h"

#ifdef DIFFERENTIAL_OVERLAY
#define BOTH(host_call, our_call)                                                                \
	do {                                                                                     \
		int h_ = (int)(host_call), o_ = (int)(our_call);                                 \
                                                                                                 \
		if (h_ != o_) {                                                                  \
			printf("filling the layers: %s: host %d, ours %d\n", #our_call, h_, o_); \
			finish(1);                                                               \
		}                                                                                \
	} while (0)

static void write_file(const char *path, size_t size)
{
	char data[3000];
	struct file *f = NULL;
	int fd;

	memset(data, (int)rnd(256), sizeof(data));
	fd = host_open(path, O_CREAT | O_RDWR, 0644);
	if (fd < 0 || fs_open(&e, path, O_CREAT | O_RDWR, 0644, &f))
		return;
	BOTH(host_pwrite(fd, data, size, 0), fs_pwrite(f, data, size, 0));
	host_close(fd);
	fs_close(f);
}

/*
 * What a layer may hold; upper layers also hide what is below. A whiteout is made only in a directory that has a part in the layer `below`: in
 * one that has not, Linux shows it to readdir. True if there is one.
 */
static bool fill(const char *dir, const char *below, int depth)
{
	char path[300], other[300], under[300] = "";
	struct moat_statx st;
	bool any = false, merged = below && !host_stat(below, false, &st) && S_ISDIR(st.mode);
	uint8_t acl[200];
	size_t acl_size;

	for (int i = 0; i < 6; i++) {
		uint32_t mode = rnd(3) ? 0755 : rnd(010000);
		char name = "abcdefgh"[rnd(8)];
		bool whiteout = false;

		snprintf(path, sizeof(path), "%s/%c", dir, name);
		snprintf(other, sizeof(other), "%s/%c", dir, "abcdefgh"[rnd(8)]);
		if (below)
			snprintf(under, sizeof(under), "%s/%c", below, name);
		switch (rnd(merged ? 10 : 7)) {
		case 0 ... 2:
			if (depth == 3)
				break;
			BOTH(host_mkdir(path, 0755), fs_mkdir(&e, path, 0755));
			whiteout = fill(path, below ? under : NULL, depth + 1);
			if (below && !whiteout && !rnd(4))
				BOTH(host_setxattr(path, "trusted.overlay.opaque", "y", 1, 0),
				     ours_setxattr(path, "trusted.overlay.opaque", "y", 1, 0));
			break;
		case 3 ... 4:
			write_file(path, rnd(3000));
			break;
		case 5:
			BOTH(host_symlink(other, path), fs_symlink(&e, other, path));
			break;
		case 6:
			BOTH(host_link(other, path, false), fs_link(&e, other, path, false));
			break;
		default:
			BOTH(host_mknod(path, S_IFCHR, 0, 0), fs_mknod(&e, path, S_IFCHR, 0, 0));
			whiteout = true;
		}
		any |= whiteout;
		if (rnd(3))
			continue;
		acl_size = make_acl(acl);
		BOTH(host_setxattr(path, "user.one", dir, 3, 0),
		     ours_setxattr(path, "user.one", dir, 3, 0));
		BOTH(host_setxattr(path, "system.posix_acl_access", acl, acl_size, 0),
		     ours_setxattr(path, "system.posix_acl_access", acl, acl_size, 0));
		BOTH(host_chown(path, 1000, 100, true), fs_chown(&e, path, 1000, 100));
		BOTH(host_chmod(path, mode), fs_chmod(&e, path, mode));
	}
	return any;
}

int enter_overlay(void)
{
	static const char *const dirs[] = {"/l3", "/l2", "/l1", "/u", "/w", "/m"};
	char options[200];

	if (overlay_register())
		return -ENOMEM;
	for (int i = 0; i < 6; i++)
		BOTH(host_mkdir(dirs[i], 0755), fs_mkdir(&e, dirs[i], 0755));
	for (int i = 0; i < 4; i++)
		fill(dirs[i], i ? dirs[i - 1] : NULL, 0);
	snprintf(options, sizeof(options),
		 "lowerdir=/l1:/l2:/l3,upperdir=/u,workdir=/w,redirect_dir=%s",
		 seed % 2 ? "on" : "off");
	BOTH(host_mount_type("overlay", "/m", options), fs_mount(&e, "/m", "overlay", 0, options));
	BOTH(host_chroot("/m"), fs_chdir(&e, "/m"));
	return 0;
}
#else
int enter_overlay(void)
{
	return 0;
}
#endif

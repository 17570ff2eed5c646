// LINK: moat_memfs moat_vfs moat_mem moat_base
/* Options of mount(2) and parameters of fsconfig(2), against tmpfs's table and with a type that takes anything. */
#include <stdlib.h>
#include <string.h>

#include "fsimpl/memfs/memfs.h"
#include "vfs/fs_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int any_mount(unused_arg const struct filesystem_type *type, unused_arg const char *source,
		     unused_arg unsigned ms_flags, unused_arg const char *data,
		     unused_arg void *kernel_data, unused_arg struct filesystem **ret_fs,
		     unused_arg struct dentry **ret_root)
{
	return -EINVAL;
}

static const struct filesystem_type any_type = {.name = "any", .mount = any_mount};

static void drain(struct fs_config *c)
{
	char *msg;

	while ((msg = fs_config_pop_message(c))) {
		/* "e TEXT\n", always. */
		if (strncmp(msg, "e ", 2) || msg[strlen(msg) - 1] != '\n')
			abort();
		free(msg);
	}
}

static void try_type(const struct filesystem_type *type, const char *text, const uint8_t *data,
		     size_t size)
{
	struct fs_param p = {.kind = (enum fs_param_kind)(data[0] % 5)};
	struct vfs_lookup who = {0};
	struct fs_config *c;
	char *key;

	if (fs_config_create(type, NULL, NULL, &c))
		return;
	(void)!fs_config_options(c, &who, text);
	drain(c);
	/* One parameter of each kind: the key up to the first '=', then the value. */
	key = strdup(text);
	if (key) {
		p.key = strsep(&key, "=");
		p.string = p.kind == FS_PARAM_FLAG || p.kind == FS_PARAM_FILE ? NULL
			   : key					      ? key
									      : "";
		p.size = p.string ? strlen(p.string) : 0;
		(void)!fs_config_param(c, &who, &p);
		drain(c);
		free((void *)(uintptr_t)p.key);
	}
	if (size && data[size - 1] & 1)
		(void)!fs_config_get_tree(c, &who);
	fs_config_destroy(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;
	const struct filesystem_type *tmpfs;
	char text[4096];

	if (!size)
		return 0;
	if (!ready) {
		if (vfs_init() || memfs_register())
			abort();
		ready = true;
	}
	size = MIN(size, sizeof(text) - 1);
	memcpy(text, data, size);
	text[size] = '\0';
	tmpfs = vfs_find_type("tmpfs", 5);
	if (!tmpfs)
		abort();
	try_type(tmpfs, text, data, size);
	try_type(&any_type, text, data, size);
	return 0;
}

/*
 * fsimpl/overlay/dir.c - merged directories.
 *
 * The first read of an open directory takes a snapshot of all its layers, topmost first; a name seen once hides those below. Cookies are
 * positions in the snapshot; a rewind takes a new one.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "fsimpl/overlay/internal.h"

struct collect {
	struct dir_emit emit;
	struct overlay_dirent *entries;
	size_t count, alloc;
	uint32_t *table; /* open addressing, index + 1; 0 empty */
	size_t table_size;
	struct overlay_fs *fs;
	const struct overlay_lower *layer; /* of the names that come; NULL: the upper */
	bool impure; /* numbers of upper files are looked up */
	int err;
};

#define OVERLAY_DIR_MAX (1u << 24)

static size_t table_slot(const struct collect *c, const char *name, size_t len)
{
	size_t i = hash_bytes(name, len) & (c->table_size - 1);

	while (c->table[i]) {
		const struct overlay_dirent *e = &c->entries[c->table[i] - 1];

		if (e->len == len && memcmp(e->name, name, len) == 0)
			break;
		i = (i + 1) & (c->table_size - 1);
	}
	return i;
}

static int collect_grow(struct collect *c)
{
	size_t alloc = c->alloc ? c->alloc * 2 : 64;
	struct overlay_dirent *entries = realloc(c->entries, alloc * sizeof(*entries));
	uint32_t *table;

	if (!entries)
		return -ENOMEM;
	c->entries = entries;
	table = calloc(alloc * 2, sizeof(*table));
	if (!table)
		return -ENOMEM;
	free(c->table);
	c->table = table;
	c->table_size = alloc * 2;
	c->alloc = alloc;
	for (size_t i = 0; i < c->count; i++)
		table[table_slot(c, entries[i].name, entries[i].len)] = (uint32_t)i + 1;
	return 0;
}

static bool collect_emit(struct dir_emit *emit, const char *name, size_t len, uint64_t ino,
			 unsigned type, int64_t next)
{
	struct collect *c = container_of(emit, struct collect, emit);
	struct overlay_dirent *e;
	size_t slot;

	(void)next;
	if (len <= 2 && name[0] == '.' && (len == 1 || name[1] == '.'))
		return true;
	if (c->count == OVERLAY_DIR_MAX)
		c->err = -ENOMEM;
	if (!c->err && c->count == c->alloc)
		c->err = collect_grow(c);
	if (c->err)
		return false;
	slot = table_slot(c, name, len);
	if (c->table[slot])
		return true;
	e = &c->entries[c->count];
	*e = (struct overlay_dirent){
		.ino = overlay_map_ino(c->fs, c->layer ? c->layer->fsid : c->fs->upper_fsid, ino),
		.type = type,
		.layer = c->layer,
		.len = len,
		.name = strndup(name, len)};
	if (!e->name) {
		c->err = -ENOMEM;
		return false;
	}
	c->table[slot] = (uint32_t)++c->count;
	return true;
}

static int collect_layer(struct overlay_fs *fs, struct collect *c, const struct vfs_path *place)
{
	struct vfs_lookup lk = overlay_layer_lookup(fs, place, "", 0);
	struct file *f;
	size_t before;
	int err = vfs_open(&lk, &(struct open_args){.flags = O_RDONLY | O_DIRECTORY}, &f);

	if (err)
		return err;
	do {
		before = c->count;
		err = file_iterate(f, &c->emit);
	} while (!err && !c->err && c->count != before);
	file_unref(f);
	return err ? err : c->err;
}

void overlay_dirents_free(struct overlay_dirent *entries, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(entries[i].name);
	free(entries);
}

/* May e be a whiteout, or its number another than the layer's? */
static bool must_look(const struct collect *c, const struct overlay_dirent *e)
{
	if (e->type == (S_IFCHR >> 12))
		return true;
	if (!e->layer)
		return c->impure;
	return e->type == (S_IFREG >> 12) && atomic_load(&e->layer->xwhiteouts);
}

/* Whiteouts hid what is below them and go out of the list; copied-up files show the number that they had below. */
static int finish_entries(struct overlay_dentry *dir, struct collect *c)
{
	struct overlay_fs *fs = c->fs;
	size_t kept = 0;

	for (size_t i = 0; i < c->count; i++) {
		struct overlay_dirent *e = &c->entries[i];
		struct vfs_path place = {fs->upper_mount, overlay_upper(dir)}, found;
		struct vfs_lookup lk;
		struct moat_statx st;
		bool whiteout = false;

		if (!must_look(c, e)) {
			c->entries[kept++] = *e;
			continue;
		}
		for (unsigned l = 0; e->layer && l < dir->nlowers; l++)
			if (dir->lowers[l].mount == e->layer->mount)
				place = dir->lowers[l];
		lk = overlay_layer_lookup(fs, &place, e->name, 0);
		if (!vfs_get_path(&lk, &found)) {
			if (!overlay_stat_place(fs, &found, &st)) {
				whiteout = overlay_is_whiteout(fs, &found, &st);
				if (!e->layer && !whiteout)
					e->ino = overlay_upper_ino(fs, &found, st.ino);
			}
			vfs_path_unref(&found);
		}
		if (whiteout)
			free(e->name);
		else
			c->entries[kept++] = *e;
	}
	c->count = kept;
	return 0;
}

int overlay_list_layer(struct overlay_fs *fs, const struct vfs_path *place,
		       struct overlay_dirent **ret, size_t *ret_count)
{
	struct collect c = {.emit = {.emit = collect_emit}, .fs = fs};
	int err = collect_layer(fs, &c, place);

	free(c.table);
	if (err) {
		overlay_dirents_free(c.entries, c.count);
		return err;
	}
	*ret = c.entries;
	*ret_count = c.count;
	return 0;
}

static int snapshot(struct overlay_fs *fs, struct overlay_dentry *dir,
		    struct overlay_dirent **ret_entries, size_t *ret_count)
{
	struct collect c = {.emit = {.emit = collect_emit}, .fs = fs, .impure = dir->impure};
	struct dentry *upper = overlay_upper(dir);
	int err = 0;

	if (upper) {
		struct vfs_path place = {fs->upper_mount, upper};

		err = collect_layer(fs, &c, &place);
	}
	for (unsigned i = 0; !err && i < dir->nlowers; i++) {
		c.layer = overlay_lower_of(fs, dir->lowers[i].mount);
		err = collect_layer(fs, &c, &dir->lowers[i]);
	}
	if (!err)
		err = finish_entries(dir, &c);
	free(c.table);
	if (err) {
		overlay_dirents_free(c.entries, c.count);
		return err;
	}
	*ret_entries = c.entries;
	*ret_count = c.count;
	return 0;
}

void overlay_dir_forget(struct overlay_file *of)
{
	overlay_dirents_free(of->entries, of->nentries);
	of->entries = NULL;
	of->nentries = 0;
	of->have_entries = false;
}

static uint64_t ino_of(const struct overlay_dentry *d)
{
	return atomic_load_explicit(&d->inode->ino, memory_order_relaxed);
}

static uint64_t parent_ino(struct overlay_dentry *dir)
{
	struct overlay_dentry *up;
	uint64_t ino;

	rcu_read_begin();
	up = overlay_parent(dir);
	ino = ino_of(up ? up : dir);
	rcu_read_end();
	return ino;
}

/* file_ops.iterate: positions 0 and 1 are "." and "..", then the snapshot. */
int overlay_dir_iterate(struct file *f, struct dir_emit *ctx)
{
	struct overlay_file *of = (struct overlay_file *)f;
	struct overlay_dentry *dir = overlay_of(f->path.dentry);
	struct overlay_fs *fs = overlay_fs_of_dentry(dir);
	int err = 0;

	if (atomic_load(&dir->base.flags) & DENTRY_DEAD)
		return -ENOENT;
	op_lock(&of->lock);
	if (f->pos == 0 || !of->have_entries) {
		overlay_dir_forget(of);
		/* A change in several steps must not be seen half done. */
		err = op_lock_killable(&fs->change);
		if (!err) {
			err = snapshot(fs, dir, &of->entries, &of->nentries);
			op_unlock(&fs->change);
		}
		of->have_entries = !err;
	}
	while (!err && (size_t)f->pos < of->nentries + 2) {
		bool taken;

		if (f->pos == 0) {
			taken = ctx->emit(ctx, ".", 1, ino_of(dir), S_IFDIR >> 12, 1);
		} else if (f->pos == 1) {
			taken = ctx->emit(ctx, "..", 2, parent_ino(dir), S_IFDIR >> 12, 2);
		} else {
			const struct overlay_dirent *e = &of->entries[f->pos - 2];

			taken = ctx->emit(ctx, e->name, e->len, e->ino, e->type, f->pos + 1);
		}
		if (!taken)
			break;
		f->pos++;
	}
	op_unlock(&of->lock);
	return err;
}

int overlay_dir_empty(struct overlay_fs *fs, struct overlay_dentry *dir)
{
	struct overlay_dirent *entries;
	size_t count;
	int err = snapshot(fs, dir, &entries, &count);

	if (err)
		return err;
	overlay_dirents_free(entries, count);
	return count ? -ENOTEMPTY : 0;
}

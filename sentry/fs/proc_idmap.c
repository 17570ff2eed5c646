/* sentry/fs/proc_idmap.c - /proc/PID/uid_map and gid_map: those of the user namespace that the sandbox was started in. */
#include <stdio.h>

#include "base/buf.h"
#include "sentry/fs/fs.h"
#include "sentry/fs/proc.h"

#define ID_MAP_TEXT_MAX 16384

static struct mutex map_lock = MUTEX_INIT(LOCK_LEAF, "proc_id_map");
/* guarded by map_lock; as the host shows them; empty: the initial namespace's */
static char map_text[2][ID_MAP_TEXT_MAX];

void procfs_set_id_map(bool gids, const char *text)
{
	mutex_lock(&map_lock);
	snprintf(map_text[gids], ID_MAP_TEXT_MAX, "%s", text);
	mutex_unlock(&map_lock);
}

void procfs_show_id_map(bool gids, struct buf *b)
{
	mutex_lock(&map_lock);
	if (map_text[gids][0])
		buf_puts(b, map_text[gids]);
	else
		buf_printf(b, "%10u %10u %10u\n", 0u, 0u, 4294967295u);
	mutex_unlock(&map_lock);
}

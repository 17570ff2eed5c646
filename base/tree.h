/* base/tree.h - libbsd's red-black trees, with prototypes and functions local to one file. */
#ifndef MOAT_BASE_TREE_H
#define MOAT_BASE_TREE_H

#include <bsd/sys/tree.h>

#include "base/compiler.h"

/* RB_PROTOTYPE_STATIC and RB_GENERATE_STATIC in one; libbsd's own need BSD's __unused. */
#define RB_GENERATE_LOCAL(name, type, field, cmp)                        \
	RB_PROTOTYPE_INTERNAL(name, type, field, cmp, unused_arg static) \
	RB_GENERATE_INTERNAL(name, type, field, cmp, unused_arg static)

#endif

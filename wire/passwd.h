/* wire/passwd.h - passwd(5), as far as a process that comes from outside needs it: its user's home directory. */
#ifndef MOAT_WIRE_PASSWD_H
#define MOAT_WIRE_PASSWD_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/*
 * The directory of the first entry with that uid, in *ret_home (malloc'd; "" where the entry has none). Lines without a number for the uid are none. A NUL ends
 * the text. Return: 0, -ENOENT, -ENOMEM.
 */
must_check int passwd_home(const char *text, size_t size, uint32_t uid, char **ret_home);

#endif

/*
 * runtime/terminal.h - the CLI's terminal: raw mode, and bytes between it and the sandbox's console stream.
 *
 * The guest's pty does all line discipline, so the host's terminal is raw while the sandbox runs. Restored on exit, on ^Z, and
 * on errors.
 */
#ifndef MOAT_RUNTIME_TERMINAL_H
#define MOAT_RUNTIME_TERMINAL_H

#include <poll.h>

#include "base/compiler.h"

void terminal_raw(void);
void terminal_restore(void);
must_check int terminal_size(unsigned *ret_rows, unsigned *ret_cols);
/* The terminal's size to a pty's master. */
void terminal_copy_size(int master);
/* Fills pfd[0..2]: standard input, the console stream, standard output. */
void terminal_poll_prepare(int console, struct pollfd *pfd);
/* Moves what can be moved. False when the console stream has ended and all of it was written. */
must_check bool terminal_poll_done(int console, const struct pollfd *pfd);
/* Reads the stream to its end and writes it out. */
void terminal_drain(int console);

#endif

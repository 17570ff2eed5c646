/* tests/fs/backend_gofer.h - what tests of the gofer's client need besides the backend. */
#ifndef MOAT_TESTS_FS_BACKEND_GOFER_H
#define MOAT_TESTS_FS_BACKEND_GOFER_H

struct p9_conn;

/* The newest filesystem's connection; borrowed from it. */
struct p9_conn *backend_gofer_conn(void);
/* If set: puts something between the client and the gofer's end of a connection, which it takes; returns the client's end. */
extern int (*backend_gofer_wrap)(int sock);
/* The host's path of its root. */
const char *backend_gofer_dir(void);

#endif

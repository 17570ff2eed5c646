/*
 * wire/vhost_user.h - the vhost-user protocol's messages, for both ends. No I/O.
 *
 * A message is a 12-byte header and a payload in the machine's byte order; descriptors travel beside it. One table says for each request
 * what payload and how many descriptors it carries, and whether it is answered; vhost_user_check_request() holds a message against it, so
 * whoever gets one reads fields that are there. Values in them (indices, sizes, addresses) are the receiver's to check.
 * Source: QEMU's docs/interop/vhost-user.rst, protocol version 1, with the SHMEM messages of 2025.
 */
#ifndef MOAT_WIRE_VHOST_USER_H
#define MOAT_WIRE_VHOST_USER_H

#include "base/compiler.h"

#define VHOST_USER_VERSION 1u
#define VHOST_USER_FLAG_VERSION 3u /* mask */
#define VHOST_USER_FLAG_REPLY 4u
#define VHOST_USER_FLAG_NEED_REPLY 8u
#define VHOST_USER_HEADER_SIZE 12u
#define VHOST_USER_REGIONS_MAX 8
#define VHOST_USER_FDS_MAX 8
#define VHOST_USER_SHMEM_REGIONS 256
#define VHOST_USER_VRING_INDEX 0xffu /* KICK, CALL, ERR: the payload's low byte */
#define VHOST_USER_VRING_NOFD 0x100u

/* Feature bits of GET_FEATURES that vhost-user itself uses, and virtio's. */
#define VHOST_USER_F_PROTOCOL_FEATURES 30
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX 29
#define VIRTIO_F_VERSION_1_BIT 32

enum vhost_user_protocol_feature {
	VHOST_USER_PROTOCOL_MQ = 0,
	VHOST_USER_PROTOCOL_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_BACKEND_REQ = 5,
	VHOST_USER_PROTOCOL_CONFIG = 9,
	VHOST_USER_PROTOCOL_BACKEND_SEND_FD = 10,
	VHOST_USER_PROTOCOL_INFLIGHT = 12,
	VHOST_USER_PROTOCOL_CONFIGURE_MEM_SLOTS = 15,
	VHOST_USER_PROTOCOL_STATUS = 16,
	VHOST_USER_PROTOCOL_SHMEM = 22,
	/* Ours, from the end where the specification will not come: GET_VERSIONS. Front ends take only bits that they know. */
	VHOST_USER_PROTOCOL_MOAT_VERSIONS = 63,
};

/*
 * X(name, number, payload bytes, fewest fds, most fds, reply bytes, has its own reply)
 * SET_MEM_TABLE's payload is shorter when it has fewer regions; a reply of 0 bytes only comes by NEED_REPLY.
 */
#define VHOST_USER_REQUESTS(X)                          \
	X(GET_FEATURES, 1, 0, 0, 0, 8, true)            \
	X(SET_FEATURES, 2, 8, 0, 0, 0, false)           \
	X(SET_OWNER, 3, 0, 0, 0, 0, false)              \
	X(RESET_OWNER, 4, 0, 0, 0, 0, false)            \
	X(SET_MEM_TABLE, 5, 264, 0, 8, 0, false)        \
	X(SET_VRING_NUM, 8, 8, 0, 0, 0, false)          \
	X(SET_VRING_ADDR, 9, 40, 0, 0, 0, false)        \
	X(SET_VRING_BASE, 10, 8, 0, 0, 0, false)        \
	X(GET_VRING_BASE, 11, 8, 0, 0, 8, true)         \
	X(SET_VRING_KICK, 12, 8, 0, 1, 0, false)        \
	X(SET_VRING_CALL, 13, 8, 0, 1, 0, false)        \
	X(SET_VRING_ERR, 14, 8, 0, 1, 0, false)         \
	X(GET_PROTOCOL_FEATURES, 15, 0, 0, 0, 8, true)  \
	X(SET_PROTOCOL_FEATURES, 16, 8, 0, 0, 0, false) \
	X(GET_QUEUE_NUM, 17, 0, 0, 0, 8, true)          \
	X(SET_VRING_ENABLE, 18, 8, 0, 0, 0, false)      \
	X(SET_BACKEND_REQ_FD, 21, 0, 1, 1, 0, false)    \
	X(GET_CONFIG, 24, 268, 0, 0, 268, true)         \
	X(GET_MAX_MEM_SLOTS, 36, 0, 0, 0, 8, true)      \
	X(ADD_MEM_REG, 37, 40, 1, 1, 0, false)          \
	X(REM_MEM_REG, 38, 40, 0, 1, 0, false)          \
	X(SET_STATUS, 39, 8, 0, 0, 0, false)            \
	X(GET_STATUS, 40, 0, 0, 0, 8, true)             \
	X(GET_SHMEM_CONFIG, 44, 0, 0, 0, 2056, true)    \
	X(GET_VERSIONS, 0x4d6f0001, 0, 0, 0, 16, true)

/* On the back channel, from the device to the driver's side. */
#define VHOST_USER_BACKEND_REQUESTS(X)      \
	X(SHMEM_MAP, 9, 40, 1, 1, 0, false) \
	X(SHMEM_UNMAP, 10, 40, 0, 0, 0, false)

#define X(name, number, size, fds_min, fds_max, reply_size, replied) VHOST_USER_##name = number,
enum vhost_user_request { VHOST_USER_REQUESTS(X) };
#undef X
#define X(name, number, size, fds_min, fds_max, reply_size, replied) \
	VHOST_USER_BACKEND_##name = number,
enum vhost_user_backend_request { VHOST_USER_BACKEND_REQUESTS(X) };
#undef X

struct vhost_user_vring_state {
	uint32_t index, num;
};

struct vhost_user_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail; /* by the user addresses of the memory table */
	uint64_t log;
};

struct vhost_user_region {
	uint64_t guest_addr, size, user_addr, mmap_offset;
};

struct vhost_user_mem_table {
	uint32_t count, padding;
	struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
};

struct vhost_user_mem_slot {
	uint64_t padding;
	struct vhost_user_region region;
};

struct vhost_user_config {
	uint32_t offset, size, flags;
	uint8_t data[256];
};

struct vhost_user_shmem_config {
	uint32_t count, padding;
	uint64_t sizes[VHOST_USER_SHMEM_REGIONS];
};

/* GET_VERSIONS' answer, which brings the table (wire/version_table.h) and, if has_notify, what tells of unread changes. */
struct vhost_user_versions {
	uint64_t size;
	uint32_t watcher; /* whose `busy` word in the table is this connection's */
	uint32_t has_notify;
};

/* SHMEM_MAP, SHMEM_UNMAP */
struct vhost_user_shmem_map {
	uint8_t id, padding[7];
	uint64_t fd_offset, shm_offset, size;
	uint64_t flags; /* VHOST_USER_SHMEM_RW */
};
#define VHOST_USER_SHMEM_RW 1u

/* As on the wire: VHOST_USER_HEADER_SIZE + size bytes. */
struct vhost_user_msg {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct vhost_user_vring_state state;
		struct vhost_user_vring_addr addr;
		struct vhost_user_mem_table mem;
		struct vhost_user_mem_slot slot;
		struct vhost_user_config config;
		struct vhost_user_shmem_config shmem_config;
		struct vhost_user_shmem_map shmem_map;
		struct vhost_user_versions versions;
	} __attribute__((packed, aligned(4)));
} __attribute__((packed, aligned(4)));

#define VHOST_USER_PAYLOAD_MAX (sizeof(struct vhost_user_msg) - VHOST_USER_HEADER_SIZE)

/* "SET_MEM_TABLE", or "?". */
const char *vhost_user_name(uint32_t request);
/* A request that starts here: header filled in, payload zero. need_reply: NEED_REPLY unless it has a reply of its own. */
void vhost_user_request_init(struct vhost_user_msg *m, uint32_t request, bool need_reply);
/* The same on the back channel, where every request wants its answer. */
void vhost_user_backend_request_init(struct vhost_user_msg *m, uint32_t request);
/* m answers `request` of the back channel: a u64, 0 for success. Return: 0, -EPROTO. */
must_check int vhost_user_check_backend_reply(const struct vhost_user_msg *m, uint32_t request);
/* Does the request have an answer of its own? */
bool vhost_user_has_reply(uint32_t request);
/* A reply to `request` (a u64 for NEED_REPLY). */
void vhost_user_reply_init(struct vhost_user_msg *m, const struct vhost_user_msg *request,
			   bool backend);

/* The header alone, before its payload is read. Return: 0, -EPROTO (version, size). */
must_check int vhost_user_check_header(const struct vhost_user_msg *m);
/* A whole request with its descriptors. backend: from the back channel. Return: 0, -EPROTO, -EOPNOTSUPP (unknown). */
must_check int vhost_user_check_request(const struct vhost_user_msg *m, unsigned fds, bool backend);
/* m answers `request`. Return: 0, -EPROTO. */
must_check int vhost_user_check_reply(const struct vhost_user_msg *m, uint32_t request,
				      bool need_reply);

#endif

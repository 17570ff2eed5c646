/* wire/vhost_user.c - vhost-user messages: the table and what it lets through. */
#include "wire/vhost_user.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

_Static_assert(offsetof(struct vhost_user_msg, u64) == VHOST_USER_HEADER_SIZE, "header");
_Static_assert(sizeof(struct vhost_user_mem_table) == 264, "memory table");
_Static_assert(sizeof(struct vhost_user_vring_addr) == 40, "vring address");
_Static_assert(sizeof(struct vhost_user_mem_slot) == 40, "memory slot");
_Static_assert(sizeof(struct vhost_user_shmem_map) == 40, "shared memory map");
_Static_assert(sizeof(struct vhost_user_config) == 268, "configuration");

struct request_info {
	const char *name;
	uint32_t number;
	uint16_t size;
	uint8_t fds_min, fds_max;
	uint16_t reply_size;
	bool replied;
};

#define X(name, number, size, fds_min, fds_max, reply_size, replied) \
	{#name, number, size, fds_min, fds_max, reply_size, replied},
static const struct request_info requests[] = {VHOST_USER_REQUESTS(X)};
static const struct request_info backend_requests[] = {VHOST_USER_BACKEND_REQUESTS(X)};
#undef X

static const struct request_info *find(uint32_t number, bool backend)
{
	const struct request_info *table = backend ? backend_requests : requests;
	size_t count = backend ? ARRAY_SIZE(backend_requests) : ARRAY_SIZE(requests);

	for (size_t i = 0; i < count; i++)
		if (table[i].number == number)
			return &table[i];
	return NULL;
}

const char *vhost_user_name(uint32_t request)
{
	const struct request_info *r = find(request, false);

	return r ? r->name : "?";
}

void vhost_user_backend_request_init(struct vhost_user_msg *m, uint32_t request)
{
	const struct request_info *r = find(request, true);

	memset(m, 0, sizeof(*m));
	m->request = request;
	m->flags = VHOST_USER_VERSION | VHOST_USER_FLAG_NEED_REPLY;
	m->size = r ? r->size : 0;
}

int vhost_user_check_backend_reply(const struct vhost_user_msg *m, uint32_t request)
{
	return vhost_user_check_header(m) || m->request != request ||
			       !(m->flags & VHOST_USER_FLAG_REPLY) || m->size != sizeof(m->u64)
		       ? -EPROTO
		       : 0;
}

bool vhost_user_has_reply(uint32_t request)
{
	const struct request_info *r = find(request, false);

	return r && r->replied;
}

void vhost_user_request_init(struct vhost_user_msg *m, uint32_t request, bool need_reply)
{
	const struct request_info *r = find(request, false);

	memset(m, 0, sizeof(*m));
	m->request = request;
	m->flags = VHOST_USER_VERSION;
	m->size = r ? r->size : 0;
	if (need_reply && !(r && r->replied))
		m->flags |= VHOST_USER_FLAG_NEED_REPLY;
}

void vhost_user_reply_init(struct vhost_user_msg *m, const struct vhost_user_msg *request,
			   bool backend)
{
	const struct request_info *r = find(request->request, backend);
	uint32_t number = request->request;

	memset(m, 0, sizeof(*m));
	m->request = number;
	m->flags = VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY;
	m->size = r && r->replied ? r->reply_size : sizeof(m->u64);
}

int vhost_user_check_header(const struct vhost_user_msg *m)
{
	if ((m->flags & VHOST_USER_FLAG_VERSION) != VHOST_USER_VERSION)
		return -EPROTO;
	return m->size > VHOST_USER_PAYLOAD_MAX ? -EPROTO : 0;
}

/* A memory table is as long as its regions need, and brings a descriptor for each. */
static int check_mem_table(const struct vhost_user_msg *m, unsigned fds)
{
	uint32_t count = m->mem.count;

	if (m->size < 8 || count > VHOST_USER_REGIONS_MAX || fds != count)
		return -EPROTO;
	return m->size >= 8 + count * sizeof(struct vhost_user_region) ? 0 : -EPROTO;
}

int vhost_user_check_request(const struct vhost_user_msg *m, unsigned fds, bool backend)
{
	const struct request_info *r = find(m->request, backend);
	int err = vhost_user_check_header(m);

	if (err)
		return err;
	if (m->flags & VHOST_USER_FLAG_REPLY)
		return -EPROTO;
	if (!r)
		return -EOPNOTSUPP;
	if (!backend && m->request == VHOST_USER_SET_MEM_TABLE)
		return check_mem_table(m, fds);
	/* GET_CONFIG carries as many bytes of data as are asked for. */
	if (!backend && m->request == VHOST_USER_GET_CONFIG)
		return m->size >= 12 && m->size <= r->size && !fds ? 0 : -EPROTO;
	if (m->size != r->size || fds < r->fds_min || fds > r->fds_max)
		return -EPROTO;
	return 0;
}

int vhost_user_check_reply(const struct vhost_user_msg *m, uint32_t request, bool need_reply)
{
	const struct request_info *r = find(request, false);
	uint32_t size = need_reply && !(r && r->replied) ? (uint32_t)sizeof(m->u64)
			: r				 ? r->reply_size
							 : 0;

	if (vhost_user_check_header(m) || m->request != request ||
	    !(m->flags & VHOST_USER_FLAG_REPLY))
		return -EPROTO;
	if (request == VHOST_USER_GET_CONFIG)
		return m->size >= 12 && m->size <= size ? 0 : -EPROTO;
	return m->size == size ? 0 : -EPROTO;
}

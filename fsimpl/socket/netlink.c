#include "fsimpl/socket/family.h"
int netlink_socket_create(unused_arg int type, unused_arg int protocol, unused_arg unsigned flags,
			  unused_arg struct file **ret)
{
	return -EAFNOSUPPORT;
}

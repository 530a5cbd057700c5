/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier/acked.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

bool acked_bytes(int fd, uint64_t *ret) {
	struct tcp_info info = {0};
	socklen_t len = sizeof info;

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return false;
	*ret = info.tcpi_bytes_acked;
	return true;
}

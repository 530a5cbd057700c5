/* SPDX-License-Identifier: Apache-2.0
 * One packet with its descriptors over an AF_UNIX SOCK_SEQPACKET socket.
 *
 * Fails   BUSY: nothing there, or no room now. REFUSED: the peer is gone. INPUT: a packet that was
 * cut or has more descriptors than any message; what came with it is closed. */
#pragma once

#include "agent/ipc/message.h"

struct ipc_packet {
	uint8_t bytes[IPC_PACKET_MAX];
	size_t len;
	int fds[IPC_FDS_MAX]; /* the receiver's: taken out (set to -1) or closed by channel_discard() */
	size_t fd_count;
};

/* The descriptors stay the caller's. */
CEDE_MUST_USE int channel_send(int socket, const struct ipc_writer *w, const int *fds,
	size_t fd_count, struct cede_error *reterr);
CEDE_MUST_USE int channel_receive(int socket, struct ipc_packet *ret, struct cede_error *reterr);
void channel_discard(struct ipc_packet *packet);

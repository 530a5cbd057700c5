/* SPDX-License-Identifier: Apache-2.0
 * Tells the service manager (sd_notify(3)'s datagram, by hand). Does nothing without NOTIFY_SOCKET. */
#pragma once

void notify_ready(void);
void notify_stopping(void);
/* One line for `systemctl status`; never names of captures. */
void notify_status(const char *text);

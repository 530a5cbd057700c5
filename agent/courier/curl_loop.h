/* SPDX-License-Identifier: Apache-2.0
 * One libcurl multi handle on the loop: poll handles for its sockets, one timer.
 *
 * Promise what a broken transfer has left in the kernel does not go out any more: on a slow link it would
 *         be in the way of the next for minutes.
 *         A poll handle is stopped before its socket is closed (libuv aborts otherwise, and libcurl may
 *         close a socket before it says so); finished transfers are collected after every action.
 * Thread  loop thread. on_done and on_broken never run inside a libcurl call-back. */
#pragma once

#include <curl/curl.h>
#include <uv.h>

#include "base/error.h"

struct curl_loop;

typedef void curl_loop_done_fn(void *ctx, CURL *easy, CURLcode result);
/* libcurl gave up (no memory): no transfer of it will end, and none can be started. */
typedef void curl_loop_broken_fn(void *ctx, const char *why);

/* easy waits for this socket: its own until the transfer ends, or another one is said. Called from
 * within libcurl. */
typedef void curl_loop_socket_fn(CURL *easy, int fd);

CEDE_MUST_USE int curl_loop_new(uv_loop_t *loop, curl_loop_done_fn *on_done,
	curl_loop_broken_fn *on_broken, curl_loop_socket_fn *on_socket, void *ctx,
	struct curl_loop **ret, struct cede_error *reterr);
/* Prepares easy for this loop (its socket call-backs) and starts it. */
CEDE_MUST_USE int curl_loop_add(struct curl_loop *c, CURL *easy, struct cede_error *reterr);
/* Takes it out again, at any time but from within a libcurl call-back. */
void curl_loop_remove(struct curl_loop *c, CURL *easy);

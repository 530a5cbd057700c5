/* SPDX-License-Identifier: Apache-2.0
 * Sanitizers map terabytes, read files of their own and make calls of their own: a build with them
 * has no seccomp, no Landlock and no locked memory, and tells that as missing layers. */
#pragma once

#ifdef CEDE_SANITIZED
#define SANDBOX_SANITIZED 1
#else
#define SANDBOX_SANITIZED 0
#endif

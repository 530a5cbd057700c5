/* SPDX-License-Identifier: Apache-2.0
 * What the manifest's writer and reader share. */
#pragma once

#define MANIFEST_TYPE "cede-manifest/1"

/* SPDX-License-Identifier: Apache-2.0
 * cede doctor: is this host able to keep its promises? (agent/doctor/doctor.h) */
#pragma once

int cmd_doctor(int argc, char **argv);

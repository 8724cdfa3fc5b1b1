/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults: the n-th system call of the daemon's disk and of its index fails, or the process is killed at it.
 *
 * tests/faults/dircached is the daemon from the very objects of the released one, but for disk.o:
 * tests/faults/disk.c is linked in front of it. SQLite's calls are reached by its xSetSystemCall
 * (tests/faults/index.c). Nothing of this is in the released program.
 *
 * What is to fail is told by the file that the environment variable DIRCACHE_FAULTS names, which the test has
 * mapped, too: so a test arms it at the moment it means, and sees at once what came of it. Without the
 * variable nothing fails.
 */
#ifndef DIRCACHE_TESTS_FAULTS_FAULT_H
#define DIRCACHE_TESTS_FAULTS_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* The file, in the machine's own order of bytes; tests/faults/faults.py knows it by these offsets. */
struct fault_orders {
	_Atomic(int64_t) left; /* calls until one fails, that one included; 0: none does */
	int32_t errnum;        /* what it fails as; 0: the process is killed */
	int32_t pad;
	char call[112]; /* out: the one that failed */
};

/**
 * Count a system call that is about to be made. For EINTR only those count that a signal can interrupt.
 *
 * @call  its words, for the test's report
 *
 * Any thread. Return: must it not be made, but fail as errno says?
 */
bool fault_is_due(const char *call);

#endif

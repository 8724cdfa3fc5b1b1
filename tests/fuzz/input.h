/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: bytes read as choices. Every input is one: what is behind its end is zeros.
 *
 * A request is a byte for its method, two for which of the method's keys are there, one for what is odd about
 * it, and then for each key what its value takes, most often one byte: below 0xf0 it chooses from values that
 * make sense there or nearly so, above it is a value of any kind. make-corpus.py writes the same.
 */
#ifndef DIRCACHE_TESTS_FUZZ_INPUT_H
#define DIRCACHE_TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

struct input {
	const uint8_t *bytes;
	size_t len;
};

/* Descriptors that go with a message. */
struct input_fds {
	int fds[WIRE_DESCRIPTORS_MAX];
	size_t n;
};

uint8_t input_byte(struct input *input);

/* A byte for the length, and so many, borrowed. Return: how many were there. */
size_t input_bytes(struct input *input, const uint8_t **bytes);

/* Open descriptors, a byte for the sort of each: files with bytes from the input or not, of any mode,
 * folders, pipes, sockets, devices, what is the store's. */
void input_take_fds(struct input *input, struct input_fds *fds, size_t n);
void input_close_fds(struct input_fds *fds);

/* Write a request, and open what is to go with it. */
void input_request(struct input *input, struct wire_out *message, uint32_t id, struct input_fds *fds);

#endif

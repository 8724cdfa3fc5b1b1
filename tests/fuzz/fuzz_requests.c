/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence of what clients may do to the daemon, which runs in this process (world.h): connect, hang up by
 * half or whole, send requests of every method with any values under the keys that it knows, cut them, send
 * any bytes, send descriptors of every sort, read answers or not, let the daemon go on for a while. Answers
 * are checked as client.h says; in the end all clients go, and nothing may be left.
 *
 * The daemon lives on, so that one input meets what others have left. Every INPUTS_A_STORE inputs, and when
 * one has stopped it, the store is looked through by `verify`, emptied by `gc`, and begun anew. An input that
 * fails because of those before it is found with FUZZ_HISTORY=FOLDER, where all since the last beginning are
 * kept, to be run together, in the order of their names.
 */
#include "tests/fuzz/fuzz.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/alloc.h"
#include "tests/fuzz/client.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/world.h"

enum {
	CLIENTS = 4,
	ACTIONS_MAX = 64,
	INPUTS_A_STORE = 200,
	STORE_SIZE = 6 << 20, /* the reserve takes 4 MiB of that, so that there is something to evict */
	OTHER_UID = 12345,
};

static struct client clients[CLIENTS];
static unsigned n_inputs;

/* ---- actions ---- */

static void act_connect(struct client *client, struct input *input)
{
	uint8_t choice = input_byte(input);

	client_hang_up(client);
	client_connect(client, choice & 1 ? OTHER_UID : geteuid());
}

static void act_hang_up(struct client *client, struct input *input)
{
	(void)input;
	client_hang_up(client);
}

static void act_shut_down(struct client *client, struct input *input)
{
	static const int hows[] = { SHUT_RD, SHUT_WR, SHUT_RDWR };

	(void)shutdown(client->sock, hows[input_byte(input) % N_ELEMENTS(hows)]);
	client->is_wild = true;
}

/* Is it a whole message, within the limits? Of another the daemon takes leave. */
static bool is_message(const struct wire_out *message)
{
	struct wire_scanner scanner;

	wire_scanner_init(&scanner, &wire_default_limits);
	return wire_scanner_feed(&scanner, message->data, message->len, NULL) == WIRE_WHOLE &&
	       scanner.offset == message->len;
}

static void send_request(struct client *client, struct input *input, size_t part, size_t whole)
{
	struct wire_out message = { 0 };
	struct input_fds fds = { .n = 0 };
	size_t len;

	input_request(input, &message, client->last_id + 1, &fds);
	len = message.len * part / whole;
	client->is_wild |= !is_message(&message);
	if (len && client_send(client, message.data, len, fds.fds, fds.n) && len == message.len) {
		client->last_id++;
		client->n_asked++;
	} else {
		client->is_wild = true;
	}
	input_close_fds(&fds);
	wire_out_fini(&message);
}

static void act_request(struct client *client, struct input *input)
{
	send_request(client, input, 1, 1);
}

static void act_cut_request(struct client *client, struct input *input)
{
	send_request(client, input, input_byte(input), 255);
}

static void act_bytes(struct client *client, struct input *input)
{
	struct input_fds fds = { .n = 0 };
	const uint8_t *bytes;
	size_t len = input_bytes(input, &bytes);

	input_take_fds(input, &fds, input_byte(input) % 4);
	client->is_wild = true;
	if (len)
		(void)client_send(client, bytes, len, fds.fds, fds.n);
	input_close_fds(&fds);
}

static void act_read(struct client *client, struct input *input)
{
	(void)input;
	client_read(client);
}

static void act_wait(struct client *client, struct input *input)
{
	(void)input;
	client_wait(client);
}

static void act_turn(struct client *client, struct input *input)
{
	(void)client;
	for (unsigned n = input_byte(input) % 8; n > 0; n--)
		world_turn();
}

static void (*const actions[])(struct client *client, struct input *input) = {
	act_connect, act_hang_up, act_shut_down, act_request, act_cut_request,
	act_bytes,   act_read,    act_wait,      act_turn,    act_request, /* twice as often */
};

/* One byte: the action, and by whom. Who is not connected connects first. */
static void act(struct input *input)
{
	uint8_t byte = input_byte(input);
	struct client *client = &clients[(byte >> 4) % CLIENTS];

	if (client->sock < 0)
		client_connect(client, byte & 0x80 ? OTHER_UID : geteuid());
	actions[(byte & 15) % N_ELEMENTS(actions)](client, input);
}

/* ---- the store, from beginning to end ---- */

static void begin_call(struct client *client, struct wire_out *message, const char *method, size_t n)
{
	wire_request(message, client->last_id + 1, method);
	wire_map(message, n);
}

/* Files and index agree, and no client can have put anything where verify does not like it. */
static void check_store(struct client *client)
{
	struct wire_out message = { 0 };

	begin_call(client, &message, "verify", 0);
	client_call(client, &message);
	client_must_succeed(client);
	assert(client->value == 0);
}

/* Without tags and leases nothing is held: all of it can be evicted. */
static void check_holds(struct client *client)
{
	struct wire_out message = { 0 };

	while (tags_n(world.cache.tags)) {
		begin_call(client, &message, "tag", 2);
		wire_put_text(&message, "name", tags_at(world.cache.tags, 0).name);
		wire_put_bool(&message, "delete", true);
		client_call(client, &message);
		client_must_succeed(client);
	}
	begin_call(client, &message, "gc", 1);
	wire_put_uint(&message, "to", 0);
	client_call(client, &message);
	client_must_succeed(client);
	if (leases_n(world.cache.leases) > 0)
		return;
	begin_call(client, &message, "stats", 0);
	client_call(client, &message);
	client_must_succeed(client);
	assert(client->value == 0);
	assert(trees_n(world.cache.trees) == 0);
}

static void end_store(void)
{
	struct client client;

	if (!world.is_running)
		return;
	client_init(&client);
	if (!world.service.stopping) {
		client_connect(&client, geteuid());
		check_store(&client);
		check_holds(&client);
		client_hang_up(&client);
		while (world.conns.n)
			world_turn();
	}
	world_stop();
	world_empty(world.store);
}

static void begin_store(void)
{
	int r;

	world_make(end_store);
	for (unsigned i = 0; i < CLIENTS; i++)
		client_init(&clients[i]);
	for (unsigned i = 0; i < CLIENT_DIGESTS; i++)
		client_digests[i] = digest_empty;
	r = world_start(STORE_SIZE);
	assert(r == 0);
	n_inputs = 0;
}

static void keep_input(const uint8_t *bytes, size_t len)
{
	const char *folder = getenv("FUZZ_HISTORY");
	AUTO_FREE char *path = NULL;
	FILE *file;

	if (!folder)
		return;
	if (n_inputs == 0)
		world_empty(folder);
	path = xasprintf("%s/%03u", folder, n_inputs);
	file = fopen(path, "w");
	assert(file);
	(void)fwrite(bytes, 1, len, file);
	(void)fclose(file);
}

/* All answers that are due, then everybody goes. */
static void end_input(bool wait)
{
	for (unsigned i = 0; i < CLIENTS && wait; i++)
		client_wait(&clients[i]);
	for (unsigned i = 0; i < CLIENTS; i++)
		client_hang_up(&clients[i]);
	while (world.conns.n)
		world_turn();
	world_settle();
	world_check_idle();
	world_empty_out();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input input = { bytes, len };
	bool wait;

	if (!world.is_running)
		begin_store();
	keep_input(bytes, len);
	wait = !(input_byte(&input) & 1);
	for (unsigned i = 0; i < ACTIONS_MAX && input.len; i++)
		act(&input);
	end_input(wait);
	if (++n_inputs == INPUTS_A_STORE || world.service.stopping)
		end_store();
	return 0;
}

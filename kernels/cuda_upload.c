/*
 * Weights on the card: a stored tensor is uploaded when it is first adopted, and every budget reads
 * that one copy. Tensors lie side by side in large blocks. Where the card has no room for the whole
 * model, a budget's own rows and columns are gathered instead, into memory of whoever asks. Reading
 * the mapping and copying overlap: pages are gathered in pinned buffers, each of which is on its
 * way while the next one fills.
 */
#include "base/hash.h"
#include "base/memory.h"
#include "base/size.h"
#include "kernels/cuda_pass.h"
#include <stdlib.h>
#include <string.h>

#define N_STAGES 4
#define STAGE_BYTES ((size_t)8 << 20)
#define ALIGNMENT 256

struct uploaded {
	const void *host; // NULL = free
	unsigned char *at;
	size_t bytes;
};

struct block {
	unsigned char *memory;
	size_t size, used;
	size_t n_live; // tensors in it
};

struct cuda_uploads {
	struct uploaded *table; // open addressing, n_slots a power of two
	size_t n_slots, n_used;
	struct block *blocks; // the last one is being filled
	size_t n_blocks, blocks_capacity;
	uint64_t bytes; // of all blocks
	cudaStream_t stream;
	struct {
		void *memory;
		cudaEvent_t sent;
		bool busy;
	} stages[N_STAGES];
	int next;
	bool pending; // copies that no pass has waited for
};

static struct uploaded *slot_of(const struct cuda_uploads *u, const void *host)
{
	size_t i = (size_t)hash_mix((uintptr_t)host) & (u->n_slots - 1);
	while (u->table[i].host && u->table[i].host != host)
		i = (i + 1) & (u->n_slots - 1);
	return &u->table[i];
}

static int grow_table(struct cuda_uploads *u, struct error *err)
{
	struct uploaded *old = u->table;
	size_t n = u->n_slots;
	if (u->n_used * 2 < n)
		return 0;
	u->table = mem_new(n ? 2 * n : 1024, sizeof *u->table, err);
	if (!u->table) {
		u->table = old;
		return -1;
	}
	u->n_slots = n ? 2 * n : 1024;
	for (size_t i = 0; i < n; i++)
		if (old[i].host)
			*slot_of(u, old[i].host) = old[i];
	free(old);
	return 0;
}

static int open_uploads(struct device *device, struct error *err)
{
	struct cuda_uploads *u = device->uploads = mem_new(1, sizeof *u, err);
	if (!u)
		return -1;
	cudaError_t error = cudaStreamCreateWithFlags(&u->stream, cudaStreamNonBlocking);
	for (int i = 0; i < N_STAGES && error == cudaSuccess; i++) {
		error = cudaHostAlloc(&u->stages[i].memory, STAGE_BYTES, cudaHostAllocDefault);
		if (error == cudaSuccess)
			error = cudaEventCreateWithFlags(&u->stages[i].sent, cudaEventDisableTiming);
	}
	return error == cudaSuccess
			   ? 0
			   : fail(err, "buffers for uploading weights: %s", cudaGetErrorString(error));
}

/* Room for bytes in the last block or a new one. Blocks grow with the model: a small one should
 * not take a gigabyte. */
static unsigned char *place(struct cuda_uploads *u, size_t bytes, struct error *err)
{
	struct block *last = u->n_blocks ? &u->blocks[u->n_blocks - 1] : NULL;
	bytes = (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
	if (!last || last->size - last->used < bytes) {
		size_t size = (size_t)card_block_bytes(u->bytes);
		size_t free_bytes = 0, total = 0;
		void *memory = NULL;
		size = size < bytes ? bytes : size;
		if (mem_grow(&u->blocks, &u->blocks_capacity, u->n_blocks + 1, sizeof *u->blocks, err))
			return NULL;
		cudaMemGetInfo(&free_bytes, &total);
		if (size > free_bytes && bytes < free_bytes)
			size = bytes; // the end of the card
		if (cudaMalloc(&memory, size) != cudaSuccess) {
			cudaGetLastError();
			char a[32], b[32], c[32], d[32];
			fail(err,
				 "the weights do not fit the card: %s are uploaded, %s of %s are left and a tensor "
				 "of "
				 "%s comes next",
				 size_text(u->bytes, a), size_text(free_bytes, b), size_text(total, c),
				 size_text(bytes, d));
			return NULL;
		}
		last = &u->blocks[u->n_blocks++];
		*last = (struct block){.memory = memory, .size = size};
		u->bytes += size;
	}
	unsigned char *at = last->memory + last->used;
	last->used += bytes;
	last->n_live++;
	return at;
}

static void leave_block(struct cuda_uploads *u, const unsigned char *at)
{
	for (size_t i = 0; i < u->n_blocks; i++)
		if (at >= u->blocks[i].memory && at < u->blocks[i].memory + u->blocks[i].size)
			u->blocks[i].n_live--;
}

/* Fills the next pinned buffer and sends it whenever it is full. */
struct sender {
	struct cuda_uploads *u;
	cudaStream_t stream;
	unsigned char *to; // where the buffer goes
	size_t filled;
	cudaError_t error;
};

static void flush(struct sender *sender)
{
	struct cuda_uploads *u = sender->u;
	int i = u->next;
	if (sender->filled == 0)
		return;
	if (sender->error == cudaSuccess)
		sender->error = cudaMemcpyAsync(sender->to, u->stages[i].memory, sender->filled,
										cudaMemcpyHostToDevice, sender->stream);
	if (sender->error == cudaSuccess)
		sender->error = cudaEventRecord(u->stages[i].sent, sender->stream);
	u->stages[i].busy = true;
	u->next = (i + 1) % N_STAGES;
	sender->to += sender->filled;
	sender->filled = 0;
}

static void send(struct sender *sender, const unsigned char *from, size_t bytes)
{
	struct cuda_uploads *u = sender->u;
	for (size_t done = 0, part; done < bytes && sender->error == cudaSuccess; done += part) {
		if (sender->filled == 0 && u->stages[u->next].busy)
			sender->error = cudaEventSynchronize(u->stages[u->next].sent);
		part = bytes - done < STAGE_BYTES - sender->filled ? bytes - done
														   : STAGE_BYTES - sender->filled;
		memcpy((unsigned char *)u->stages[u->next].memory + sender->filled, from + done, part);
		sender->filled += part;
		if (sender->filled == STAGE_BYTES)
			flush(sender);
	}
}

static int sent(struct sender *sender, struct error *err)
{
	flush(sender);
	return sender->error == cudaSuccess ? 0
										: fail(err, "the card failed at uploading weights: %s",
											   cudaGetErrorString(sender->error));
}

static struct cuda_uploads *uploads_of(struct device *device, struct error *err)
{
	if (!device->uploads && open_uploads(device, err))
		cuda_uploads_close(device);
	return device->uploads;
}

uint64_t cuda_missing(const struct device *device, const void *host, size_t bytes)
{
	const struct cuda_uploads *u = device->uploads;
	const struct uploaded *slot = u && u->n_slots ? slot_of(u, host) : NULL;
	return slot && slot->host && slot->bytes >= bytes ? 0 : bytes;
}

const void *cuda_adopt(struct device *device, const void *host, size_t bytes, struct error *err)
{
	struct cuda_uploads *u = uploads_of(device, err);
	if (!u || grow_table(u, err))
		return NULL;
	struct uploaded *slot = slot_of(u, host);
	if (slot->host && slot->bytes >= bytes)
		return slot->at;
	unsigned char *at = place(u, bytes, err);
	if (!at)
		return NULL;
	struct sender sender = {.u = u, .stream = u->stream, .to = at};
	send(&sender, host, bytes);
	u->pending = true;
	if (sent(&sender, err)) {
		leave_block(u, at);
		return NULL;
	}
	if (slot->host)
		leave_block(u, slot->at);
	u->n_used += !slot->host;
	*slot = (struct uploaded){host, at, bytes};
	return at;
}

/* On the device's own stream, behind the clearing of `to`. */
int cuda_gather(struct device *device, void *to, const struct portion *portion, struct error *err)
{
	struct cuda_uploads *u = uploads_of(device, err);
	if (!u)
		return -1;
	struct sender sender = {.u = u, .stream = device->stream, .to = to};
	for (int s = 0; s < portion->n_rows; s++)
		for (int i = 0; i < portion->rows[s].length; i++) {
			const unsigned char *row = portion->host;
			row += (size_t)(portion->rows[s].start + i) * portion->stride;
			for (int k = 0; k < portion->n_bytes; k++)
				send(&sender, row + portion->bytes[k].start, (size_t)portion->bytes[k].length);
		}
	return sent(&sender, err);
}

/* Blocks go with the last of their tensors. */
static void free_blocks(struct cuda_uploads *u)
{
	size_t n = 0;
	for (size_t i = 0; i < u->n_blocks; i++) {
		if (u->blocks[i].n_live > 0) {
			u->blocks[n++] = u->blocks[i];
			continue;
		}
		u->bytes -= u->blocks[i].size;
		cudaFree(u->blocks[i].memory);
	}
	u->n_blocks = n;
}

void cuda_abandon(struct device *device, const void *host, size_t bytes)
{
	struct cuda_uploads *u = device->uploads;
	size_t left = 0;
	if (!u || !u->table)
		return;
	cudaStreamSynchronize(device->stream);
	cudaStreamSynchronize(u->stream);
	cuda_graphs_drop(device);
	struct uploaded *old = u->table;
	for (size_t i = 0; i < u->n_slots; i++) {
		const unsigned char *at = old[i].host, *from = host;
		if (at >= from && at < from + bytes) {
			leave_block(u, old[i].at);
			old[i].host = NULL;
		}
		left += old[i].host != NULL;
	}
	free_blocks(u);
	if (left == 0) {
		cuda_uploads_close(device);
		return;
	}
	/* what is left must be found again: the holes cut the chains */
	struct uploaded *table = mem_new(u->n_slots, sizeof *table, NULL);
	if (!table)
		return;
	u->table = table;
	u->n_used = left;
	for (size_t i = 0; i < u->n_slots; i++)
		if (old[i].host)
			*slot_of(u, old[i].host) = old[i];
	free(old);
}

uint64_t cuda_uploaded_bytes(const struct device *device)
{
	return device->uploads ? device->uploads->bytes : 0;
}

const void *cuda_uploaded_block(const struct device *device, size_t *bytes)
{
	const struct cuda_uploads *u = device->uploads;
	const void *largest = NULL;
	*bytes = 0;
	for (size_t i = 0; u && i < u->n_blocks; i++)
		if (u->blocks[i].size > *bytes) {
			largest = u->blocks[i].memory;
			*bytes = u->blocks[i].size;
		}
	return largest;
}

void cuda_uploads_wait(struct device *device)
{
	struct cuda_uploads *u = device->uploads;
	if (!u || !u->pending)
		return;
	cuda_failed(device, cudaStreamSynchronize(u->stream), "uploading weights");
	u->pending = false;
}

void cuda_uploads_close(struct device *device)
{
	struct cuda_uploads *u = device->uploads;
	if (!u)
		return;
	cudaStreamSynchronize(device->stream);
	cuda_graphs_drop(device);
	if (u->stream) {
		cudaStreamSynchronize(u->stream);
		cudaStreamDestroy(u->stream);
	}
	for (int i = 0; i < N_STAGES; i++) {
		cudaFreeHost(u->stages[i].memory);
		if (u->stages[i].sent)
			cudaEventDestroy(u->stages[i].sent);
	}
	for (size_t i = 0; i < u->n_blocks; i++)
		cudaFree(u->blocks[i].memory);
	free(u->blocks);
	free(u->table);
	free(u);
	device->uploads = NULL;
}

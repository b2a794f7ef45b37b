/*
 * The CUDA backend's table, its device and its memory. The operations stand in cuda_*.cu.
 */
#include "kernels/cuda_device.h"
#include "base/memory.h"
#include "base/size.h"
#include "kernels/cuda_blas.h"
#include "kernels/cuda_pass.h"
#include "kernels/cuda_profile.h"
#include "kernels/gpu.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RING_BYTES ((size_t)1 << 20)

/* What has broken the card for this process, whoever opens it: the runtime answers with it from
 * then on. */
static _Atomic int lost;

struct error *cuda_failure(struct device *device)
{
	if (device->failed)
		return NULL;
	device->failed = true;
	return &device->failure;
}

bool cuda_failed(struct device *device, cudaError_t error, const char *what)
{
	if (error == cudaSuccess)
		return false;
	fail(cuda_failure(device), "the card failed at %s: %s", what, cudaGetErrorString(error));
	return true;
}

void cuda_look_lost(struct device *device)
{
	cudaGetLastError(); // forgets what does not last
	int error = (int)cudaStreamSynchronize(device->stream);
	if (error != cudaSuccess)
		lost = error;
}

const char *cuda_lost(void)
{
	return lost ? cudaGetErrorString((cudaError_t)lost) : NULL;
}

struct cuda_view cuda_view(const struct matrix *m)
{
	struct cuda_view view = {.at = matrix_placed(m),
							 .stride = m->stride,
							 .rows = m->device_rows,
							 .columns = m->device_columns,
							 .n_row_spans = m->n_row_spans,
							 .n_column_spans = m->n_column_spans,
							 .row_start = m->n_row_spans ? m->rows[0].start : 0,
							 .column_start = m->n_column_spans ? m->columns[0].start : 0,
							 .n_rows = m->n_rows,
							 .n_columns = m->n_columns};
	int each = m->dtype == DTYPE_NVFP4 ? NVFP4_BLOCK : 8; // elements a load
	view.aligned = (uintptr_t)m->data % 16 == 0 && m->stride % each == 0;
	for (int i = 0; i < m->n_column_spans; i++)
		view.aligned &= m->columns[i].start % each == 0 && m->columns[i].length % each == 0;
	return view;
}

/* ---- opening ---- */

static int read_card(struct device *device, struct error *err)
{
	struct cudaDeviceProp prop;
	int card = device->options.card;
	cudaError_t error = cudaGetDeviceProperties(&prop, card);
	if (error == cudaSuccess)
		error = cudaSetDevice(card);
	if (error == cudaSuccess)
		error = cudaDeviceGetPCIBusId(device->bus_id, sizeof device->bus_id, card);
	if (error != cudaSuccess)
		return fail(err, "--device cuda:%d: %s", card, cudaGetErrorString(error));
	device->capability = prop.major * 10 + prop.minor;
	device->overlaps = device->capability >= 90 && cuda_compiled_for() >= 90;
	device->n_sms = prop.multiProcessorCount;
	device->total_bytes = prop.totalGlobalMem;
	const char *name = strncmp(prop.name, "NVIDIA ", 7) ? prop.name : prop.name + 7;
	snprintf(device->rung, sizeof device->rung, "%.20s sm_%d", name, device->capability);
	return 0;
}

static void cuda_close(struct device *device)
{
	if (!device)
		return;
	if (device->stream)
		cudaStreamSynchronize(device->stream);
	cuda_graphs_close(device);
	cuda_pass_close(device);
	cuda_profile_close(device);
	cuda_blas_close(device->blas);
	cuda_uploads_close(device);
	for (int i = 0; i < N_CUDA_SCRATCH; i++)
		cudaFree(device->scratch[i].memory);
	cudaFreeHost(device->mailbox);
	cudaFreeHost(device->ring);
	if (device->stream)
		cudaStreamDestroy(device->stream);
	free(device->blocks);
	free(device);
}

static struct device *cuda_open(const struct device_options *options, struct error *err)
{
	if (options->kv_dtype != DTYPE_F32 && options->kv_dtype != DTYPE_BF16 &&
		options->kv_dtype != DTYPE_F8_E4M3) {
		fail(err, "KV cache in %s, expected F32, BF16 or F8_E4M3", dtype_name(options->kv_dtype));
		return NULL;
	}
	if (gpu_usable(options->card, err))
		return NULL;
	struct device *device = mem_new(1, sizeof *device, err);
	if (!device)
		return NULL;
	device->options = *options;
	void *ring = NULL, *mailbox = NULL;
	int failed = read_card(device, err);
	if (!failed &&
		(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking) != cudaSuccess ||
		 cudaHostAlloc(&ring, RING_BYTES, cudaHostAllocDefault) != cudaSuccess ||
		 cudaHostAlloc(&mailbox, sizeof *device->mailbox, cudaHostAllocDefault) != cudaSuccess))
		failed = fail(err, "--device cuda:%d: %s", options->card,
					  cudaGetErrorString(cudaGetLastError()));
	device->ring = ring;
	device->mailbox = mailbox;
	if (failed) {
		cuda_close(device);
		return NULL;
	}
	memset(device->mailbox, 0, sizeof *device->mailbox);
	device->blas = options->math == MATH_FAST ? cuda_blas_open() : NULL;
	return device;
}

static const char *cuda_rung(const struct device *device)
{
	return device->rung;
}

static int cuda_threads(const struct device *device)
{
	(void)device;
	return 0;
}

static int cuda_chunk(const struct device *device)
{
	return card_chunk(device->n_sms, device->total_bytes);
}

/* ---- memory ---- */

/* Remembers what an allocation takes; without memory for that the gauge is too low. */
static void count(struct device *device, void *memory, size_t bytes)
{
	if (mem_grow(&device->blocks, &device->blocks_capacity, device->n_blocks + 1,
				 sizeof *device->blocks, NULL))
		return;
	device->blocks[device->n_blocks].memory = memory;
	device->blocks[device->n_blocks++].bytes = bytes;
	device->allocated_bytes += bytes;
}

static void uncount(struct device *device, const void *memory)
{
	for (size_t i = 0; i < device->n_blocks; i++) {
		if (device->blocks[i].memory != memory)
			continue;
		device->allocated_bytes -= device->blocks[i].bytes;
		device->blocks[i] = device->blocks[--device->n_blocks];
		return;
	}
}

static void *allocate(struct device *device, size_t bytes, struct error *err)
{
	void *memory = NULL;
	size_t free_bytes = 0, total = 0;
	cudaError_t error = bytes ? cudaMalloc(&memory, bytes) : cudaMalloc(&memory, 1);
	if (error == cudaSuccess) {
		count(device, memory, bytes);
		return memory;
	}
	cudaGetLastError(); // forget it
	cudaMemGetInfo(&free_bytes, &total);
	char a[32], b[32], c[32];
	fail(err, "%s of VRAM are needed, the card has %s of %s left: %s", size_text(bytes, a),
		 size_text(free_bytes, b), size_text(total, c), cudaGetErrorString(error));
	return NULL;
}

static void *cuda_alloc(struct device *device, size_t bytes, struct error *err)
{
	cuda_flush(device);
	void *memory = allocate(device, bytes, err);
	if (memory && bytes)
		cuda_failed(device, cudaMemsetAsync(memory, 0, bytes, device->stream), "clearing memory");
	return memory;
}

static void cuda_release(struct device *device, void *memory)
{
	if (!memory)
		return;
	cuda_flush(device);
	cudaStreamSynchronize(device->stream);
	cuda_graphs_drop(device);
	uncount(device, memory);
	cudaFree(memory);
}

void *cuda_scratch(struct device *device, enum cuda_scratch_use use, size_t n, size_t size)
{
	size_t bytes;
	struct error err = {0};
	if (!mem_multiply(n, size, &bytes)) {
		fail(cuda_failure(device), "scratch of %zu times %zu bytes does not fit", n, size);
		return NULL;
	}
	if (device->scratch[use].bytes >= bytes && device->scratch[use].memory)
		return device->scratch[use].memory;
	cuda_release(device, device->scratch[use].memory);
	device->scratch[use].bytes = 0;
	device->scratch[use].memory = allocate(device, bytes, &err);
	if (device->scratch[use].memory)
		device->scratch[use].bytes = bytes;
	else
		fail(cuda_failure(device), "scratch: %s", err.text);
	return device->scratch[use].memory;
}

unsigned *cuda_tickets(struct device *device, size_t n)
{
	size_t had = device->scratch[CUDA_SCRATCH_TICKETS].bytes, bytes = n * sizeof(unsigned);
	unsigned *tickets = cuda_scratch(device, CUDA_SCRATCH_TICKETS, n, sizeof *tickets);
	if (tickets && bytes > had)
		cuda_failed(device, cudaMemsetAsync(tickets, 0, bytes, device->stream), "clearing memory");
	return tickets;
}

static void cuda_upload(struct device *device, void *to, const void *from, size_t bytes)
{
	const unsigned char *source = from;
	cuda_flush(device);
	for (size_t done = 0, part; done < bytes && !device->failed; done += part) {
		if (device->ring_at == RING_BYTES) {
			cuda_failed(device, cudaStreamSynchronize(device->stream), "an upload");
			device->ring_at = 0;
		}
		part = bytes - done < RING_BYTES - device->ring_at ? bytes - done
														   : RING_BYTES - device->ring_at;
		memcpy(device->ring + device->ring_at, source + done, part);
		cuda_failed(device,
					cudaMemcpyAsync((unsigned char *)to + done, device->ring + device->ring_at,
									part, cudaMemcpyHostToDevice, device->stream),
					"an upload");
		device->ring_at += part;
	}
}

static void cuda_download(struct device *device, void *to, const void *from, size_t bytes)
{
	cuda_flush(device);
	if (!device->failed && bytes &&
		!cuda_failed(device,
					 cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, device->stream),
					 "a download"))
		cuda_failed(device, cudaStreamSynchronize(device->stream), "a download");
	if (device->failed)
		memset(to, 0, bytes);
}

static void cuda_copy(struct device *device, void *to, const void *from, size_t bytes)
{
	cuda_flush(device);
	if (!device->failed && bytes)
		cuda_failed(device,
					cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, device->stream),
					"a copy");
}

static void cuda_zero(struct device *device, void *memory, size_t bytes)
{
	cuda_flush(device);
	if (!device->failed && bytes)
		cuda_failed(device, cudaMemsetAsync(memory, 0, bytes, device->stream), "clearing memory");
}

static bool cuda_room(struct device *device, uint64_t *free_bytes, uint64_t *total_bytes)
{
	size_t free_now = 0, total = 0;
	(void)device;
	if (cudaMemGetInfo(&free_now, &total) != cudaSuccess)
		return false;
	*free_bytes = free_now;
	*total_bytes = total;
	return true;
}

const struct backend backend_cuda = {
	.name = "cuda",
	.open = cuda_open,
	.close = cuda_close,
	.rung = cuda_rung,
	.threads = cuda_threads,
	.gauges = cuda_gauges,
	.profiler = &cuda_profiler,
	.chunk = cuda_chunk,
	.scratch_bytes = card_scratch_bytes,
	.alloc = cuda_alloc,
	.release = cuda_release,
	.adopt = cuda_adopt,
	.abandon = cuda_abandon,
	.missing = cuda_missing,
	.gather = cuda_gather,
	.room = cuda_room,
	.upload = cuda_upload,
	.download = cuda_download,
	.copy = cuda_copy,
	.zero = cuda_zero,
	.begin = cuda_begin,
	.finish = cuda_finish,
	.embed = cuda_note_embed,
	.norm = cuda_note_norm,
	.linear = cuda_note_linear,
	.conv = cuda_note_conv,
	.ssm = cuda_note_ssm,
	.gated_norm = cuda_note_gated_norm,
	.attention = cuda_note_attention,
	.route = cuda_note_route,
	.experts = cuda_note_experts,
	.pick = cuda_note_pick,
};

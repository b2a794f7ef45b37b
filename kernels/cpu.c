/*
 * The CPU backend's table, its device and its memory. The operations stand in cpu_*.c and pick.c.
 */
#include "base/memory.h"
#include "kernels/cpu_device.h"
#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 256

/* Below this many multiply-adds (about ten microseconds) waking the other threads costs more than
 * it saves. */
#define INLINE_WORK 262144.0

struct error *device_failure(struct device *device)
{
	if (device->failed)
		return NULL;
	device->failed = true;
	return &device->failure;
}

void *device_scratch(struct device *device, enum scratch_use use, size_t n, size_t size)
{
	size_t bytes;
	if (!mem_multiply(n, size, &bytes)) {
		fail(device_failure(device), "scratch of %zu times %zu bytes does not fit", n, size);
		return NULL;
	}
	if (device->scratch[use].bytes < bytes || !device->scratch[use].memory) {
		free(device->scratch[use].memory);
		device->scratch[use].bytes = 0;
		device->scratch[use].memory = NULL;
		struct error err = {0};
		void *memory = mem_new_aligned(bytes ? bytes : 1, 1, &err);
		if (!memory) {
			fail(device_failure(device), "scratch: %s", err.text);
			return NULL;
		}
		device->scratch[use].memory = memory;
		device->scratch[use].bytes = bytes;
	}
	return device->scratch[use].memory;
}

void device_run(struct device *device, double work, pool_task *task, void *argument)
{
	if (work < INLINE_WORK || pool_size(device->pool) == 1)
		task(argument, 0, 1);
	else
		pool_run(device->pool, task, argument);
}

float cpu_sum_of_squares(const struct cpu_rung *rung, const float *x, int n)
{
	const void *row = x;
	float sum = 0;
	rung->dot_f32(&(struct product){.w = x,
									.w_stride = n,
									.n_w = 1,
									.x = &row,
									.n_x = 1,
									.n = n,
									.out = &sum,
									.out_stride = 1});
	return sum;
}

static void cpu_close(struct device *device)
{
	if (!device)
		return;
	pool_close(device->pool);
	for (int i = 0; i < N_SCRATCH; i++)
		free(device->scratch[i].memory);
	free(device);
}

static struct device *cpu_open(const struct device_options *options, struct error *err)
{
	if (options->n_threads < 0 || options->n_threads > MAX_THREADS) {
		fail(err, "threads: %d, expected 0 (all) to %d", options->n_threads, MAX_THREADS);
		return NULL;
	}
	if (options->kv_dtype != DTYPE_F32 && options->kv_dtype != DTYPE_BF16 &&
		options->kv_dtype != DTYPE_F8_E4M3) {
		fail(err, "KV cache in %s, expected F32, BF16 or F8_E4M3", dtype_name(options->kv_dtype));
		return NULL;
	}
	struct device *device = mem_new(1, sizeof *device, err);
	if (!device)
		return NULL;
	int n_threads = options->n_threads ? options->n_threads : pool_cpus();
	device->pool = pool_open(n_threads < MAX_THREADS ? n_threads : MAX_THREADS, err);
	if (!device->pool) {
		cpu_close(device);
		return NULL;
	}
	device->math = options->math;
	device->kv_dtype = options->kv_dtype;
	device->rung = cpu_rung_best(options->math);
	return device;
}

static const char *cpu_rung_name(const struct device *device)
{
	return device->rung->name;
}

static int cpu_threads(const struct device *device)
{
	return pool_size(device->pool);
}

static void cpu_gauges(struct device *device, struct device_gauges *out)
{
	(void)device;
	*out = (struct device_gauges){0};
}

static int cpu_chunk(const struct device *device)
{
	(void)device;
	return 128;
}

static uint64_t cpu_scratch_bytes(const struct pass_shape *shape)
{
	(void)shape;
	return 0; // a few MB
}

static void *cpu_alloc(struct device *device, size_t bytes, struct error *err)
{
	(void)device;
	return mem_new_aligned(bytes, 1, err);
}

static void cpu_release(struct device *device, void *memory)
{
	(void)device;
	free(memory);
}

static const void *cpu_adopt(struct device *device, const void *host, size_t bytes,
							 struct error *err)
{
	(void)device, (void)bytes, (void)err;
	return host;
}

static void cpu_abandon(struct device *device, const void *host, size_t bytes)
{
	(void)device, (void)host, (void)bytes;
}

static uint64_t cpu_missing(const struct device *device, const void *host, size_t bytes)
{
	(void)device, (void)host, (void)bytes;
	return 0;
}

static int cpu_gather(struct device *device, void *to, const struct portion *portion,
					  struct error *err)
{
	char *at = to;
	(void)device, (void)err;
	for (int s = 0; s < portion->n_rows; s++)
		for (int i = 0; i < portion->rows[s].length; i++) {
			const char *row = (const char *)portion->host +
							  (size_t)(portion->rows[s].start + i) * portion->stride;
			for (int k = 0; k < portion->n_bytes; k++) {
				memcpy(at, row + portion->bytes[k].start, (size_t)portion->bytes[k].length);
				at += portion->bytes[k].length;
			}
		}
	return 0;
}

static bool cpu_room(struct device *device, uint64_t *free_bytes, uint64_t *total_bytes)
{
	(void)device;
	*free_bytes = *total_bytes = 0;
	return false;
}

static void cpu_copy(struct device *device, void *to, const void *from, size_t bytes)
{
	(void)device;
	if (bytes)
		memmove(to, from, bytes);
}

static void cpu_zero(struct device *device, void *memory, size_t bytes)
{
	(void)device;
	if (bytes)
		memset(memory, 0, bytes);
}

static enum step cpu_begin(struct device *device, uint64_t key)
{
	(void)device, (void)key;
	return STEP_RUN;
}

static int cpu_finish(struct device *device, struct error *err)
{
	if (!device->failed)
		return 0;
	device->failed = false;
	return fail(err, "%s", device->failure.text);
}

const struct backend backend_cpu = {
	.name = "cpu",
	.open = cpu_open,
	.close = cpu_close,
	.rung = cpu_rung_name,
	.threads = cpu_threads,
	.gauges = cpu_gauges,
	.chunk = cpu_chunk,
	.scratch_bytes = cpu_scratch_bytes,
	.alloc = cpu_alloc,
	.release = cpu_release,
	.adopt = cpu_adopt,
	.abandon = cpu_abandon,
	.missing = cpu_missing,
	.gather = cpu_gather,
	.room = cpu_room,
	.upload = cpu_copy,
	.download = cpu_copy,
	.copy = cpu_copy,
	.zero = cpu_zero,
	.begin = cpu_begin,
	.finish = cpu_finish,
	.embed = cpu_embed,
	.norm = cpu_norm,
	.linear = cpu_linear,
	.conv = cpu_conv,
	.ssm = cpu_ssm,
	.gated_norm = cpu_gated_norm,
	.attention = cpu_attention,
	.route = cpu_route,
	.experts = cpu_experts,
	.pick = cpu_pick,
};

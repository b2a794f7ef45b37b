#include "tests/kernels/case.h"
#include "base/hash.h"
#include "kernels/convert.h"
#include "tests/tested.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct backend *const case_backend = TESTED_BACKEND;

#define GUARD 256
#define GUARD_BYTE 0xa5
#define MAX_BLOCKS 1024

static uint64_t counter;
static struct {
	unsigned char *start;
	size_t bytes;
} blocks[MAX_BLOCKS];
static int n_blocks;
static struct device *devices[2];
static enum math math;

void case_seed(uint64_t seed)
{
	counter = hash_mix(seed);
}

int case_int(int low, int high)
{
	return low + (int)(hash_mix(counter++) % (uint64_t)(high - low + 1));
}

float case_float(void)
{
	float sum = 0;
	for (int i = 0; i < 4; i++)
		sum += (float)(hash_mix(counter++) >> 40) * 0x1p-24f - 0.5f;
	return sum * 1.7320508f;
}

void case_floats(float *values, size_t n)
{
	for (size_t i = 0; i < n; i++)
		values[i] = case_float();
}

#if defined(TEST_CUDA)
/* Host memory that a card reads and writes where it lies: slow, but tests look at it directly. */
static void *memory_new(size_t bytes)
{
	void *memory = NULL;
	return cudaHostAlloc(&memory, bytes, cudaHostAllocDefault) == cudaSuccess ? memory : NULL;
}

static void memory_free(void *memory)
{
	cudaFreeHost(memory);
}
#else
static void *memory_new(size_t bytes)
{
	return malloc(bytes);
}

static void memory_free(void *memory)
{
	free(memory);
}
#endif

void *case_new_bytes(size_t bytes)
{
	assert_true(n_blocks < MAX_BLOCKS);
	unsigned char *start = memory_new(bytes + 2 * GUARD);
	assert_non_null(start);
	memset(start, GUARD_BYTE, bytes + 2 * GUARD);
	memset(start + GUARD, 0, bytes);
	blocks[n_blocks].start = start;
	blocks[n_blocks++].bytes = bytes;
	return start + GUARD;
}

float *case_new(size_t n)
{
	float *values = case_new_bytes(n * sizeof *values);
	case_floats(values, n);
	return values;
}

void case_done(void)
{
	for (int b = 0; b < n_blocks; b++) {
		for (size_t i = 0; i < GUARD; i++) {
			assert_int_equal(blocks[b].start[i], GUARD_BYTE);
			assert_int_equal(blocks[b].start[GUARD + blocks[b].bytes + i], GUARD_BYTE);
		}
		memory_free(blocks[b].start);
	}
	n_blocks = 0;
}

/* `kept` of `stored` in up to 3 spans that start and end on blocks (of 1 or 16). */
static struct span *random_spans(int kept, int stored, int block, int *n_spans)
{
	kept /= block;
	stored /= block;
	struct span *spans = case_new_bytes(3 * sizeof *spans);
	int free_space = stored - kept, at = 0, n = 0;
	for (int left = kept; left > 0; n++) {
		int gap = n == 0 && case_int(0, 1) ? 0 : case_int(0, free_space);
		int length = n == 2 || case_int(0, 2) == 0 ? left : case_int(1, left);
		spans[n] = (struct span){(at + gap) * block, length * block};
		at += gap + length;
		free_space -= gap;
		left -= length;
	}
	*n_spans = n;
	return spans;
}

static void choose_spans(struct matrix *m, int rows, int columns, int stored_rows)
{
	int n, block = m->dtype == DTYPE_NVFP4 ? NVFP4_BLOCK : 1;
	columns = columns < block ? block : columns / block * block;
	m->n_rows = rows;
	m->n_columns = columns;
	m->rows = m->device_rows = random_spans(rows, stored_rows, 1, &n);
	m->n_row_spans = n;
	m->columns = m->device_columns = random_spans(columns, (int)m->stride, block, &n);
	m->n_column_spans = n;
}

/* Stored rows are the parent's: its last kept row and whatever lies before. */
static int stored_rows_of(const struct matrix *m)
{
	const struct span *last = &m->rows[m->n_row_spans - 1];
	return last->start + last->length;
}

/* Any code but NaN. */
static uint8_t random_e4m3(void)
{
	int code = case_int(0, 0xfd);
	return (uint8_t)(code < 0x7f ? code : code + 1);
}

/* Codes and scales whose products are about as large as the plain formats' weights. */
static void fill_quantised(struct matrix *m, size_t n)
{
	size_t bytes = dtype_span_bytes(m->dtype, n);
	bool scaled = m->dtype == DTYPE_NVFP4;
	uint8_t *data = case_new_bytes(bytes), *scales = case_new_bytes(n / NVFP4_BLOCK);
	for (size_t i = 0; i < bytes; i++)
		data[i] = scaled ? (uint8_t)case_int(0, 255) : random_e4m3();
	for (size_t i = 0; scaled && i < n / NVFP4_BLOCK; i++)
		scales[i] = random_e4m3();
	m->data = data;
	m->scales = scaled ? scales : NULL;
	m->scale = (scaled ? 1.0f / 512 : 1.0f / 128) / sqrtf((float)m->n_columns);
}

static void fill(struct matrix *m)
{
	size_t n = (size_t)stored_rows_of(m) * (size_t)m->stride;
	if (m->dtype == DTYPE_F8_E4M3 || m->dtype == DTYPE_NVFP4) {
		fill_quantised(m, n);
		return;
	}
	void *data = case_new_bytes(n * dtype_bytes(m->dtype));
	for (size_t i = 0; i < n; i++) {
		float value = case_float() / sqrtf((float)m->n_columns);
		if (m->dtype == DTYPE_F32)
			((float *)data)[i] = value;
		else
			((uint16_t *)data)[i] = m->dtype == DTYPE_BF16 ? f32_to_bf16(value) : f32_to_f16(value);
	}
	m->data = data;
}

void case_matrix(struct matrix *m, enum dtype dtype, int rows, int columns)
{
	*m = (struct matrix){.dtype = dtype, .stride = columns + case_int(0, 40)};
	if (dtype == DTYPE_NVFP4) // whole blocks
		m->stride = (m->stride + NVFP4_BLOCK - 1) / NVFP4_BLOCK * NVFP4_BLOCK;
	choose_spans(m, rows, columns, rows + case_int(0, 20));
	fill(m);
}

void case_sibling(struct matrix *m, const struct matrix *first, enum dtype dtype)
{
	*m = *first;
	m->dtype = dtype;
	fill(m);
}

void case_view(struct matrix *m, const struct matrix *parent, int rows, int columns)
{
	int stored = stored_rows_of(parent);
	*m = *parent;
	choose_spans(m, rows < stored ? rows : stored, columns, stored);
}

static int stored_index(const struct span *spans, int kept)
{
	while (kept >= spans->length)
		kept -= spans++->length;
	return spans->start + kept;
}

double case_weight(const struct matrix *m, int row, int column)
{
	float value;
	matrix_widen(m, stored_index(m->rows, row), stored_index(m->columns, column), 1, &value);
	return (double)value;
}

static int open_devices(enum math chosen)
{
	math = chosen;
	for (int i = 0; i < 2; i++) {
		struct error err = {0};
		devices[i] = case_backend->open(
			&(struct device_options){.n_threads = i + 1, .math = math, .kv_dtype = DTYPE_F32},
			&err);
		if (!devices[i])
			return -1;
	}
	return 0;
}

int case_open(void **state)
{
	(void)state;
	return open_devices(MATH_EXACT);
}

int case_open_fast(void **state)
{
	(void)state;
	return open_devices(MATH_FAST);
}

double case_looseness(void)
{
	return math == MATH_FAST ? 1000 : 1;
}

int case_close(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++)
		case_backend->close(devices[i]);
	return 0;
}

struct device *case_device(int n_threads)
{
	return devices[n_threads - 1];
}

int case_rounds(int n, int least)
{
#if defined(TEST_SHIM)
	return n / 40 > least ? n / 40 : least;
#else
	(void)least;
	return n;
#endif
}

void case_finish(struct device *device)
{
	struct error err = {0};
	if (case_backend->finish(device, &err))
		fail_msg("%s", err.text);
}

struct placed *case_placed(const struct matrix *m, int n)
{
	struct placed *list = case_new_bytes((size_t)n * sizeof *list);
	for (int i = 0; i < n; i++)
		list[i] = matrix_placed(&m[i]);
	return list;
}

void case_near(double expected, double found, double tolerance, const char *what)
{
	if (!(fabs(expected - found) <= tolerance * (1 + fabs(expected))))
		fail_msg("%s: %.9g, expected %.9g", what, found, expected);
}

void case_same(const float *a, const float *b, size_t n, const char *what)
{
	bool nearly = case_backend != &backend_cpu;
	for (size_t i = 0; i < n; i++)
		if (nearly)
			case_near((double)a[i], (double)b[i], 1e-5 * case_looseness(), what);
		else if (memcmp(&a[i], &b[i], sizeof *a) != 0)
			fail_msg("%s: value %zu is %.9g and %.9g", what, i, (double)a[i], (double)b[i]);
}

#include "kernels/tensor.h"
#include <assert.h>

static const struct {
	const char *name;
	size_t bytes;
} dtypes[N_DTYPES] = {
	[DTYPE_F32] = {"F32", 4}, [DTYPE_BF16] = {"BF16", 2},       [DTYPE_F16] = {"F16", 2},
	[DTYPE_U8] = {"U8", 1},   [DTYPE_F8_E4M3] = {"F8_E4M3", 1}, [DTYPE_I32] = {"I32", 4},
	[DTYPE_I64] = {"I64", 8}, [DTYPE_NVFP4] = {"NVFP4", 0},
};

size_t dtype_bytes(enum dtype dtype)
{
	assert((unsigned)dtype < N_FILE_DTYPES);
	return dtypes[dtype].bytes;
}

const char *dtype_name(enum dtype dtype)
{
	assert((unsigned)dtype < N_DTYPES);
	return dtypes[dtype].name;
}

size_t dtype_span_bytes(enum dtype dtype, size_t n)
{
	return dtype == DTYPE_NVFP4 ? n / 2 : n * dtype_bytes(dtype);
}

uint64_t dtype_matrix_bytes(enum dtype dtype, uint64_t n)
{
	if (n == 0)
		return 0;
	if (dtype == DTYPE_NVFP4)
		return n / 2 + n / NVFP4_BLOCK + sizeof(float);
	return n * dtype_bytes(dtype) + (dtype == DTYPE_F8_E4M3 ? sizeof(float) : 0);
}

struct placed matrix_placed(const struct matrix *m)
{
	return (struct placed){m->data, m->scales, m->scale, m->dtype};
}

const void *matrix_at(const struct matrix *m, int64_t row, int64_t column)
{
	return (const char *)m->data + dtype_span_bytes(m->dtype, (size_t)(row * m->stride + column));
}

const uint8_t *matrix_scales_at(const struct matrix *m, int64_t row, int64_t column)
{
	return m->scales ? m->scales + (row * m->stride + column) / NVFP4_BLOCK : NULL;
}

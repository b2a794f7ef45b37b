#include "kernels/tensor.h"
#include <assert.h>

static const struct {
	const char *name;
	size_t bytes;
} dtypes[N_DTYPES] = {
	[DTYPE_F32] = {"F32", 4}, [DTYPE_BF16] = {"BF16", 2},       [DTYPE_F16] = {"F16", 2},
	[DTYPE_U8] = {"U8", 1},   [DTYPE_F8_E4M3] = {"F8_E4M3", 1}, [DTYPE_I32] = {"I32", 4},
	[DTYPE_I64] = {"I64", 8},
};

size_t dtype_bytes(enum dtype dtype)
{
	assert((unsigned)dtype < N_DTYPES);
	return dtypes[dtype].bytes;
}

const char *dtype_name(enum dtype dtype)
{
	assert((unsigned)dtype < N_DTYPES);
	return dtypes[dtype].name;
}

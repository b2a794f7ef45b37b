/*
 * cuBLASLt as kernels/cuda_blas.c calls it: column-major matrices of BF16, F32 sums, checked as the
 * library's manual asks. What it would refuse or read wrongly ends the program.
 */
#include "cuda_runtime.h"
#include <stdio.h>
#include <stdlib.h>

#define MUST(what)                                                                                 \
	do {                                                                                           \
		if (!(what)) {                                                                             \
			fprintf(stderr, "shim: cuBLASLt: not so: %s\n", #what);                                \
			abort();                                                                               \
		}                                                                                          \
	} while (0)

struct shim_desc {
	int transa;
};

struct shim_layout {
	int type;
	uint64_t rows, columns;
	int64_t stride;
};

struct shim_preference {
	uint64_t workspace;
	uint32_t alignments[4];
};

struct shim_algorithm {
	uint32_t alignments[4];
	uint64_t rest[6];
};

struct shim_heuristic {
	shim_algorithm algorithm;
	size_t workspace_bytes;
	int state;
	float waves;
	int reserved[4];
};

static int n_handles, n_live; // things created and not destroyed

static int create(void **handle)
{
	*handle = new int(1);
	n_handles++;
	return 0;
}

static int destroy(void *handle)
{
	delete (int *)handle;
	MUST(--n_handles > 0 || n_live == 0);
	return 0;
}

static int desc_create(void **desc, int compute, int scale_type)
{
	MUST(compute == 68 && scale_type == 0);
	*desc = new shim_desc();
	n_live++;
	return 0;
}

static int desc_destroy(void *desc)
{
	delete (shim_desc *)desc;
	n_live--;
	return 0;
}

static int desc_set(void *desc, int attribute, const void *value, size_t bytes)
{
	MUST(attribute == 3 && bytes == 4);
	memcpy(&((shim_desc *)desc)->transa, value, bytes);
	return 0;
}

static int layout_create(void **layout, int type, uint64_t rows, uint64_t columns, int64_t stride)
{
	MUST((int64_t)rows <= stride && rows > 0 && columns > 0);
	*layout = new shim_layout{type, rows, columns, stride};
	n_live++;
	return 0;
}

static int layout_destroy(void *layout)
{
	delete (shim_layout *)layout;
	n_live--;
	return 0;
}

static int preference_create(void **preference)
{
	*preference = new shim_preference{0, {256, 256, 256, 256}};
	n_live++;
	return 0;
}

static int preference_destroy(void *preference)
{
	delete (shim_preference *)preference;
	n_live--;
	return 0;
}

static int preference_set(void *preference, int attribute, const void *value, size_t bytes)
{
	shim_preference *p = (shim_preference *)preference;
	if (attribute == 1) {
		MUST(bytes == 8);
		memcpy(&p->workspace, value, bytes);
		return 0;
	}
	MUST(attribute >= 5 && attribute <= 8 && bytes == 4);
	memcpy(&p->alignments[attribute - 5], value, bytes);
	return 0;
}

/* Refuses what is no multiple of 4 bytes, to have something refused. */
static int choose(void *, void *desc, void *a, void *b, void *c, void *d, void *preference,
				  int n_wanted, shim_heuristic *results, int *n_found)
{
	const shim_layout *A = (shim_layout *)a, *B = (shim_layout *)b, *D = (shim_layout *)d;
	const shim_preference *p = (shim_preference *)preference;
	MUST(((shim_desc *)desc)->transa == 1 && n_wanted == 1 && c == d);
	MUST((A->type == 0 || A->type == 14 || A->type == 28) && B->type == A->type && D->type == 0);
	MUST(A->rows == B->rows && A->columns == D->rows && B->columns == D->columns);
	*n_found = 0;
	if (A->type == 28) // E4M3: the manual's "16-byte alignment" of pointers and dimensions
		for (int i = 0; i < 4; i++)
			MUST(p->alignments[i] >= (i < 2 ? 16 : 4) && A->rows % 16 == 0 &&
				 A->columns % 16 == 0 && A->stride % 16 == 0 && B->stride % 16 == 0);
	for (int i = 0; i < 4; i++)
		if (p->alignments[i] < 4)
			return 15; // not supported
	*results = shim_heuristic();
	memcpy(results->algorithm.alignments, p->alignments, sizeof p->alignments);
	results->workspace_bytes = p->workspace;
	*n_found = 1;
	return 0;
}

/* Element i of a matrix in F32, BF16 or E4M3. */
static float wide(const void *at, int type, uint64_t i)
{
	return type == 0    ? ((const float *)at)[i]
		   : type == 28 ? shim_from_e4m3(((const uint8_t *)at)[i])
						: __uint_as_float((unsigned)((const uint16_t *)at)[i] << 16);
}

static int multiply(void *, void *, const void *alpha, const void *a, void *a_layout, const void *b,
					void *b_layout, const void *beta, const void *c, void *, void *d,
					void *d_layout, const shim_algorithm *algorithm, void *workspace,
					size_t workspace_bytes, cudaStream_t)
{
	const void *const operands[] = {a, b, c, d};
	for (int i = 0; i < 4; i++)
		MUST((uintptr_t)operands[i] % algorithm->alignments[i] == 0);
	MUST(workspace && (uintptr_t)workspace % 256 == 0 && c == d);
	memset(workspace, 0xcd, workspace_bytes < 4096 ? workspace_bytes : 4096);
	shim_layout A = *(shim_layout *)a_layout, B = *(shim_layout *)b_layout;
	shim_layout D = *(shim_layout *)d_layout;
	float scale = *(const float *)alpha, keep = *(const float *)beta;
	shim_later([=]() {
		for (uint64_t n = 0; n < D.columns; n++)
			for (uint64_t m = 0; m < D.rows; m++) {
				uint64_t x = m * (uint64_t)A.stride, y = n * (uint64_t)B.stride;
				float *to = (float *)d + n * (uint64_t)D.stride + m, sum = 0;
				for (uint64_t k = 0; k < A.rows; k++)
					sum += wide(a, A.type, x + k) * wide(b, B.type, y + k);
				*to = scale * sum + (keep != 0 ? keep * *to : 0);
			}
	});
	return 0;
}

/* ---- instead of dlopen ---- */

void *shim_nvml(const char *name); // nvml.cpp

extern "C" {

void *shim_dlopen(const char *name, int)
{
	static char library;
	const char *nvml = getenv("SHIM_NVML");
	if (!strcmp(name, "libnvidia-ml.so.1"))
		return nvml && strcmp(nvml, "1") == 0 ? &library : NULL;
	const char *none = getenv("SHIM_CUBLAS"); // 0: see card.cpp
	if (none && strcmp(none, "0") == 0)
		return NULL;
	return strcmp(name, "libcublasLt.so.12") ? NULL : &library;
}

int shim_dlclose(void *)
{
	return 0;
}

void *shim_dlsym(void *, const char *name)
{
	static const struct {
		const char *name;
		void *function;
	} all[] = {
		{"cublasLtCreate", (void *)create},
		{"cublasLtDestroy", (void *)destroy},
		{"cublasLtMatmulDescCreate", (void *)desc_create},
		{"cublasLtMatmulDescDestroy", (void *)desc_destroy},
		{"cublasLtMatmulDescSetAttribute", (void *)desc_set},
		{"cublasLtMatrixLayoutCreate", (void *)layout_create},
		{"cublasLtMatrixLayoutDestroy", (void *)layout_destroy},
		{"cublasLtMatmulPreferenceCreate", (void *)preference_create},
		{"cublasLtMatmulPreferenceDestroy", (void *)preference_destroy},
		{"cublasLtMatmulPreferenceSetAttribute", (void *)preference_set},
		{"cublasLtMatmulAlgoGetHeuristic", (void *)choose},
		{"cublasLtMatmul", (void *)multiply},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (!strcmp(all[i].name, name))
			return all[i].function;
	return shim_nvml(name);
}
}

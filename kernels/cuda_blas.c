#include "kernels/cuda_blas.h"
#include <assert.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define N_PLANS 256

/* ---- of cublasLt.h, library_types.h and cublas_api.h ---- */

enum { TYPE_F32 = 0, TYPE_BF16 = 14, TYPE_E4M3 = 28 }; // cudaDataType_t
enum { COMPUTE_F32 = 68, OPERATION_T = 1 };            // cublasComputeType_t, cublasOperation_t
enum { DESC_TRANSA = 3 };                              // cublasLtMatmulDescAttributes_t
enum { PREFER_WORKSPACE = 1, PREFER_ALIGNMENT_A = 5 }; // ...Preference...; then of B, C, D

struct algorithm {
	uint64_t data[8];
};

struct heuristic {
	struct algorithm algorithm;
	size_t workspace_bytes;
	int state;
	float waves;
	int reserved[4];
};

/* Matrices are column-major: our rows are its columns. Every function returns 0 or a status. */
struct library {
	int (*create)(void **handle);
	int (*destroy)(void *handle);
	int (*desc_create)(void **desc, int compute, int scale_type);
	int (*desc_destroy)(void *desc);
	int (*desc_set)(void *desc, int attribute, const void *value, size_t bytes);
	int (*layout_create)(void **layout, int type, uint64_t rows, uint64_t columns, int64_t stride);
	int (*layout_destroy)(void *layout);
	int (*preference_create)(void **preference);
	int (*preference_destroy)(void *preference);
	int (*preference_set)(void *preference, int attribute, const void *value, size_t bytes);
	int (*choose)(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference,
				  int n_wanted, struct heuristic *results, int *n_found);
	int (*multiply)(void *handle, void *desc, const void *alpha, const void *a, void *a_layout,
					const void *b, void *b_layout, const void *beta, const void *c, void *c_layout,
					void *d, void *d_layout, const struct algorithm *algorithm, void *workspace,
					size_t workspace_bytes, cudaStream_t stream);
};

static const struct {
	const char *name;
	size_t at;
} functions[] = {
	{"cublasLtCreate", offsetof(struct library, create)},
	{"cublasLtDestroy", offsetof(struct library, destroy)},
	{"cublasLtMatmulDescCreate", offsetof(struct library, desc_create)},
	{"cublasLtMatmulDescDestroy", offsetof(struct library, desc_destroy)},
	{"cublasLtMatmulDescSetAttribute", offsetof(struct library, desc_set)},
	{"cublasLtMatrixLayoutCreate", offsetof(struct library, layout_create)},
	{"cublasLtMatrixLayoutDestroy", offsetof(struct library, layout_destroy)},
	{"cublasLtMatmulPreferenceCreate", offsetof(struct library, preference_create)},
	{"cublasLtMatmulPreferenceDestroy", offsetof(struct library, preference_destroy)},
	{"cublasLtMatmulPreferenceSetAttribute", offsetof(struct library, preference_set)},
	{"cublasLtMatmulAlgoGetHeuristic", offsetof(struct library, choose)},
	{"cublasLtMatmul", offsetof(struct library, multiply)},
};

/* ---- plans ---- */

struct shape {
	int64_t w_stride, y_stride;
	int type, n, rows, columns;
	uint32_t alignment[3]; // of w, x, y
};

/* What is known of a shape; layouts NULL: the library does not take it. */
struct plan {
	struct shape shape; // rows 0: free
	void *w, *x, *y;    // layouts
	struct algorithm algorithm;
};

struct cuda_blas {
	void *opened, *handle, *desc;
	struct library library;
	pthread_mutex_t lock; // over the plans
	struct plan plans[N_PLANS];
	int next; // plan to be replaced
};

static void forget(struct cuda_blas *blas, struct plan *plan)
{
	void *const layouts[] = {plan->w, plan->x, plan->y};
	for (int i = 0; i < 3; i++)
		if (layouts[i])
			blas->library.layout_destroy(layouts[i]);
	*plan = (struct plan){0};
}

static bool choose(struct cuda_blas *blas, struct plan *plan)
{
	const struct library *l = &blas->library;
	const struct shape *s = &plan->shape;
	const uint32_t *const a = s->alignment;
	const uint32_t alignments[4] = {a[0], a[1], a[2], a[2]};
	uint64_t workspace = CARD_BLAS_BYTES;
	struct heuristic best = {0};
	void *preference = NULL;
	int n_found = 0;
	if (l->preference_create(&preference))
		return false;
	bool ok = !l->preference_set(preference, PREFER_WORKSPACE, &workspace, sizeof workspace);
	for (int i = 0; i < 4; i++)
		ok = ok && !l->preference_set(preference, PREFER_ALIGNMENT_A + i, &alignments[i],
									  sizeof *alignments);
	uint64_t rows = (uint64_t)s->rows, columns = (uint64_t)s->columns, n = (uint64_t)s->n;
	ok = ok && !l->layout_create(&plan->w, s->type, columns, rows, s->w_stride) &&
		 !l->layout_create(&plan->x, s->type, columns, n, s->columns) &&
		 !l->layout_create(&plan->y, TYPE_F32, rows, n, s->y_stride) &&
		 !l->choose(blas->handle, blas->desc, plan->w, plan->x, plan->y, plan->y, preference, 1,
					&best, &n_found) &&
		 n_found == 1 && best.state == 0 && best.workspace_bytes <= workspace;
	l->preference_destroy(preference);
	plan->algorithm = best.algorithm;
	return ok;
}

/* The shape's plan, with the lock held; NULL: the library does not take it. */
static const struct plan *find_plan(struct cuda_blas *blas, const struct shape *shape)
{
	struct plan *plan = NULL;
	for (int i = 0; i < N_PLANS && !plan; i++)
		if (blas->plans[i].shape.rows && !memcmp(&blas->plans[i].shape, shape, sizeof *shape))
			plan = &blas->plans[i];
	if (!plan) {
		plan = &blas->plans[blas->next];
		blas->next = (blas->next + 1) % N_PLANS;
		forget(blas, plan);
		plan->shape = *shape;
		if (!choose(blas, plan)) {
			forget(blas, plan);
			plan->shape = *shape;
		}
	}
	return plan->y ? plan : NULL;
}

/* ---- opening ---- */

static bool open_library(struct cuda_blas *blas)
{
	static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
	for (size_t i = 0; i < sizeof names / sizeof *names && !blas->opened; i++)
		blas->opened = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	if (!blas->opened)
		return false;
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		void *function = dlsym(blas->opened, functions[i].name);
		if (!function)
			return false;
		memcpy((char *)&blas->library + functions[i].at, &function, sizeof function);
	}
	return true;
}

struct cuda_blas *cuda_blas_open(void)
{
	int32_t transposed = OPERATION_T;
	struct cuda_blas *blas = calloc(1, sizeof *blas);
	if (!blas)
		return NULL;
	pthread_mutex_init(&blas->lock, NULL);
	if (!open_library(blas) || blas->library.create(&blas->handle) ||
		blas->library.desc_create(&blas->desc, COMPUTE_F32, TYPE_F32) ||
		blas->library.desc_set(blas->desc, DESC_TRANSA, &transposed, sizeof transposed)) {
		cuda_blas_close(blas);
		return NULL;
	}
	return blas;
}

void cuda_blas_close(struct cuda_blas *blas)
{
	if (!blas)
		return;
	for (int i = 0; i < N_PLANS; i++)
		forget(blas, &blas->plans[i]);
	if (blas->desc)
		blas->library.desc_destroy(blas->desc);
	if (blas->handle)
		blas->library.destroy(blas->handle);
	if (blas->opened)
		dlclose(blas->opened);
	pthread_mutex_destroy(&blas->lock);
	free(blas);
}

/* ---- products ---- */

/* The library's own assumption, 256 bytes, is more than a slice's first row has. */
static uint32_t alignment_of(const void *p)
{
	uintptr_t bit = (uintptr_t)p & -(uintptr_t)p;
	return bit == 0 || bit > 256 ? 256 : (uint32_t)bit;
}

static const int types[] = {
	[BLAS_F32] = TYPE_F32, [BLAS_BF16] = TYPE_BF16, [BLAS_E4M3] = TYPE_E4M3};

bool cuda_blas_multiply(struct device *device, const struct blas_product *p)
{
	struct cuda_blas *blas = device->blas;
	struct shape shape;
	float beta = p->add;
	if (!blas || device->failed)
		return false;
	assert(p->type);
	memset(&shape, 0, sizeof shape); // compared as bytes
	shape.w_stride = p->w_stride;
	shape.y_stride = p->y_stride;
	shape.type = types[p->type];
	shape.n = p->n;
	shape.rows = p->rows;
	shape.columns = p->columns;
	shape.alignment[0] = alignment_of(p->w);
	shape.alignment[1] = alignment_of(p->x);
	shape.alignment[2] = alignment_of(p->y);
	void *workspace = cuda_scratch(device, CUDA_SCRATCH_BLAS, CARD_BLAS_BYTES, 1);
	if (!workspace)
		return false;
	pthread_mutex_lock(&blas->lock);
	const struct plan *plan = find_plan(blas, &shape);
	bool done = plan && !blas->library.multiply(blas->handle, blas->desc, &p->scale, p->w, plan->w,
												p->x, plan->x, &beta, p->y, plan->y, p->y, plan->y,
												&plan->algorithm, workspace, CARD_BLAS_BYTES,
												device->stream);
	pthread_mutex_unlock(&blas->lock);
	return done;
}

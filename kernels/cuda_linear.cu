/*
 * Products of a few tokens (cuda_products.h). As many blocks as the card holds divide the rows of
 * all matrices evenly, warp by warp; a block first brings the activations into shared memory, by
 * way of a norm where one stands in front.
 */
#include "kernels/cuda_norm.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
#include "kernels/cuda_products.h"
}

#define WARPS (NORM_THREADS / WARP)
/* Blocks an SM: 80 registers a thread, or 128 where more sums or formats need them. */
#define PER_SM(D, T) ((T) > 1 || (D) == D_ANY ? 2 : 3)
#define MOST_T 8  // activation rows that share a pass over the weights
#define N_SETS 4  // of a launch
#define N_ROWS 32 // of a launch
#define MOST_STAGED                                                                                \
	((size_t)96 << 10) // bytes of activations; more would be one block an SM, or none

/* ---- what a launch knows ---- */

/* Matrices that read the same rows: those of the lanes of one slice. */
struct set {
	struct cuda_view m[CUDA_MAX_PRODUCTS];
	int mode[CUDA_MAX_PRODUCTS];
	union {
		struct norm_op norm; // its pointers are the rows', but for the weight
		struct gated_norm_op gated;
	};
	int n_m, all_rows;     // of the matrices
	int first_row, n_rows; // of activations
};

/* A token of a lane. */
struct row {
	const float *x, *z;
	float *normed; // or NULL
	float *y[CUDA_MAX_PRODUCTS];
};

enum front { NOTHING, NORM, GATED };

struct launch {
	struct set sets[N_SETS];
	struct row rows[N_ROWS];
	int n_sets, n_rows;
	enum front front;
};

/* ---- the kernel ---- */

/* A block's part: up to T rows of a set. */
struct part {
	const struct set *set;
	int first, n; // rows of the launch
};

static __device__ __forceinline__ struct part part_of(const struct launch &l, int t, int y)
{
	int s = 0;
	for (; y >= (l.sets[s].n_rows + t - 1) / t; s++)
		y -= (l.sets[s].n_rows + t - 1) / t;
	struct part part = {&l.sets[s], l.sets[s].first_row + y * t, l.sets[s].n_rows - y * t};
	part.n = part.n < t ? part.n : t;
	return part;
}

/* The rows of all matrices that are the warp's: first to end. */
static __device__ __forceinline__ void warps_share(const struct set &set, int *first, int *end)
{
	int64_t warp = blockIdx.x + gridDim.x * (threadIdx.x / WARP), warps = gridDim.x * WARPS;
	*first = (int)(set.all_rows * warp / warps);
	*end = (int)(set.all_rows * (warp + 1) / warps);
}

static __device__ __forceinline__ void prefetch_share(const struct launch &l, int t)
{
	struct part part = part_of(l, t, blockIdx.y);
	int first, end;
	warps_share(*part.set, &first, &end);
	for (int i = 0; i < part.set->n_m && first < end; i++) {
		const struct cuda_view &m = part.set->m[i];
		if (first < m.n_rows) {
			prefetch_rows(m, first, end < m.n_rows ? end : m.n_rows);
			return;
		}
		first -= m.n_rows;
		end -= m.n_rows;
	}
}

/* The rows come into shared memory, `stride` floats apart. */
static __device__ __forceinline__ void stage_part(const struct launch &l, const struct part &part,
												  float *x, int stride)
{
	const struct set &set = *part.set;
	int n_columns = set.m[0].n_columns, warp = threadIdx.x / WARP;
	if (l.front == GATED) {
		for (int i = warp; i < part.n * set.gated.n_groups; i += WARPS) {
			const struct row &row = l.rows[part.first + i / set.gated.n_groups];
			gate_group<STAGED>(set.gated, row.x, row.z, i % set.gated.n_groups,
							   x + i / set.gated.n_groups * stride);
		}
		return;
	}
	for (int t = 0; t < part.n; t++) {
		const struct row &row = l.rows[part.first + t];
		if (l.front == NOTHING) {
			stage(row.x, n_columns, NORM_THREADS, x + t * stride);
			continue;
		}
		norm_row<STAGED>(set.norm, row.x, x + t * stride);
		for (int i = threadIdx.x; blockIdx.x == 0 && i < n_columns; i += NORM_THREADS)
			row.normed[i] = x[t * stride + place<STAGED>(i)]; // its own
	}
}

/* Block (rows of the matrices, rows of activations). PLAIN: a row too long for shared memory. */
template <enum dtype D, int T, enum layout L>
static __global__ void __launch_bounds__(NORM_THREADS, PER_SM(D, T))
	products_kernel(const __grid_constant__ struct launch l)
{
	prefetch_share(l, T);
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	__shared__ float *y[CUDA_MAX_PRODUCTS][T];
	struct part part = part_of(l, T, blockIdx.y);
	const struct set &set = *part.set;
	struct factors f;
	int first, end;
	f.stride = staged_floats(set.m[0].n_columns);
	f.x = L == STAGED ? (const float *)memory : l.rows[part.first].x;
	if ((int)threadIdx.x < part.n)
		for (int i = 0; i < set.n_m; i++)
			y[i][threadIdx.x] = l.rows[part.first + threadIdx.x].y[i];
	if (L == STAGED)
		stage_part(l, part, (float *)memory, f.stride);
	__syncthreads();
	warps_share(set, &first, &end);
	for (int i = 0; i < set.n_m && first < end; i++) {
		int n_rows = set.m[i].n_rows;
		if (first < n_rows) {
			struct results to = {y[i], part.n, set.mode[i]};
			f.m = &set.m[i];
			f.at = f.m->at;
			f.aligned = f.m->aligned && (L == STAGED || (uintptr_t)f.x % 16 == 0);
			multiply_rows<D, T, L>(f, to, first, end < n_rows ? end : n_rows);
		}
		first = first < n_rows ? 0 : first - n_rows;
		end -= n_rows;
	}
}

/* ---- starting it ---- */

static size_t staged_bytes(int n_columns)
{
	return (size_t)staged_floats(n_columns) * sizeof(float);
}

extern "C" bool cuda_products_stage(int n_columns)
{
	return staged_bytes(n_columns) <= MOST_STAGED;
}

template <enum dtype D, int T, enum layout L>
static void start(struct device *device, const struct launch &l, size_t shared)
{
	int parts = 0, most = 0;
	for (int s = 0; s < l.n_sets; s++) {
		parts += (l.sets[s].n_rows + T - 1) / T;
		most = l.sets[s].all_rows > most ? l.sets[s].all_rows : most;
	}
	int blocks = PER_SM(D, T) * device->n_sms / parts, useful = (int)blocks_of(most, WARPS);
	blocks = blocks > useful ? useful : blocks;
	LAUNCH(device, (products_kernel<D, T, L>), dim3(blocks < 1 ? 1 : blocks, parts), NORM_THREADS,
		   shared, l);
}

template <enum dtype D> static void start_tokens(struct device *device, const struct launch &l)
{
	int rows = 0, columns = 0;
	for (int s = 0; s < l.n_sets; s++) {
		rows = l.sets[s].n_rows > rows ? l.sets[s].n_rows : rows;
		columns = l.sets[s].m[0].n_columns > columns ? l.sets[s].m[0].n_columns : columns;
	}
	int t = rows > 4 ? 8 : rows > 2 ? 4 : rows;
	while (t > 1 && t * staged_bytes(columns) > MOST_STAGED)
		t /= 2;
	size_t shared = t * staged_bytes(columns);
	if (t == 8)
		start<D, 8, STAGED>(device, l, shared);
	else if (t == 4)
		start<D, 4, STAGED>(device, l, shared);
	else if (t == 2)
		start<D, 2, STAGED>(device, l, shared);
	else if (cuda_products_stage(columns))
		start<D, 1, STAGED>(device, l, shared);
	else
		start<D_ANY, 1, PLAIN>(device, l, 0);
}

static void start_dtype(struct device *device, const struct launch &l)
{
	enum dtype dtype = l.sets[0].m[0].at.dtype;
	for (int s = 0; s < l.n_sets; s++)
		for (int i = 0; i < l.sets[s].n_m; i++)
			dtype = l.sets[s].m[i].at.dtype == dtype ? dtype : D_ANY;
	switch ((int)dtype) {
	case DTYPE_F32: start_tokens<DTYPE_F32>(device, l); break;
	case DTYPE_BF16: start_tokens<DTYPE_BF16>(device, l); break;
	case DTYPE_F16: start_tokens<DTYPE_F16>(device, l); break;
	case DTYPE_F8_E4M3: start_tokens<DTYPE_F8_E4M3>(device, l); break;
	case DTYPE_NVFP4: start_tokens<DTYPE_NVFP4>(device, l); break;
	default: start_tokens<D_ANY>(device, l); break;
	}
}

/* ---- gathering ---- */

/* Whether two lanes read the same matrices, and have the same norm but for its rows. */
static bool same_set(const struct cuda_products *p, int a, int b)
{
	if (p->norm) {
		const struct norm_op *x = &p->norm[a], *y = &p->norm[b];
		if (x->weight != y->weight || x->width != y->width || x->count != y->count ||
			x->eps != y->eps || x->scale != y->scale)
			return false;
	}
	if (p->gated) {
		const struct gated_norm_op *x = &p->gated[a], *y = &p->gated[b];
		if (x->weight != y->weight || x->group_start != y->group_start || x->count != y->count ||
			x->width != y->width || x->n_groups != y->n_groups || x->eps != y->eps ||
			x->scale != y->scale)
			return false;
	}
	for (int i = 0; i < p->n_linear; i++)
		if (p->linear[i][a].w != p->linear[i][b].w || p->linear[i][a].mode != p->linear[i][b].mode)
			return false;
	return true;
}

static void open_set(struct launch &l, const struct cuda_products *p, int lane)
{
	struct set &set = l.sets[l.n_sets++];
	set.n_m = p->n_linear;
	set.all_rows = set.n_rows = 0;
	set.first_row = l.n_rows;
	for (int i = 0; i < p->n_linear; i++) {
		set.m[i] = cuda_view(p->linear[i][lane].w);
		set.mode[i] = p->linear[i][lane].mode;
		set.all_rows += set.m[i].n_rows;
	}
	if (l.front == NORM)
		set.norm = p->norm[lane];
	else if (l.front == GATED)
		set.gated = p->gated[lane];
}

/* Rows `from` on of a lane join the last set, while there is room; the first that did not. */
static int add_rows(struct launch &l, const struct cuda_products *p, int lane, int from)
{
	const struct linear_op *first = &p->linear[0][lane];
	for (; from < first->n && l.n_rows < N_ROWS; from++) {
		struct row &row = l.rows[l.n_rows++];
		int64_t at = (int64_t)from * first->w->n_columns;
		row.x = (l.front == NORM ? p->norm[lane].x : first->x) + at;
		row.z = l.front == GATED ? p->gated[lane].z + from * p->gated[lane].z_stride : NULL;
		row.normed = l.front == NORM ? p->norm[lane].y + at : NULL;
		for (int i = 0; i < p->n_linear; i++)
			row.y[i] = p->linear[i][lane].y + (int64_t)from * p->linear[i][lane].w->n_rows;
		l.sets[l.n_sets - 1].n_rows++;
	}
	return from;
}

/* Lanes of the same matrices side by side in `order`; the first of each stays where it is. */
static void sort_lanes(const struct cuda_products *p, int *order)
{
	bool placed[MAX_LANES] = {false};
	for (int lane = 0, n = 0; lane < p->n_lanes; lane++) {
		if (placed[lane])
			continue;
		for (int other = lane; other < p->n_lanes; other++)
			if (!placed[other] && same_set(p, lane, other)) {
				order[n++] = other;
				placed[other] = true;
			}
	}
}

extern "C" void cuda_start_products(struct device *device, const struct cuda_products *p)
{
	static_assert(sizeof(struct launch) < 4096, "more than a kernel can take");
	struct launch l;
	int order[MAX_LANES];
	l.front = p->norm ? NORM : p->gated ? GATED : NOTHING;
	l.n_sets = l.n_rows = 0;
	sort_lanes(p, order);
	for (int i = 0; i < p->n_lanes && !device->failed; i++) {
		int lane = order[i], n = p->linear[0][lane].n;
		for (int from = 0; from < n;) {
			bool joins = from == 0 && i > 0 && l.n_sets > 0 && same_set(p, order[i - 1], lane) &&
						 l.n_rows < N_ROWS;
			if (!joins && (l.n_sets == N_SETS || l.n_rows == N_ROWS)) {
				start_dtype(device, l);
				l.n_sets = l.n_rows = 0;
			}
			if (!joins)
				open_set(l, p, lane);
			from = add_rows(l, p, lane, from);
		}
	}
	if (l.n_sets > 0 && !device->failed)
		start_dtype(device, l);
}

/* ---- the operation ---- */

static bool can_multiply(enum dtype dtype)
{
	return dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16 ||
		   dtype == DTYPE_F8_E4M3 || dtype == DTYPE_NVFP4;
}

/* Lanes side by side, none of them for the prefill kernels. */
static void start_lanes(struct device *device, int n_lanes, const struct linear_op *op)
{
	struct cuda_products p = {NULL, NULL, {op}, 1, n_lanes};
	if (n_lanes > 0)
		cuda_start_products(device, &p);
}

extern "C" void cuda_linear(struct device *device, int n_lanes, const struct linear_op *op)
{
	int first = 0;
	for (int l = 0; l < n_lanes && !device->failed; l++) {
		if (!can_multiply(op[l].w->dtype))
			fail(cuda_failure(device), "a product with a matrix of %s", dtype_name(op[l].w->dtype));
		if (op[l].w->n_rows > 0 && op[l].n > 0 && !cuda_gemm(device, &op[l]))
			continue;
		start_lanes(device, l - first, op + first);
		first = l + 1;
	}
	start_lanes(device, n_lanes - first, op + first);
}

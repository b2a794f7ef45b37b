/*
 * Attention of a few tokens over the cache, in one launch: blocks divide the cache (split KV), each
 * with all query heads that share a KV head, so that K and V are read once, and the last block of a
 * token and KV head puts the parts together. How the cache is divided does not depend on its
 * length, which lies in device memory: a recorded pass stays right while the sequence grows.
 *
 * The rows of this call are read from where they lie, rounded as the cache will hold them; the
 * block that has a token's own row appends it, so nobody reads of the cache what is being written.
 *
 * Blocks meet in tickets (last_of). So the length is moved on by the last block to have read it,
 * empty ones too: no load of it can see the new one. And the last of up to FAN neighbours sees
 * their parts. The next launch waits for this one.
 */
#include "kernels/cuda_attend.cuh"
#include "kernels/cuda_mma.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

#define HEADS 16                      // query heads of a block, that share a pass over K and V
#define THREADS (ATTEND_WARPS * WARP) // warps 4..7 have the heads of 0..3 and other rows
#define WARPS ATTEND_WARPS
#define MAX_DIM 256 // of a head
#define MAX_SPLITS 64
#define FAN 8                          // parts that are put together at once
#define TICKETS (MAX_SPLITS / FAN + 1) // of a token and head group
#define MAX_SHARED (94 << 10)          // dynamic, of a block: every card has it

/* ---- the cache ---- */

template <typename KV> static __global__ void append_kernel(struct attention_op o)
{
	AWAIT_EARLIER();
	int64_t width = (int64_t)o.n_kv_heads * o.head_dim, n = o.n * width, at = *o.length * width;
	int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	write_kv((KV *)o.k_cache, at + i, o.k[i], o.k_scale);
	write_kv((KV *)o.v_cache, at + i, o.v[i], o.v_scale);
}

void cuda_append(struct device *device, const struct attention_op *o)
{
	unsigned blocks = blocks_of((int64_t)o->n * o->n_kv_heads * o->head_dim, 256);
	if (device->options.kv_dtype == DTYPE_F32)
		LAUNCH(device, append_kernel<float>, blocks, 256, 0, *o);
	else if (device->options.kv_dtype == DTYPE_BF16)
		LAUNCH(device, append_kernel<uint16_t>, blocks, 256, 0, *o);
	else
		LAUNCH(device, append_kernel<uint8_t>, blocks, 256, 0, *o);
}

/* ---- what a launch and a block work on ---- */

struct attend {
	struct attention_op op;
	float *parts;      // (n, n_heads, n_splits) times part_floats()
	unsigned *tickets; // the length's; TICKETS for each (n, n_kv_heads, n_groups)
	int n_splits, n_groups;
};

/* How K and V stand in shared memory: in their own format, `rows` of them at a time. */
struct tiling {
	int rows, stages;
};

struct block {
	int t, kv, split, used; // of the splits, those that have rows
	int length, from, to;   // rows of the cache before the call; this split's
	struct attend_layout layout;
	float unit;                   // of what V says
	float *q;                     // (HEADS, q_stride), scaled
	unsigned char *kv_rows;       // (stages, 2, rows) of row_bytes
	int heads[HEADS], n_heads;    // query heads of the group that runs
	float top[HEADS], sum[HEADS]; // of the warps with the second half of the rows
};

/* A part: y (width) relative to e^top, then top and sum; the next one stays aligned. */
static __host__ __device__ __forceinline__ int64_t part_floats(int head_dim)
{
	return attend_layout(head_dim, 4).width + 4;
}

/* One thread. */
template <typename KV>
static __device__ void describe(const struct attend &a, struct tiling tiling, unsigned char *memory,
								struct block *b)
{
	const struct attention_op &o = a.op;
	int at = blockIdx.x / a.n_splits;
	b->t = at / o.n_kv_heads;
	b->kv = at % o.n_kv_heads;
	b->split = blockIdx.x % a.n_splits;
	b->length = *(const volatile int32_t *)o.length;
	int rows = b->length + b->t + 1; // that the token sees
	int tiles = (rows + tiling.rows - 1) / tiling.rows;
	int each = (tiles + a.n_splits - 1) / a.n_splits;
	b->used = (tiles + each - 1) / each;
	b->from = b->split * each * tiling.rows;
	b->to = b->from + each * tiling.rows < rows ? b->from + each * tiling.rows : rows;
	b->layout = attend_layout(o.head_dim, sizeof(KV));
	b->unit = sizeof(KV) == 1 ? o.v_scale : 1;
	b->q = (float *)memory;
	b->kv_rows = memory + HEADS * b->layout.q_stride * sizeof(float);
}

/* Thread 0, once it has read the length. */
static __device__ void move_on(const struct attend &a, int length)
{
	unsigned top = (unsigned)(a.op.n * a.op.n_kv_heads * a.n_splits) - 1;
	if (threadIdx.x > 0)
		return;
	__threadfence();
	if (atomicInc(a.tickets, top) == top)
		*a.op.length = length + a.op.n;
}

/* The heads of a KV head from the (group * HEADS)th on, at most HEADS. A warp calls it. */
static __device__ void find_heads(const struct attention_op &o, int kv, int group, struct block *b)
{
	int lane = threadIdx.x % WARP, seen = -group * HEADS;
	for (int from = 0; from < o.n_heads && seen < HEADS; from += WARP) {
		bool mine = from + lane < o.n_heads && o.kv_head[from + lane] == kv;
		uint32_t all = __ballot_sync(FULL_WARP, mine);
		int rank = seen + __popc(all & ((1u << lane) - 1));
		if (mine && rank >= 0 && rank < HEADS)
			b->heads[rank] = from + lane;
		seen += __popc(all);
	}
	if (lane == 0)
		b->n_heads = seen < 0 ? 0 : seen < HEADS ? seen : HEADS;
}

/* Of the group's heads; 0 beyond head_dim and behind the last head. */
static __device__ void load_q(const struct attention_op &o, const struct block &b, float unit)
{
	for (int h = threadIdx.x / WARP; h < HEADS; h += WARPS)
		for (int d = threadIdx.x % WARP; d < b.layout.q_stride; d += WARP) {
			bool in = h < b.n_heads && d < o.head_dim;
			const float *q = o.q + ((int64_t)b.t * o.n_heads + (in ? b.heads[h] : 0)) * o.head_dim;
			b.q[h * b.layout.q_stride + d] = in ? q[d] * o.scale * unit : 0;
		}
}

/* Rows [from, from + n) of K or V as they are stored; those of the call are not in the cache. */
template <typename KV>
static __device__ void load_rows(const struct attention_op &o, const struct block &b,
								 unsigned char *to, const void *cache, const float *fresh,
								 float scale, int from, int n)
{
	const int VALUES = 16 / sizeof(KV);
	int64_t stride = (int64_t)o.n_kv_heads * o.head_dim;
	const KV *rows = (const KV *)cache + (int64_t)b.kv * o.head_dim;
	bool wide = o.head_dim % VALUES == 0 && (uintptr_t)cache % 16 == 0;
	int fold = b.layout.n_chunks <= 8    ? 3
			   : b.layout.n_chunks <= 16 ? 4
										 : 5; // so many threads a row
	int n_chunks = b.layout.n_chunks, row_bytes = b.layout.row_bytes, length = b.length;
	fresh += (int64_t)b.kv * o.head_dim;
	for (int r = threadIdx.x >> fold; r < n; r += THREADS >> fold)
		for (int c = threadIdx.x & ((1 << fold) - 1); c < n_chunks; c += 1 << fold) {
			int64_t row = from + r;
			KV *chunk = (KV *)(to + r * row_bytes + c * 16);
			if (wide && row < length) {
				copy_async(chunk, rows + row * stride + c * VALUES, true);
				continue;
			}
			for (int e = 0; e < VALUES; e++) {
				int d = c * VALUES + e;
				if (d < o.head_dim && row < length)
					chunk[e] = rows[row * stride + d];
				else
					write_kv(chunk, e, d < o.head_dim ? fresh[(row - length) * stride + d] : 0,
							 scale);
			}
		}
}

/* The token's own row, by the block that has it. */
template <typename KV>
static __device__ void append_row(const struct attention_op &o, const struct block &b)
{
	int64_t stride = (int64_t)o.n_kv_heads * o.head_dim, head = (int64_t)b.kv * o.head_dim;
	for (int d = threadIdx.x; d < o.head_dim; d += THREADS) {
		int64_t from = b.t * stride + head + d, to = from + b.length * stride;
		write_kv((KV *)o.k_cache, to, o.k[from], o.k_scale);
		write_kv((KV *)o.v_cache, to, o.v[from], o.v_scale);
	}
}

/* ---- parts ---- */

/* Part `split` of head h of the group. */
static __device__ __forceinline__ float *part_of(const struct attend &a, const struct block &b,
												 int h, int split)
{
	int64_t head = (int64_t)b.t * a.op.n_heads + b.heads[h];
	return a.parts + (head * a.n_splits + split) * part_floats(a.op.head_dim);
}

/* What head h of the group gets from `channel` on: of part `split` or, where that is -1, as its
 * result. */
static __device__ __forceinline__ void put(const struct attend &a, const struct block &b, int split,
										   int h, int channel, const float y[4], float top,
										   float total)
{
	const struct attention_op &o = a.op;
	if (split >= 0) {
		float *part = part_of(a, b, h, split);
		*(float4 *)(part + channel) = make_float4(y[0], y[1], y[2], y[3]);
		if (channel == 0) {
			part[b.layout.width] = top;
			part[b.layout.width + 1] = total;
		}
		return;
	}
	float *to = o.y + ((int64_t)b.t * o.n_heads + b.heads[h]) * o.head_dim + channel;
#pragma unroll
	for (int e = 0; e < 4; e++)
		if (channel + e < o.head_dim)
			to[e] = y[e] / total * b.unit;
}

/* Puts n parts together, `apart` from one to the next, a warp a head: into the first, or as the
 * result. */
static __device__ void merge(const struct attend &a, const struct block &b, int first, int apart,
							 int n, bool all)
{
	int lane = threadIdx.x % WARP, width = b.layout.width;
	for (int h = threadIdx.x / WARP; h < b.n_heads; h += WARPS) {
		const float *own = part_of(a, b, h, first + (lane < n ? lane : 0) * apart) + width;
		float top = warp_max(own[0]), factor = expf(own[0] - top);
		float total = warp_sum(lane < n ? own[1] * factor : 0);
		for (int from = 0; from < width; from += 4 * WARP) {
			int channel = from + 4 * lane;
			float y[4] = {0, 0, 0, 0};
#pragma unroll
			for (int i = 0; i < FAN; i++) {
				float f = __shfl_sync(FULL_WARP, factor, i), x[4];
				if (i >= n || channel >= width)
					continue;
				four_of(x, part_of(a, b, h, first + i * apart) + channel);
#pragma unroll
				for (int e = 0; e < 4; e++)
					y[e] = fmaf(f, x[e], y[e]);
			}
			__syncwarp(); // everybody has read the first one's top
			if (channel < width)
				put(a, b, all ? -1 : first, h, channel, y, top, total);
		}
	}
}

/* The block's own part is written. The last of FAN neighbours puts theirs together and goes on as
 * one of them, until one is left. */
static __device__ void combine(const struct attend &a, const struct block &b, unsigned *tickets)
{
	int apart = 1;
	for (int at = b.split / FAN, n = b.used;; at /= FAN) {
		int groups = (n + FAN - 1) / FAN, mine = n - at * FAN < FAN ? n - at * FAN : FAN;
		if (!last_of(tickets + at, (unsigned)mine))
			return;
		merge(a, b, at * FAN * apart, apart, mine, groups == 1);
		if (groups == 1)
			return;
		tickets += groups;
		apart *= FAN;
		n = groups;
	}
}

/* What the warps with the second half of the rows found goes to those with the first one. */
template <int G> static __device__ void join_halves(struct sums<G> &sums, struct block *b)
{
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = warp % 4 * WARP_HEADS;
	float *y = (float *)b->kv_rows; // (HEADS, width): nobody needs the rows any more
#pragma unroll
	for (int h = 0; h < WARP_HEADS; h++) {
		sums.total[h] = warp_sum(sums.total[h]);
		if (warp < 4)
			continue;
		if (lane == 0) {
			b->top[first + h] = sums.top[h];
			b->sum[first + h] = sums.total[h];
		}
#pragma unroll
		for (int g = 0; g < G; g++)
			if (4 * (lane + WARP * g) < b->layout.width)
				*(float4 *)(y + (first + h) * b->layout.width + 4 * (lane + WARP * g)) =
					make_float4(sums.y[h][g][0], sums.y[h][g][1], sums.y[h][g][2], sums.y[h][g][3]);
	}
	__syncthreads();
	if (warp >= 4)
		return;
#pragma unroll
	for (int h = 0; h < WARP_HEADS; h++) {
		float other = b->top[first + h], max = other > sums.top[h] ? other : sums.top[h];
		float mine = expf(sums.top[h] - max), its = expf(other - max);
		sums.top[h] = max;
		sums.total[h] = sums.total[h] * mine + b->sum[first + h] * its;
#pragma unroll
		for (int g = 0; g < G; g++) {
			float x[4];
			if (4 * (lane + WARP * g) >= b->layout.width)
				break;
			four_of(x, y + (first + h) * b->layout.width + 4 * (lane + WARP * g));
#pragma unroll
			for (int e = 0; e < 4; e++)
				sums.y[h][g][e] = sums.y[h][g][e] * mine + x[e] * its;
		}
	}
}

/* ---- the kernel ---- */

/* The heads of `group` over the split's rows; while the first of these are under way, there is time
 * for what else must be done once. */
template <typename KV, int G>
static __device__ void attend_split(const struct attend &a, const struct block &b, int group,
									struct tiling tiling, struct sums<G> &sums)
{
	const struct attention_op &o = a.op;
	int warp = threadIdx.x / WARP, first = warp % 4 * WARP_HEADS, half = warp / 4 * WARP;
	int n_tiles = (b.to - b.from + tiling.rows - 1) / tiling.rows;
	int plane = tiling.rows * b.layout.row_bytes;
#pragma unroll
	for (int h = 0; h < WARP_HEADS; h++) {
		sums.top[h] = -INFINITY;
		sums.total[h] = 0;
#pragma unroll
		for (int i = 0; i < 4 * G; i++)
			sums.y[h][i / 4][i % 4] = 0;
	}
	for (int loaded = 0, i = 0; i < n_tiles; i++) {
		for (; loaded < n_tiles && loaded < i + tiling.stages; loaded++) {
			int row = b.from + loaded * tiling.rows;
			int n = b.to - row < tiling.rows ? b.to - row : tiling.rows;
			unsigned char *to = b.kv_rows + loaded % tiling.stages * 2 * plane;
			load_rows<KV>(o, b, to, o.k_cache, o.k, o.k_scale, row, n);
			load_rows<KV>(o, b, to + plane, o.v_cache, o.v, o.v_scale, row, n);
			copy_commit();
		}
		if (i == 0)
			load_q(o, b, sizeof(KV) == 1 ? o.k_scale : 1);
		if (i == 0 && group == 0)
			move_on(a, b.length);
		if (loaded > i + 1)
			copy_wait<1>();
		else
			copy_wait<0>();
		__syncthreads();
		const unsigned char *k =
			b.kv_rows + i % tiling.stages * 2 * plane + half * b.layout.row_bytes;
		int left = b.to - b.from - i * tiling.rows;
		int n = (left < tiling.rows ? left : tiling.rows) - half;
		if (n > 0 && first < b.n_heads)
			add_rows<KV, G>(sums, b.layout, b.q + first * b.layout.q_stride, k, k + plane,
							n < WARP ? n : WARP);
		__syncthreads();
	}
}

/* Block (split of KV head of token, lane). A lane of a warp has G times 4 channels of a head. */
template <typename KV, int G>
static __global__ void __launch_bounds__(THREADS, 3 - G)
	attend_kernel(const __grid_constant__ struct lanes<attend> lanes, struct tiling tiling)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	__shared__ struct block b;
	const struct attend &a = lanes.at[blockIdx.y];
	const struct attention_op &o = a.op;
	int at = blockIdx.x / a.n_splits, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
	if (at >= o.n * o.n_kv_heads)
		return;
	if (threadIdx.x == 0)
		describe<KV>(a, tiling, memory, &b);
	if (warp == 1)
		find_heads(o, at % o.n_kv_heads, 0, &b);
	__syncthreads();
	if (b.split == b.used - 1)
		append_row<KV>(o, b);
	if (b.split >= b.used || b.n_heads == 0) {
		move_on(a, b.length);
		return;
	}
	for (int group = 0; b.n_heads > 0;) {
		struct sums<G> sums;
		attend_split<KV, G>(a, b, group, tiling, sums);
		join_halves<G>(sums, &b);
		int first = warp * WARP_HEADS;
#pragma unroll
		for (int i = 0; i < WARP_HEADS * G; i++) {
			int h = i / G, channel = 4 * (lane + i % G * WARP);
			if (warp < 4 && first + h < b.n_heads && channel < b.layout.width)
				put(a, b, b.used > 1 ? b.split : -1, first + h, channel, sums.y[h][i % G],
					sums.top[h], sums.total[h]);
		}
		if (b.used > 1)
			combine(a, b, a.tickets + 1 + (at * a.n_groups + group) * TICKETS);
		if (++group == a.n_groups)
			return;
		__syncthreads();
		if (warp == 1)
			find_heads(o, b.kv, group, &b);
		__syncthreads();
	}
}

/* ---- starting it ---- */

/* Enough blocks for the card, a constant of the shapes. Tokens share MAX_SPLITS, for which there is
 * scratch (card.c). */
static int splits_of(const struct device *device, const struct attention_op *o)
{
	int splits = 2 * device->n_sms / o->n_kv_heads;
	splits = (splits > MAX_SPLITS ? MAX_SPLITS : splits) / o->n;
	return splits < 1 ? 1 : splits;
}

template <typename KV>
static void start(struct device *device, int head_dim, dim3 grid, const struct lanes<attend> &lanes)
{
	static const struct tiling wishes[] = {{2 * WARP, 2}, {2 * WARP, 1}, {WARP, 1}};
	struct attend_layout layout = attend_layout(head_dim, sizeof(KV));
	struct tiling tiling = {0, 0};
	int shared = MAX_SHARED + 1;
	for (int i = 0; i < 3 && shared > MAX_SHARED; i++) {
		tiling = wishes[i];
		shared = HEADS * layout.q_stride * (int)sizeof(float) +
				 tiling.stages * 2 * tiling.rows * layout.row_bytes;
	}
	if (head_dim > 4 * WARP) {
		LAUNCH(device, (attend_kernel<KV, 2>), grid, THREADS, shared, lanes, tiling);
	} else {
		LAUNCH(device, (attend_kernel<KV, 1>), grid, THREADS, shared, lanes, tiling);
	}
}

/* One launch; n_lanes are at most LANES. */
static void start_lanes(struct device *device, int n_lanes, const struct attention_op *op)
{
	struct lanes<attend> lanes;
	size_t floats[LANES + 1] = {0}, tickets[LANES + 1] = {0}; // of the lanes before
	int head_dim = 0, blocks = 0;
	static_assert(sizeof lanes < 4080, "more than a kernel can take");
	for (int l = 0; l < n_lanes; l++) {
		const struct attention_op *o = &op[l];
		int n_splits = splits_of(device, o), n_groups = (o->n_heads + HEADS - 1) / HEADS;
		size_t slots = (size_t)o->n * o->n_kv_heads * n_groups;
		struct attend a = {*o, NULL, NULL, n_splits, n_groups};
		lanes.at[l] = a;
		floats[l + 1] = floats[l];
		if (n_splits > 1)
			floats[l + 1] += (size_t)o->n * o->n_heads * n_splits * part_floats(o->head_dim);
		tickets[l + 1] = tickets[l] + 1 + slots * TICKETS;
		head_dim = o->head_dim > head_dim ? o->head_dim : head_dim;
		if (o->n * o->n_kv_heads * n_splits > blocks)
			blocks = o->n * o->n_kv_heads * n_splits;
	}
	float *parts =
		(float *)cuda_scratch(device, CUDA_SCRATCH_ATTENTION, floats[n_lanes], sizeof *parts);
	unsigned *numbers = cuda_tickets(device, tickets[n_lanes]);
	for (int l = 0; l < n_lanes && parts && numbers; l++) {
		lanes.at[l].parts = parts + floats[l];
		lanes.at[l].tickets = numbers + tickets[l];
	}
	if (!parts || !numbers)
		return;
	if (device->options.kv_dtype == DTYPE_F32)
		start<float>(device, head_dim, dim3(blocks, n_lanes), lanes);
	else if (device->options.kv_dtype == DTYPE_BF16)
		start<uint16_t>(device, head_dim, dim3(blocks, n_lanes), lanes);
	else
		start<uint8_t>(device, head_dim, dim3(blocks, n_lanes), lanes);
}

extern "C" void cuda_attention(struct device *device, int n_lanes, const struct attention_op *op)
{
	for (int l = 0; l < n_lanes && !device->failed; l++)
		if (op[l].head_dim > MAX_DIM)
			fail(cuda_failure(device), "heads of %d channels, expected at most %d", op[l].head_dim,
				 MAX_DIM);
	int first = 0; // of those that wait for a launch
	for (int l = 0; l < n_lanes && !device->failed; l++) {
		if (l - first == LANES) {
			start_lanes(device, LANES, op + first);
			first = l;
		}
		if (!cuda_flash(device, &op[l]))
			continue;
		if (l > first)
			start_lanes(device, l - first, op + first);
		first = l + 1;
	}
	if (n_lanes > first && !device->failed)
		start_lanes(device, n_lanes - first, op + first);
}

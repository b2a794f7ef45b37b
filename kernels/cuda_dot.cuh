/*
 * The inner product that decoding lives by: a warp multiplies R stored rows with T rows of
 * activations that lie in shared memory. Every lane loads 8 weights (NVFP4: a block of 16) at a
 * time, and so many of them before it uses the first that the memory stays busy. What a weight
 * needs is unpacked to F32; sums are F32. The order of summation depends on the matrix alone: not
 * on R or T, so that tokens do not change when they share a call.
 */
#ifndef KERNELS_CUDA_DOT_CUH
#define KERNELS_CUDA_DOT_CUH

#include "kernels/cuda_kernel.cuh"

/* Elements a lane takes at once. */
template <enum dtype D> struct at_once {
	enum { n = D == DTYPE_NVFP4 ? NVFP4_BLOCK : 8 };
};

/* The bytes that they are stored in. */
template <enum dtype D> struct pack {
	uint4 a; // BF16, F16
};
template <> struct pack<DTYPE_F32> {
	float4 a, b;
};
template <> struct pack<DTYPE_F8_E4M3> {
	uint2 a;
};
template <> struct pack<DTYPE_NVFP4> {
	uint2 a;
	uint32_t scale; // of the block, E4M3
};

template <enum dtype D>
static __device__ __forceinline__ void load(struct pack<D> &p, const void *row, const uint8_t *,
											int64_t j)
{
	p.a = __ldg((const uint4 *)((const uint16_t *)row + j));
}
template <>
__device__ __forceinline__ void load(struct pack<DTYPE_F32> &p, const void *row, const uint8_t *,
									 int64_t j)
{
	p.a = __ldg((const float4 *)((const float *)row + j));
	p.b = __ldg((const float4 *)((const float *)row + j + 4));
}
template <>
__device__ __forceinline__ void load(struct pack<DTYPE_F8_E4M3> &p, const void *row,
									 const uint8_t *, int64_t j)
{
	p.a = __ldg((const uint2 *)((const uint8_t *)row + j));
}
template <>
__device__ __forceinline__ void load(struct pack<DTYPE_NVFP4> &p, const void *row,
									 const uint8_t *scales, int64_t j)
{
	p.a = __ldg((const uint2 *)((const uint8_t *)row + j / 2));
	p.scale = __ldg(scales + j / NVFP4_BLOCK);
}

/* Eight of the elements, up to unit(), which only a block of NVFP4 has: the h-th eight. */
template <enum dtype D>
static __device__ __forceinline__ void unpack_codes(const struct pack<D> &p, int, float w[8])
{
	const uint32_t words[4] = {p.a.x, p.a.y, p.a.z, p.a.w};
#pragma unroll
	for (int i = 0; i < 4; i++)
		if (D == DTYPE_BF16) {
			w[2 * i] = from_bf16(words[i]);
			w[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
		} else {
			from_f16_pair(words[i], &w[2 * i], &w[2 * i + 1]);
		}
}
template <>
__device__ __forceinline__ void unpack_codes(const struct pack<DTYPE_F32> &p, int, float w[8])
{
	w[0] = p.a.x, w[1] = p.a.y, w[2] = p.a.z, w[3] = p.a.w;
	w[4] = p.b.x, w[5] = p.b.y, w[6] = p.b.z, w[7] = p.b.w;
}
template <>
__device__ __forceinline__ void unpack_codes(const struct pack<DTYPE_F8_E4M3> &p, int, float w[8])
{
	const uint32_t words[2] = {p.a.x, p.a.y};
#pragma unroll
	for (int i = 0; i < 4; i++)
		from_e4m3_pair(words[i / 2] >> (16 * (i % 2)) & 0xffff, &w[2 * i], &w[2 * i + 1]);
}
template <>
__device__ __forceinline__ void unpack_codes(const struct pack<DTYPE_NVFP4> &p, int h, float w[8])
{
	uint32_t word = h ? p.a.y : p.a.x;
	/* elements i and i + 4 as F16, times 2^-14: sign and the three bits below it */
#pragma unroll
	for (int i = 0; i < 4; i++) {
		uint32_t size = i < 3 ? word << (9 - 4 * i) : word >> 3;
		uint32_t pair = (word << (12 - 4 * i) & 0x80008000u) | (size & 0x0e000e00u);
		from_f16_pair(pair, &w[i], &w[i + 4]);
	}
}

template <enum dtype D> static __device__ __forceinline__ float unit(const struct pack<D> &)
{
	return 1;
}
template <> __device__ __forceinline__ float unit(const struct pack<DTYPE_NVFP4> &p)
{
	float scale, none;
	from_e4m3_pair(p.scale, &scale, &none);
	return scale * 0x1p14f;
}

/* The weights themselves, but for the tensor's scale. */
template <enum dtype D>
static __device__ __forceinline__ void unpack(const struct pack<D> &p, float w[at_once<D>::n])
{
#pragma unroll
	for (int h = 0; h < at_once<D>::n / 8; h++)
		unpack_codes<D>(p, h, w + 8 * h);
	if (D == DTYPE_NVFP4)
#pragma unroll
		for (int i = 0; i < at_once<D>::n; i++)
			w[i] *= unit<D>(p);
}

/* What so many elements take, but for scales. */
template <enum dtype D> static __device__ __forceinline__ int64_t element_bytes(int64_t n)
{
	return D == DTYPE_NVFP4 ? n / 2 : D == DTYPE_F32 ? n * 4 : D == DTYPE_F8_E4M3 ? n : n * 2;
}

/* Where stored rows lie, by the row. */
template <enum dtype D>
static __device__ __forceinline__ const void *row_at(const struct placed &at, int64_t stride,
													 int64_t row)
{
	return (const char *)at.data + element_bytes<D>(row * stride);
}

/* ---- activations in shared memory ---- */

/* Where element j of a row lies. Quads trade places so that lanes whose elements start 8 or 16
 * apart meet in no bank; a row takes staged_floats(). PLAIN: a row as it is, in global memory. */
enum layout { STAGED, PLAIN };

template <enum layout L> static __device__ __forceinline__ int place(int j)
{
	return L == STAGED ? ((j >> 2) ^ (j >> 5 & 3)) << 2 | (j & 3) : j;
}

static __host__ __device__ __forceinline__ int staged_floats(int n)
{
	return (n + 15) / 16 * 16;
}

/* All threads of the block, `threads` of them. */
static __device__ __forceinline__ void stage(const float *from, int n, int threads, float *to)
{
	if (n % 4 || (uintptr_t)from % 16) {
		for (int i = threadIdx.x; i < n; i += threads)
			to[place<STAGED>(i)] = from[i];
		return;
	}
	for (int i = threadIdx.x * 4; i < n; i += threads * 4)
		*(float4 *)(to + place<STAGED>(i)) = *(const float4 *)(from + i);
}

/* ---- products ---- */

#define IN_FLIGHT 64 // bytes of weights that a lane loads before it uses the first

/* Steps that are loaded together. */
template <enum dtype D, int R> struct batch {
	enum {
		bytes = D == DTYPE_F32                      ? 32
				: D == DTYPE_BF16 || D == DTYPE_F16 ? 16
													: 8,
		fit = IN_FLIGHT / (R * bytes),
		n = fit < 1   ? 1
			: fit > 4 ? 4
					  : fit
	};
};

static __device__ __forceinline__ void load_eight(float v[8], const float *x, const int quads[2])
{
#pragma unroll
	for (int i = 0; i < 2; i++) {
		float4 quad = *(const float4 *)(x + quads[i]);
		v[4 * i] = quad.x;
		v[4 * i + 1] = quad.y;
		v[4 * i + 2] = quad.z;
		v[4 * i + 3] = quad.w;
	}
}

static __device__ __forceinline__ float dot_eight(const float w[8], const float v[8], float sum)
{
#pragma unroll
	for (int i = 0; i < 8; i++)
		sum = fmaf(w[i], v[i], sum);
	return sum;
}

/* A step: sums[r][t] += packs[r] . x[t]. Whichever there are fewer of waits in registers. */
template <enum dtype D, int R, int T>
static __device__ __forceinline__ void dot_step(const struct pack<D> packs[R], const float *x,
												int x_stride, const int quads[][2],
												float sums[R][T])
{
	float parts[R][T];
#pragma unroll
	for (int i = 0; i < R * T; i++)
		parts[i / T][i % T] = D == DTYPE_NVFP4 ? 0 : sums[i / T][i % T];
#pragma unroll
	for (int h = 0; h < at_once<D>::n / 8; h++) {
		if (T <= 2) {
			float v[T][8], w[8];
#pragma unroll
			for (int t = 0; t < T; t++)
				load_eight(v[t], x + t * x_stride, quads[h]);
#pragma unroll
			for (int r = 0; r < R; r++) {
				unpack_codes<D>(packs[r], h, w);
#pragma unroll
				for (int t = 0; t < T; t++)
					parts[r][t] = dot_eight(w, v[t], parts[r][t]);
			}
		} else {
			float v[8], w[R][8];
#pragma unroll
			for (int r = 0; r < R; r++)
				unpack_codes<D>(packs[r], h, w[r]);
#pragma unroll
			for (int t = 0; t < T; t++) {
				load_eight(v, x + t * x_stride, quads[h]);
#pragma unroll
				for (int r = 0; r < R; r++)
					parts[r][t] = dot_eight(w[r], v, parts[r][t]);
			}
		}
	}
#pragma unroll
	for (int r = 0; r < R; r++) {
		float factor = unit<D>(packs[r]);
#pragma unroll
		for (int t = 0; t < T; t++)
			sums[r][t] = D == DTYPE_NVFP4 ? fmaf(parts[r][t], factor, sums[r][t]) : parts[r][t];
	}
}

/* A batch of steps from element j on. Where a row may end within it, a lane that is past the end
 * loads its first elements again and forgets them. */
template <enum dtype D, int R, int T, bool WHOLE>
static __device__ __forceinline__ void dot_batch(const struct placed &at, const uint32_t rows[R],
												 const float *x, int x_stride, const int quads[][2],
												 struct span span, int j, float sums[R][T])
{
	const int step = WARP * at_once<D>::n, steps = batch<D, R>::n;
	struct pack<D> packs[steps][R];
#pragma unroll
	for (int r = 0; r < R; r++) {
		const char *row = (const char *)at.data + (uint64_t)rows[r] * 8;
		const uint8_t *scales = D == DTYPE_NVFP4 ? at.scales + rows[r] : NULL;
#pragma unroll
		for (int s = 0; s < steps; s++) {
			int more = WHOLE || j + s * step < span.length ? s * step : 0;
			load<D>(packs[s][r], row, scales, span.start + j + more);
		}
	}
#pragma unroll
	for (int s = 0; s < steps; s++)
		if (WHOLE || j + s * step < span.length)
			dot_step<D, R, T>(packs[s], x + j + s * step, x_stride, quads, sums);
}

/* One span of columns; x from `packed` on. Stored rows lie at rows[r] * 8 bytes, where the same
 * number is the first scale of NVFP4. */
template <enum dtype D, int R, int T, enum layout L>
static __device__ __forceinline__ void dot_steps(const struct placed &at, const uint32_t rows[R],
												 const float *x, int x_stride, int packed,
												 struct span span, float sums[R][T])
{
	const int each = at_once<D>::n, all = WARP * each * batch<D, R>::n;
	int first = (int)(threadIdx.x % WARP) * each, quads[each / 8][2], from = 0;
	/* relative to the lane's element: the same in every step */
#pragma unroll
	for (int i = 0; i < each / 4; i++)
		quads[i / 2][i % 2] = place<L>(packed + first + 4 * i) - first;
	for (; from + all <= span.length; from += all)
		dot_batch<D, R, T, true>(at, rows, x, x_stride, quads, span, from + first, sums);
	if (from + first < span.length)
		dot_batch<D, R, T, false>(at, rows, x, x_stride, quads, span, from + first, sums);
}

/* The same where nothing is aligned: an element a lane. */
template <enum dtype D, int R, int T, enum layout L>
static __device__ __forceinline__ void dot_elements(const struct placed &at, const int64_t rows[R],
													const float *x, int x_stride, int packed,
													struct span span, float sums[R][T])
{
	for (int j = threadIdx.x % WARP; j < span.length; j += WARP)
#pragma unroll
		for (int r = 0; r < R; r++) {
			int64_t i = rows[r] + span.start + j;
			float w = element<D>(at.data, i);
			if (D == DTYPE_NVFP4)
				w *= from_e4m3(at.scales[i / NVFP4_BLOCK]);
#pragma unroll
			for (int t = 0; t < T; t++)
				sums[r][t] = fmaf(w, x[t * x_stride + place<L>(packed + j)], sums[r][t]);
		}
}

/* What kernels multiply with. */
struct factors {
	const struct cuda_view *m; // all of it but m->at, which experts have of their own
	struct placed at;
	const float *x; // T rows, stride apart
	int stride;
	bool aligned; // wide loads of weights and activations
};

/* sums[r][t] = (W x[t])[first + r]; every lane gets them. */
template <enum dtype D, int R, int T, enum layout L>
static __device__ __forceinline__ void dot_rows(const struct factors &f, int first,
												float sums[R][T])
{
	const struct cuda_view &m = *f.m;
	int packed = 0;
#pragma unroll
	for (int i = 0; i < R * T; i++)
		sums[i / T][i % T] = 0;
	for (int s = 0; s < m.n_column_spans; s++) {
		struct span span = column_span(m, s);
		if (f.aligned) {
			uint32_t rows[R];
#pragma unroll
			for (int r = 0; r < R; r++)
				rows[r] = (uint32_t)(element_bytes<D>(stored_row(m, first + r) * m.stride) / 8);
			dot_steps<D, R, T, L>(f.at, rows, f.x, f.stride, packed, span, sums);
		} else {
			int64_t rows[R];
#pragma unroll
			for (int r = 0; r < R; r++)
				rows[r] = stored_row(m, first + r) * m.stride;
			dot_elements<D, R, T, L>(f.at, rows, f.x, f.stride, packed, span, sums);
		}
		packed += span.length;
	}
#pragma unroll
	for (int r = 0; r < R; r++)
#pragma unroll
		for (int t = 0; t < T; t++) {
			sums[r][t] = warp_sum(sums[r][t]);
			if (D == DTYPE_F8_E4M3 || D == DTYPE_NVFP4) // not joined to the sum it may go into
				sums[r][t] = __fmul_rn(sums[r][t], f.at.scale);
		}
}

/* ---- many rows ---- */

/* Where results go: y[t][row], as linear_op says. */
struct results {
	float *const *y; // (n)
	int n, mode;     // the first n of T rows count
};

static __device__ __forceinline__ void store(float *y, float v, int mode)
{
	if (mode == LINEAR_ADD)
		*y += v;
	else
		*y = mode == LINEAR_RELU2 ? (v > 0 ? v * v : 0) : v;
}

template <enum dtype D, int R, int T, enum layout L>
static __device__ __forceinline__ void multiply_chunk(const struct factors &f,
													  const struct results &to, int first)
{
	float sums[R][T];
	int lane = threadIdx.x % WARP;
	dot_rows<D, R, T, L>(f, first, sums);
#pragma unroll
	for (int r = 0; r < R; r++)
#pragma unroll
		for (int t = 0; t < T; t++)
			if (lane == r * T + t && t < to.n)
				store(&to.y[t][first + r], sums[r][t], to.mode);
}

/* Stored rows at once. Of NVFP4, whose rows are short, more: each reads the activations. */
template <enum dtype D, int T> struct at_most {
	enum { rows = D == DTYPE_NVFP4 && T <= 2 ? 4 : 2 };
};

template <enum dtype D, int T, enum layout L>
static __device__ __forceinline__ void multiply(const struct factors &f, const struct results &to,
												int first, int end)
{
	const int most = at_most<D, T>::rows;
	for (; end - first >= most; first += most)
		multiply_chunk<D, most, T, L>(f, to, first);
	if (most > 2 && end - first >= 2) {
		multiply_chunk<D, 2, T, L>(f, to, first);
		first += 2;
	}
	if (first < end)
		multiply_chunk<D, 1, T, L>(f, to, first);
}

/* A warp: rows first to end of the matrix. D_ANY: the matrix' own format, where those of one launch
 * differ. */
#define D_ANY ((enum dtype)N_DTYPES)
template <enum dtype D, int T, enum layout L>
static __device__ __forceinline__ void multiply_rows(const struct factors &f,
													 const struct results &to, int first, int end)
{
	if (D != D_ANY) {
		multiply<D == D_ANY ? DTYPE_F32 : D, T, L>(f, to, first, end);
		return;
	}
	switch (f.at.dtype) {
	case DTYPE_F32: multiply<DTYPE_F32, T, L>(f, to, first, end); break;
	case DTYPE_BF16: multiply<DTYPE_BF16, T, L>(f, to, first, end); break;
	case DTYPE_F16: multiply<DTYPE_F16, T, L>(f, to, first, end); break;
	case DTYPE_F8_E4M3: multiply<DTYPE_F8_E4M3, T, L>(f, to, first, end); break;
	default: multiply<DTYPE_NVFP4, T, L>(f, to, first, end); break;
	}
}

/* Brings the first rows that a warp will multiply into L2: before AWAIT_EARLIER(). */
static __device__ __forceinline__ void prefetch_rows(const struct cuda_view &m, int first, int end)
{
#if defined(__CUDA_ARCH__)
	int bits = m.at.dtype == DTYPE_F32       ? 32
			   : m.at.dtype == DTYPE_NVFP4   ? 4
			   : m.at.dtype == DTYPE_F8_E4M3 ? 8
											 : 16;
	int bytes = (int)((int64_t)m.n_columns * bits / 8);
	for (int row = first; row < end && row < first + 4; row++) {
		const char *at =
			(const char *)m.at.data + (stored_row(m, row) * m.stride + m.column_start) * bits / 8;
		for (int i = (int)(threadIdx.x % WARP) * 128; i < bytes; i += WARP * 128)
			asm volatile("prefetch.global.L2 [%0];" ::"l"(at + i));
	}
#else
	(void)m, (void)first, (void)end;
#endif
}

#endif

/*
 * What kernels share: how one is launched, sums over a warp and a block, the number formats, and a
 * matrix as a kernel sees it. CUDA "C": templates over the dtype and nothing else of C++.
 */
#ifndef KERNELS_CUDA_KERNEL_CUH
#define KERNELS_CUDA_KERNEL_CUH

#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>

extern "C" {
#include "kernels/cuda_device.h"
}

/* LAUNCH(device, kernel, grid, block, bytes of dynamic shared memory, arguments...); a kernel with
 * commas stands in parentheses.
 *
 * From Hopper on a kernel may start while the one before it ends. So every kernel begins with
 * AWAIT_EARLIER(): what earlier kernels wrote, and what they still read, is theirs until then. Only
 * a prefetch of weights stands before it (tests/style looks). */

/* More has to be asked for: 48 KB less what a kernel declares beside it. */
#define UNASKED_SHARED ((size_t)32 << 10)
#ifdef __CUDACC__
#define SHARED_DYNAMIC(name) extern __shared__ __align__(16) unsigned char name[]
template <typename... P, typename... A>
static inline void launch_kernel(struct device *device, const char *what, void (*kernel)(P...),
								 dim3 grid, dim3 block, size_t shared, A... arguments)
{
	cudaLaunchAttribute overlap = {};
	cudaLaunchConfig_t config = {};
	overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
	overlap.val.programmaticStreamSerializationAllowed = 1;
	config.gridDim = grid;
	config.blockDim = block;
	config.dynamicSmemBytes = shared;
	config.stream = device->stream;
	config.attrs = &overlap;
	config.numAttrs = device->overlaps;
	if (shared > UNASKED_SHARED)
		cuda_failed(
			device,
			cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
			what);
	cuda_failed(device, cudaLaunchKernelEx(&config, kernel, P(arguments)...), what);
	device->n_launches++;
}
#define LAUNCH(device, kernel, grid, block, shared, ...)                                           \
	launch_kernel(device, "starting " #kernel, kernel, grid, block, shared, __VA_ARGS__)
#else
#define LAUNCH(device, kernel, grid, block, shared, ...)                                           \
	((device)->n_launches++,                                                                       \
	 shim_launch(__FILE__ ":" #kernel, kernel, grid, block, shared, __VA_ARGS__))
#endif

static __device__ __forceinline__ void await_earlier(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
#endif
}
#define AWAIT_EARLIER() await_earlier()

#define FULL_WARP 0xffffffffu
#define WARP 32

static inline unsigned blocks_of(int64_t n, int64_t each)
{
	return (unsigned)((n + each - 1) / each);
}

/* ---- lanes of a pass: the grid's last axis ---- */

#define LANES 32 // of a launch, unless their arguments are large: a kernel takes 4 KB of them

/* A kernel's arguments by value, those of all lanes that it is started for. */
template <typename OP, int N = LANES> struct lanes {
	OP at[N];
};

/* Takes the next lanes, at most N; how many. */
template <typename OP, int N>
static inline int take_lanes(struct lanes<OP, N> &lanes, const OP *op, int n_lanes)
{
	static_assert(sizeof lanes < 4096, "more than a kernel can take");
	int n = n_lanes < N ? n_lanes : N;
	for (int l = 0; l < n; l++)
		lanes.at[l] = op[l];
	return n;
}

/* The most tokens of any lane. */
template <typename OP, int N>
static inline int most_rows(const struct lanes<OP, N> &lanes, int n_lanes)
{
	int most = 0;
	for (int l = 0; l < n_lanes; l++)
		most = lanes.at[l].n > most ? lanes.at[l].n : most;
	return most;
}

/* ---- sums; every lane, or every thread, gets the result ---- */

static __device__ __forceinline__ float warp_sum(float v)
{
	for (int lanes = WARP / 2; lanes > 0; lanes /= 2)
		v += __shfl_xor_sync(FULL_WARP, v, lanes);
	return v;
}

static __device__ __forceinline__ float warp_max(float v)
{
	for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
		float other = __shfl_xor_sync(FULL_WARP, v, lanes);
		v = other > v ? other : v;
	}
	return v;
}

static __device__ __forceinline__ uint32_t warp_most(uint32_t v)
{
	return __reduce_max_sync(FULL_WARP, v);
}

static __device__ __forceinline__ uint32_t warp_least(uint32_t v)
{
	return __reduce_min_sync(FULL_WARP, v);
}

/* blockDim.x is a multiple of 32, at most 1024. */
static __device__ __forceinline__ float block_sum(float v)
{
	__shared__ float sums[WARP];
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
	v = warp_sum(v);
	__syncthreads(); // whoever reads the sums of a call before
	if (lane == 0)
		sums[warp] = v;
	__syncthreads();
	return warp_sum(lane < n_warps ? sums[lane] : 0);
}

/* ---- blocks that meet ---- */

/* The last of n blocks to come here? All threads call it and get it; the ticket (cuda_tickets)
 * stands at 0 again behind the last one. What the others wrote and read before happens before what
 * the last one does behind: their numbers are taken behind fences, and it has one behind its own.
 */
static __device__ __forceinline__ bool last_of(unsigned *ticket, unsigned n)
{
	__shared__ bool last;
	__threadfence();
	__syncthreads();
	if (threadIdx.x == 0)
		last = atomicInc(ticket, n - 1) == n - 1;
	__syncthreads();
	__threadfence();
	return last;
}

/* ---- number formats ---- */

static __device__ __forceinline__ float from_bf16(uint32_t bits)
{
	return __uint_as_float(bits << 16);
}

/* As f32_to_bf16: to nearest, ties to even, NaN stays. */
static __device__ __forceinline__ uint16_t to_bf16(float value)
{
	uint32_t bits = __float_as_uint(value);
	if ((bits & 0x7fffffff) > 0x7f800000)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static __device__ __forceinline__ float from_f16(uint32_t bits)
{
	uint32_t wide = (bits & 0x7fff) << 13, sign = (bits & 0x8000) << 16;
	uint32_t magnitude = __float_as_uint(__uint_as_float(wide) * 0x1p112f);
	if ((bits & 0x7c00) == 0x7c00)
		magnitude = wide | 0x7f800000;
	return __uint_as_float(sign | magnitude);
}

/* The two halves of a register. */
static __device__ __forceinline__ void from_f16_pair(uint32_t pair, float *low, float *high)
{
#ifdef __CUDA_ARCH__
	asm("{\n\t.reg .b16 l, h;\n\tmov.b32 {l, h}, %2;\n\tcvt.f32.f16 %0, l;\n\tcvt.f32.f16 %1, "
		"h;\n\t}"
		: "=f"(*low), "=f"(*high)
		: "r"(pair));
#else
	*low = from_f16(pair & 0xffff);
	*high = from_f16(pair >> 16);
#endif
}

/* NaN stays; else the pattern read as an F32 one is the value times 2^-120. */
static __device__ __forceinline__ float from_e4m3(uint32_t code)
{
	if ((code & 0x7f) == 0x7f)
		return __uint_as_float(0x7fc00000);
	return __uint_as_float((code & 0x80) << 24 | (code & 0x7f) << 20) * 0x1p120f;
}

/* Two codes; F16 holds every value of E4M3. */
static __device__ __forceinline__ void from_e4m3_pair(uint32_t codes, float *low, float *high)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
	uint32_t pair;
	asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"((uint16_t)codes));
	from_f16_pair(pair, low, high);
#else
	*low = from_e4m3(codes & 0xff);
	*high = from_e4m3(codes >> 8);
#endif
}

/* value / 2^shift, to nearest, ties to even. 0 < shift < 32. */
static __device__ __forceinline__ uint32_t shift_round(uint32_t value, unsigned shift)
{
	uint32_t half = (1u << (shift - 1)) - 1 + (value >> shift & 1);
	return (uint32_t)(((uint64_t)value + half) >> shift);
}

/* As f32_to_e4m3: saturates at 448, NaN stays. */
static __device__ __forceinline__ uint8_t to_e4m3(float value)
{
	uint32_t bits = __float_as_uint(value), sign = bits >> 24 & 0x80;
	uint32_t magnitude = bits & 0x7fffffff;
	if (magnitude > 0x7f800000)
		return 0x7f;
	if (magnitude >= 0x43e00000)
		return (uint8_t)(sign | 0x7e);
	if (magnitude >= 0x3c800000)
		return (uint8_t)(sign | shift_round(magnitude - (120u << 23), 20));
	if (magnitude < 0x3a800000)
		return (uint8_t)sign;
	return (uint8_t)(sign |
					 shift_round((magnitude & 0x7fffff) | 0x800000, 141 - (magnitude >> 23)));
}

/* The pattern read as an F32 one is the value times 2^-126. */
static __device__ __forceinline__ float from_e2m1(uint32_t code)
{
	return __uint_as_float((code & 8) << 28 | (code & 7) << 22) * 0x1p126f;
}

/* One element of a row of any format; of NVFP4 without its scales. */
template <enum dtype D> static __device__ __forceinline__ float element(const void *row, int64_t j)
{
	if (D == DTYPE_F32)
		return ((const float *)row)[j];
	if (D == DTYPE_BF16)
		return from_bf16(((const uint16_t *)row)[j]);
	if (D == DTYPE_F16)
		return from_f16(((const uint16_t *)row)[j]);
	if (D == DTYPE_F8_E4M3)
		return from_e4m3(((const uint8_t *)row)[j]);
	uint32_t pair = ((const uint8_t *)row)[j / 2];
	return from_e2m1(j % 2 ? pair >> 4 : pair & 15);
}

/* ---- matrices ---- */

static __device__ __forceinline__ int64_t stored_row(const struct cuda_view &m, int row)
{
	if (m.n_row_spans == 1)
		return m.row_start + row;
	const struct span *span = m.rows;
	while (row >= span->length)
		row -= span++->length;
	return span->start + row;
}

static __device__ __forceinline__ struct span column_span(const struct cuda_view &m, int i)
{
	if (m.n_column_spans == 1) {
		struct span one = {m.column_start, m.n_columns};
		return one;
	}
	return m.columns[i];
}

#endif

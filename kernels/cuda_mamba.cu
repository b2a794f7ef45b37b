/*
 * Mamba-2: the convolution, a thread a channel and chunk of tokens, and the recurrence, a warp a
 * state row, whose states stay in registers while the tokens pass.
 */
#include "kernels/cuda_kernel.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

#define CONV_MAX_KERNEL 16
#define CONV_TOKENS 64 // a thread's; at least CONV_MAX_KERNEL: only the first chunk sees the state
#define SSM_MAX_STATES 256
#define SSM_WARPS 4

static __global__ void conv_kernel(struct conv_op o)
{
	int c = blockIdx.x * blockDim.x + threadIdx.x, past = o.kernel - 1;
	int from = blockIdx.y * CONV_TOKENS;
	int to = from + CONV_TOKENS < o.n ? from + CONV_TOKENS : o.n;
	if (c >= o.channels)
		return;
	float *state = o.state + o.channel[c];
	const float *weight = o.weight + (int64_t)c * o.kernel;
	for (int t = from; t < to; t++) {
		float sum = o.bias[c];
		for (int k = 0; k < o.kernel; k++) {
			int row = t - past + k; // of x; before it lies the state
			float x = row < 0 ? state[(int64_t)(past + row) * o.state_channels]
							  : o.x[row * o.x_stride + c];
			sum += weight[k] * x;
		}
		o.y[(int64_t)t * o.channels + c] = sum / (1 + expf(-sum));
	}
	if (from > 0)
		return;
	for (int k = 0; k < past; k++) { // ascending: what is read lies behind what is written
		int row = o.n - past + k;
		state[(int64_t)k * o.state_channels] =
			row < 0 ? state[(int64_t)(past + row) * o.state_channels] : o.x[row * o.x_stride + c];
	}
}

extern "C" void cuda_conv(struct device *device, int n_lanes, const struct conv_op *op)
{
	for (const struct conv_op *o = op; o < op + n_lanes && !device->failed; o++) {
		if (o->kernel < 1 || o->kernel > CONV_MAX_KERNEL) {
			fail(cuda_failure(device), "convolution over %d inputs, expected 1 to %d", o->kernel,
				 CONV_MAX_KERNEL);
			return;
		}
		LAUNCH(device, conv_kernel, dim3(blocks_of(o->channels, 128), blocks_of(o->n, CONV_TOKENS)),
			   128, 0, *o);
	}
}

/* A warp has one state row (head h, channel p) of up to 32 * S states, lane i those at i + 32 k. */
template <int S> static __global__ void ssm_kernel(struct ssm_op o)
{
	int i = blockIdx.x * SSM_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
	int inner = o.n_heads * o.head_dim;
	int64_t stride = inner + 2 * (int64_t)o.n_groups * o.state_size;
	if (i >= inner)
		return;
	int h = i / o.head_dim;
	float *state = o.state + (int64_t)o.state_row[i] * o.state_size, s[S];
	float a = o.a[h], skip = o.d[h], bias = o.dt_bias[h];
#pragma unroll
	for (int k = 0; k < S; k++)
		s[k] = lane + WARP * k < o.state_size ? state[lane + WARP * k] : 0;
	for (int t = 0; t < o.n; t++) {
		const float *b = o.xbc + t * stride + inner + (int64_t)o.head_group[h] * o.state_size;
		const float *c = b + (int64_t)o.n_groups * o.state_size;
		float x = o.xbc[t * stride + i], v = o.dt[t * o.dt_stride + h] + bias, sum = 0;
		float d = v > 20 ? v : log1pf(expf(v)); // softplus
		float decay = expf(d * a), input = d * x;
#pragma unroll
		for (int k = 0; k < S; k++) {
			int j = lane + WARP * k;
			if (j < o.state_size) {
				s[k] = decay * s[k] + input * b[j];
				sum += s[k] * c[j];
			}
		}
		sum = warp_sum(sum);
		if (lane == 0)
			o.y[(int64_t)t * inner + i] = sum + skip * x;
	}
#pragma unroll
	for (int k = 0; k < S; k++)
		if (lane + WARP * k < o.state_size)
			state[lane + WARP * k] = s[k];
}

extern "C" void cuda_ssm(struct device *device, int n_lanes, const struct ssm_op *op)
{
	for (const struct ssm_op *o = op; o < op + n_lanes && !device->failed; o++) {
		unsigned blocks = blocks_of(o->n_heads * o->head_dim, SSM_WARPS);
		if (cuda_chunked(device, o))
			continue;
		if (o->state_size > SSM_MAX_STATES)
			fail(cuda_failure(device), "a state of %d values a channel, expected at most %d",
				 o->state_size, SSM_MAX_STATES);
		else if (o->state_size > 128)
			LAUNCH(device, ssm_kernel<8>, blocks, SSM_WARPS * WARP, 0, *o);
		else if (o->state_size > 64)
			LAUNCH(device, ssm_kernel<4>, blocks, SSM_WARPS * WARP, 0, *o);
		else
			LAUNCH(device, ssm_kernel<2>, blocks, SSM_WARPS * WARP, 0, *o);
	}
}

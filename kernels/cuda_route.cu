/*
 * Routing, without going back to the host: a warp a token, the choice stays in device memory.
 */
#include "kernels/cuda_route.cuh"

extern "C" {
#include "kernels/cuda_products.h"
}

/* Block (token, lane). */
static __global__ void route_kernel(const __grid_constant__ struct lanes<route_op> lanes)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	const struct route_op &o = lanes.at[blockIdx.y];
	if ((int)blockIdx.x >= o.n)
		return;
	struct choice c = choice_in(memory, o.n_experts, o.top_k);
	route(o, blockIdx.x, c);
	publish(o, blockIdx.x, c);
}

extern "C" void cuda_route(struct device *device, int n_lanes, const struct route_op *op)
{
	struct lanes<route_op> lanes;
	for (int n; n_lanes > 0 && !device->failed; op += n, n_lanes -= n) {
		size_t bytes = 0;
		n = take_lanes(lanes, op, n_lanes);
		for (int l = 0; l < n; l++) {
			size_t needed = route_bytes(op[l].n_experts, op[l].top_k);
			if (op[l].top_k < 1 || op[l].top_k > op[l].n_experts || op[l].n_experts > CUDA_MAX_EXPERTS) {
				fail(cuda_failure(device), "router: %d of %d experts", op[l].top_k,
					 op[l].n_experts);
				return;
			}
			bytes = needed > bytes ? needed : bytes;
		}
		LAUNCH(device, route_kernel, dim3(most_rows(lanes, n), n), WARP, bytes, lanes);
	}
}

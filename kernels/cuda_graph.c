/*
 * The ends of a pass: begin() and finish(), and what the mailbox says.
 */
#include "kernels/cuda_device.h"
#include <stdlib.h>
#include <string.h>

enum step cuda_begin(struct device *device, uint64_t key)
{
	(void)key;
	cuda_uploads_wait(device);
	memset(&device->mailbox->fault, 0, sizeof device->mailbox->fault);
	device->n_outs = 0;
	return STEP_RUN;
}

static void read_fault(struct device *device)
{
	const struct cuda_fault *fault = &device->mailbox->fault;
	switch ((enum cuda_fault_kind)fault->kind) {
	case FAULT_NONE: return;
	case FAULT_TOKEN:
		fail(cuda_failure(device), "token id %d, expected 0 to %d", fault->found, fault->limit - 1);
		break;
	case FAULT_EXPERT:
		fail(cuda_failure(device), "expert %d, expected 0 to %d", fault->found, fault->limit - 1);
		break;
	case FAULT_LOGITS:
		fail(cuda_failure(device), "position %lld: the largest logit of %d is not finite",
			 (long long)fault->position, fault->limit);
		break;
	case FAULT_FORCED:
		fail(cuda_failure(device), "forced token %d, expected below %d", fault->found,
			 fault->limit);
		break;
	}
}

int cuda_finish(struct device *device, struct error *err)
{
	cuda_failed(device, cudaStreamSynchronize(device->stream), "a pass");
	device->ring_at = 0;
	read_fault(device);
	for (int i = 0; i < device->n_outs; i++)
		*device->outs[i] = device->mailbox->picked[i];
	memset(&device->mailbox->fault, 0, sizeof device->mailbox->fault);
	device->n_outs = 0;
	if (!device->failed)
		return 0;
	device->failed = false;
	return fail(err, "%s", device->failure.text);
}

void cuda_graphs_drop(struct device *device)
{
	(void)device;
}

void cuda_graphs_close(struct device *device)
{
	(void)device;
}

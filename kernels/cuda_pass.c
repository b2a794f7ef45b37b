#include "kernels/cuda_pass.h"
#include "base/memory.h"
#include "kernels/cuda_profile.h"
#include <stdlib.h>
#include <string.h>

struct cuda_pass {
	struct cuda_list list;
	size_t n_run; // of its operations
	uint64_t key; // the list is recorded under it at the end; 0 = it is not
	bool running; // operations that are being started need memory: no flush
};

/* ---- running ---- */

static void run_one(struct device *device, const struct cuda_list *list,
					const struct cuda_note *note)
{
	int n = note->n_lanes;
	const void *ops = cuda_list_ops(list, note);
	switch (note->kind) {
	case CUDA_EMBED: cuda_embed(device, n, ops); break;
	case CUDA_NORM: cuda_norm(device, n, ops); break;
	case CUDA_LINEAR: cuda_linear(device, n, ops); break;
	case CUDA_CONV: cuda_conv(device, n, ops); break;
	case CUDA_SSM: cuda_ssm(device, n, ops); break;
	case CUDA_GATED_NORM: cuda_gated_norm(device, n, ops); break;
	case CUDA_ATTENTION: cuda_attention(device, n, ops); break;
	case CUDA_ROUTE: cuda_route(device, n, ops); break;
	case CUDA_EXPERTS: cuda_experts(device, n, ops); break;
	case CUDA_PICK: cuda_pick(device, n, ops); break;
	}
}

void cuda_run_pass(struct device *device, const struct cuda_list *list, size_t from)
{
	cuda_profile_list(device);
	while (from < list->n && !device->failed) {
		size_t n = device->one_by_one ? 0 : cuda_start_fused(device, list, from);
		if (n == 0) {
			run_one(device, list, &list->notes[from]);
			n = 1;
		}
		cuda_profile_group(device, list, from, n);
		from += n;
	}
}

void cuda_flush(struct device *device)
{
	struct cuda_pass *pass = device->pass;
	if (!pass || pass->running || pass->n_run == pass->list.n)
		return;
	pass->running = true;
	cuda_run_pass(device, &pass->list, pass->n_run);
	pass->running = false;
	pass->n_run = pass->list.n;
}

/* ---- writing ---- */

void cuda_list_free(struct cuda_list *list)
{
	free(list->notes);
	free(list->memory);
	*list = (struct cuda_list){0};
}

static void list_clear(struct cuda_list *list)
{
	list->n = 0;
	list->used_bytes = 0;
}

static struct cuda_pass *pass_of(struct device *device)
{
	struct error err = {0};
	if (!device->pass && !(device->pass = mem_new(1, sizeof *device->pass, &err)))
		fail(cuda_failure(device), "a pass: %s", err.text);
	return device->pass;
}

static void write_down(struct device *device, enum cuda_kind kind, int n_lanes, const void *ops,
					   size_t op_bytes)
{
	struct cuda_pass *pass = pass_of(device);
	struct error err = {0};
	size_t bytes = (size_t)n_lanes * op_bytes;
	if (n_lanes == 0 || device->failed)
		return;
	struct cuda_list *list = &pass->list;
	if (mem_grow(&list->notes, &list->notes_capacity, list->n + 1, sizeof *list->notes, &err) ||
		mem_grow(&list->memory, &list->memory_capacity, list->used_bytes + bytes, 1, &err)) {
		fail(cuda_failure(device), "a pass: %s", err.text);
		return;
	}
	memcpy(list->memory + list->used_bytes, ops, bytes);
	list->notes[list->n++] = (struct cuda_note){kind, n_lanes, list->used_bytes};
	list->used_bytes += (bytes + 15) / 16 * 16;
}

#define OPERATION(name, kind)                                                                      \
	void cuda_note_##name(struct device *device, int n_lanes, const struct name##_op *op)          \
	{                                                                                              \
		write_down(device, kind, n_lanes, op, sizeof *op);                                         \
	}

OPERATION(embed, CUDA_EMBED)
OPERATION(norm, CUDA_NORM)
OPERATION(linear, CUDA_LINEAR)
OPERATION(conv, CUDA_CONV)
OPERATION(ssm, CUDA_SSM)
OPERATION(gated_norm, CUDA_GATED_NORM)
OPERATION(attention, CUDA_ATTENTION)
OPERATION(route, CUDA_ROUTE)
OPERATION(experts, CUDA_EXPERTS)
OPERATION(pick, CUDA_PICK)

/* ---- a pass ---- */

enum step cuda_begin(struct device *device, uint64_t key)
{
	struct cuda_pass *pass = pass_of(device);
	bool record = false;
	cuda_flush(device); // what nobody has finished
	cuda_uploads_wait(device);
	memset(&device->mailbox->fault, 0, sizeof device->mailbox->fault);
	device->n_outs = 0;
	if (device->failed)
		return STEP_RUN;
	list_clear(&pass->list);
	pass->n_run = 0;
	if (key && !cuda_profiling(device) && cuda_graph_replay(device, key, &record) == STEP_REPLAYED)
		return STEP_REPLAYED;
	pass->key = record ? key : 0;
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
	struct cuda_pass *pass = device->pass;
	bool whole = pass && pass->n_run == 0; // nobody looked into it midway
	cuda_flush(device);
	cuda_failed(device, cudaStreamSynchronize(device->stream), "a pass");
	device->ring_at = 0;
	device->n_passes++;
	cuda_profile_finish(device);
	read_fault(device);
	for (int i = 0; i < device->n_outs; i++)
		*device->outs[i] = device->mailbox->picked[i];
	memset(&device->mailbox->fault, 0, sizeof device->mailbox->fault);
	device->n_outs = 0;
	if (whole && pass->key && !device->failed)
		cuda_graph_record(device, pass->key, &pass->list);
	if (pass) {
		list_clear(&pass->list);
		pass->n_run = 0;
		pass->key = 0;
	}
	if (!device->failed)
		return 0;
	device->failed = false;
	cuda_look_lost(device);
	return fail(err, "%s", device->failure.text);
}

void cuda_pass_close(struct device *device)
{
	if (!device->pass)
		return;
	cuda_list_free(&device->pass->list);
	free(device->pass);
	device->pass = NULL;
}

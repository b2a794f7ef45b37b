/*
 * The ends of a pass, and recorded passes. A pass that comes a second time is noted, operation by
 * operation, while it runs; a thread of its own captures the notes into a CUDA graph and
 * instantiates it, so nobody waits for that; from then on begin() launches the graph. Everything
 * that changes from token to token lies in device memory, so the notes stay right until memory that
 * they name is released: then all graphs go.
 */
#include "base/memory.h"
#include "kernels/cuda_device.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define N_PASSES 32 // known ones, most of them without a graph
#define N_GRAPHS 8

enum kind {
	KIND_EMBED,
	KIND_NORM,
	KIND_LINEAR,
	KIND_CONV,
	KIND_SSM,
	KIND_GATED_NORM,
	KIND_ATTENTION,
	KIND_ROUTE,
	KIND_EXPERTS,
	KIND_PICK,
};

struct note {
	enum kind kind;
	int n_lanes;
	union {
		struct embed_op embed[MAX_LANES];
		struct norm_op norm[MAX_LANES];
		struct linear_op linear[MAX_LANES];
		struct conv_op conv[MAX_LANES];
		struct ssm_op ssm[MAX_LANES];
		struct gated_norm_op gated_norm[MAX_LANES];
		struct attention_op attention[MAX_LANES];
		struct route_op route[MAX_LANES];
		struct experts_op experts[MAX_LANES];
		struct pick_op pick[MAX_LANES];
	};
};

struct pass {
	uint64_t key; // 0 = free
	uint64_t used;
	cudaGraphExec_t graph; // NULL = none (yet)
	struct picked *outs[MAX_LANES];
	int n_outs;
};

struct cuda_graphs {
	struct pass passes[N_PASSES];
	uint64_t clock;
	uint64_t n_replayed;
	bool noting; // the pass that runs is noted
	uint64_t key;
	struct note *notes;
	size_t n_notes, notes_capacity;
	/* The thread that captures; the fields below are its own while it runs. */
	bool capturing;
	pthread_t thread;
	pthread_mutex_t lock;
	bool done; // under lock
	struct device shadow;
	cudaGraphExec_t captured;
};

/* ---- capturing ---- */

static void run_note(struct device *device, const struct note *note)
{
	switch (note->kind) {
	case KIND_EMBED: cuda_embed(device, note->n_lanes, note->embed); break;
	case KIND_NORM: cuda_norm(device, note->n_lanes, note->norm); break;
	case KIND_LINEAR: cuda_linear(device, note->n_lanes, note->linear); break;
	case KIND_CONV: cuda_conv(device, note->n_lanes, note->conv); break;
	case KIND_SSM: cuda_ssm(device, note->n_lanes, note->ssm); break;
	case KIND_GATED_NORM: cuda_gated_norm(device, note->n_lanes, note->gated_norm); break;
	case KIND_ATTENTION: cuda_attention(device, note->n_lanes, note->attention); break;
	case KIND_ROUTE: cuda_route(device, note->n_lanes, note->route); break;
	case KIND_EXPERTS: cuda_experts(device, note->n_lanes, note->experts); break;
	case KIND_PICK: cuda_pick(device, note->n_lanes, note->pick); break;
	}
}

/* The shadow has the device's scratch, which the noted pass has made large enough, and a stream of
 * its own. */
static cudaGraphExec_t capture(struct cuda_graphs *g)
{
	struct device *shadow = &g->shadow;
	cudaGraph_t graph = NULL;
	cudaGraphExec_t exec = NULL;
	if (cudaSetDevice(shadow->options.card) != cudaSuccess ||
		cudaStreamCreateWithFlags(&shadow->stream, cudaStreamNonBlocking) != cudaSuccess)
		return NULL;
	if (cudaStreamBeginCapture(shadow->stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess) {
		for (size_t i = 0; i < g->n_notes && !shadow->failed; i++)
			run_note(shadow, &g->notes[i]);
		cudaError_t error = cudaStreamEndCapture(shadow->stream, &graph);
		if (error == cudaSuccess && graph && !shadow->failed &&
			cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess)
			exec = NULL;
		if (graph)
			cudaGraphDestroy(graph);
	}
	cudaStreamDestroy(shadow->stream);
	cudaGetLastError(); // passes run one by one then: slower, not wrong
	return exec;
}

static void *capture_thread(void *argument)
{
	struct cuda_graphs *g = argument;
	g->captured = capture(g);
	pthread_mutex_lock(&g->lock);
	g->done = true;
	pthread_mutex_unlock(&g->lock);
	return NULL;
}

static struct pass *find_pass(struct cuda_graphs *g, uint64_t key)
{
	for (int i = 0; i < N_PASSES; i++)
		if (g->passes[i].key == key)
			return &g->passes[i];
	return NULL;
}

static void forget_graph(struct pass *pass)
{
	if (pass->graph)
		cudaGraphExecDestroy(pass->graph);
	pass->graph = NULL;
}

/* At most N_GRAPHS: the least recently used goes. */
static void keep_graph(struct cuda_graphs *g, struct pass *pass, cudaGraphExec_t graph)
{
	struct pass *oldest = NULL;
	int n = 0;
	for (int i = 0; i < N_PASSES; i++) {
		struct pass *other = &g->passes[i];
		if (!other->graph)
			continue;
		n++;
		if (!oldest || other->used < oldest->used)
			oldest = other;
	}
	if (n >= N_GRAPHS)
		forget_graph(oldest);
	pass->graph = graph;
}

/* Takes over what the thread has made; waits for it only where asked. */
static void collect(struct cuda_graphs *g, bool wait)
{
	bool done;
	if (!g->capturing)
		return;
	pthread_mutex_lock(&g->lock);
	done = g->done;
	pthread_mutex_unlock(&g->lock);
	if (!done && !wait)
		return;
	pthread_join(g->thread, NULL);
	g->capturing = false;
	struct pass *pass = find_pass(g, g->key);
	if (pass && g->captured) {
		memcpy(pass->outs, g->shadow.outs, sizeof pass->outs);
		pass->n_outs = g->shadow.n_outs;
		keep_graph(g, pass, g->captured);
	} else if (g->captured) {
		cudaGraphExecDestroy(g->captured);
	}
	g->captured = NULL;
}

static void start_capture(struct device *device)
{
	struct cuda_graphs *g = device->graphs;
	g->shadow = *device;
	g->shadow.graphs = NULL; // it notes nothing
	g->shadow.n_outs = 0;
	g->done = false;
	g->capturing = pthread_create(&g->thread, NULL, capture_thread, g) == 0;
}

/* ---- a pass ---- */

static struct cuda_graphs *graphs_of(struct device *device)
{
	if (!device->graphs && (device->graphs = mem_new(1, sizeof *device->graphs, NULL)))
		pthread_mutex_init(&device->graphs->lock, NULL);
	return device->graphs;
}

/* The known pass, or a place for it: of the least recently used without a graph, if any. */
static struct pass *know(struct cuda_graphs *g, uint64_t key, bool *again)
{
	struct pass *pass = find_pass(g, key), *place = NULL;
	*again = pass != NULL;
	for (int i = 0; i < N_PASSES && !pass; i++) {
		struct pass *other = &g->passes[i];
		bool better = !place || (!other->graph && place->graph) ||
					  (!other->graph == !place->graph && other->used < place->used);
		if (better)
			place = other;
	}
	if (!pass) {
		forget_graph(place);
		*place = (struct pass){.key = key};
		pass = place;
	}
	pass->used = ++g->clock;
	return pass;
}

enum step cuda_begin(struct device *device, uint64_t key)
{
	struct cuda_graphs *g = graphs_of(device);
	bool again;
	cuda_uploads_wait(device);
	memset(&device->mailbox->fault, 0, sizeof device->mailbox->fault);
	device->n_outs = 0;
	if (!g || !key || device->failed)
		return STEP_RUN;
	collect(g, false);
	struct pass *pass = know(g, key, &again);
	if (pass->graph) {
		memcpy(device->outs, pass->outs, sizeof device->outs);
		device->n_outs = pass->n_outs;
		g->n_replayed++;
		cuda_failed(device, cudaGraphLaunch(pass->graph, device->stream), "a recorded pass");
		return STEP_REPLAYED;
	}
	g->noting = again && !g->capturing;
	if (g->noting) {
		g->key = key;
		g->n_notes = 0;
	}
	return STEP_RUN;
}

/* Room for a note, or NULL: nothing is noted. */
static struct note *new_note(struct device *device, enum kind kind, int n_lanes)
{
	struct cuda_graphs *g = device->graphs;
	if (!g || !g->noting)
		return NULL;
	if (mem_grow(&g->notes, &g->notes_capacity, g->n_notes + 1, sizeof *g->notes, NULL)) {
		g->noting = false;
		return NULL;
	}
	struct note *note = &g->notes[g->n_notes++];
	note->kind = kind;
	note->n_lanes = n_lanes;
	return note;
}

#define OPERATION(name, kind)                                                                      \
	void cuda_note_##name(struct device *device, int n_lanes, const struct name##_op *op)          \
	{                                                                                              \
		struct note *note = new_note(device, kind, n_lanes);                                       \
		if (note)                                                                                  \
			memcpy(note->name, op, (size_t)n_lanes * sizeof *op);                                  \
		cuda_##name(device, n_lanes, op);                                                          \
	}

OPERATION(embed, KIND_EMBED)
OPERATION(norm, KIND_NORM)
OPERATION(linear, KIND_LINEAR)
OPERATION(conv, KIND_CONV)
OPERATION(ssm, KIND_SSM)
OPERATION(gated_norm, KIND_GATED_NORM)
OPERATION(attention, KIND_ATTENTION)
OPERATION(route, KIND_ROUTE)
OPERATION(experts, KIND_EXPERTS)
OPERATION(pick, KIND_PICK)

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
	struct cuda_graphs *g = device->graphs;
	cuda_failed(device, cudaStreamSynchronize(device->stream), "a pass");
	device->ring_at = 0;
	read_fault(device);
	for (int i = 0; i < device->n_outs; i++)
		*device->outs[i] = device->mailbox->picked[i];
	memset(&device->mailbox->fault, 0, sizeof device->mailbox->fault);
	device->n_outs = 0;
	if (g && g->noting) {
		g->noting = false;
		if (!device->failed)
			start_capture(device);
	}
	if (!device->failed)
		return 0;
	device->failed = false;
	return fail(err, "%s", device->failure.text);
}

/* ---- ends ---- */

void cuda_graphs_settle(struct device *device)
{
	if (device->graphs)
		collect(device->graphs, true);
}

uint64_t cuda_graphs_replayed(const struct device *device)
{
	return device->graphs ? device->graphs->n_replayed : 0;
}

void cuda_graphs_drop(struct device *device)
{
	struct cuda_graphs *g = device->graphs;
	if (!g)
		return;
	collect(g, true);
	for (int i = 0; i < N_PASSES; i++) {
		forget_graph(&g->passes[i]);
		g->passes[i] = (struct pass){0};
	}
	g->noting = false;
}

void cuda_graphs_close(struct device *device)
{
	cuda_graphs_drop(device);
	if (!device->graphs)
		return;
	pthread_mutex_destroy(&device->graphs->lock);
	free(device->graphs->notes);
	free(device->graphs);
	device->graphs = NULL;
}

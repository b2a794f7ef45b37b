/*
 * Recorded passes. The list of a pass that comes a second time is kept once it has run; a thread of
 * its own runs it again under capture and makes a CUDA graph of it, so nobody waits for that; from
 * then on the graph is launched. Everything that changes from token to token lies in device memory,
 * so a graph stays right until memory that it names is released: then all graphs go.
 */
#include "base/memory.h"
#include "kernels/cuda_pass.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define N_PASSES 32 // known ones, most of them without a graph
#define N_GRAPHS 8

struct pass {
	uint64_t key; // 0 = free
	uint64_t used;
	cudaGraphExec_t graph; // NULL = none (yet)
	size_t bytes;          // of the card that it takes
	struct picked *outs[MAX_LANES];
	int n_outs;
};

struct cuda_graphs {
	struct pass passes[N_PASSES];
	uint64_t clock;
	uint64_t n_replayed;
	/* The thread that captures; the fields below are its own while it runs. */
	bool capturing;
	pthread_t thread;
	pthread_mutex_t lock;
	bool done; // under lock
	uint64_t key;
	struct cuda_list list;
	struct device shadow;
	cudaGraphExec_t captured;
	size_t captured_bytes; // by which the card's free memory shrank meanwhile
};

/* ---- capturing ---- */

static size_t free_bytes(void)
{
	size_t left = 0, total;
	return cudaMemGetInfo(&left, &total) == cudaSuccess ? left : 0;
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
		cuda_run_pass(shadow, &g->list, 0);
		cudaError_t error = cudaStreamEndCapture(shadow->stream, &graph);
		size_t before = free_bytes();
		if (error == cudaSuccess && graph && !shadow->failed &&
			cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess)
			exec = NULL;
		size_t after = free_bytes();
		g->captured_bytes = before > after ? before - after : 0;
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
	pass->bytes = 0;
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
		pass->bytes = g->captured_bytes;
	} else if (g->captured) {
		cudaGraphExecDestroy(g->captured);
	}
	g->captured = NULL;
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

enum step cuda_graph_replay(struct device *device, uint64_t key, bool *record)
{
	struct cuda_graphs *g = graphs_of(device);
	bool again;
	*record = false;
	if (!g)
		return STEP_RUN;
	collect(g, false);
	struct pass *pass = know(g, key, &again);
	if (!pass->graph) {
		*record = again && !g->capturing;
		return STEP_RUN;
	}
	memcpy(device->outs, pass->outs, sizeof device->outs);
	device->n_outs = pass->n_outs;
	g->n_replayed++;
	cuda_failed(device, cudaGraphLaunch(pass->graph, device->stream), "a recorded pass");
	return STEP_REPLAYED;
}

void cuda_graph_record(struct device *device, uint64_t key, struct cuda_list *list)
{
	struct cuda_graphs *g = device->graphs;
	if (!g || g->capturing || !find_pass(g, key)) // dropped since
		return;
	struct cuda_list empty = g->list;
	g->list = *list;
	*list = empty;
	g->key = key;
	g->shadow = *device;
	g->shadow.graphs = NULL;
	g->shadow.profile = NULL;
	g->shadow.pass = NULL; // its operations run at once
	g->shadow.n_outs = 0;
	g->done = false;
	g->capturing = pthread_create(&g->thread, NULL, capture_thread, g) == 0;
}

/* ---- ends ---- */

void cuda_graphs_settle(struct device *device)
{
	if (device->graphs)
		collect(device->graphs, true);
}

uint64_t cuda_graphs_bytes(const struct device *device)
{
	uint64_t bytes = 0;
	for (int i = 0; i < N_PASSES && device->graphs; i++)
		bytes += device->graphs->passes[i].bytes;
	return bytes;
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
}

void cuda_graphs_close(struct device *device)
{
	cuda_graphs_drop(device);
	if (!device->graphs)
		return;
	pthread_mutex_destroy(&device->graphs->lock);
	cuda_list_free(&device->graphs->list);
	free(device->graphs);
	device->graphs = NULL;
}

/* See cuda_runtime.h. A wrong kernel ends the program: a barrier that not all threads reach. */
#include "card.h"
#include "cuda_runtime.h"
#include <pthread.h>
#include <set>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <time.h>
#include <vector>

#define MAX_THREADS 1024
#define STACK_BYTES (64 << 10)
#define SHARED_BYTES (228 << 10)

/* ---- fibers ---- */

#if defined(__x86_64__)
/* Saves the caller's registers on its stack, and goes on where `to` was saved. */
extern "C" void shim_switch(void **from, void *to);
__asm__(".text\n.globl shim_switch\n.type shim_switch,@function\nshim_switch:\n"
		"pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
		"movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
		"popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
struct context {
	void *sp;
};
static void context_make(context *c, char *stack, void (*entry)())
{
	void **top = (void **)(((uintptr_t)stack + STACK_BYTES) & ~(uintptr_t)15);
	*--top = NULL; // where entry would return to: it does not
	*--top = (void *)entry;
	top -= 6; // the saved registers
	c->sp = top;
}
static void context_switch(context *from, context *to)
{
	shim_switch(&from->sp, to->sp);
}
#else
#include <ucontext.h>
struct context {
	ucontext_t u;
};
static void context_make(context *c, char *stack, void (*entry)())
{
	getcontext(&c->u);
	c->u.uc_stack.ss_sp = stack;
	c->u.uc_stack.ss_size = STACK_BYTES;
	makecontext(&c->u, entry, 0);
}
static void context_switch(context *from, context *to)
{
	swapcontext(&from->u, &to->u);
}
#endif

/* Threads that meet: the last one to arrive opens it. */
struct barrier {
	int live, arrived;
	unsigned generation;
};

struct fiber {
	context saved;
	char *stack;
	bool done;
};

thread_local dim3 shim_thread_index, shim_block_index, shim_block_dim, shim_grid_dim;
static thread_local fiber fibers[MAX_THREADS];
static thread_local barrier block, warps[MAX_THREADS / 32];
static thread_local uint64_t slots[2][MAX_THREADS];
static thread_local context scheduler;
static thread_local int current, n_fibers, idle; // idle: turns since somebody got on
static thread_local bool backwards; // every second block: a barrier that is missing shows
static thread_local const std::function<void()> *body;
static thread_local unsigned char *shared;

unsigned char *shim_shared(void)
{
	return shared;
}

int shim_lane(void)
{
	return current % 32;
}

static void meet(barrier *b)
{
	unsigned generation = b->generation;
	idle = 0;
	if (++b->arrived == b->live) {
		b->arrived = 0;
		b->generation++;
	}
	while (b->generation == generation)
		context_switch(&fibers[current].saved, &scheduler);
}

void shim_meet_block(void)
{
	meet(&block);
}

/* Two sets of slots in turn: nobody is two exchanges ahead of another lane. */
static uint64_t *give(uint64_t mine)
{
	barrier *warp = &warps[current / 32];
	uint64_t *set = slots[warp->generation & 1] + current / 32 * 32;
	set[current % 32] = mine;
	meet(warp);
	return set;
}

uint64_t shim_exchange(uint64_t mine, int source)
{
	int first = current / 32 * 32;
	return give(mine)[first + source < n_fibers ? source : current % 32];
}

uint32_t shim_ballot(bool mine)
{
	int first = current / 32 * 32;
	const uint64_t *set = give(mine);
	uint32_t all = 0;
	for (int i = 0; i < 32 && first + i < n_fibers; i++)
		all |= (uint32_t)(set[i] != 0 && !fibers[first + i].done) << i;
	return all;
}

static float wide(uint32_t pair, int high)
{
	return __uint_as_float(high ? pair & 0xffff0000u : pair << 16);
}

/* Element (i, k) of A lies with lane i % 8 * 4 + k % 8 / 2, of B (k, i) likewise. */
void shim_mma(float sums[4], const uint32_t a[4], const uint32_t b[2])
{
	static thread_local uint32_t given[2][MAX_THREADS][6];
	barrier *warp = &warps[current / 32];
	uint32_t(*set)[6] = given[warp->generation & 1] + current / 32 * 32;
	int lane = current % 32;
	memcpy(set[lane], a, 4 * sizeof *a);
	memcpy(set[lane] + 4, b, 2 * sizeof *b);
	meet(warp);
	for (int i = 0; i < 4; i++) {
		int row = lane / 4, column = lane % 4 * 2 + i % 2;
		for (int k = 0; k < 16; k++)
			sums[i] += wide(set[row * 4 + k % 8 / 2][i / 2 + k / 8 * 2], k % 2) *
					   wide(set[column * 4 + k % 8 / 2][4 + k / 8], k % 2);
	}
}

float shim_from_e4m3(uint32_t code)
{
	int exponent = code >> 3 & 15, mantissa = code & 7;
	float v = exponent ? ldexpf(1 + mantissa / 8.0f, exponent - 7) : ldexpf((float)mantissa, -9);
	if ((code & 0x7f) == 0x7f)
		v = NAN;
	return code & 0x80 ? -v : v;
}

/* As shim_mma, four neighbours a register. */
void shim_mma_e4m3(float sums[4], const uint32_t a[4], const uint32_t b[2])
{
	static thread_local uint32_t given[2][MAX_THREADS][6];
	barrier *warp = &warps[current / 32];
	uint32_t(*set)[6] = given[warp->generation & 1] + current / 32 * 32;
	int lane = current % 32;
	memcpy(set[lane], a, 4 * sizeof *a);
	memcpy(set[lane] + 4, b, 2 * sizeof *b);
	meet(warp);
	for (int i = 0; i < 4; i++) {
		int row = lane / 4, column = lane % 4 * 2 + i % 2;
		for (int k = 0; k < 32; k++)
			sums[i] +=
				shim_from_e4m3(set[row * 4 + k % 16 / 4][i / 2 + k / 16 * 2] >> k % 4 * 8 & 0xff) *
				shim_from_e4m3(set[column * 4 + k % 16 / 4][4 + k / 16] >> k % 4 * 8 & 0xff);
	}
}

void shim_load_matrices(uint32_t to[4], const void *row, bool turned)
{
	static thread_local const unsigned char *given[2][MAX_THREADS];
	barrier *warp = &warps[current / 32];
	const unsigned char **set = given[warp->generation & 1] + current / 32 * 32;
	int lane = current % 32;
	if ((uintptr_t)row % 16) {
		fprintf(stderr, "shim: ldmatrix of an address that is no multiple of 16\n");
		abort();
	}
	set[lane] = (const unsigned char *)row;
	meet(warp);
	for (int i = 0; i < 4; i++)
		if (turned) {
			memcpy(&to[i], set[8 * i + lane % 4 * 2] + lane / 4 * 2, 2);
			memcpy((char *)&to[i] + 2, set[8 * i + lane % 4 * 2 + 1] + lane / 4 * 2, 2);
		} else {
			memcpy(&to[i], set[8 * i + lane / 4] + lane % 4 * 4, 4);
		}
}

/* ---- asynchronous copies ---- */

struct copy {
	void *to;
	const void *from;
	int group;
};
static thread_local std::vector<copy> copies[MAX_THREADS];
static thread_local int groups[MAX_THREADS]; // committed so far

void shim_copy_async(void *to, const void *from)
{
	if ((uintptr_t)to % 16 || (uintptr_t)from % 16) {
		fprintf(stderr, "shim: cp.async of an address that is no multiple of 16\n");
		abort();
	}
	copies[current].push_back({to, from, groups[current]});
}

void shim_copy_commit(void)
{
	groups[current]++;
}

void shim_copy_wait(int n_left)
{
	std::vector<copy> &mine = copies[current];
	size_t n = 0;
	for (; n < mine.size() && mine[n].group < groups[current] - n_left; n++)
		if (mine[n].from)
			memcpy(mine[n].to, mine[n].from, 16);
		else
			memset(mine[n].to, 0, 16);
	mine.erase(mine.begin(), mine.begin() + (long)n);
}

/* A thread that ends no longer counts among those that must meet. */
static void leave(barrier *b)
{
	b->live--;
	if (b->live > 0 && b->arrived == b->live) {
		b->arrived = 0;
		b->generation++;
	}
	idle = 0;
}

static void fiber_entry()
{
	(*body)();
	if (!copies[current].empty()) {
		fprintf(stderr, "shim: a thread ends before what it copies has arrived\n");
		abort();
	}
	fibers[current].done = true;
	leave(&block);
	leave(&warps[current / 32]);
	context_switch(&fibers[current].saved, &scheduler);
	abort();
}

static void run_block()
{
	dim3 d = shim_block_dim;
	int left = n_fibers;
	block = {n_fibers, 0, 0};
	for (int i = 0; i < n_fibers; i++) {
		if (!fibers[i].stack)
			fibers[i].stack = (char *)malloc(STACK_BYTES);
		fibers[i].done = false;
		context_make(&fibers[i].saved, fibers[i].stack, fiber_entry);
		if (i % 32 == 0)
			warps[i / 32] = {n_fibers - i < 32 ? n_fibers - i : 32, 0, 0};
	}
	memset(shared, 0xcd, SHARED_BYTES < 4096 ? SHARED_BYTES : 4096);
	backwards = !backwards;
	for (idle = 0; left > 0;)
		for (int turn = 0; turn < n_fibers; turn++) {
			current = backwards ? n_fibers - 1 - turn : turn;
			if (fibers[current].done)
				continue;
			if (idle++ > 4 * n_fibers) {
				fprintf(stderr, "shim: threads wait at different barriers\n");
				abort();
			}
			shim_thread_index = dim3(current % d.x, current / d.x % d.y, current / d.x / d.y);
			context_switch(&scheduler, &fibers[current].saved);
			left -= fibers[current].done;
		}
}

/* ---- streams and graphs ---- */

struct shim_stream {
	struct shim_graph *capturing;
};
struct shim_event {
	struct timespec at;
};
struct shim_graph {
	std::vector<std::function<void()>> launches;
};
static thread_local shim_stream *capturing; // the stream that captures, if any

/* Which kernels ran, for tests/shim/kernels: a name a line into the file $SHIM_STARTED at the end.
 */
static pthread_mutex_t started_lock = PTHREAD_MUTEX_INITIALIZER;
static std::set<std::string> started_names;

static void write_started()
{
	const char *path = getenv("SHIM_STARTED");
	FILE *file = path ? fopen(path, "w") : NULL;
	if (!file)
		return;
	for (const std::string &name : started_names)
		fprintf(file, "%s\n", name.c_str());
	fclose(file);
}

static void started(const char *name)
{
	pthread_mutex_lock(&started_lock);
	if (started_names.empty())
		atexit(write_started);
	started_names.insert(name);
	pthread_mutex_unlock(&started_lock);
}

static void run_now(const char *name, dim3 grid, dim3 dim, size_t bytes,
					const std::function<void()> &thread)
{
	if (dim.x * dim.y * dim.z > MAX_THREADS || bytes > SHARED_BYTES || grid.y > 65535 ||
		grid.z > 65535 || !grid.x || !grid.y || !grid.z) {
		fprintf(stderr, "shim: a launch of %u,%u,%u x %u threads, %zu bytes shared\n", grid.x,
				grid.y, grid.z, dim.x * dim.y * dim.z, bytes);
		abort();
	}
	if (!shared)
		shared = (unsigned char *)aligned_alloc(128, SHARED_BYTES);
	started(name);
	body = &thread;
	shim_grid_dim = grid;
	shim_block_dim = dim;
	n_fibers = (int)(dim.x * dim.y * dim.z);
	for (unsigned z = 0; z < grid.z; z++)
		for (unsigned y = 0; y < grid.y; y++)
			for (unsigned x = 0; x < grid.x; x++) {
				shim_block_index = dim3(x, y, z);
				run_block();
			}
}

void shim_run(const char *name, dim3 grid, dim3 dim, size_t bytes,
			  const std::function<void()> &thread)
{
	if (capturing)
		capturing->capturing->launches.push_back(
			[=]() { run_now(name, grid, dim, bytes, thread); });
	else if (shim_call(SHIM_LAUNCH) == cudaSuccess)
		run_now(name, grid, dim, bytes, thread);
}

void shim_later(const std::function<void()> &what)
{
	if (capturing)
		capturing->capturing->launches.push_back(what);
	else
		what();
}

static cudaError_t later(const std::function<void()> &what)
{
	shim_later(what);
	return cudaSuccess;
}

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode)
{
	stream->capturing = new shim_graph;
	capturing = stream;
	return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
	*graph = stream->capturing;
	stream->capturing = NULL;
	capturing = NULL;
	return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
	*exec = new shim_graph(*graph);
	return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t)
{
	cudaError_t error = shim_call(SHIM_GRAPH);
	for (size_t i = 0; i < exec->launches.size() && !error; i++)
		exec->launches[i]();
	return error;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
	delete graph;
	return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
	delete exec;
	return cudaSuccess;
}

/* ---- the rest ---- */

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
							cudaStream_t)
{
	cudaError_t error = shim_call(SHIM_COPY);
	if (error)
		return error;
	if (kind == cudaMemcpyHostToDevice)
		shim_copied(bytes);
	return later([=]() { memmove(to, from, bytes); });
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t)
{
	cudaError_t error = shim_call(SHIM_COPY);
	return error ? error : later([=]() { memset(memory, value, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
	*stream = new shim_stream();
	return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	delete stream;
	return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
	return shim_call(SHIM_SYNC);
}

/* The host's time, so that what is measured by events is what the shim takes. */
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
	*event = new shim_event();
	return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	delete event;
	return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t)
{
	return later([=]() { clock_gettime(CLOCK_MONOTONIC, &event->at); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t)
{
	return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
	*ms = (float)((double)(to->at.tv_sec - from->at.tv_sec) * 1e3 +
				  (double)(to->at.tv_nsec - from->at.tv_nsec) / 1e6);
	return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
	return cudaSuccess;
}
}

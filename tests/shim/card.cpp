/*
 * The card that the shim pretends to have: its properties, its memory, and what goes wrong with
 * it. Tests and anybody who wants to see a failure say so in the environment:
 *
 *   SHIM_MEMORY=3MiB         the card's memory (16 GiB); what is taken of it is counted
 *   SHIM_CAPABILITY=75       compute capability (90)
 *   SHIM_DRIVER=11040        what the driver knows, CUDA 11.4 here (13000); 0 = there is no driver
 *   CUDA_VISIBLE_DEVICES     as the real runtime: the one card is number 0
 *   SHIM_CUBLAS=0            no cuBLASLt (cublas.cpp)
 *   SHIM_NVML=1              the driver's gauges (nvml.cpp)
 *   SHIM_RATE=2000000        bytes a second from the host to the card (as fast as it goes)
 *   SHIM_FAIL=WHAT:N:ERROR[:M][,...]
 *                            the Nth WHAT (counted from 1) fails with this number of cudaError_t,
 *                            after the card has been waited for M times (0). WHAT is malloc, host
 *                            (pinned memory), copy, launch, graph, sync. 2 is out of memory; all
 *                            others that come from a pass are sticky, as on a card: everything
 *                            fails from there on. 214 ECC, 700 illegal address, 719 launch failure
 *   SHIM_LOG=FILE            appends a line of what was counted when the program ends
 */
#include "card.h"
#include <atomic>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_RULES 8
#define HEADER 256 // in front of an allocation: how much it takes

static const char *const kinds[N_SHIM_CALLS] = {"malloc", "host",  "copy",
												"launch", "graph", "sync"};

struct rule {
	int kind, error;
	long n, after;
};

struct card {
	size_t bytes;
	int capability, driver;
	double rate; // 0 = no limit
	rule rules[MAX_RULES];
	int n_rules;
	const char *log;
};

static std::atomic<size_t> taken;
static std::atomic<long> counts[N_SHIM_CALLS], matched[MAX_RULES];
static std::atomic<int> broken; // the sticky error
static thread_local int last;   // cudaGetLastError()

static void wrong(const char *name, const char *value)
{
	fprintf(stderr, "shim: %s=%s is not understood (tests/shim/card.cpp)\n", name, value);
	exit(2);
}

static double number(const char *name, double standard)
{
	const char *text = getenv(name);
	char *end;
	if (!text || !*text)
		return standard;
	double value = strtod(text, &end);
	static const char units[] = "KMG";
	const char *unit = *end ? strchr(units, *end) : NULL;
	for (int i = 0; unit && i <= unit - units; i++)
		value *= end[1] == 'i' ? 1024 : 1000;
	if (end == text || (*end && !unit))
		wrong(name, text);
	return value;
}

static void read_rules(card *c)
{
	const char *text = getenv("SHIM_FAIL");
	for (const char *at = text; at && *at && c->n_rules < MAX_RULES;) {
		rule *r = &c->rules[c->n_rules++];
		char kind[16];
		int used = 0, more = 0;
		*r = {-1, 0, 0, 0};
		if (sscanf(at, "%15[a-z]:%ld:%d%n", kind, &r->n, &r->error, &used) != 3)
			wrong("SHIM_FAIL", text);
		if (at[used] == ':' && sscanf(at + used, ":%ld%n", &r->after, &more) != 1)
			wrong("SHIM_FAIL", text);
		for (int i = 0; i < N_SHIM_CALLS; i++)
			r->kind = strcmp(kind, kinds[i]) ? r->kind : i;
		at += used + more;
		if (r->kind < 0 || (*at && *at != ','))
			wrong("SHIM_FAIL", text);
		at += *at == ',';
	}
}

static void write_log(void);

static card read_card(void)
{
	card c = {};
	c.bytes = (size_t)number("SHIM_MEMORY", 17179869184.0);
	c.capability = (int)number("SHIM_CAPABILITY", 90);
	c.driver = (int)number("SHIM_DRIVER", 13000);
	c.rate = number("SHIM_RATE", 0);
	c.log = getenv("SHIM_LOG");
	read_rules(&c);
	if (c.log)
		atexit(write_log);
	return c;
}

static const card &the_card(void)
{
	static const card c = read_card();
	return c;
}

static void write_log(void)
{
	FILE *file = fopen(the_card().log, "a");
	for (int i = 0; file && i < N_SHIM_CALLS; i++)
		fprintf(file, "%s %ld%s", kinds[i], counts[i].load(), i + 1 < N_SHIM_CALLS ? ", " : "\n");
	if (file)
		fclose(file);
}

cudaError_t shim_call(enum shim_call what)
{
	const card &c = the_card();
	counts[what]++;
	for (int i = 0; i < c.n_rules && !broken; i++) {
		const rule *r = &c.rules[i];
		if (r->kind != what || counts[SHIM_SYNC] < r->after || ++matched[i] != r->n)
			continue;
		last = r->error;
		if (r->error != cudaErrorMemoryAllocation)
			broken = r->error;
		return (cudaError_t)r->error;
	}
	if (broken)
		last = broken;
	return (cudaError_t)broken.load();
}

void shim_copied(size_t bytes)
{
	static std::atomic<long long> owed_ns;
	if (the_card().rate <= 0)
		return;
	long long owed = owed_ns += (long long)((double)bytes * 1e9 / the_card().rate);
	if (owed < 5000000)
		return;
	owed_ns -= owed;
	struct timespec time = {(time_t)(owed / 1000000000), (long)(owed % 1000000000)};
	nanosleep(&time, NULL);
}

extern "C" {

const char *cudaGetErrorString(cudaError_t error)
{
	switch ((int)error) {
	case cudaErrorMemoryAllocation: return "out of memory";
	case cudaErrorInsufficientDriver:
		return "CUDA driver version is insufficient for CUDA runtime version";
	case cudaErrorNoDevice: return "no CUDA-capable device is detected";
	case cudaErrorInvalidDevice: return "invalid device ordinal";
	case cudaErrorECCUncorrectable: return "uncorrectable ECC error encountered";
	case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
	case cudaErrorLaunchFailure: return "unspecified launch failure";
	default: return "an error of the shim";
	}
}

cudaError_t cudaGetLastError(void)
{
	int error = broken ? broken.load() : last;
	last = cudaSuccess;
	return (cudaError_t)error;
}

cudaError_t cudaDriverGetVersion(int *version)
{
	*version = the_card().driver;
	return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
	*version = 13000;
	return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");
	*count = 0;
	if (the_card().driver < 13000)
		return cudaErrorInsufficientDriver;
	if (visible && strncmp(visible, "0", 1) != 0)
		return cudaErrorNoDevice;
	if (broken)
		return (cudaError_t)broken.load();
	*count = 1;
	return cudaSuccess;
}

cudaError_t cudaSetDevice(int number)
{
	return number ? cudaErrorInvalidDevice : (cudaError_t)broken.load();
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int number)
{
	if (number)
		return cudaErrorInvalidDevice;
	memset(prop, 0, sizeof *prop);
	strcpy(prop->name, "shim");
	prop->major = the_card().capability / 10;
	prop->minor = the_card().capability % 10;
	prop->multiProcessorCount = 4;
	prop->totalGlobalMem = the_card().bytes;
	return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int length, int)
{
	snprintf(id, (size_t)length, "none");
	return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
	*total = the_card().bytes;
	*free = *total - taken;
	return (cudaError_t)broken.load();
}

/* Memory is not zeroed, so that nothing relies on it. */
static cudaError_t allocate(void **memory, size_t bytes, bool on_card)
{
	size_t room = (bytes + 255) & ~(size_t)255;
	*memory = NULL;
	if (bytes > (size_t)1 << 40 || (on_card && room > the_card().bytes - taken))
		return (cudaError_t)(last = cudaErrorMemoryAllocation);
	char *block = (char *)aligned_alloc(256, HEADER + room);
	if (!block)
		return (cudaError_t)(last = cudaErrorMemoryAllocation);
	*(size_t *)(void *)block = on_card ? room : 0;
	taken += on_card ? room : 0;
	*memory = block + HEADER;
	memset(*memory, 0xcd, bytes);
	return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
	cudaError_t error = shim_call(SHIM_MALLOC);
	return error ? error : allocate(memory, bytes, true);
}

cudaError_t cudaFree(void *memory)
{
	char *block = memory ? (char *)memory - HEADER : NULL;
	if (block)
		taken -= *(size_t *)(void *)block;
	free(block);
	return (cudaError_t)broken.load();
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
	cudaError_t error = shim_call(SHIM_HOST);
	return error ? error : allocate(memory, bytes, false);
}

cudaError_t cudaFreeHost(void *memory)
{
	return cudaFree(memory);
}
}

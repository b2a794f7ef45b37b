/*
 * The part of NVML that kernels/cuda_gauge.c reads, where SHIM_NVML=1: a card at work, always the
 * same numbers, and the memory that the shim counts.
 */
#include "cuda_runtime_api.h"
#include <string.h>

static int init(void)
{
	return 0;
}

static int find(const char *, void **card)
{
	static char one;
	*card = &one;
	return 0;
}

/* As used by everybody: what we have taken and half a gigabyte of others'. */
static int memory(void *, unsigned long long out[3])
{
	size_t left = 0, total = 0;
	cudaMemGetInfo(&left, &total);
	out[0] = total;
	out[1] = left;
	out[2] = total - left + 500000000;
	return 0;
}

static int power(void *, unsigned *milliwatts)
{
	*milliwatts = 612400;
	return 0;
}

static int clock(void *, int, unsigned *mhz)
{
	*mhz = 1755;
	return 0;
}

static int temperature(void *, int, unsigned *celsius)
{
	*celsius = 61;
	return 0;
}

static int busy(void *, unsigned out[2])
{
	out[0] = 97;
	out[1] = 80;
	return 0;
}

void *shim_nvml(const char *name)
{
	static const struct {
		const char *name;
		void *function;
	} all[] = {
		{"nvmlInit_v2", (void *)init},
		{"nvmlDeviceGetHandleByPciBusId_v2", (void *)find},
		{"nvmlDeviceGetMemoryInfo", (void *)memory},
		{"nvmlDeviceGetPowerUsage", (void *)power},
		{"nvmlDeviceGetClockInfo", (void *)clock},
		{"nvmlDeviceGetTemperature", (void *)temperature},
		{"nvmlDeviceGetUtilizationRates", (void *)busy},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (!strcmp(all[i].name, name))
			return all[i].function;
	return NULL;
}

#include "kernels/cuda_device.h"
#include "kernels/gpu.h"
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OLDEST 80 // compute capability

static int check_driver(int *driver, int *runtime, struct error *err)
{
	cudaRuntimeGetVersion(runtime);
	if (cudaDriverGetVersion(driver) != cudaSuccess || *driver == 0)
		return fail(err, "no NVIDIA driver on this machine (libcuda.so.1 was not found); --device "
						 "cpu runs everything");
	return 0;
}

static int count_cards(int driver, int runtime, int *n, struct error *err)
{
	cudaError_t error = cudaGetDeviceCount(n);
	if (error == cudaErrorInsufficientDriver)
		return fail(err,
					"the NVIDIA driver is too old: it knows CUDA %d.%d, this build needs %d.%d; "
					"--device cpu runs everything",
					driver / 1000, driver % 100 / 10, runtime / 1000, runtime % 100 / 10);
	if (error == cudaErrorNoDevice || (error == cudaSuccess && *n == 0)) {
		const char *visible = getenv("CUDA_VISIBLE_DEVICES");
		*n = 0;
		return fail(err, "the driver shows no card%s%s%s",
					visible ? " (CUDA_VISIBLE_DEVICES is \"" : "", visible ? visible : "",
					visible ? "\")" : "");
	}
	return error == cudaSuccess ? 0 : fail(err, "%s", cudaGetErrorString(error));
}

static int check_card(int card, int n, struct error *err)
{
	struct cudaDeviceProp prop;
	if (card < 0 || card >= n)
		return fail(err, "the machine has %d card%s, counted from 0", n, n == 1 ? "" : "s");
	cudaError_t error = cudaGetDeviceProperties(&prop, card);
	if (error != cudaSuccess)
		return fail(err, "%s", cudaGetErrorString(error));
	if (prop.major * 10 + prop.minor < OLDEST)
		return fail(err, "%s has compute capability %d.%d, expected %d.%d or newer", prop.name,
					prop.major, prop.minor, OLDEST / 10, OLDEST % 10);
	return 0;
}

int gpu_usable(int card, struct error *err)
{
	int driver = 0, runtime = 0, n = 0;
	if (cuda_lost())
		return fail(
			err,
			"--device cuda:%d: a card has failed in this process (%s): restart elastiscope to "
			"use it again; --device cpu runs everything",
			card, cuda_lost());
	if (check_driver(&driver, &runtime, err) || count_cards(driver, runtime, &n, err) ||
		check_card(card, n, err))
		return fail_in(err, "--device cuda:%d", card);
	return 0;
}

static bool can_open(const char *const *names)
{
	for (; *names; names++) {
		void *library = dlopen(*names, RTLD_LAZY | RTLD_LOCAL);
		if (library) {
			dlclose(library);
			return true;
		}
	}
	return false;
}

static void read_now(int i, struct gpu_card *card)
{
	char bus_id[32];
	struct device_gauges now;
	if (cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, i) != cudaSuccess)
		bus_id[0] = '\0';
	cuda_read_card(bus_id, &now);
	card->used_bytes = now.used_bytes;
	card->power_mw = now.power_mw;
	card->clock_mhz = now.clock_mhz;
	card->temperature_c = now.temperature_c;
	card->busy_percent = now.busy_percent;
}

void gpu_facts(struct gpu_facts *facts)
{
	static const char *const nvml[] = {"libnvidia-ml.so.1", NULL};
	static const char *const cublas[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
	int n = 0;
	*facts = (struct gpu_facts){.built = true, .nvml = can_open(nvml), .cublas = can_open(cublas)};
	if (check_driver(&facts->driver, &facts->runtime, &facts->problem) ||
		count_cards(facts->driver, facts->runtime, &n, &facts->problem))
		return;
	for (int i = 0; i < n && i < GPU_MAX_CARDS; i++) {
		struct cudaDeviceProp prop;
		struct gpu_card *card = &facts->cards[facts->n_cards++];
		if (cudaGetDeviceProperties(&prop, i) != cudaSuccess)
			continue;
		snprintf(card->name, sizeof card->name, "%.63s", prop.name);
		card->capability = prop.major * 10 + prop.minor;
		card->bytes = prop.totalGlobalMem;
		read_now(i, card);
	}
	check_card(0, n, &facts->problem);
}

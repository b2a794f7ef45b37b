/*
 * What the card does: memory as we count it, the rest from NVML, whose library is opened when it is
 * first asked. Without it everything else is unknown (-1).
 */
#include "kernels/cuda_profile.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

#define WARM_PASSES 32
#define MEASURED_MIN ((size_t)512 << 20) // several times the cache of the largest cards
#define MEASURED_MAX ((size_t)1 << 30)

/* The part of nvml.h that is used; a result of 0 is success. */
typedef struct nvml_card *nvml_card;
struct nvml_memory {
	unsigned long long total, free, used;
};
struct nvml_busy {
	unsigned gpu, memory;
};
enum { NVML_CLOCK_SM = 1, NVML_TEMPERATURE_GPU = 0 };

static struct {
	int (*init)(void);
	int (*find)(const char *bus_id, nvml_card *card);
	int (*memory)(nvml_card card, struct nvml_memory *out);
	int (*power)(nvml_card card, unsigned *milliwatts);
	int (*clock)(nvml_card card, int which, unsigned *mhz);
	int (*temperature)(nvml_card card, int which, unsigned *celsius);
	int (*busy)(nvml_card card, struct nvml_busy *out);
} nvml;

static bool load(void *library)
{
	const struct {
		void *place;
		const char *name;
	} all[] = {
		{&nvml.init, "nvmlInit_v2"},
		{&nvml.find, "nvmlDeviceGetHandleByPciBusId_v2"},
		{&nvml.memory, "nvmlDeviceGetMemoryInfo"},
		{&nvml.power, "nvmlDeviceGetPowerUsage"},
		{&nvml.clock, "nvmlDeviceGetClockInfo"},
		{&nvml.temperature, "nvmlDeviceGetTemperature"},
		{&nvml.busy, "nvmlDeviceGetUtilizationRates"},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		void *function = dlsym(library, all[i].name);
		if (!function)
			return false;
		*(void **)all[i].place = function;
	}
	return nvml.init() == 0;
}

static bool loaded;

static void load_once(void)
{
	void *library = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_LOCAL);
	loaded = library && load(library);
}

static nvml_card find_card(const char *bus_id)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT; // several engines ask
	nvml_card card = NULL;
	pthread_once(&once, load_once);
	return loaded && nvml.find(bus_id, &card) == 0 ? card : NULL;
}

/* Once, and by reading what lies there anyway, so nothing is allocated: about a millisecond between
 * two tokens. Not before a few passes have brought the clocks up, and not where all that lies there
 * may come from the cache. */
static void measure_memory(struct device *device)
{
	size_t bytes;
	if (device->read_bps != 0 || device->n_passes < WARM_PASSES || device->failed)
		return;
	const void *largest = cuda_uploaded_block(device, &bytes);
	for (size_t i = 0; i < device->n_blocks; i++)
		if (device->blocks[i].bytes > bytes) {
			largest = device->blocks[i].memory;
			bytes = device->blocks[i].bytes;
		}
	bytes = bytes < MEASURED_MAX ? bytes & ~(size_t)4095 : MEASURED_MAX;
	if (bytes < MEASURED_MIN)
		return;
	device->read_bps = cuda_read_rate(device, largest, bytes);
	if (device->read_bps == 0)
		device->read_bps = -1; // not again
}

void cuda_read_card(const char *bus_id, struct device_gauges *out)
{
	struct nvml_memory memory;
	struct nvml_busy busy;
	unsigned value;
	out->used_bytes = -1;
	out->power_mw = out->clock_mhz = out->temperature_c = out->busy_percent = -1;
	nvml_card card = find_card(bus_id);
	if (!card)
		return;
	if (nvml.memory(card, &memory) == 0)
		out->used_bytes = (int64_t)memory.used;
	if (nvml.power(card, &value) == 0)
		out->power_mw = (int)value;
	if (nvml.clock(card, NVML_CLOCK_SM, &value) == 0)
		out->clock_mhz = (int)value;
	if (nvml.temperature(card, NVML_TEMPERATURE_GPU, &value) == 0)
		out->temperature_c = (int)value;
	if (nvml.busy(card, &busy) == 0)
		out->busy_percent = (int)busy.gpu;
}

void cuda_gauges(struct device *device, struct device_gauges *out)
{
	uint64_t weights = cuda_uploaded_bytes(device), graphs = cuda_graphs_bytes(device);
	measure_memory(device);
	*out = (struct device_gauges){
		.known = true,
		.ours_bytes = (int64_t)(device->allocated_bytes + weights + graphs),
		.weights_bytes = (int64_t)weights,
		.graph_bytes = (int64_t)graphs,
		.total_bytes = (int64_t)device->total_bytes,
		.read_bps = device->read_bps > 0 ? (int64_t)device->read_bps : -1,
	};
	for (int i = 0; i < N_CUDA_SCRATCH; i++)
		out->scratch_bytes += (int64_t)device->scratch[i].bytes;
	cuda_read_card(device->bus_id, out);
}

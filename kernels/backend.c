#include "kernels/backend.h"
#include "kernels/gpu.h"
#include <stdlib.h>
#include <string.h>

#if defined(HAVE_CUDA)
extern const struct backend backend_cuda;
#else
static int not_built(struct error *err)
{
	return fail(err, "this build has no CUDA (with nvcc at hand: meson setup build "
					 "-Dcuda=enabled); --device cpu runs everything");
}

void gpu_facts(struct gpu_facts *facts)
{
	*facts = (struct gpu_facts){0};
	not_built(&facts->problem);
}

int gpu_usable(int card, struct error *err)
{
	not_built(err);
	return fail_in(err, "--device cuda:%d", card);
}
#endif

bool gpu_passed_over(struct error *why)
{
	struct gpu_facts facts;
	gpu_facts(&facts);
	*why = facts.problem;
	return facts.driver > 0 && facts.problem.text[0];
}

/* The card of "cuda" or "cuda:N", with "alone" behind a comma or a blank; -1 = neither. */
static int card_named(const char *device, bool *alone)
{
	long card = 0;
	char *end = (char *)device + 4;
	if (strncmp(device, "cuda", 4) != 0)
		return -1;
	if (*end == ':' && end[1] >= '0' && end[1] <= '9')
		card = strtol(end + 1, &end, 10);
	*alone = strcmp(end, ",alone") == 0 || strcmp(end, " alone") == 0;
	return (*end == '\0' || *alone) && card < 1000 ? (int)card : -1;
}

const struct backend *backend_choose(const char *device, struct device_options *options,
									 struct error *err)
{
	bool alone = false, automatic = strcmp(device, "auto") == 0;
	int named = automatic ? 0 : card_named(device, &alone);
	options->card = 0;
	options->alone = false;
	options->automatic = automatic;
	if (strcmp(device, "cpu") == 0 || (automatic && gpu_usable(named, NULL) < 0))
		return &backend_cpu;
	if (named < 0) {
		fail(err, "--device: '%s': expected auto, cpu, cuda or cuda:N, or cuda,alone%s", device,
			 strchr(device, ',') ? "; a model runs on one card, not on several" : "");
		return NULL;
	}
	if (gpu_usable(named, err) < 0)
		return NULL;
	options->card = named;
	options->alone = alone;
#if defined(HAVE_CUDA)
	return &backend_cuda;
#else
	return NULL; // gpu_usable() has said why
#endif
}

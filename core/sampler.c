#include "core/sampler.h"
#include <math.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/hash.h"

void sampler_defaults(struct pick_params *params, const struct config *config,
					  const struct elastic *elastic)
{
	*params = (struct pick_params){.temperature = 1, .top_p = 1, .forced = -1};
	if (config->temperature >= 0)
		params->temperature = config->temperature;
	if (config->top_p > 0)
		params->top_p = config->top_p;
	if (config->do_sample == 0)
		params->temperature = 0;
	if (elastic && elastic->temperature >= 0)
		params->temperature = elastic->temperature;
	if (elastic && elastic->top_p > 0)
		params->top_p = elastic->top_p;
}

int sampler_check(const struct pick_params *params, struct error *err)
{
	// written so that NaN fails
	if (!(params->temperature >= 0 && params->temperature <= 100))
		return fail(err, "temperature %g: expected 0 (greedy) to 100", (double)params->temperature);
	if (!(params->top_p > 0 && params->top_p <= 1))
		return fail(err, "top-p %g: expected more than 0, at most 1", (double)params->top_p);
	if (!(params->min_p >= 0 && params->min_p < 1))
		return fail(err, "min-p %g: expected 0 (off) to less than 1", (double)params->min_p);
	if (params->top_k < 0)
		return fail(err, "top-k %d: expected 0 (off) or more", params->top_k);
	return 0;
}

uint64_t sampler_new_seed(void)
{
	uint64_t noise = 0;

	if (getrandom(&noise, sizeof noise, GRND_NONBLOCK) != (ssize_t)sizeof noise)
		noise = hash_mix(clock_ns() ^ ((uint64_t)time(NULL) << 20)); // early boot: any will do
	return 1 + noise % 0x7fffffffu;
}

/* What the checkpoint recommends for sampling; nothing of it is needed. */
#include "core/config_reader.h"

int generation_config_read(const struct config_reader *r)
{
	static const char *const temperature[] = {"temperature"}, *const top_p[] = {"top_p"};
	struct config *c = r->config;
	double value = 0;
	if (!json_is(r->root, JSON_OBJECT))
		return fail(r->err, "is not a JSON object");
	int found = config_number(r, temperature, 1, &value);
	if (found < 0)
		return -1;
	if (found && !(value >= 0 && value <= 100))
		return fail(r->err, "temperature is %g, expected 0 to 100", value);
	if (found)
		c->temperature = (float)value;
	found = config_number(r, top_p, 1, &value);
	if (found < 0)
		return -1;
	if (found && !(value > 0 && value <= 1))
		return fail(r->err, "top_p is %g, expected more than 0 and at most 1", value);
	if (found)
		c->top_p = (float)value;
	bool sample;
	if (config_bool(r, "do_sample", false, &sample) != 0)
		return -1;
	if (config_member(r, "do_sample"))
		c->do_sample = sample;
	return config_stops(r);
}

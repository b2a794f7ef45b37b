#include "base/size.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The positive number that text starts with, blanks behind it skipped; NULL = none. */
static const char *positive(const char *text, double *value)
{
	char *end;
	errno = 0;
	*value = strtod(text, &end);
	if (end == text || errno != 0 || !isfinite(*value) || *value <= 0)
		return NULL;
	return end + strspn(end, " ");
}

/* Which power of a thousand a letter stands for, 0 = none. */
static int power_of(char letter, const char *letters)
{
	const char *at = letter != '\0' ? strchr(letters, letter & ~0x20) : NULL;
	return at ? (int)(at - letters) + 1 : 0;
}

int size_parse(const char *text, uint64_t *bytes, struct error *err)
{
	double value;
	const char *end = positive(text, &value);
	int power = end ? power_of(*end, "KMGT") : 0;
	if (power > 0) {
		end++;
		value *= pow(strcasecmp(end, "B") == 0 ? 1000 : 1024, power);
		end += strncasecmp(end, "iB", 2) == 0 ? 2 : strncasecmp(end, "B", 1) == 0 ? 1 : 0;
	} else if (end && strcasecmp(end, "B") == 0) {
		end++;
	}
	if (!end || *end != '\0' || value < 1 || value >= 9e18)
		return fail(err, "'%s': expected a size such as 24GiB", text);
	*bytes = (uint64_t)value;
	return 0;
}

int count_parse(const char *text, double *count, struct error *err)
{
	const char *end = positive(text, count);
	int power = end ? power_of(*end, "KMBT") : 0;
	if (end && power == 0 && (*end & ~0x20) == 'G')
		power = 3;
	if (power > 0) {
		*count *= pow(1000, power);
		end++;
	}
	if (!end || *end != '\0' || !isfinite(*count))
		return fail(err, "'%s': expected a number such as 2.8B", text);
	return 0;
}

const char *size_text(uint64_t bytes, char out[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes;
	int unit = 0;
	for (; value >= 1024 && unit < 4; unit++)
		value /= 1024;
	snprintf(out, 32, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
	return out;
}

const char *count_text(double count, char out[32])
{
	static const char *const units[] = {"", "K", "M", "B", "T"};
	int unit = 0;
	for (; count >= 1000 && unit < 4; unit++)
		count /= 1000;
	snprintf(out, 32, unit == 0 ? "%.0f%s" : count < 100 ? "%.2f%s" : "%.1f%s", count, units[unit]);
	return out;
}

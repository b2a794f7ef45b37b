#include "base/clock.h"
#include <stdio.h>
#include <time.h>

uint64_t clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void clock_utc(char out[24])
{
	time_t now = time(NULL);
	struct tm parts;
	gmtime_r(&now, &parts);
	if (!strftime(out, 24, "%Y-%m-%dT%H:%M:%SZ", &parts))
		out[0] = 0;
}

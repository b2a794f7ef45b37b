/* Prints the kernels' speed on this machine: name, rung, microseconds, GB/s. Not a test. */
#include "kernels/bench.h"
#include <stdio.h>

static void print(void *arg, const char *name, const char *rung, double ns, double bytes)
{
	(void)arg;
	printf("%-52s %-12s %10.1f us", name, rung, ns / 1e3);
	if (bytes > 0)
		printf(" %7.2f GB/s", bytes / ns);
	printf("\n");
}

int main(void)
{
	struct error err = {0};
	if (kernels_bench(print, NULL, &err) == 0)
		return 0;
	fprintf(stderr, "%s\n", err.text);
	return 1;
}

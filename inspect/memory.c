#include "inspect/memory.h"

#include <stdio.h>
#include <unistd.h>

static bool read_statm(uint64_t *rss, uint64_t *shared)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long long size, resident, files;
	bool read = file && fscanf(file, "%llu %llu %llu", &size, &resident, &files) == 3;
	if (file)
		fclose(file);
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	*rss = read ? resident * page : 0;
	*shared = read ? files * page : 0;
	return read;
}

void memory_measure(struct memory_facts *facts, const struct model *model)
{
	*facts = (struct memory_facts){0};
	facts->rss_known = read_statm(&facts->rss, &facts->shared);
	if (model) {
		for (int i = 0; i < model->checkpoint.n_shards; i++)
			facts->mapped += model->checkpoint.shards[i].bytes;
		int estimated = 0;
		facts->resident = checkpoint_resident(&model->checkpoint, &estimated);
		facts->resident_estimated = estimated;
	}
}

#include "core/pass.h"
#include "base/memory.h"
#include <stdlib.h>

/* Every array of a pass, for opening and closing. */
struct array {
	void **at;
	size_t size;
};

enum { N_ARRAYS = 20 };

static void arrays_of(struct pass *p, struct array arrays[N_ARRAYS])
{
	struct arguments *a = &p->args;
	const struct array all[] = {
		{(void **)&a->embed, sizeof *a->embed},
		{(void **)&a->norm, sizeof *a->norm},
		{(void **)&a->linear[0], sizeof *a->linear[0]},
		{(void **)&a->linear[1], sizeof *a->linear[1]},
		{(void **)&a->linear[2], sizeof *a->linear[2]},
		{(void **)&a->linear[3], sizeof *a->linear[3]},
		{(void **)&a->conv, sizeof *a->conv},
		{(void **)&a->ssm, sizeof *a->ssm},
		{(void **)&a->gated_norm, sizeof *a->gated_norm},
		{(void **)&a->attention, sizeof *a->attention},
		{(void **)&a->route, sizeof *a->route},
		{(void **)&a->experts, sizeof *a->experts},
		{(void **)&a->pick, sizeof *a->pick},
		{(void **)&a->sharing, sizeof(struct reader *)},
		{(void **)&p->readers, sizeof *p->readers},
		{(void **)&p->members, sizeof *p->members},
		{(void **)&p->activations, sizeof *p->activations},
		{(void **)&p->reader_of, sizeof *p->reader_of},
		{(void **)&p->model, sizeof *p->model},
		{(void **)&p->at, sizeof *p->at},
	};
	_Static_assert(sizeof all / sizeof *all == N_ARRAYS, "every array");
	for (int i = 0; i < N_ARRAYS; i++)
		arrays[i] = all[i];
}

struct pass *pass_open(struct workspace *workspace, struct error *err)
{
	struct array arrays[N_ARRAYS];
	struct pass *p = mem_new(1, sizeof *p, err);
	if (!p)
		return NULL;
	p->b = workspace->backend;
	p->device = workspace->device;
	p->workspace = workspace;
	arrays_of(p, arrays);
	for (int i = 0; i < N_ARRAYS; i++)
		if (!(*arrays[i].at = mem_new((size_t)workspace->n_lanes, arrays[i].size, err))) {
			pass_close(p);
			return NULL;
		}
	return p;
}

void pass_close(struct pass *p)
{
	struct array arrays[N_ARRAYS];
	if (!p)
		return;
	arrays_of(p, arrays);
	for (int i = 0; i < N_ARRAYS; i++)
		free(*arrays[i].at);
	free(p);
}

static bool alone(const struct lane *lane)
{
	return lane->routing || (lane->taps && lane->taps->wanted);
}

/* The reader that the lane joins; the last one that was formed is the likeliest. */
static int join(struct pass *p, struct lane *lane, int index)
{
	const struct slice *slice = sequence_slice(lane->sequence);
	for (int k = p->n_readers - 1; k >= 0 && !alone(lane); k--)
		if (p->readers[k].slice == slice && !alone(p->readers[k].lane))
			return k;
	p->readers[p->n_readers] = (struct reader){.slice = slice,
											   .a = &p->activations[p->n_readers],
											   .lane = lane,
											   .index = index,
											   .sequence = lane->sequence};
	return p->n_readers++;
}

/* A reader's members one behind the other, and their logits. */
static void seat(struct pass *p, struct lane *lanes, int n_lanes)
{
	for (int i = 0; i < n_lanes; i++) {
		struct lane *lane = &lanes[i];
		struct reader *r = &p->readers[p->reader_of[i]];
		r->members[r->n_members++] = (struct member){
			.lane = lane,
			.sequence = lane->sequence,
			.index = i,
			.row = r->n,
			.n = lane->n_tokens,
		};
		r->n += lane->n_tokens;
	}
}

void pass_arrange(struct pass *p, struct lane *lanes, int n_lanes)
{
	struct workspace *w = p->workspace;
	int row = 0, member = 0;
	p->n_readers = 0;
	p->n_members = n_lanes;
	for (int i = 0; i < n_lanes; i++) {
		p->reader_of[i] = join(p, &lanes[i], i);
		p->readers[p->reader_of[i]].n_members++;
	}
	for (int k = 0; k < p->n_readers; k++) {
		p->readers[k].members = p->members + member;
		member += p->readers[k].n_members;
		p->readers[k].n_members = 0;
	}
	seat(p, lanes, n_lanes);
	for (int k = 0; k < p->n_readers; k++) {
		struct reader *r = &p->readers[k];
		size_t vocab = (size_t)r->slice->config->vocab_size;
		int first = (int)(r->members - p->members);
		workspace_rows(w, row, first, n_lanes, r->a);
		row += r->n;
		float *logits = r->a->logits;
		for (int m = 0; m < r->n_members; m++) {
			struct lane *lane = r->members[m].lane;
			r->members[m].ask = w->pool.ask + first + m;
			lane->out = lane->logits == LOGITS_NONE ? NULL : logits;
			logits += vocab * (size_t)lane_logits(lane);
		}
	}
}

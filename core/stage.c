#include "core/stage.h"
#include "base/clock.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

/* Decode needs a lane for each sequence, prefill a chunk of one. */
static int prepare(struct stage *stage, const struct engine_options *options, struct text *notices,
				   struct error *err)
{
	const struct config *config = &stage->model->config;
	int context = options->context > 0 ? options->context : config->max_position_embeddings;
	if (options->context <= 0 && context > STAGE_MAX_CONTEXT) {
		text_format(notices, "context: %d of the model's %d tokens; --ctx asks for more\n",
					STAGE_MAX_CONTEXT, context);
		context = STAGE_MAX_CONTEXT;
	} else if (context > config->max_position_embeddings) {
		text_format(notices, "context: %d tokens, the model was made for %d\n", context,
					config->max_position_embeddings);
	}
	stage->context = context;
	if (turn_rules_init(&stage->rules, config, stage->model->tokenizer, err))
		return -1;
	int chunk = stage->backend->chunk(stage->device);
	stage->workspace = workspace_open(config, stage->backend, stage->device, MAX_SEQUENCES,
									  chunk > MAX_SEQUENCES ? chunk : MAX_SEQUENCES, false, err);
	return stage->workspace && stage_slice(stage, "", err) ? 0 : -1;
}

int stage_open(struct stage *stage, const struct engine_options *options, struct device *device,
			   const struct request *request, struct text *notices, struct error *err)
{
	struct model_options how = {.budgets_file = request->budgets_file, .lenient = request->lenient};
	*stage = (struct stage){
		.backend = options->backend, .device = device, .kv_dtype = options->device.kv_dtype};
	stage->model =
		request->model ? model_retain(request->model) : model_open(request->directory, &how, err);
	if (!stage->model || prepare(stage, options, notices, err)) {
		stage_close(stage);
		return -1;
	}
	return 0;
}

int stage_move(struct stage *stage, const struct engine_options *options, struct device *device,
			   struct model *model, struct text *notices, struct error *err)
{
	*stage = (struct stage){
		.backend = options->backend, .device = device, .kv_dtype = options->device.kv_dtype};
	stage->model = model_retain(model);
	if (prepare(stage, options, notices, err)) {
		stage_close(stage);
		return -1;
	}
	return 0;
}

void stage_close(struct stage *stage)
{
	for (size_t i = 0; i < stage->n_slices; i++) {
		slice_free(&stage->slices[i]->slice);
		free(stage->slices[i]);
	}
	free(stage->slices);
	workspace_close(stage->workspace);
	for (int i = 0; stage->model && i < stage->model->checkpoint.n_shards; i++) {
		const struct shard *shard = &stage->model->checkpoint.shards[i];
		stage->backend->abandon(stage->device, shard->data, shard->bytes);
	}
	model_release(stage->model);
	*stage = (struct stage){0};
}

static struct stage_slice *build(struct stage *stage, const struct budget *budget,
								 struct error *err)
{
	struct stage_slice *made = mem_new(1, sizeof *made, err);
	if (!made || mem_grow(&stage->slices, &stage->slices_capacity, stage->n_slices + 1,
						  sizeof *stage->slices, err)) {
		free(made);
		return NULL;
	}
	if (slice_build(&made->slice, &stage->model->weights, &stage->model->config, budget,
					stage->backend, stage->device, err)) {
		free(made);
		return NULL;
	}
	return stage->slices[stage->n_slices++] = made;
}

struct stage_slice *stage_slice(struct stage *stage, const char *name, struct error *err)
{
	struct budget budget = {0};
	if (!*name)
		name = elastic_default(&stage->model->elastic);
	for (size_t i = 0; i < stage->n_slices; i++)
		if (!strcmp(stage->slices[i]->slice.budget.name, name))
			return stage->slices[i];
	if (model_budget(stage->model, name, &budget, err))
		return NULL;
	struct stage_slice *found = NULL; // the same budget in another spelling
	for (size_t i = 0; i < stage->n_slices && !found; i++)
		if (!strcmp(stage->slices[i]->slice.budget.name, budget.name))
			found = stage->slices[i];
	if (!found)
		found = build(stage, &budget, err);
	budget_free(&budget);
	return found;
}

uint64_t stage_step_ns(struct stage *stage, struct stage_slice *slice)
{
	enum { FEWEST = 3, MOST = 64, LONGEST_NS = 10000000 };
	struct sequence sequence;
	uint64_t start = clock_ns();
	struct pick_params params = {.top_p = 1, .forced = -1};
	if (slice->step_ns > 0 || sequence_open(&sequence, &stage->model->config, stage->backend,
											stage->device, stage->kv_dtype, MOST, NULL))
		return slice->step_ns;
	// the fastest counts: the first ones wake threads and fill caches, and others use the machine
	// too
	for (int i = 0; i < MOST && (i < FEWEST || clock_ns() - start < LONGEST_NS); i++) {
		int32_t id = 0;
		struct picked picked;
		struct lane lane = {
			.sequence = &sequence, .tokens = &id, .n_tokens = 1, .logits = LOGITS_LAST};
		uint64_t began = clock_ns();
		if (sequence_use(&sequence, &slice->slice, NULL) ||
			forward(stage->workspace, &lane, 1, &params, &picked, NULL))
			break;
		uint64_t took = clock_ns() - began;
		if (slice->step_ns == 0 || took < slice->step_ns)
			slice->step_ns = took;
	}
	sequence_close(&sequence);
	return slice->step_ns;
}

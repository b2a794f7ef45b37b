#include "inspect/importance_job.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

/* Jobs tell their progress in ints. */
static int tell(void *user, int64_t done, int64_t total)
{
	while (total > INT32_MAX) {
		done /= 2;
		total /= 2;
	}
	return job_step(user, (int)done, (int)total);
}

/* ---- a curve ---- */

static int run_curve(struct job *job, struct error *err)
{
	struct curve_job *it = (struct curve_job *)job;
	struct norms_watch watch = {tell, job};
	struct importance_query query = it->query;
	query.watch = &watch;
	int status = importance_open(&it->curve, it->model, &query, err);
	it->curve.query = it->query; // the watch is gone
	return status;
}

static void free_curve(struct job *job)
{
	struct curve_job *it = (struct curve_job *)job;
	importance_close(&it->curve);
	model_release(it->model);
	free(it);
}

struct curve_job *curve_job(struct model *model, const struct importance_query *query,
							struct error *err)
{
	struct curve_job *it = mem_new(1, sizeof *it, err);
	if (!it)
		return NULL;
	it->job = (struct job){.name = "weight norms", .run = run_curve, .free = free_curve};
	it->model = model_retain(model);
	it->query = *query;
	return it;
}

int64_t importance_cost(const struct model *model, const struct importance_query *query)
{
	const struct config *c = &model->config;
	bool measured = query->scores || model->importance.n_tensors > 0;
	if (query->axis == N_AXES || (measured && query->metric != IMPORTANCE_WEIGHTS))
		return 0;
	int64_t hidden = 2ll * c->hidden_size; // a row at 2 bytes a weight
	switch (query->axis) {
	case AXIS_HIDDEN:
		return query->layer < 0 ? 2 * hidden * c->vocab_size : hidden * config_inner(c);
	case AXIS_EXPERT_FFN:
	case AXIS_EXPERTS:
		return 2 * hidden * c->moe_intermediate_size *
			   (query->expert < 0 ? c->n_routed_experts : 1);
	case AXIS_SHARED_FFN: return 2 * hidden * c->moe_shared_expert_intermediate_size;
	case AXIS_FFN: return 2 * hidden * c->intermediate_size;
	case AXIS_MAMBA_HEADS:
	case AXIS_MAMBA_CHANNELS: return hidden * config_inner(c);
	case AXIS_ATTENTION_HEADS: return 2 * hidden * c->num_attention_heads * c->head_dim;
	case N_AXES: break;
	}
	return 0;
}

/* ---- a calibration ---- */

static int run_calibration(struct job *job, struct error *err)
{
	struct calibrate_job *it = (struct calibrate_job *)job;
	struct calibrate_texts texts = {0};
	struct calibrate_plan plan = {
		.model = it->model, .texts = &texts, .device = it->device, .step = tell, .user = job};
	int status = 0;
	for (size_t at = 0; at < it->paths.length && status == 0; at += strlen(it->paths.data + at) + 1)
		status = calibrate_add_file(&texts, it->paths.data + at, true, it->model, err);
	if (status == 0)
		status = calibrate_run(&it->calibration, &plan, err);
	calibrate_texts_free(&texts);
	return status;
}

static void free_calibration(struct job *job)
{
	struct calibrate_job *it = (struct calibrate_job *)job;
	calibration_free(&it->calibration);
	model_release(it->model);
	text_free(&it->paths);
	free(it);
}

struct calibrate_job *calibrate_job(struct model *model, const char *const *paths, int n,
									struct error *err)
{
	struct calibrate_job *it = mem_new(1, sizeof *it, err);
	if (!it)
		return NULL;
	for (int i = 0; i < n; i++)
		text_append(&it->paths, paths[i], strlen(paths[i]) + 1);
	if (text_check(&it->paths, err) < 0) {
		text_free(&it->paths);
		free(it);
		return NULL;
	}
	it->job = (struct job){.name = "calibration", .run = run_calibration, .free = free_calibration};
	it->model = model_retain(model);
	it->device = (struct device_options){.n_threads = 1, .math = MATH_EXACT, .kv_dtype = DTYPE_F32};
	return it;
}

#include "inspect/study_plan.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "core/model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_hash(const struct text *all, char out[17])
{
	snprintf(out, 17, "%016llx", (unsigned long long)hash_bytes(all->data, all->length));
}

int study_plan_tasks(struct study_plan *plan, const char *path, size_t limit, struct error *err)
{
	struct text hashes = {0};
	plan->tasks_file = mem_string(path, strlen(path), err);
	if (!plan->tasks_file || tasks_read(&plan->tasks, path, err))
		return -1;
	for (size_t i = 0; i < plan->tasks.n; i++)
		text_format(&hashes, "%d %s\n", plan->tasks.items[i].line, plan->tasks.items[i].hash);
	int result = text_check(&hashes, err);
	if (!result)
		put_hash(&hashes, plan->tasks_hash);
	text_free(&hashes);
	if (limit > 0)
		tasks_limit(&plan->tasks, limit);
	return result;
}

int study_plan_cells(struct study_plan *plan, const struct model *model,
					 const struct turn_settings *settings, struct error *err)
{
	if (grid_complete(&plan->grid, model, err))
		return -1;
	int n = grid_cells(&plan->grid, model, &plan->cells, err);
	return n < 0 ? -1
				 : study_init(&plan->study, &plan->tasks, plan->cells, (size_t)n, settings,
							  model->elastic.budgets[0].name, err);
}

void study_plan_facts(struct study_plan *plan, const struct model *model,
					  const struct event *opened)
{
	const struct turn_settings *settings = &plan->study.base;
	const struct pick_params *sampling = &settings->sampling;
	struct study_fact *facts = plan->facts;
	static const struct study_fact names[N_STUDY_FACTS] = {
		[FACT_CHECKPOINT] = {.name = "checkpoint"},
		[FACT_MODEL] = {.name = "model"},
		[FACT_SEED] = {.name = "seed", .number = true},
		[FACT_TEMPERATURE] = {.name = "temperature", .number = true},
		[FACT_TOP_P] = {.name = "top_p", .number = true},
		[FACT_TOP_K] = {.name = "top_k", .number = true},
		[FACT_MIN_P] = {.name = "min_p", .number = true},
		[FACT_MAX_TOKENS] = {.name = "max_tokens", .number = true},
		[FACT_MATH] = {.name = "math"},
		[FACT_KV] = {.name = "kv"},
		[FACT_RUNG] = {.name = "rung"},
		[FACT_THREADS] = {.name = "threads", .number = true},
		[FACT_CONTEXT] = {.name = "context", .number = true},
	};
	memcpy(facts, names, sizeof names);
#define SET(fact, ...) snprintf(facts[fact].value, sizeof facts[fact].value, __VA_ARGS__)
	SET(FACT_CHECKPOINT, "%s", model->hash);
	SET(FACT_MODEL, "%.64s", model->name);
	SET(FACT_SEED, "%llu", (unsigned long long)sampling->seed);
	SET(FACT_TEMPERATURE, "%.9g", (double)sampling->temperature);
	SET(FACT_TOP_P, "%.9g", (double)sampling->top_p);
	SET(FACT_TOP_K, "%d", sampling->top_k);
	SET(FACT_MIN_P, "%.9g", (double)sampling->min_p);
	SET(FACT_MAX_TOKENS, "%d", settings->max_tokens);
	SET(FACT_MATH, "%s", opened->opened.math == MATH_FAST ? "fast" : "exact");
	SET(FACT_KV, "%s", kv_name(opened->opened.kv_dtype));
	SET(FACT_RUNG, "%s", opened->opened.rung);
	SET(FACT_THREADS, "%d", opened->opened.n_threads);
	SET(FACT_CONTEXT, "%d", opened->opened.context);
#undef SET
}

int study_plan_rows(struct study_plan *plan, const char *path, struct error *err)
{
	plan->file = study_file_open(path, &plan->study, plan->facts, N_STUDY_FACTS, err);
	return plan->file ? 0 : -1;
}

char *study_plan_place(const struct study_plan *plan, struct error *err)
{
	struct text key = {0}, name = {0};
	char hash[17], *path = NULL, *folder = file_place(PLACE_DATA, "studies", err);
	for (int i = 0; i < N_STUDY_FACTS; i++)
		text_format(&key, "%s\n", plan->facts[i].value);
	text_add(&key, plan->tasks_hash);
	if (folder && !text_check(&key, err) && !file_make_directories(folder, err)) {
		put_hash(&key, hash);
		text_format(&name, "%s-%s.csv", plan->facts[FACT_MODEL].value, hash);
		path = text_check(&name, err) ? NULL : file_join(folder, text_chars(&name), err);
	}
	text_free(&key);
	text_free(&name);
	free(folder);
	return path;
}

int study_plan_write(struct study_plan *plan, const char *path, struct error *err)
{
	const struct study *study = &plan->study;
	if (file_exists(path))
		return fail(err, "%s is there already; name a new file", path);
	int result = study_plan_rows(plan, path, err);
	for (size_t i = 0; i < study->tasks->n * study->n_cells && !result; i++)
		if (study->rows[i].done)
			result = study_file_add(plan->file, study, i / study->n_cells, i % study->n_cells, err);
	study_file_close(plan->file);
	plan->file = NULL;
	return result;
}

void study_plan_free(struct study_plan *plan)
{
	study_file_close(plan->file);
	study_free(&plan->study);
	free(plan->cells);
	grid_free(&plan->grid);
	tasks_free(&plan->tasks);
	free(plan->tasks_file);
	*plan = (struct study_plan){0};
}

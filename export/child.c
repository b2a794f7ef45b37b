#include "export/child.h"

#include "base/file.h"
#include "base/memory.h"
#include "export/child_config.h"
#include "export/cut.h"
#include "export/hull.h"
#include "export/nested.h"
#include "export/piece.h"
#include "export/shards.h"
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct writing {
	const struct child_plan *plan;
	struct child_report *report;
	struct cuts cuts;
	struct piece_list pieces;
	struct staging staging;
	struct shards shards;
	uint64_t done;
};

/* ---- weights ---- */

static int take(void *user, const void *bytes, size_t n, struct error *err)
{
	struct writing *w = user;
	if (shards_write(&w->shards, bytes, n, err) != 0)
		return -1;
	w->done += n;
	if (w->plan->step && w->plan->step(w->plan->user, w->done, w->shards.total) != 0)
		return fail(err, "%s: stopped, nothing was written", w->staging.path);
	return 0;
}

static int write_tensors(struct writing *w, struct error *err)
{
	uint64_t most = w->plan->max_shard_bytes ? w->plan->max_shard_bytes : CHILD_SHARD_BYTES;
	struct piece_buffer buffer = {0};
	if (shards_open(&w->shards, &w->staging, w->pieces.tensors, w->pieces.n, most, err) != 0)
		return -1;
	int result = piece_buffer_open(&buffer, &w->pieces, err);
	for (size_t i = 0; i < w->shards.n_tensors && result == 0; i++) {
		size_t index = (size_t)(w->shards.order[i] - w->pieces.tensors);
		result = piece_stream(&w->pieces.list[index], &buffer, (struct sink){take, w}, err);
	}
	piece_buffer_close(&buffer);
	if (result == 0)
		result = shards_finish(&w->shards, err);
	w->report->n_tensors = w->shards.n_tensors;
	w->report->bytes = w->shards.total;
	w->report->n_shards = w->shards.n_shards;
	return result;
}

/* ---- what stands beside them ---- */

static bool is_copied(const char *name)
{
	static const char *const patterns[] = {
		"tokenizer*",
		"special_tokens_map.json",
		"added_tokens.json",
		"vocab.*",
		"merges.txt",
		"*.jinja",
		"chat_template*",
		"generation_config.json",
		"*.py",
		"LICENSE*",
		"LICENCE*",
		"NOTICE*",
		"license*",
	};
	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
		if (fnmatch(patterns[i], name, FNM_PERIOD) == 0)
			return true;
	return false;
}

static int copy_files(struct writing *w, struct error *err)
{
	const char *directory = w->plan->model->directory;
	DIR *dir = opendir(directory);
	int result = 0;
	if (!dir)
		return fail(err, "%s: %s", directory, strerror(errno));
	for (struct dirent *e; result == 0 && (e = readdir(dir));) {
		if (!is_copied(e->d_name))
			continue;
		char *path = file_join(directory, e->d_name, err);
		if (!path) {
			result = -1;
		} else if (file_exists(path)) {
			result = staging_copy(&w->staging, directory, e->d_name, err);
			w->report->n_files++;
		}
		free(path);
	}
	closedir(dir);
	return result;
}

/* config.json comes last: without it nothing opens the directory. */
static int write_texts(struct writing *w, const struct budget *full, struct error *err)
{
	struct text config = {0}, quantisation = {0}, elastic = {0};
	int result = child_config_text(&w->cuts, &config, err);
	if (result == 0)
		result = w->plan->quantisation ? quantisation_config(w->plan->quantisation, &w->cuts,
															 w->plan->version, &quantisation, err)
									   : child_config_quantisation(&w->cuts, &quantisation, err);
	if (result == 0 && quantisation.length) {
		result = staging_write(&w->staging, "hf_quant_config.json", quantisation.data,
							   quantisation.length, err);
		w->report->n_files++;
	}
	if (result == 0 && w->report->elastic) {
		result = hull_elastic(&w->cuts, full, &elastic, err);
		if (result == 0)
			result = staging_write(&w->staging, "elastic.json", elastic.data, elastic.length, err);
		w->report->n_files++;
	}
	if (result == 0)
		result = staging_write(&w->staging, "config.json", config.data, config.length, err);
	w->report->n_files++;
	text_free(&config);
	text_free(&quantisation);
	text_free(&elastic);
	return result;
}

/* ---- all of it ---- */

static int write_all(struct writing *w, struct error *err)
{
	const struct child_plan *plan = w->plan;
	if (staging_open(&w->staging, plan->target, plan->model->directory, plan->force, err) != 0)
		return -1;
	if (write_tensors(w, err) != 0 || copy_files(w, err) != 0 ||
		(plan->nested && nested_write(&w->staging, plan->model, plan->budgets_file,
									  &w->report->n_files, err) != 0) ||
		write_texts(w, plan->budget, err) != 0)
		return -1;
	w->report->n_left_out = w->cuts.n_left_out;
	if (w->cuts.n_left_out)
		snprintf(w->report->first_left_out, sizeof w->report->first_left_out, "%.120s",
				 w->cuts.first_left_out);
	return staging_commit(&w->staging, err);
}

int child_write(const struct child_plan *plan, struct child_report *report, struct error *err)
{
	struct writing w = {.plan = plan, .report = report, .staging.lock = -1, .shards.fd = -1};
	struct error reason = {0};
	struct budget hull = {0};
	*report = (struct child_report){0};
	if (budget_check(plan->budget, &plan->model->config, err) != 0)
		return -1;
	if (child_config_check(plan->model, plan->budget, &reason) != 0) {
		if (!plan->elastic || plan->budget->norm != NORM_SLICE || plan->budget->n_forced)
			return fail(err, "%s", reason.text);
		report->elastic = true;
	}
	int result = hull_make(plan->model, plan->budget, &hull, err);
	if (result == 0)
		result = cuts_plan(&w.cuts, plan->model, &hull, err);
	if (result == 0)
		result = piece_list_open(&w.pieces, &w.cuts, plan->quantisation, err);
	if (result == 0)
		result = write_all(&w, err);
	shards_close(&w.shards);
	piece_list_close(&w.pieces);
	staging_discard(&w.staging);
	cuts_free(&w.cuts);
	budget_free(&hull);
	return result;
}

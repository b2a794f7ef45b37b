/* Inside `inspect`: what its views share. Each prints to stdout as a table, JSON or CSV. */
#ifndef CLI_INSPECT_H
#define CLI_INSPECT_H

#include "cli/command.h"
#include "inspect/scores.h"
#include "inspect/trials.h"
#include <cjson/cJSON.h>

int inspect_nesting(const struct cli *cli, const struct model *model, struct error *err);
int inspect_masks(const struct cli *cli, const struct model *model, struct error *err);
int inspect_importance(const struct cli *cli, const struct model *model, struct error *err);
int inspect_experts(const struct cli *cli, const struct model *model, struct error *err);
int inspect_router(const struct cli *cli, const struct model *model, struct error *err);
int inspect_agreement(const struct cli *cli, const struct model *model, struct error *err);
int inspect_curve(const struct cli *cli, const struct model *model, struct error *err);
int inspect_boundaries(const struct cli *cli, const struct model *model, struct error *err);
int inspect_sensitivity(const struct cli *cli, const struct model *model, struct error *err);
int inspect_mask(const struct cli *cli, const struct model *model, struct error *err);
int inspect_bisect(const struct cli *cli, const struct model *model, struct error *err);
int inspect_scales(const struct cli *cli, const struct model *model, struct error *err);
int inspect_against(const struct cli *cli, const struct model *model, struct error *err);

/* --budget, if it is not one of the model's own: *extra is then to be freed and *has true. */
int inspect_extra_budget(const struct cli *cli, const struct model *model, struct budget *extra,
						 bool *has, struct error *err);

/* The files of --scores, at most SCORES_MAX; list[0] is NULL without any. */
struct inspect_scores {
	struct scores files[SCORES_MAX];
	const struct scores *list[SCORES_MAX];
	int n;
};
int inspect_scores_open(struct inspect_scores *all, const struct cli *cli,
						const struct model *model, struct error *err);
void inspect_scores_close(struct inspect_scores *all);
cJSON *inspect_scores_json(const struct inspect_scores *all); // what they were measured on
/* The matrices of all axes and layers into an array. */
int inspect_agreement_json(cJSON *array, const struct model *model,
						   const struct inspect_scores *scores, struct error *err);

/* What --text FILE or --tokens names, and a device to read it on. */
struct inspect_text {
	const struct cli *cli;
	struct device *device;
	enum dtype kv_dtype;
	int32_t *ids;
	int n, window;
	int shown; // percent of the progress that was printed last
};
int inspect_text_open(struct inspect_text *text, const struct cli *cli, const struct model *model,
					  struct error *err);
void inspect_text_close(struct inspect_text *text); // takes {0}
/* Budgets of the model on that text, against its parent. */
struct trials_plan inspect_trials(struct inspect_text *text, const struct model *model);
/* For the step of plans, user = struct inspect_text: percent on stderr, Ctrl-C. */
int inspect_progress(void *user, int done, int total);

/* A list of numbers, or null. */
cJSON *inspect_numbers(const float *values, int n);

/* A layer's index, or null / "-" for the whole model. */
void inspect_add_layer(cJSON *object, int layer);
const char *inspect_layer(int layer, char out[16]);

#endif

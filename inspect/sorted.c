#include "inspect/sorted.h"
#include <math.h>

static int add(struct sorted *out, const struct model *model, const struct importance_query *query,
			   struct error *err)
{
	struct importance_curve curve;
	if (importance_open(&curve, model, query, err) < 0)
		return -1;
	if (curve.n > 0) {
		out->origin = curve.origin;
		out->n_orders++;
		out->n_descending += curve.descending;
		out->inversions += curve.inversions;
		out->pairs += curve.pairs;
	}
	if (!isnan(curve.spearman)) {
		out->mean += curve.spearman; // a sum until the end
		if (isnan(out->least) || curve.spearman < out->least) {
			out->least = curve.spearman;
			out->least_layer = query->layer;
		}
	}
	int defined = !isnan(curve.spearman);
	importance_close(&curve);
	return defined;
}

int sorted_axis(struct sorted *out, const struct model *model, enum axis axis,
				const struct scores *scores, struct error *err)
{
	const struct config *config = &model->config;
	int defined = 0;
	*out = (struct sorted){.axis = axis, .least = (double)NAN, .least_layer = -1};
	for (int layer = -1; layer < config->n_layers; layer++) {
		bool there = axis == AXIS_HIDDEN ? layer < 0
										 : layer >= 0 && axis_on_layer(axis, config->kinds[layer]);
		int n_experts = axis == AXIS_EXPERT_FFN ? config->n_routed_experts : 1;
		for (int e = 0; there && e < n_experts; e++) {
			struct importance_query query = {.axis = axis,
											 .layer = layer,
											 .expert = axis == AXIS_EXPERT_FFN ? e : -1,
											 .scores = scores};
			int result = add(out, model, &query, err);
			if (result < 0)
				return -1;
			defined += result;
		}
	}
	out->mean = defined ? out->mean / defined : (double)NAN;
	return 0;
}

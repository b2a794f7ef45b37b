#include "inspect/probe.h"

#include "base/memory.h"
#include "core/distribution.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int check_size(const struct probe *probe, struct error *err)
{
	const struct config *c = &probe->model->config;
	uint64_t row = (uint64_t)c->vocab_size + (uint64_t)(c->n_layers + 1) * (uint64_t)c->hidden_size;
	uint64_t bytes = (uint64_t)probe->n * row * sizeof(float);
	if (bytes > PROBE_BYTES) {
		return fail(err,
					"a probe of %d tokens needs %llu MiB of logits and residuals, expected at "
					"most %llu: %llu tokens",
					probe->n, (unsigned long long)(bytes >> 20),
					(unsigned long long)(PROBE_BYTES >> 20),
					(unsigned long long)(PROBE_BYTES / (row * sizeof(float))));
	}
	return 0;
}

int probe_open(struct probe *probe, struct model *model, const int32_t *ids, int n,
			   const struct device_options *options, struct error *err)
{
	*probe = (struct probe){
		.model = model_retain(model), .options = *options, .n = n, .tolerance = PROBE_TOLERANCE};
	if (probe->options.n_threads <= 0)
		probe->options.n_threads = 1;
	int status = n < 1 ? fail(err, "a probe needs at least one token")
				 : n > model->config.max_position_embeddings
					 ? fail(err, "the probe has %d tokens, the context of the model is %d", n,
							model->config.max_position_embeddings)
					 : check_size(probe, err);
	for (int i = 0; status == 0 && i < n; i++) {
		if (ids[i] < 0 || ids[i] >= model->config.vocab_size) {
			status = fail(err, "token %d of the probe is %d, expected 0 to %d", i, (int)ids[i],
						  model->config.vocab_size - 1);
		}
	}
	if (status == 0) {
		probe->ids = mem_new((size_t)n, sizeof *ids, err);
		probe->device = probe->ids ? backend_cpu.open(&probe->options, err) : NULL;
		status = probe->device ? 0 : -1;
	}
	if (status == 0)
		memcpy(probe->ids, ids, (size_t)n * sizeof *ids);
	else
		probe_close(probe);
	return status;
}

void probe_close(struct probe *probe)
{
	reading_free(&probe->base);
	slice_free(&probe->slice);
	backend_cpu.close(probe->device);
	model_release(probe->model);
	free(probe->ids);
	*probe = (struct probe){0};
}

/* ---- readings ---- */

static int read_all(struct probe *probe, const struct slice *slice, struct reading *out,
					struct error *err)
{
	struct reading_plan plan = {.ids = probe->ids,
								.n = probe->n,
								.slice = slice,
								.kv_dtype = probe->options.kv_dtype,
								.hidden = true,
								.step = probe->step,
								.user = probe->user};
	probe->runs++;
	return reading_run(out, &plan, err);
}

static int build(struct probe *probe, const struct budget *budget, struct slice *slice,
				 struct error *err)
{
	return slice_build(slice, &probe->model->weights, &probe->model->config, budget, &backend_cpu,
					   probe->device, err);
}

int probe_pin(struct probe *probe, const struct budget *budget, struct error *err)
{
	struct slice slice;
	struct reading reading;
	if (build(probe, budget, &slice, err) < 0)
		return -1;
	if (read_all(probe, &slice, &reading, err) < 0) {
		slice_free(&slice);
		return -1;
	}
	slice_free(&probe->slice);
	reading_free(&probe->base);
	probe->slice = slice;
	probe->base = reading;
	return 0;
}

/* ---- comparison ---- */

static void compare_logits(const struct probe *probe, const struct reading *q,
						   struct probe_result *out)
{
	const struct reading *p = &probe->base;
	double nll = 0, nll_base = 0;
	int same = 0;
	for (int i = 0; i < p->n; i++) {
		const float *of_p = p->logits + (size_t)i * (size_t)p->vocab;
		const float *of_q = q->logits + (size_t)i * (size_t)p->vocab;
		struct distribution dp = distribution_of(of_p, p->vocab);
		struct distribution dq = distribution_of(of_q, p->vocab);
		double kl = distribution_kl(of_p, &dp, of_q, &dq, p->vocab);
		out->kl += kl / p->n;
		if (i == 0 || kl > out->kl_max) {
			out->kl_max = kl;
			out->kl_max_at = i;
		}
		same += dp.top == dq.top;
		if (i + 1 < p->n) {
			int32_t next = probe->ids[i + 1];
			nll_base += dp.log_sum - (double)of_p[next];
			nll += dq.log_sum - (double)of_q[next];
		}
	}
	out->same_top = (double)same / p->n;
	out->ppl_base = p->n > 1 ? exp(nll_base / (p->n - 1)) : NAN;
	out->ppl = p->n > 1 ? exp(nll / (p->n - 1)) : NAN;
}

/* Packed places of the stored channels that both keep, as pairs; returns how many, -1 = no memory.
 */
static int shared(const struct probe *probe, const struct slice *q, int **pairs, struct error *err)
{
	const struct config *config = &probe->model->config;
	struct span_list a = {0}, b = {0};
	int *place = mem_new((size_t)config->hidden_size, sizeof *place, err), n = 0, at = 0;
	*pairs = mem_new(2 * (size_t)config->hidden_size, sizeof **pairs, err);
	bool ok = place && *pairs &&
			  budget_spans(&probe->slice.budget, config, AXIS_HIDDEN, 0, &a, err) == 0 &&
			  budget_spans(&q->budget, config, AXIS_HIDDEN, 0, &b, err) == 0;
	for (size_t s = 0; ok && s < a.n; s++) // 0 = the baseline lacks it
		for (int i = 0; i < a.spans[s].length; i++)
			place[a.spans[s].start + i] = ++at;
	at = 0;
	for (size_t s = 0; ok && s < b.n; s++) {
		for (int i = 0; i < b.spans[s].length; i++, at++) {
			if (!place[b.spans[s].start + i])
				continue;
			(*pairs)[2 * n] = place[b.spans[s].start + i] - 1;
			(*pairs)[2 * n++ + 1] = at;
		}
	}
	free(a.spans);
	free(b.spans);
	free(place);
	return ok ? n : -1;
}

static double distance_of(const struct reading *p, const struct reading *q, int layer,
						  const int *pairs, int n_pairs)
{
	double apart = 0, all = 0;
	for (int i = 0; i < p->n; i++) {
		size_t row = (size_t)layer * (size_t)p->n + (size_t)i;
		const float *a = p->hidden + row * (size_t)p->width;
		const float *b = q->hidden + row * (size_t)q->width;
		for (int c = 0; c < n_pairs; c++) {
			double d = (double)a[pairs[2 * c]] - (double)b[pairs[2 * c + 1]];
			apart += d * d;
			all += (double)a[pairs[2 * c]] * (double)a[pairs[2 * c]];
		}
	}
	return all > 0 ? sqrt(apart / all) : apart > 0 ? INFINITY : 0;
}

int probe_read_slice(struct probe *probe, const struct slice *slice, struct probe_result *result,
					 struct error *err)
{
	struct reading reading;
	int *pairs = NULL, n_pairs;
	if (read_all(probe, slice, &reading, err) < 0)
		return -1;
	n_pairs = shared(probe, slice, &pairs, err);
	*result = (struct probe_result){.n_layers = reading.n_layers, .first_layer = PROBE_NO_LAYER};
	if (n_pairs >= 0)
		compare_logits(probe, &reading, result);
	for (int i = 0; n_pairs >= 0 && i <= reading.n_layers; i++) {
		result->distance[i] = distance_of(&probe->base, &reading, i, pairs, n_pairs);
		if (result->first_layer == PROBE_NO_LAYER && !(result->distance[i] <= probe->tolerance)) {
			result->first_layer = i - 1;
			result->first_distance = result->distance[i];
		}
	}
	free(pairs);
	reading_free(&reading);
	return n_pairs < 0 ? -1 : 0;
}

int probe_read(struct probe *probe, const struct budget *budget, struct probe_result *result,
			   struct error *err)
{
	struct slice slice;
	if (build(probe, budget, &slice, err) < 0)
		return -1;
	int status = probe_read_slice(probe, &slice, result, err);
	slice_free(&slice);
	return status;
}

void probe_line(const struct probe_result *result, const struct config *config, double tolerance,
				struct text *out)
{
	text_format(out, "KL %.4g (max %.3g at %d)", result->kl, result->kl_max, result->kl_max_at);
	if (!isnan(result->ppl))
		text_format(out, ", ppl %.4g -> %.4g (%+.1f %%)", result->ppl_base, result->ppl,
					100 * (result->ppl / result->ppl_base - 1));
	text_format(out, ", same top %.0f %%, ", 100 * result->same_top);
	if (result->first_layer == PROBE_NO_LAYER)
		text_format(out, "no layer leaves %g %%", 100 * tolerance);
	else if (result->first_layer < 0)
		text_format(out, "the embeddings leave %g %%", 100 * tolerance);
	else
		text_format(out, "layer %d (%s) leaves %g %%: %.3g %%", result->first_layer,
					layer_name(config->kinds[result->first_layer]), 100 * tolerance,
					100 * result->first_distance);
}

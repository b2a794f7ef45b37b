#include "inspect/against.h"

#include "base/memory.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An F32 tensor of that shape, or NULL; a wrong shape is an error. */
static int find(const struct checkpoint *file, const char *path, const char *name, int rows,
				int width, const float **out, struct error *err)
{
	const struct tensor *tensor = checkpoint_find(file, name);
	*out = NULL;
	if (!tensor)
		return 0;
	if (tensor->dtype != DTYPE_F32 || tensor->n_dims != 2 || tensor->shape[0] != rows ||
		tensor->shape[1] != width) {
		return fail(err, "%s: %s is %s [%lld, %lld], this reading has F32 [%d, %d]", path, name,
					dtype_name(tensor->dtype),
					(long long)(tensor->n_dims > 0 ? tensor->shape[0] : 0),
					(long long)(tensor->n_dims > 1 ? tensor->shape[1] : 1), rows, width);
	}
	*out = tensor->data;
	return 0;
}

/* here: rows `stride` apart. True if they differ; fills the place. */
static bool differ(struct against *out, const float *here, size_t stride, const float *there,
				   int rows, int width)
{
	double largest = 0, worst = 0;
	for (int i = 0; i < rows; i++)
		for (int c = 0; c < width; c++)
			largest = fmax(largest, fabs((double)here[(size_t)i * stride + (size_t)c]));
	double limit = out->tolerance * largest;
	out->n_channels = 0;
	for (int c = 0; c < width; c++) {
		bool counted = false;
		for (int i = 0; i < rows; i++) {
			float a = here[(size_t)i * stride + (size_t)c];
			float b = there[(size_t)i * (size_t)width + (size_t)c];
			double apart = fabs((double)a - (double)b);
			worst = apart > worst ? apart : worst;
			if (apart <= limit || counted) // NaN is not
				continue;
			counted = true;
			if (out->n_channels++ > 0)
				continue;
			out->channel = c;
			out->position = i;
			out->here = a;
			out->there = b;
		}
	}
	out->largest = largest;
	out->width = width;
	if (largest > 0 && worst / largest > out->worst)
		out->worst = worst / largest;
	return out->n_channels > 0;
}

static int compare(struct against *out, const struct reading *reading, int hidden,
				   const struct checkpoint *file, const char *path, struct error *err)
{
	const float *there;
	for (int i = 0; i <= reading->n_layers && !out->differs; i++) {
		char name[32];
		size_t at = (size_t)i * (size_t)reading->n * (size_t)reading->width;
		snprintf(name, sizeof name, "hidden.%d", i);
		if (find(file, path, name, reading->n, hidden, &there, err) < 0)
			return -1;
		out->n_residuals += there != NULL;
		out->residual = i;
		out->differs = there && differ(out, reading->hidden + at, (size_t)reading->width, there,
									   reading->n, hidden);
	}
	if (find(file, path, "logits", reading->n, reading->vocab, &there, err) < 0)
		return -1;
	out->has_logits = there != NULL;
	if (out->n_residuals == 0 && !there) {
		return fail(err, "%s: has neither hidden.0 to hidden.%d nor logits", path,
					reading->n_layers);
	}
	if (there && !out->differs) {
		out->residual = reading->n_layers + 1;
		out->differs =
			differ(out, reading->logits, (size_t)reading->vocab, there, reading->n, reading->vocab);
	}
	return 0;
}

int against_run(struct against *out, struct probe *probe, const struct budget *budget,
				const char *path, double tolerance, struct error *err)
{
	struct checkpoint file;
	struct slice slice = {0};
	struct reading reading = {0};
	if (checkpoint_open_file(&file, path, err) < 0)
		return -1;
	*out = (struct against){
		.n = probe->n, .n_layers = probe->model->config.n_layers, .tolerance = tolerance};
	int status = slice_build(&slice, &probe->model->weights, &probe->model->config, budget,
							 &backend_cpu, probe->device, err);
	struct reading_plan plan = {.ids = probe->ids,
								.n = probe->n,
								.slice = &slice,
								.kv_dtype = probe->options.kv_dtype,
								.hidden = true,
								.step = probe->step,
								.user = probe->user};
	if (status == 0)
		status = reading_run(&reading, &plan, err);
	if (status == 0) {
		status = compare(out, &reading, slice.hidden, &file, path, err);
		reading_free(&reading);
	}
	slice_free(&slice);
	checkpoint_close(&file);
	return status;
}

void against_line(const struct against *a, const struct config *config, struct text *out)
{
	if (!a->differs) {
		text_format(out, "nothing differs: %d residuals%s of %d tokens within %g, worst %.2g",
					a->n_residuals, a->has_logits ? " and the logits" : "", a->n, a->tolerance,
					a->worst);
		return;
	}
	if (a->residual > a->n_layers)
		text_add(out, "logits (norm_f, lm_head): id");
	else if (a->residual == 0)
		text_add(out, "hidden.0, the embeddings: channel");
	else
		text_format(out, "hidden.%d, written by layer %d (%s): channel", a->residual,
					a->residual - 1, layer_name(config->kinds[a->residual - 1]));
	text_format(out,
				" %d at position %d is %.6g here, %.6g there; %d of %d differ by more than %g of "
				"the largest, %.4g",
				a->channel, a->position, (double)a->here, (double)a->there, a->n_channels, a->width,
				a->tolerance, a->largest);
}

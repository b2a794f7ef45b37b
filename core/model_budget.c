/*
 * The one place that knows what a budget may be called: a name of the file, a mask over one, a
 * target, widths.
 */
#include "core/model.h"

#include "core/target.h"
#include <stdio.h>
#include <string.h>

/* "BUDGET,TERMS": the terms applied to a budget of the file. `base` is its index. */
static int masked(const struct model *model, int base, const char *text, const char *terms,
				  struct budget *out, struct error *err)
{
	if (budget_copy(out, &model->elastic.budgets[base], err) < 0)
		return -1;
	if (budget_name_of(out->name, text, err) < 0 ||
		budget_edit(out, &model->config, terms, err) < 0) {
		budget_free(out);
		return -1;
	}
	out->origin = ORIGIN_DERIVED;
	out->target_metric[0] = '\0';
	snprintf(out->source, sizeof out->source, "typed");
	return 0;
}

/* The budget of the file in front of the first comma, -1 = none. */
static int base_of(const struct elastic *elastic, const char *text)
{
	size_t length = strcspn(text, ",=");
	char name[BUDGET_NAME_BYTES];
	if (text[length] != ',' || length >= sizeof name)
		return -1;
	memcpy(name, text, length);
	name[length] = '\0';
	return elastic_find(elastic, name);
}

int model_budget(const struct model *model, const char *text, struct budget *out, struct error *err)
{
	const struct elastic *elastic = &model->elastic;
	int found = elastic_find(elastic, text);
	if (found >= 0)
		return budget_copy(out, &elastic->budgets[found], err);
	text = budget_name_text(text);
	found = base_of(elastic, text);
	if (found >= 0)
		return masked(model, found, text, strchr(text, ',') + 1, out, err);
	struct target target;
	if (target_is(text))
		return target_parse(&target, text, err) < 0 ? -1
													: target_budget(model, &target, text, out, err);
	if (strchr(text, '='))
		return budget_parse(out, &model->config, text, err);
	struct text names = {0};
	for (int i = 0; i < elastic->n_budgets; i++)
		text_format(&names, "%s%s", i ? ", " : "", elastic->budgets[i].name);
	fail(err,
		 "budget \"%.100s\": no such budget; there are %s, or type widths (hidden_size=96,...)",
		 text, text_chars(&names));
	text_free(&names);
	return -1;
}

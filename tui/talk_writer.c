/* Who writes in a talk (tui/talk.h): budgets of the file, typed widths, their marks, and which of
 * them goes on. */
#include "core/slice.h"
#include "tui/talk.h"
#include <stdio.h>
#include <string.h>

const struct elastic *talk_elastic(const struct talk *talk)
{
	return talk->model ? &talk->model->elastic : talk->recorded;
}

const char *talk_budget_name(const struct talk *talk)
{
	const struct turn_settings *settings = &talk->settings;
	if (talk->running && talk->gauges.budget[0])
		return talk->gauges.budget;
	if (!settings->policy)
		return settings->budget;
	return settings->thinking ? settings->think : settings->answer;
}

int talk_budget_index(const struct talk *talk, const char *name)
{
	const struct elastic *elastic = talk_elastic(talk);
	return elastic ? elastic_find(elastic, name) : -1;
}

int talk_find_writer(const struct talk *talk, const char *name)
{
	const struct elastic *elastic = talk_elastic(talk);
	int index = talk_budget_index(talk, name);
	for (int i = 0; index < 0 && elastic && i < talk->n_typed; i++)
		if (strcmp(talk->typed[i], name) == 0)
			index = elastic->n_budgets + i;
	return index;
}

int talk_writer_index(struct talk *talk, const char *name)
{
	const struct elastic *elastic = talk_elastic(talk);
	int index = talk_find_writer(talk, name);
	if (index >= 0 || !elastic || !*name || talk->n_typed == MAX_TYPED)
		return index;
	snprintf(talk->typed[talk->n_typed], BUDGET_NAME_BYTES, "%s", name);
	return elastic->n_budgets + talk->n_typed++;
}

const char *talk_writer_name(const struct talk *talk, int writer)
{
	const struct elastic *elastic = talk_elastic(talk);
	int typed = elastic ? writer - elastic->n_budgets : -1;
	if (typed >= 0 && typed < talk->n_typed)
		return talk->typed[typed];
	return elastic && writer >= 0 && typed < 0 ? elastic->budgets[writer].name : "typed";
}

int talk_event_writer(struct talk *talk, const struct event *event)
{
	switch (event->type) {
	case EV_PREFILL: return talk_writer_index(talk, event->prefill.budget);
	case EV_TOKEN: return talk_writer_index(talk, event->token.budget);
	case EV_SWITCH: return talk_writer_index(talk, event->change.to);
	default: return -1;
	}
}

char talk_mark(const struct talk *talk, int writer)
{
	const struct elastic *elastic = talk_elastic(talk);
	if (!elastic)
		return '?';
	if (writer < 0)
		return '~';
	if (writer < elastic->n_budgets)
		return elastic_mark(elastic, writer);
	int left = writer - elastic->n_budgets;
	for (const char *letter = "tuvwxyzabcdefghijklmnopqrs"; *letter; letter++) {
		bool taken = false;
		for (int i = 0; i < elastic->n_budgets; i++)
			taken |= elastic_mark(elastic, i) == *letter;
		if (!taken && left-- == 0)
			return *letter;
	}
	return '?';
}

int talk_resolve_budget(const struct talk *talk, const char *name, struct budget *budget,
						struct error *err)
{
	if (!talk->model)
		return fail(err,
					talk->opening ? "the model is still loading" : "no model is open: :open DIR");
	if (strlen(name) >= BUDGET_NAME_BYTES)
		return fail(err, "budget %.20s...: a name has at most %d bytes", name,
					BUDGET_NAME_BYTES - 1);
	return model_budget(talk->model, name, budget, err);
}

int talk_check_budget(const struct talk *talk, const char *name, struct error *err)
{
	struct budget budget = {0};
	int result = talk_resolve_budget(talk, name, &budget, err);
	budget_free(&budget);
	return result;
}

/* What a token of this budget reads, until one has been read. */
static void foresee(struct talk *talk, const struct budget *budget)
{
	const struct model *model = talk->model;
	struct slice_cost cost;
	if (!talk->running && slice_measure(&cost, &model->weights, &model->config, budget, NULL) == 0)
		talk->memory.bytes_per_token = (int64_t)cost.bytes_per_token;
}

int talk_use_budget(struct talk *talk, const char *name, const struct budget *budget,
					struct error *err)
{
	struct turn_settings before = talk->settings;
	int index = talk_budget_index(talk, name);
	snprintf(talk->settings.budget, BUDGET_NAME_BYTES, "%s",
			 index >= 0 ? talk->model->elastic.budgets[index].name : name);
	talk->settings.policy = false;
	memset(talk->settings.rule, 0, sizeof talk->settings.rule);
	if (talk_settings_changed(talk, err)) {
		talk->settings = before;
		return -1;
	}
	foresee(talk, budget);
	return 0;
}

int talk_choose_budget(struct talk *talk, const char *name, struct error *err)
{
	struct budget budget = {0};
	int result = talk_resolve_budget(talk, name, &budget, err);
	if (result == 0)
		result = talk_use_budget(talk, name, &budget, err);
	budget_free(&budget);
	return result;
}

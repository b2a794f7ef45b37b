/* The map of the importance pane: layers x channels, each layer by its own largest score. */
#include "base/clock.h"
#include "base/memory.h"
#include "tui/pane_importance.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define LABEL_COLUMNS 8
#define FRAME_NS 40000000u // reading stops for a frame after this

void importance_map_forget(struct importance_map *map)
{
	free(map->layers);
	free(map->scores);
	*map = (struct importance_map){0};
}

static int begin(struct pane_importance *p, enum axis axis, struct error *err)
{
	struct importance_map *map = &p->map;
	const struct config *config = &p->pane.talk->model->config;
	importance_map_forget(map);
	map->ready = true;
	map->axis = axis;
	map->metric = p->query.metric;
	map->source = p->query.scores;
	map->layers = mem_new((size_t)config->n_layers, sizeof *map->layers, err);
	if (!map->layers)
		return -1;
	for (int i = 0; i < config->n_layers; i++)
		if (axis_on_layer(axis, (enum layer_kind)config->kinds[i]))
			map->layers[map->n_layers++] = i;
	map->n_channels = axis_parent_width(axis, config);
	map->scores = mem_new((size_t)map->n_layers * (size_t)map->n_channels, sizeof(float), err);
	return map->scores ? 0 : -1;
}

/* 1 = read, 0 = a job is at it, -1 = wrong. */
static int read_layer(struct pane_importance *p, struct error *err)
{
	struct importance_map *map = &p->map;
	struct importance_query query = {.axis = map->axis,
									 .layer = map->layers[map->next],
									 .expert = -1,
									 .metric = map->metric,
									 .scores = map->source};
	struct importance_curve curve = {0};
	float *row = map->scores + (size_t)map->next * (size_t)map->n_channels, most = 0;
	int ready = importance_want(&p->work, &query, &curve, err);
	if (ready == 0)
		return 0;
	for (int i = 0; i < map->n_channels; i++)
		row[i] = NAN;
	map->next++;
	if (ready > 0 && curve.n == map->n_channels) {
		map->origin = curve.origin;
		for (int i = 0; i < curve.n; i++)
			most = curve.score[i] > most ? curve.score[i] : most;
		for (int i = 0; i < curve.n && most > 0; i++)
			row[i] = curve.score[i] / most;
	}
	importance_close(&curve);
	return ready;
}

/* As many layers as fit into a frame; the pane stays dirty while some are left. */
static void read_some(struct pane_importance *p)
{
	uint64_t start = clock_ns();
	if (p->pending)
		return; // the curve first
	while (p->map.next < p->map.n_layers && !p->map.error.text[0]) {
		if (read_layer(p, &p->map.error) <= 0)
			return;
		if (clock_ns() - start > FRAME_NS)
			break;
	}
	p->pane.dirty = p->map.next < p->map.n_layers;
}

static void draw_layer(const struct pane_importance *p, const struct canvas *canvas, int row,
					   int line, int buckets)
{
	const struct importance_map *map = &p->map;
	const struct config *config = &p->pane.talk->model->config;
	float values[LOOK_HEAT_COLUMNS];
	const float *scores = map->scores + (size_t)line * (size_t)map->n_channels;
	bool on = map->layers[line] == p->layer;
	canvas_print(canvas, row, 0, on ? ROLE_MARK : ROLE_TEXT, "%s%4d %c",
				 on ? canvas_glyph(canvas, GLYPH_FOLDED) : " ", map->layers[line],
				 layer_letter(config->kinds[map->layers[line]]));
	if (line >= map->next)
		return;
	for (int b = 0; b < buckets; b++) {
		int from = (int)((int64_t)b * map->n_channels / buckets);
		int to = (int)((int64_t)(b + 1) * map->n_channels / buckets);
		to = to > from ? to : from + 1;
		values[b] = 0;
		for (int i = from; i < to; i++)
			values[b] += scores[i] / (float)(to - from);
	}
	look_heat_line(canvas, row, LABEL_COLUMNS, values, buckets);
}

static void draw_cuts(const struct pane_importance *p, const struct canvas *canvas, int row,
					  int buckets)
{
	const struct elastic *elastic = &p->pane.talk->model->elastic;
	canvas_print(canvas, row, 0, ROLE_DIM, "cuts");
	for (int b = elastic->n_budgets - 1; b >= 0; b--) {
		int width = budget_width(&elastic->budgets[b], p->map.axis, p->layer < 0 ? 0 : p->layer);
		char mark[2] = {elastic_mark(elastic, b)};
		int groups = axis_groups(p->map.axis, &p->pane.talk->model->config);
		for (int g = 0; g < groups && width > 0; g++) {
			int end = g * (p->map.n_channels / groups) + width / groups;
			int at = (int)(((int64_t)end * buckets - 1) / p->map.n_channels);
			canvas_text(canvas, row, LABEL_COLUMNS + at, role_of_budget(b), mark);
		}
	}
}

void importance_map_draw(struct pane_importance *p, const struct canvas *canvas)
{
	struct importance_map *map = &p->map;
	enum axis axis = p->query.axis;
	if (axis == N_AXES) {
		look_say(canvas, 0, ROLE_DIM, "One score a layer: no map. h l: another axis.");
		return;
	}
	if ((!map->ready || map->axis != axis || map->metric != p->query.metric ||
		 map->source != p->query.scores) &&
		begin(p, axis, &map->error))
		look_say(canvas, 0, ROLE_ERROR, map->error.text);
	if (!map->scores)
		return;
	read_some(p);
	int buckets = look_heat_columns(map->n_channels, canvas->columns - LABEL_COLUMNS);
	if (map->error.text[0] || buckets < 1) {
		look_say(canvas, 0, ROLE_ERROR, map->error.text);
		return;
	}
	struct list list = {0};
	for (int i = 0; i < map->n_layers; i++)
		if (map->layers[i] == p->layer)
			list.cursor = i;
	int rows = canvas->rows - 2;
	list.top = list.cursor - rows / 2;
	list_show(&list, map->n_layers, rows);
	int row = 0;
	for (; row < rows && list.top + row < map->n_layers; row++)
		draw_layer(p, canvas, row, list.top + row, buckets);
	draw_cuts(p, canvas, row++, buckets);
	int at = canvas_legend(canvas, row, LABEL_COLUMNS, RAMP_SEQUENTIAL, 0, 1);
	canvas_print(canvas, row, LABEL_COLUMNS + at + 2, ROLE_DIM, "of the layer's largest (%s)",
				 origin_name(map->origin));
}

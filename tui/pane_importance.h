/* The importance pane's state, for its two files: the pane, and the map of layers x channels. */
#ifndef TUI_PANE_IMPORTANCE_H
#define TUI_PANE_IMPORTANCE_H

#include "inspect/agreement.h"
#include "inspect/importance.h"
#include "inspect/rank.h"
#include "tui/look.h"

enum importance_mode { MODE_CURVE, MODE_MAP, MODE_TABLE, N_MODES };
enum importance_sort { SORT_STORED, SORT_MOST, SORT_LEAST, N_SORTS };

struct importance_map { // scores of one axis on all layers that have it
	bool ready;
	enum axis axis;
	enum importance_metric metric;
	int n_layers, n_channels,
		next;      // next: the layer to read, as many are read a frame as time allows
	int *layers;   // (n_layers) of the parent
	float *scores; // (n_layers, n_channels) over the layer's largest; NAN = unknown
	enum origin origin;
	struct error error;
};

struct pane_importance {
	struct pane pane;
	int layer;  // -1 = the whole model
	int axis;   // index among the axes of the layer
	int expert; // -1 = the mean of all
	enum importance_metric metric;
	enum importance_mode mode;
	enum importance_sort sort;
	bool cumulated;
	struct importance_query query; // what is loaded, or waits
	bool loaded, waiting, agreed;  // waiting: it reads much; agreed: the user said yes
	struct importance_curve curve;
	struct agreement agreement;
	bool has_agreement;
	struct error error;
	uint32_t *kept;     // (curve.n): a bit a budget
	int *order;         // (curve.n): lines of the table
	double *cumulative; // (curve.n)
	struct list list;
	int body_rows;
	struct importance_map map;
};

/* Whether that reads so much that the user is asked first. */
bool importance_pane_costly(const struct pane_importance *p, const struct importance_query *query);

void importance_map_draw(struct pane_importance *p, const struct canvas *canvas);
void importance_map_forget(struct importance_map *map); // takes {0}

#endif

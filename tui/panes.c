#include "tui/pane.h"
#include <string.h>
#include <strings.h>

const struct pane_row panes[] = {
	{'1', "chat", "Chat", "the conversation, and who wrote each token", pane_chat_open},
	{'2', "nesting", "Nesting",
	 "what each budget keeps, and the proof that they are nested: h l budgets, s sorts, v "
	 "violations; of the mask < > width, d layer, u r x undo redo flip",
	 pane_nesting_open},
	{'3', "importance", "Importance",
	 "scores behind the order of channels: j k (J K) layers, h l axes, v curve/map/table, a "
	 "agreement, o source, c "
	 "cumulative, "
	 "m metric, e E expert, s sorts",
	 pane_importance_open},
	{'4', "router", "Router",
	 "what the budget router chooses: < > temperature, { } scaler, = the file's, t ( ) targets, a "
	 "takes "
	 "one, s sorts",
	 pane_router_open},
	{'5', "experts", "Experts",
	 "where tokens go: L all, P prefill, D decode, T think, A answer, f next; J K experts, s sorts",
	 pane_experts_open},
	{'6', "compare", "Compare",
	 "budgets side by side (:compare A B): h l columns, d where they part, Enter keeps, v KL, "
	 "layers, handoff lab",
	 pane_compare_open},
	{'7', "tokens", "Tokens",
	 "what every budget says at the cursor: h l tokens, j k < > alternatives, Enter branches, b B "
	 "walk the tree, ^ parent, u U undo and redo",
	 pane_tokens_open},
	{'8', "metrics", "Metrics", "speed, latency, memory, and how they are counted: s sorts",
	 pane_metrics_open},
};
const int n_panes = sizeof panes / sizeof *panes;

int pane_find(const char *name)
{
	int found = -1;
	for (int i = 0; i < n_panes; i++) {
		if (strcasecmp(panes[i].name, name) == 0 || (name[0] == panes[i].key && !name[1]))
			return i;
		if (*name && strncasecmp(panes[i].name, name, strlen(name)) == 0)
			found = found == -1 ? i : -2;
	}
	return found < 0 ? -1 : found;
}

bool pane_scroll(int *top, int n_lines, int rows, enum action action)
{
	int page = rows > 2 ? rows - 1 : 1, half = rows > 3 ? rows / 2 : 1;
	int last = n_lines > rows ? n_lines - rows : 0;
	switch (action) {
	case ACTION_UP: *top -= 1; break;
	case ACTION_DOWN: *top += 1; break;
	case ACTION_PAGE_UP: *top -= page; break;
	case ACTION_PAGE_DOWN: *top += page; break;
	case ACTION_HALF_UP: *top -= half; break;
	case ACTION_HALF_DOWN: *top += half; break;
	case ACTION_TOP: *top = 0; break;
	case ACTION_BOTTOM: *top = last; break;
	default: return false;
	}
	if (*top > last)
		*top = last;
	if (*top < 0)
		*top = 0;
	return true;
}

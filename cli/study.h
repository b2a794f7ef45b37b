/* Inside `study`: what its two files share. */
#ifndef CLI_STUDY_H
#define CLI_STUDY_H

#include "inspect/study_plan.h"

struct study_report {
	const struct study *study;
	const struct study_summary *summaries; // (n_cells)
	const struct study_fact *facts;
	size_t n_facts;
	const char *tasks_file;
	bool interrupted;
};

void study_print(const struct study_report *report); // table and plot, to stdout
int study_print_json(const struct study_report *report, struct error *err);

#endif

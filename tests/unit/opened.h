/* A checkpoint folder below tests/ opened piece by piece, without a tokenizer. */
#ifndef TESTS_UNIT_OPENED_H
#define TESTS_UNIT_OPENED_H

#include "base/file.h"
#include "core/model.h"
#include <stdio.h>
#include <stdlib.h>

#define OK(call)                                                                                   \
	do {                                                                                           \
		struct error err = {0};                                                                    \
		if ((call) < 0) {                                                                          \
			fail_msg("%s", err.text);                                                              \
		}                                                                                          \
	} while (0)

static inline void opened_path(char out[4096], const char *folder, const char *name)
{
	const char *tests = getenv("ELASTISCOPE_TESTS");
	if (!tests) {
		abort();
	}
	snprintf(out, 4096, "%s/%s%s%s", tests, folder, name ? "/" : "", name ? name : "");
}

/* budgets: a file of the folder, NULL = elastic.json. */
static inline void opened_open(struct model *model, const char *folder, const char *budgets)
{
	char path[4096], file[4096];
	*model = (struct model){0};
	opened_path(path, folder, NULL);
	opened_path(file, folder, budgets);
	OK(checkpoint_open(&model->checkpoint, path, &err));
	OK(config_read(&model->config, path, &err));
	OK(weights_bind(&model->weights, &model->checkpoint, &model->config, &err));
	OK(elastic_read(&model->elastic, &model->config, path, budgets ? file : NULL, false, &err));
	opened_path(file, folder, "router.safetensors");
	if (model->elastic.router_file) {
		OK(checkpoint_open_file(&model->router, file, &err));
	}
	opened_path(file, folder, "importance.safetensors");
	if (model->elastic.importance_file) {
		OK(checkpoint_open_file(&model->importance, file, &err));
	}
}

static inline void opened_close(struct model *model)
{
	checkpoint_close(&model->importance);
	checkpoint_close(&model->router);
	elastic_free(&model->elastic);
	weights_free(&model->weights);
	checkpoint_close(&model->checkpoint);
}

#endif
